"""manage.py export FORMAT --collection NAME --out PATH|-; xmp is written beside the images, without --out"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from exports.actions import get_exporter
from exports.exporters.base import Exporter, ExportError
from exports.exporters.dataset import MANIFEST, DatasetExporter
from exports.exporters.registry import IN_PLACE, choices
from exports.folder import check_folder, write_folder
from exports.whole_file import check_target, same_content, write_whole
from tagging.models import Collection

NOTHING, CHANGES, PROBLEMS = 0, 1, 2


class Command(BaseCommand):
    help = (
        "Write a collection's reviewed truth (or, with --proposed, also what models propose) to a file. "
        "With --dry-run nothing is written, and the exit code says what would happen: 0 nothing, 1 a file would be "
        "written, 2 it cannot be."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        known = ", ".join([*(name for name, _ in choices()), *IN_PLACE])
        parser.add_argument("format", help=f"One of: {known}.")
        parser.add_argument("--collection", required=True, metavar="NAME", help="Name or slug of the collection.")
        parser.add_argument(
            "--out",
            metavar="PATH",
            help="The file to write; - is the standard output. Formats of many files: x.zip, or a new folder. Not for "
            f"{', '.join(IN_PLACE)}: beside the images.",
        )
        parser.add_argument("--profile", help="xmp: which program reads the sidecars (lightroom, darktable, both, …).")
        parser.add_argument("--prefix", metavar="WORD", help='xmp: root of the hierarchy; "iw" gives iw|animal|dog.')
        parser.add_argument("--mode", help="xmp: merge, replace_own or only_empty.")
        parser.add_argument("--proposed", action="store_true", help="All images, with what is only proposed.")
        parser.add_argument(
            "--proposed-by", metavar="RUN", help="Only what one run proposed: its number, or a label such as champion."
        )
        parser.add_argument("--min-score", type=float, metavar="P", help="Leave out proposed tags below P (0 to 1).")
        parser.add_argument("--layout", choices=("wide", "long"), help="A row per image (wide), or per tag (long).")
        parser.add_argument("--rejected", action="store_true", help="Also rejected tags (long layout).")
        parser.add_argument("--excel", action="store_true", help="Byte-order mark and Windows line ends.")
        parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="Any other option.")
        parser.add_argument(
            "--filter", default="", metavar="QUERY", help='As in the grid, e.g. "tag=dog&min_score=0.5".'
        )
        parser.add_argument("--force", action="store_true", help="Replace the file if it is there.")
        parser.add_argument("--dry-run", action="store_true", help="Say what would be written.")

    def handle(self, *args: Any, **o: Any) -> None:
        try:
            if o["format"] in IN_PLACE:
                self._in_place(o)
                return
            if not o["out"]:
                raise CommandError("Say where to: --out PATH, or --out - for the standard output.", returncode=PROBLEMS)
            exporter = get_exporter(_collection(o["collection"]), o["format"], _options(o), _filter(o["filter"]))
            if isinstance(exporter, DatasetExporter) and _is_folder(o["out"]):
                self._to_folder(exporter, Path(o["out"]), force=o["force"], dry_run=o["dry_run"])
            elif o["dry_run"]:
                self._dry_run(exporter, o["out"], force=o["force"])
            elif o["out"] == "-":
                self._to_stdout(exporter)
            else:
                self._to_file(exporter, Path(o["out"]), force=o["force"])
        except ValidationError as e:
            raise CommandError(_one_line(e), returncode=PROBLEMS) from None
        except ExportError as e:
            raise CommandError(str(e), returncode=PROBLEMS) from None

    def _in_place(self, o: dict[str, Any]) -> None:
        if o["out"]:
            raise CommandError(f"{o['format']} is written beside the images: leave --out away.", returncode=PROBLEMS)
        from exports.management import in_place as lines  # XMP and pictures: memory that a table does without

        do = lines.dry_run if o["dry_run"] else lines.write
        try:
            code = do(self, _collection(o["collection"]), o["format"], _options(o), _filter(o["filter"]))
        except BrokenPipeError:
            _quiet()
            return
        if code:
            sys.exit(code)

    def _dry_run(self, exporter: Exporter[Any], out: str, *, force: bool) -> None:
        plan = exporter.plan()
        problems = list(plan.problems)
        path = Path(out)
        same = False
        if out != "-":
            same = path.is_file() and not path.is_symlink() and same_content(path, exporter.stream())
            try:
                check_target(path, force=force or same)
            except ExportError as e:
                problems.append(str(e))
        self.stdout.write(f"{plan.images:,} images, {plan.rows:,} rows" + (f" → {path}" if out != "-" else ""))
        for warning in plan.warnings:
            self.stdout.write(warning)
        if problems:
            raise CommandError(" ".join(problems), returncode=PROBLEMS)
        if same:
            self.stdout.write("The file is already exactly this.")
        if plan.rows and not same:
            sys.exit(CHANGES)

    def _to_folder(self, exporter: DatasetExporter[Any], folder: Path, *, force: bool, dry_run: bool) -> None:
        if dry_run:
            plan = exporter.plan()
            problems = list(plan.problems)
            try:
                check_folder(folder, exporter, force=force)
            except ExportError as e:
                problems.append(str(e))
            self.stdout.write("\n".join([f"{plan.images:,} images → {folder}/", *plan.warnings]))
            if problems:
                raise CommandError(" ".join(problems), returncode=PROBLEMS)
            if plan.images:
                sys.exit(CHANGES)
            return
        written = write_folder(exporter, folder, force=force)
        said = f"{written.files:,} files, {written.size / 1e6:,.1f} MB → {folder}/"
        if written.linked:
            said += f", {written.linked:,} of them hard links"
        if written.left_out:
            said += f"; {written.left_out:,} could not be read, {MANIFEST} names them"
        self.stderr.write(said, self.style.SUCCESS)

    def _to_file(self, exporter: Exporter[Any], path: Path, *, force: bool) -> None:
        start = time.monotonic()
        written = write_whole(path, self._progress(exporter), force=force)
        seconds = time.monotonic() - start
        self.stderr.write(
            f"{exporter.rows:,} rows, {written.size / 1e6:,.1f} MB in {seconds:.1f} s → {path}", self.style.SUCCESS
        )

    def _progress(self, exporter: Exporter[Any]) -> Iterator[bytes]:
        """The stream, with a line about it now and then where a person looks on."""
        said = time.monotonic()
        for piece in exporter.stream():
            yield piece
            if time.monotonic() - said >= 1 and sys.stderr.isatty():
                said = time.monotonic()
                self.stderr.write(f"\r{exporter.rows:,} rows", ending="")
        if sys.stderr.isatty():
            self.stderr.write("\r", ending="")

    def _to_stdout(self, exporter: Exporter[Any]) -> None:
        binary = getattr(self.stdout, "buffer", None)
        try:
            for piece in exporter.stream():
                if binary is not None:
                    binary.write(piece)
                else:
                    self.stdout.write(piece.decode(), ending="")
            if binary is not None:
                binary.flush()
        except BrokenPipeError:
            _quiet()


def _quiet() -> None:
    """The reader has seen enough; keep Python from complaining when it flushes at the end."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_folder(out: str) -> bool:
    """A dataset goes into a folder unless the name is that of a file."""
    return out != "-" and (out.endswith(("/", os.sep)) or Path(out).is_dir() or not Path(out).suffix)


