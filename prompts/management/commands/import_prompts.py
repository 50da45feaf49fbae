"""manage.py import_prompts: prompt files, a folder of them, or a profile of Imageworks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...files import PromptFile, from_imageworks, read, read_folder
from ...rendering import PromptError
from ...transfer import import_prompts


class Command(BaseCommand):
    help = "Save prompts from files (front matter and template) as new versions. All or nothing."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("path", type=Path, help="A file, a folder of files, or a profile with the ending .json.")
        parser.add_argument(
            "--taggui", action="store_true", help="{tags}, {name} and {directory} become our variables."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            saved = import_prompts(self._files(options["path"], options["taggui"]))
        except (PromptError, OSError, UnicodeDecodeError) as error:
            raise CommandError(str(error)) from None
        except ValidationError as error:
            raise CommandError("; ".join(f"{slug}: {' '.join(m)}" for slug, m in error.message_dict.items())) from None
        for version, new in saved:
            self.stdout.write(f"{version}" + ("" if new else " (nothing new)"))

    def _files(self, path: Path, taggui: bool) -> list[PromptFile]:
        if path.is_dir():
            found = read_folder(path, taggui=taggui)
            if not found:
                raise CommandError(f"{path} has no prompt files (.md, .txt, .jinja, .j2).")
            return found
        text = path.read_text(encoding="utf-8-sig")
        return from_imageworks(text) if path.suffix.casefold() == ".json" else [read(text, path.name, taggui=taggui)]
