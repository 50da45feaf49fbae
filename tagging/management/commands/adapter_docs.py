"""Write docs/adapters.md from what the adapters say of themselves, or check that it is current."""

from __future__ import annotations

import difflib
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    help = "Writes docs/adapters.md from the adapters' own data. With --check it only says whether the page is current."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--check", action="store_true", help="change nothing; fail when the page is not current")
        parser.add_argument("--output", type=Path, default=Path(settings.BASE_DIR) / "docs" / "adapters.md")

    def handle(self, *args: Any, check: bool, output: Path, **options: Any) -> None:
        from ...adapters import describe

        wanted = describe.document()
        found = output.read_text(encoding="utf-8") if output.exists() else ""
        if found == wanted:
            self.stdout.write(f"{output.name} is current.")
            return
        if check:
            lines = difflib.unified_diff(found.splitlines(), wanted.splitlines(), "now", "drawn", lineterm="", n=0)
            first = "\n".join(list(lines)[2:10])
            raise CommandError(f"{output} is not current. Draw it again: manage.py adapter_docs\n{first}")
        output.write_text(wanted, encoding="utf-8")
        self.stdout.write(f"{output} is written.")
