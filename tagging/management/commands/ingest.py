from __future__ import annotations

import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from ...actions.ingest import cancel_ingest, check_excludes, check_root, create_collection, run_ingest, start_ingest
from ...ingest.jobs import held
from ...models import Collection, IngestJob


class Command(BaseCommand):
    help = "Index the pictures of a folder into a collection. Again on the same folder: only what changed is read."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("path", help="the folder; subfolders are included, originals are never changed")
        parser.add_argument("--collection", required=True, metavar="NAME", help="made when it does not exist")
        parser.add_argument(
            "--exclude",
            action="append",
            metavar="GLOB",
            help='leave out paths ("*/previews/*") or names ("*.tif"); may be repeated; kept for the next time',
        )

    def handle(self, *args: Any, path: str, collection: str, exclude: list[str] | None, **options: Any) -> None:
        try:
            target = self._collection(path, collection, exclude)
        except ValidationError as error:
            named = error.message_dict.get("name", ()) if hasattr(error, "error_dict") else ()
            said = [f"--collection: {message}" if message in named else message for message in error.messages]
            raise CommandError(" ".join(said)) from None
        job = start_ingest(target, ring=False)
        if held(job):
            raise CommandError(
                f"Collection {target.name!r} is being indexed already (job {job.pk}, {job.seen:,} files so far, by "
                f"{job.owner}). Wait until it is done, or cancel it on its page."
            )
        line = _Line(self.stdout._out, quiet=options["verbosity"] == 0)
        try:
            job = run_ingest(job.pk, report=line.show)
        except KeyboardInterrupt:
            line.end()
            cancel_ingest(job)
            raise CommandError("Stopped. What was indexed is kept; the same command goes on.", returncode=130) from None
        line.end()
        self._summary(job)

    def _collection(self, path: str, name: str, exclude: list[str] | None) -> Collection:
        root = check_root(str(Path(path).expanduser().absolute()))
        found = Collection.objects.filter(name__iexact=" ".join(name.split())).first()
        if found is None:
            return create_collection(name=name, root=str(root), excludes=exclude or ())
        if found.kind != Collection.Kind.FOLDER:
            raise CommandError(f"Collection {found.name!r} holds uploads. Choose another name for {root}.")
        if found.root != str(root):
            raise CommandError(f"Collection {found.name!r} is the folder {found.root}. Choose another name for {root}.")
        if exclude is not None:
            found.excludes = check_excludes(exclude)
            found.save(update_fields=["excludes"])
        return found

    def _summary(self, job: IngestJob) -> None:
        if job.state == IngestJob.State.FAILED:
            raise CommandError(job.error)
        if job.state == IngestJob.State.CANCELLED:
            raise CommandError("The job was cancelled. What was indexed is kept; the same command goes on.")
        if job.state in IngestJob.OPEN:
            raise CommandError(f"Job {job.pk} was taken over by another process ({job.owner or 'the queue'}).")
        counts = ("added", "changed", "moved", "unchanged", "missing", "failed", "skipped")
        words = {"failed": "unreadable", "skipped": "left out"}
        parts = [f"{getattr(job, c):,} {words.get(c, c)}" for c in counts if getattr(job, c)]
        rate = f", {job.rate:,.0f} a second" if job.rate else ""
        self.stdout.write(f"{job.collection.name}: {job.seen:,} files{rate}: {', '.join(parts) or 'nothing there'}.")
        for note in job.notes[:5]:
            self.stdout.write(f"  {note}")
        if len(job.notes) > 5:
            self.stdout.write("  … and more. The grid shows every unreadable image: filter by errors.")


class _Line:
    """Progress: on a terminal one line that is written over, elsewhere a line each few seconds."""

    def __init__(self, out: Any, *, quiet: bool) -> None:
        self.out, self.quiet = out, quiet
        self.tty = bool(getattr(out, "isatty", lambda: False)()) and out is not None
        self._shown = time.monotonic() if not self.tty else 0.0
        self._open = False

    def show(self, job: IngestJob) -> None:
        now = time.monotonic()
        if self.quiet or now - self._shown < (0.2 if self.tty else 5.0):
            return
        self._shown = now
        text = progress_text(job)
        self.out.write(f"\r\x1b[K{text}" if self.tty else text + "\n")
        self.out.flush()
        self._open = self.tty

    def end(self) -> None:
        if self._open:
            self.out.write("\r\x1b[K")
            self.out.flush()
            self._open = False


def progress_text(job: IngestJob) -> str:
    """ "1,200 of 5,000 files, 56 a second, about 2 min left, 3 unreadable" """
    parts = [f"{job.seen:,} of {job.total:,} files" if job.total is not None else f"{job.seen:,} files"]
    if job.rate:
        parts.append(f"{job.rate:,.0f} a second")
        if job.total is not None and job.total > job.seen:
            parts.append(f"about {_duration((job.total - job.seen) / job.rate)} left")
    if job.failed:
        parts.append(f"{job.failed:,} unreadable")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
