from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...actions import create_wordlist, save_wordlist
from ...files import slug_of
from ...formats import FORMATS, export_entries, import_entries
from ...models import Wordlist
from ...wordlists import Entry, WordlistError, check_entries


class Command(BaseCommand):
    help = "Words of a list from a file (a new version), to a file, or shown."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        take = verbs.add_parser("import", help="save a file's words as a new version; the list is made when missing")
        take.add_argument("path", type=Path)
        take.add_argument("--list", dest="slug", default="", help="slug; the file's name when left out")
        take.add_argument("--kind", choices=Wordlist.Kind.values, help="needed for a list that is not there yet")
        take.add_argument("--format", choices=list(FORMATS), default="text")
        take.add_argument("--append", action="store_true", help="keep the words that are there")
        take.add_argument("--message", default="")
        give = verbs.add_parser("export", help="write a list to a file, or to the output with -")
        give.add_argument("slug")
        give.add_argument("path")
        give.add_argument("--format", choices=[n for n, f in FORMATS.items() if f[2]], default="text")
        give.add_argument("--number", dest="number", type=int, help="an older version's number")
        show = verbs.add_parser("show", help="the lists there are, or the versions of one")
        show.add_argument("slug", nargs="?", default="")

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        verbs: dict[str, Callable[..., None]] = {"import": self._import, "export": self._export, "show": self._show}
        try:
            verbs[verb](**options)
        except WordlistError as error:
            raise CommandError("\n".join(str(p) for p in error.problems[:20])) from None
        except ValidationError as error:
            raise CommandError("; ".join(error.messages)) from None
        except (OSError, LookupError) as error:
            raise CommandError(str(error)) from None

    def _import(self, path: Path, slug: str, format: str, append: bool, message: str, **options: Any) -> None:
        slug = slug or slug_of(path.stem)
        row = Wordlist.objects.filter(slug=slug).first()
        kind = row.kind if row else options["kind"]
        if not kind:
            raise CommandError(f"There is no wordlist {slug!r}: say its --kind to make it.")
        if row and options["kind"] and options["kind"] != row.kind:
            raise CommandError(f"{slug} is a {row.kind} list.")
        found = import_entries(path.read_bytes(), format, kind)
        row = row or create_wordlist(slug=slug, name=path.stem, kind=kind)
        before = self._entries(row) if append else []
        version = save_wordlist(row, [*before, *found], message=message or f"Imported {path.name}"[:200])
        self.stdout.write(f"{version}: {len(version.entries):,} entries")

    def _export(self, slug: str, path: str, format: str, number: int | None, **options: Any) -> None:
        row = self._list(slug)
        text = export_entries(self._entries(row, number), format, row.kind)
        if path == "-":
            sys.stdout.write(text)
            return
        Path(path).write_text(text, encoding="utf-8", newline="\n")
        self.stdout.write(f"{path}: {text.count(chr(10)):,} lines")

    def _show(self, slug: str, **options: Any) -> None:
        if not slug:
            for row in Wordlist.objects.all():
                current = row.current
                number = f"v{current.number}, {len(current.entries):,} entries" if current else "no words yet"
                self.stdout.write(f"{row.slug}\t{row.kind}\t{number}")
            return
        for version in self._list(slug).versions.order_by("-number"):
            self.stdout.write(f"v{version.number}\t{len(version.entries):,} entries\t{version.message}")

    def _list(self, slug: str) -> Wordlist:
        found = Wordlist.objects.filter(slug=slug).first()
        if found is None:
            raise LookupError(f"There is no wordlist {slug!r}.")
        return found

    def _entries(self, row: Wordlist, number: int | None = None) -> list[Entry]:
        version = row.current if number is None else row.versions.filter(number=number).first()
        if version is None and number is not None:
            raise LookupError(f"{row.slug} has no version {number}.")
        return check_entries(version.entries, row.kind) if version else []
