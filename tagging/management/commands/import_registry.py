from __future__ import annotations

import json
from argparse import ArgumentParser
from collections import Counter
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from tagging.actions.registry_import import Entry, entries_of, import_registry


class Command(BaseCommand):
    help = "Reads an Imageworks model_registry.json: each of its models becomes an endpoint here."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", help="model_registry.json")
        parser.add_argument("--host", default="127.0.0.1", help="where its servers run (%(default)s)")
        parser.add_argument("--dry-run", action="store_true", help="only report")

    def handle(self, *args: Any, file: str, host: str, dry_run: bool = False, **options: Any) -> None:
        try:
            entries = entries_of(json.loads(Path(file).expanduser().read_text(encoding="utf-8-sig")))
        except OSError as e:
            raise CommandError(f"{file} cannot be read: {e.strerror}.") from None
        except UnicodeDecodeError as e:
            raise CommandError(f"{file} is not text in UTF-8: {e.reason}.") from None
        except json.JSONDecodeError as e:
            raise CommandError(f"{file} is not JSON: line {e.lineno}, column {e.colno}: {e.msg}.") from None
        except ValueError as e:
            raise CommandError(f"{file}: {e}") from None
        report = import_registry(entries, host=host, dry_run=dry_run)
        for entry in report:
            self._tell(entry)
        counts = Counter(entry.outcome for entry in report)
        text = ", ".join(
            f"{counts[word]} {word}" for word in ("made", "updated", "unchanged", "skipped") if counts[word]
        )
        self.stdout.write(f"{text or 'no models'}{' (nothing was written)' if dry_run else ''}")

    def _tell(self, entry: Entry) -> None:
        self.stdout.write(
            f"{entry.name}: {entry.outcome}" + (f" as {entry.slug}" if entry.outcome != "skipped" else "")
        )
        for line in entry.taken if entry.outcome != "skipped" else ():
            self.stdout.write(f"  taken    {line}")
        for line in entry.ignored:
            self.stdout.write(f"  ignored  {line}")
