"""manage.py export_prompts: the newest version of each prompt as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...models import Prompt
from ...transfer import export_prompts


class Command(BaseCommand):
    help = "Write the newest version of each prompt as <slug>.md into a folder."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path)
        parser.add_argument("--prompt", nargs="+", default=[], metavar="SLUG", help="Only these.")

    def handle(self, *args: Any, **options: Any) -> None:
        prompts = Prompt.objects.listed()
        if wanted := options["prompt"]:
            prompts = prompts.filter(slug__in=wanted)
            if missing := sorted(set(wanted) - set(prompts.values_list("slug", flat=True))):
                raise CommandError(f"There is no prompt {', '.join(missing)}.")
        try:
            written = export_prompts(prompts, options["folder"])
        except OSError as error:
            raise CommandError(f"{options['folder']} cannot be written: {error.strerror}") from None
        self.stdout.write(f"{len(written)} prompts written to {options['folder']}")
