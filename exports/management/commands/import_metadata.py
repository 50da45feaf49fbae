"""manage.py import_metadata [SOURCE] --collection NAME"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from exports import imports
from exports.import_models import ImportJob, ImportRow
from exports.importers.difference import FATES
from exports.importers.registry import OPTIONS, TABLES
from tagging.models import Collection

from .export import CHANGES, PROBLEMS, _collection, _one_line

_SUFFIXES = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_SIGNS = {"new": "+", "added": "+", "confirmed": "+", "removed": "-", "rejected": "-", "refused": "!", "unfit": "!"}


class Command(BaseCommand):
    help = (
        "Take over keywords, captions and ratings from sidecars, the images themselves, text files, CSV or JSON Lines. "
        "What differs is shown first; with --dry-run nothing is changed, and the exit code says what would happen: "
        "0 nothing, 1 changes, 2 rows or files that cannot be taken over."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "source",
            nargs="?",
            default="",
            metavar="SOURCE",
            help="A .csv, .tsv or .jsonl file, a .zip, or a folder of sidecars or text files; "
            "without it the collection's own folder.",
        )
        parser.add_argument("--collection", default="", metavar="NAME", help="Name or slug of the collection.")
        parser.add_argument("--from", dest="kind", choices=tuple(OPTIONS), help="What SOURCE is; guessed for files.")
        parser.add_argument(
            "--as", dest="target", choices=ImportJob.Target.values, default=ImportJob.Target.TRUTH.value
        )
        parser.add_argument(
            "--wordlist", default="", metavar="SLUG", help="The list to write to, with --as vocabulary."
        )
        parser.add_argument("--overrule", action="store_true", help="Bring back words that were rejected here.")
        parser.add_argument("--removals", action="store_true", help="Reject words that were taken out elsewhere.")
        parser.add_argument("--reviewed", action="store_true", help="Mark the images as reviewed.")
        parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="How it is read.")
        parser.add_argument("--user", default="", metavar="NAME", help="Whose decisions they become.")
        parser.add_argument("--undo", type=int, metavar="NUMBER", help="Take back what an import did.")
        parser.add_argument("--dry-run", action="store_true", help="Show what would change, and change nothing.")

    def handle(self, *args: Any, **o: Any) -> None:
        if o["undo"] is None and not o["collection"]:
            raise CommandError("Name the collection with --collection.", returncode=PROBLEMS)
        try:
            if o["undo"] is not None:
                self._undo(o["undo"], _user(o["user"]))
                return
            collection = _collection(o["collection"])
            job = self._create(collection, o)
            job = imports.run_import(job.pk)
            self._refuse_failure(job)
            self._show(job)
            if o["dry_run"]:
                code = _code(job)
                imports.delete_import(job)
                if code:
                    sys.exit(code)
                return
            self._apply(job, o)
        except ValidationError as e:
            raise CommandError(_one_line(e), returncode=PROBLEMS) from None
        except imports.NotNow as e:
            raise CommandError(str(e), returncode=PROBLEMS) from None

    def _create(self, collection: Collection, o: dict[str, Any]) -> ImportJob:
        path = Path(o["source"]) if o["source"] else None
        kind = o["kind"] or _SUFFIXES.get(path.suffix.lower() if path else "", "")
        if not kind:
            raise CommandError(
                "Say with --from what this is: sidecars, embedded, txt, csv or jsonl.", returncode=PROBLEMS
            )
        common: dict[str, Any] = {
            "target": o["target"],
            "options": _options(o["option"]),
            "by": _user(o["user"]),
            "ring": False,
        }
        if o["target"] == ImportJob.Target.VOCABULARY and not o["dry_run"]:
            imports.targets.check_slug(o["wordlist"])
        if path is None or path.is_dir():
            if kind in TABLES:
                raise CommandError("Name the file to import.", returncode=PROBLEMS)
            folder = "" if path is None or _same(path, collection) else str(path.resolve())
            return imports.create_import(collection, kind, folder=folder, **common)
        with _opened(path) as stream:
            return imports.create_import(collection, kind, file=stream, name=path.name, **common)

    def _show(self, job: ImportJob) -> None:
        s = job.summary
        self.stdout.write(
            f"{s['rows']:,} rows: {s['changes']:,} change something, {s['same']:,} say nothing new, "
            f"{s['unmatched']:,} without an image, {s['problems']:,} problems"
        )
        self.stdout.write(
            f"{s['added']:,} tags added ({s['unknown']:,} unknown words), {s['there']:,} there already, "
            f"{s['refused']:,} rejected here, {s['removed']:,} taken out elsewhere, {s['texts']:,} captions or ratings"
        )
        for warning in s["warnings"]:
            self.stdout.write(warning)
        rows = imports.rows_of(job).exclude(state=ImportRow.State.SAME)
        for row in rows[:20]:
            self.stdout.write(_line(row))
        if (more := rows.count() - 20) > 0:
            self.stdout.write(f"… and {more:,} rows more")

    def _apply(self, job: ImportJob, o: dict[str, Any]) -> None:
        imports.apply_import(
            job,
            overrule=o["overrule"],
            removals=o["removals"],
            reviewed=o["reviewed"],
            wordlist=o["wordlist"],
            by=_user(o["user"]),
            ring=False,
        )
        job = imports.run_import(job.pk)
        self._refuse_failure(job)
        left = f", {job.result['left']:,} left alone" if job.result.get("left") else ""
        self.stderr.write(
            f"{job.result['applied']:,} rows applied{left}; undo it as import {job.pk}", self.style.SUCCESS
        )

    def _undo(self, number: int, by: Any) -> None:
        job = ImportJob.objects.filter(pk=number).first()
        if job is None:
            raise CommandError(f"There is no import {number}.", returncode=PROBLEMS)
        imports.undo_import(job, by=by, ring=False)
        job = imports.run_import(job.pk)
        self._refuse_failure(job)
        kept = f", {job.result['kept']:,} images kept what was decided since" if job.result.get("kept") else ""
        self.stderr.write(f"{job.result['undone']:,} images as they were{kept}", self.style.SUCCESS)

    def _refuse_failure(self, job: ImportJob) -> None:
        if job.state in (ImportJob.State.FAILED, ImportJob.State.CANCELLED):
            raise CommandError(job.error or "It was cancelled.", returncode=PROBLEMS)


def _line(row: ImportRow) -> str:
    if row.error:
        return f"{row.number}: {row.key}: {row.error}"
    words = [f"{_SIGNS[w[2]]}{w[0]}" for w in row.words if w[2] in _SIGNS]
    words += [f"{name}: {before[:40]!r} → {after[:40]!r}" for name, (before, after) in row.texts.items()]
    said = {FATES[w[2]] for w in row.words if w[2] in ("refused", "removed", "unfit")}
    notes = "; ".join([*sorted(said), *row.notes])
    return f"{row.image.path if row.image else row.key}: {', '.join(words)}" + (f" ({notes})" if notes else "")


def _code(job: ImportJob) -> int:
    if job.summary["problems"] or job.summary["unmatched"]:
        return PROBLEMS
    return CHANGES if job.summary["changes"] else 0


def _options(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise CommandError(f"--option {pair!r}: write NAME=VALUE.", returncode=PROBLEMS)
        found[name.strip()] = value
    return found


def _user(name: str) -> Any:
    from django.contrib.auth.models import User

    if not name:
        return None
    found = User.objects.filter(username=name).first()
    if found is None:
        raise CommandError(f"There is no user {name!r}.", returncode=PROBLEMS)
    return found


def _same(path: Path, collection: Collection) -> bool:
    return bool(collection.root) and path.resolve() == Path(collection.root).resolve()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        stream = path.open("rb")
    except OSError as e:
        raise CommandError(f"{path} cannot be read: {e.strerror}.", returncode=PROBLEMS) from None
    with stream:
        yield stream
