from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from ...actions.policies import find_policy_version
from ...actions.recipes import with_policy
from ...actions.trials import MOST_IMAGES, start_trial
from ...models import ImageAsset, Recipe, Run
from .tag import Command as Tag
from .tag import adapter_recipe, find_prompt, find_recipe


class Command(BaseCommand):
    help = "Tries a model with a prompt, or a recipe, on one to five images: a hidden run that goes before others."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--image", action="append", required=True, metavar="PATH|ID", help="an indexed image; up to five times"
        )
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("--adapter", metavar="SLUG", help="a configured model, with its own options")
        what.add_argument("--recipe", metavar="ID|LABEL", help="a recipe: its number, a label, or its key's start")
        parser.add_argument(
            "--prompt", default="", metavar="SLUG[@N]", help="with --adapter: a prompt, its newest version or number N"
        )
        parser.add_argument(
            "--option",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="with --adapter: an option of the model, as JSON or as text; may be repeated",
        )
        parser.add_argument("--policy", default="", metavar="SLUG[@N]", help="in place of the usual one")
        parser.add_argument(
            "--sample", type=int, default=0, metavar="N", help="another number asks a model that varies once more"
        )
        parser.add_argument("--wait", action="store_true", help="until it has ended, then print what it said")
        parser.add_argument("--json", action="store_true", help="with --wait: as one line of JSON for each image")

    def handle(self, *args: Any, image: list[str], adapter: str, recipe: str, **options: Any) -> None:
        if recipe and (options["prompt"] or options["option"]):
            raise CommandError("A recipe has its own prompts and options: --prompt and --option go with --adapter.")
        if options["json"] and not options["wait"]:
            raise CommandError("--json prints what was said: it goes with --wait.")
        images = [find_image(text) for text in image]
        prompt = find_prompt(options["prompt"])
        try:
            if recipe:
                chosen: Recipe = find_recipe(recipe)
            else:
                chosen = adapter_recipe(adapter, prompt=prompt, options=options["option"])
            if options["policy"]:
                chosen = with_policy(chosen, find_policy_version(options["policy"]))
            run = start_trial(chosen, images, sample=options["sample"])
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from None
        if not options["json"]:
            self.stdout.write(f"Run {run.pk} ({run}): {run.n_total} image{'' if run.n_total == 1 else 's'}.")
        if not options["wait"]:
            return
        try:
            tag = Tag()
            tag.stdout, tag.stderr = self.stderr if options["json"] else self.stdout, self.stderr
            tag.wait(run)
        except KeyboardInterrupt:
            raise CommandError(f"No longer waiting; run {run.pk} goes on.", returncode=130) from None
        self.say(run, as_json=options["json"])

    def say(self, run: Run, *, as_json: bool) -> None:
        rows = list(run.proposals.select_related("image", "prediction").order_by("image_id"))
        for row in rows:
            kept = [tag for tag in row.tags if tag[3] != "dropped"]
            dropped = [tag for tag in row.tags if tag[3] == "dropped"]
            if as_json:
                found = {
                    "image": row.image_id,
                    "path": row.image.path,
                    "state": row.state,
                    "tags": [{"name": t[0], "score": t[2]} for t in kept],
                    "dropped": [{"name": t[0], "reason": t[4]} for t in dropped],
                    "caption": row.caption,
                    "text": row.prediction.text if row.prediction else "",
                    "error": row.error,
                }
                self.stdout.write(json.dumps(found, ensure_ascii=False))
                continue
            self.stdout.write(f"{row.image.path}:")
            if row.error:
                self.stdout.write(f"  failed: {row.error}")
            if kept:
                self.stdout.write("  " + ", ".join(t[0] if t[2] is None else f"{t[0]} {t[2]:.2f}" for t in kept))
            if row.caption:
                self.stdout.write(f"  {row.caption}")
            for tag in dropped:
                self.stdout.write(f"  dropped: {tag[0]} ({tag[4]})")
            if row.state == "empty":
                self.stdout.write("  nothing")
        if rows and all(row.error for row in rows):
            raise CommandError("It failed on every image.")


def find_image(text: str) -> ImageAsset:
    """An indexed image by its number, its path on disk, or its path in a collection. CommandError says what to do."""
    if text.isdecimal() and (found := ImageAsset.objects.filter(pk=int(text[:18])).first()):
        return found
    path = Path(text).expanduser()
    absolute = str(path.resolve())
    named = list(ImageAsset.objects.filter(path__endswith=path.name).select_related("collection")[:200])
    rooted = [one for one in named if one.collection.root and str(Path(one.collection.root, one.path)) == absolute]
    exact = rooted or [one for one in named if one.path == text]
    if len(exact) == 1:
        return exact[0]
    if exact:
        ids = ", ".join(str(one.pk) for one in exact[:MOST_IMAGES])
        raise CommandError(f"{text} is in several collections: name it by its number, one of {ids}.")
    raise CommandError(f"{text} is not indexed: manage.py ingest FOLDER --collection NAME first.")
