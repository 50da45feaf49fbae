from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from prompts.models import Prompt

from ...actions.trials import MOST_IMAGES, try_prompt
from ...models import ImageAsset, ModelAdapter, Proposal, Run


def pause() -> None:
    time.sleep(0.3)


class Command(BaseCommand):
    help = "Ask a model a prompt about up to five images and print what it says. Needs running workers (manage.py up)."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("prompt", help="slug; its newest version unless --file or --number says otherwise")
        parser.add_argument("--adapter", required=True, help="slug of a model")
        parser.add_argument("--image", type=int, action="append", required=True, help="id; may be repeated")
        parser.add_argument("--file", type=Path, help="a template that is not saved")
        parser.add_argument("--number", dest="number", type=int, help="number of a version")
        parser.add_argument("--wait", type=float, default=120.0, help="seconds at most (120)")

    def handle(self, *args: Any, prompt: str, **options: Any) -> None:
        row = Prompt.objects.listed().filter(slug=prompt).first()
        if row is None:
            raise CommandError(f"There is no prompt {prompt!r}.")
        adapter = ModelAdapter.objects.filter(slug=options["adapter"], enabled=True).first()
        if adapter is None:
            raise CommandError(f"There is no model {options['adapter']!r}.")
        found = ImageAsset.objects.select_related("collection").in_bulk(options["image"][: MOST_IMAGES + 1])
        if missing := [pk for pk in options["image"] if pk not in found]:
            raise CommandError(f"There is no image {missing[0]}, or more than {MOST_IMAGES} were named.")
        try:
            texts = self._texts(row, options["file"], options["number"])
            run = try_prompt(row, adapter, list(found.values()), options=adapter.options, **texts)
        except ValidationError as error:
            raise CommandError("; ".join(error.messages)) from None
        self._answers(run, found, time.monotonic() + options["wait"])

    def _texts(self, row: Prompt, file: Path | None, number: int | None) -> dict[str, Any]:
        if file is not None:
            try:
                return {"template": file.read_text(encoding="utf-8-sig")}
            except (OSError, UnicodeDecodeError) as error:
                raise CommandError(str(error)) from None
        versions = row.versions.order_by("-number")
        version = versions.first() if number is None else versions.filter(number=number).first()
        if version is None:
            raise CommandError(f"The prompt {row.slug!r} has no version {number or 'yet'}.")
        return {
            "template": version.template,
            "system": version.system,
            "response_schema": version.response_schema,
        }

    def _answers(self, run: Run, images: dict[int, ImageAsset], end: float) -> None:
        while run.state in Run.OPEN and time.monotonic() < end:
            pause()
            run.refresh_from_db(fields=["state", "error"])
        for row in Proposal.objects.filter(run=run).select_related("prediction").order_by("pk"):
            self.stdout.write(f"{images[row.image_id].path}")
            if row.state == Proposal.State.ERROR:
                self.stdout.write(f"  error: {row.error}")
                continue
            kept = ", ".join(tag[0] for tag in row.tags if tag[3] != "dropped")
            self.stdout.write(f"  tags: {kept or '–'}")
            if row.caption:
                self.stdout.write(f"  caption: {row.caption}")
            if row.prediction and row.prediction.text:
                self.stdout.write(f"  text: {row.prediction.text}")
        if run.error:
            raise CommandError(run.error)
        if run.state in Run.OPEN:
            raise CommandError(f"Run {run.pk} is not done yet: are workers running? (manage.py up)")