def _collection(name: str) -> Collection:
    found = Collection.objects.filter(name=name).first() or Collection.objects.filter(slug=name).first()
    if found is None:
        names = list(Collection.objects.order_by("name").values_list("name", flat=True)[:6])
        known = f"known: {', '.join(names[:5])}{', …' if len(names) > 5 else ''}" if names else "there are none yet"
        raise CommandError(f"There is no collection {name!r}; {known}.", returncode=PROBLEMS)
    return found


def _options(o: dict[str, Any]) -> dict[str, Any]:
    """Only what was asked for, so that formats without an option refuse nothing but that."""
    found: dict[str, Any] = {}
    for pair in o["option"]:
        name, equals, value = pair.partition("=")
        if not equals:
            raise CommandError(f"--option {pair!r}: write NAME=VALUE.", returncode=PROBLEMS)
        found[name.strip()] = value
    for name in ("proposed", "rejected", "excel"):
        if o[name]:
            found[name] = True
    for name in ("layout", "proposed_by", "min_score", "profile", "prefix", "mode"):
        if o[name] is not None:
            found[name] = o[name]
    return found


def _filter(query: str) -> dict[str, Any]:
    from django.http import QueryDict

    given = QueryDict(query.removeprefix("?"))
    return {name: given.getlist(name) if name in ("tag", "not_tag") else given[name] for name in given}


def _one_line(error: ValidationError) -> str:
    if not hasattr(error, "error_dict"):
        return " ".join(error.messages)
    return " ".join(f"{name}: {' '.join(lines)}" for name, lines in error.message_dict.items())
