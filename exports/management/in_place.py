"""Exports that write beside the images, on the command line: every file said word by word, then written at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from tagging.models import Collection

from .. import actions, changes, in_place, ledger
from ..models import ExportEntry, ExportJob

NOTHING, CHANGES, PROBLEMS = 0, 1, 2
SIGNS = {"added": "+", "removed": "-", "withheld": "~", "kept": "="}
Action, State = ExportEntry.Action, ExportEntry.State


def dry_run(
    command: BaseCommand, collection: Collection, format: str, options: Mapping[str, Any], filter: Mapping[str, Any]
) -> int:
    """Say what each file would get; the exit code. Nothing is written, no job is made."""
    in_place.settle_orphans(collection)
    exporter = in_place.get_exporter(collection, format, options, filter)
    files: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for entries in exporter.entries():
        for entry in entries:
            files[entry.action] += 1
            words.update(word.kind for word in changes.words(entry.fields))
            for line in described(entry, exporter.root):
                command.stdout.write(line)
    command.stdout.write(
        f"{exporter.rows:,} images: {files[Action.CREATE]:,} new files, {files[Action.UPDATE]:,} changed, "
        f"{exporter.unchanged:,} unchanged, {files[Action.REFUSE]:,} left alone with a reason"
        + (f", {exporter.left_out:,} RAW files without one of their own" if exporter.left_out else "")
    )
    command.stdout.write(
        f"words: {words['added']:,} added, {words['removed']:,} removed, {words['kept']:,} kept, "
        f"{words['withheld']:,} withheld"
    )
    if files[Action.REFUSE]:
        return PROBLEMS
    return CHANGES if files else NOTHING


def described(entry: ExportEntry, root: Path) -> list[str]:
    """The lines about one file. Nothing in them can steer a terminal."""
    where = entry.target.removeprefix(f"{root}/")
    if entry.action == Action.REFUSE:
        return [printable(f"! {where}: {entry.error}")]
    lines = [f"{'A' if entry.action == Action.CREATE else 'M'} {where}"]
    for word in changes.words(entry.fields):
        line = f"    {SIGNS[word.kind]} {word.name}"
        if word.paths:
            line += f"  ({'; '.join(word.paths)})"
        lines.append(line if word.why == "wanted" else f"{line}  {word.why}")
    lines += [f"    {t.field}: {t.before!r} → {t.after!r}" for t in changes.texts(entry.fields)]
    lines += [f"    ! {note}" for note in entry.notes]
    return [printable(line) for line in lines]


def printable(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def write(
    command: BaseCommand, collection: Collection, format: str, options: Mapping[str, Any], filter: Mapping[str, Any]
) -> int:
    """Plan and write in this process; the exit code. An interruption leaves a job that can go on or be undone."""
    job = in_place.create(collection, format, options, filter, write=True, ring=False)
    return _work(command, job)


def undo(command: BaseCommand, job: ExportJob, recipe: int | None) -> int:
    """Undo in this process; the exit code."""
    in_place.undo(job, recipe=recipe, ring=False)
    return _work(command, job)


def _work(command: BaseCommand, job: ExportJob) -> int:
    try:
        job = actions.run_export(job.pk)
    except KeyboardInterrupt:
        actions.cancel_export(job)
        ledger.settle(job)
        in_place.refresh(job)
        _report(command, job)
        raise CommandError("Stopped; each file is as it was or as it was shown.", returncode=PROBLEMS) from None
    problems = _report(command, job)
    if job.state == ExportJob.State.FAILED:
        raise CommandError(job.error, returncode=PROBLEMS)
    return PROBLEMS if problems else NOTHING


def _report(command: BaseCommand, job: ExportJob) -> int:
    """What became of the files; how many had problems."""
    wrong = job.entries.filter(state__in=(State.FAILED, State.SKIPPED, State.REFUSED))
    stuck = job.entries.filter(in_place.KINDS["stuck"][1])
    n = 0
    for entry in (wrong | stuck).defer("backup", "fields", "written").order_by("id").iterator(500):
        n += 1
        command.stderr.write(printable(f"{entry.target}: {entry.error}"))
    s = job.summary
    command.stdout.write(
        f"export {job.pk}: {s.get('done', 0):,} files written, {s.get('undone', 0):,} undone, "
        f"{s.get('unchanged', 0):,} unchanged, {n:,} with problems"
    )
    if s.get("done"):
        command.stdout.write(f"To take it back: manage.py export_undo {job.pk}")
    return n
