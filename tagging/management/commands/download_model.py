from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from tagging.actions.downloads import cancel_download, start_download
from tagging.actions.runs import NotNow
from tagging.adapters import known, registry
from tagging.engine import process
from tagging.models import ModelDownload

#: Seconds that a transfer may take to end after it was cancelled, before the process ends with it.
GRACE = 15.0


class Command(BaseCommand):
    help = "Downloads a model from the hub, goes on with one that was broken off, and makes a model of it."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("source", nargs="?", metavar="ID", help="owner/name")
        parser.add_argument("--revision", default="", help="branch, tag or commit (the newest)")
        parser.add_argument("--kind", default="", help="adapter it is for (known for the suggested models)")
        parser.add_argument("--into", default="", metavar="FOLDER", help="a folder of IWTAG_MODELS_DIRS (hub cache)")
        parser.add_argument("--no-add", action="store_true", help="only download, make no model of it")
        parser.add_argument("--job", type=int, help="the number of a download that waits (workers use this)")

    def handle(self, *args: Any, source: str | None = None, job: int | None = None, **options: Any) -> None:
        from tagging.hub import run_download

        process.die_with_named_parent()
        started = self._job(source, job, options)
        ending = threading.Thread(target=_end_when_over, args=(started.pk,), daemon=True)
        ending.start()
        try:
            found = run_download(started.pk, self._report if job is None and sys.stdout.isatty() else None)
        except KeyboardInterrupt:
            with contextlib.suppress(NotNow):
                cancel_download(started)
            raise CommandError("Broken off. The same command goes on with what came.") from None
        if found.state == ModelDownload.State.DONE:
            self.stdout.write(
                f"{found} is in {found.path}" + (f", model {found.adapter.slug}" if found.adapter else "")
            )
        elif found.state in ModelDownload.OPEN:
            raise CommandError(f"{found} is being downloaded by another process already.")
        else:
            raise CommandError(found.error or f"The download of {found} was cancelled.")

    def _job(self, source: str | None, job: int | None, options: dict[str, Any]) -> ModelDownload:
        if job is not None:
            found = ModelDownload.objects.filter(pk=job).first()
            if found is None:
                raise CommandError(f"There is no download {job}.")
            return found
        if not source:
            raise CommandError("Name a model of the hub: owner/name.")
        kind = options["kind"] or next((s.kind for s in known.SUGGESTED if s.source == source), "")
        if not kind:
            raise CommandError(
                f"Say which adapter it is for: --kind, one of {', '.join(sorted(registry.registered()))}."
            )
        try:
            return start_download(
                source,
                kind=kind,
                revision=options["revision"],
                folder=options["into"],
                configure=not options["no_add"],
                ring=False,
            )
        except ValidationError as e:
            raise CommandError("; ".join(e.messages)) from None

    def _report(self, job: ModelDownload) -> None:
        total = f" of {job.bytes_total / 1e6:,.0f}" if job.bytes_total else ""
        rate = f", {job.rate / 1e6:.1f} MB/s" if job.rate else ""
        self.stdout.write(f"\r{job.phase}: {job.bytes_done / 1e6:,.0f}{total} MB{rate}   ", ending="")
        self.stdout.flush()


def _end_when_over(job_id: int) -> None:
    """A transfer that hangs does not notice that it was cancelled: then the process ends. Part files stay."""
    over = 0.0
    while True:
        time.sleep(1)
        try:
            state = ModelDownload.objects.filter(pk=job_id).values_list("state", flat=True).first()
        except Exception:  # the database is away for a moment
            connections.close_all()
            continue
        if state != ModelDownload.State.CANCELLED and state is not None and not process.stopping():
            over = 0.0
            continue
        over = over or time.monotonic()
        if time.monotonic() - over > GRACE:
            os._exit(3)
