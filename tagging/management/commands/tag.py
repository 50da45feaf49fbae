from __future__ import annotations

import contextlib
import json
import time
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db.models import Q

from prompts.models import Prompt, PromptVersion

from ...actions import labels
from ...actions.recipes import READ, ChannelSpec, get_recipe
from ...actions.runs import start_run
from ...engine.progress import Progress, progress
from ...models import Chunk, Collection, ModelAdapter, Recipe, Run, Worker
from ...models.adapters import option_fields

#: Seconds without any worker on the run's queue after which `--wait` says so.
NOBODY = 10.0


class Command(BaseCommand):
    help = "Starts a run: a model, or a recipe, over a collection. The workers do it; --wait shows how far they are."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--collection", required=True, metavar="NAME", help="name or slug of the collection")
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("--adapter", metavar="SLUG", help="a configured model, with its own options")
        what.add_argument(
            "--recipe",
            metavar="ID|LABEL",
            help="a recipe: its number, a label ([task/]name[@model]), or its key's start",
        )
        parser.add_argument(
            "--read",
            choices=READ,
            default=READ[0],
            help="with --adapter: pixels that the model gets; proxy is the 1,024 px rendition made at indexing, much "
            "less decoding and nearly the same answer (%(default)s)",
        )
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
        parser.add_argument(
            "--sample", type=int, default=0, metavar="N", help="another number asks a model that varies once more"
        )
        parser.add_argument("--name", default="", help="what to call the run")
        parser.add_argument("--priority", type=int, default=0, help="higher runs first (%(default)s)")
        parser.add_argument("--budget", default="", help="pause before it costs more, in the currency of its prices")
        parser.add_argument("--hidden", action="store_true", help="do not show its proposals for review")
        parser.add_argument("--unreviewed", action="store_true", help="only images that nobody has reviewed")
        parser.add_argument("--wait", action="store_true", help="show progress until the run has ended")

    def handle(self, *args: Any, collection: str, adapter: str, recipe: str, **options: Any) -> None:
        target = find_collection(collection)
        if recipe and options["read"] != READ[0]:
            raise CommandError("A recipe says itself what it reads: --read goes with --adapter.")
        if recipe and (options["prompt"] or options["option"]):
            raise CommandError("A recipe has its own prompts and options: --prompt and --option go with --adapter.")
        if recipe:
            chosen = find_recipe(recipe, target)
        else:
            chosen = adapter_recipe(adapter, options["read"], find_prompt(options["prompt"]), options["option"])
        images = target.images.all().usable()
        if options["unreviewed"]:
            images = images.unreviewed()
        try:
            run = start_run(
                chosen,
                collection=target,
                images=images,
                name=options["name"],
                shown=not options["hidden"],
                priority=options["priority"],
                budget=options["budget"],
                sample=options["sample"],
            )
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from None
        self.stdout.write(f"Run {run.pk} ({run}): {run.n_total:,} images.")
        if options["wait"]:
            try:
                self.wait(run)
            except KeyboardInterrupt:
                raise CommandError(f"No longer waiting; run {run.pk} goes on.", returncode=130) from None

    def wait(self, run: Run) -> None:
        terminal = getattr(self.stdout._out, "isatty", lambda: False)()
        # only what works first: a stage that combines waits for the default worker, which is there with every other
        first = Chunk.objects.filter(run=run, stage=0)
        queues = set(first.values_list("queue", flat=True))
        began = shown = time.monotonic()
        warned = False
        while True:
            run.refresh_from_db()
            now = time.monotonic()
            if run.state not in Run.OPEN or (run.state == Run.State.PAUSED and run.error):
                break
            if not warned and now - began > NOBODY and not Worker.objects.alive().filter(queue__in=queues).exists():
                warned = True
                self.stderr.write(f"No worker serves the queue {' or '.join(sorted(queues))}: start 'manage.py up'.")
            if now - shown >= (0.3 if terminal else 5.0):
                shown = now
                text = progress_text(run, progress([run])[run.pk])
                self.stdout.write(f"\r\x1b[K{text}" if terminal else text, ending="" if terminal else "\n")
                self.stdout.flush()
            time.sleep(0.2)
        if terminal:
            self.stdout.write("\r\x1b[K", ending="")
        self.finish(run, progress([run])[run.pk])

    def finish(self, run: Run, at: Progress) -> None:
        counts = f"{at.ok:,} tagged, {at.empty:,} without tags, {at.error:,} failed"
        if at.cached:
            counts += f"; {at.cached:,} known from before"
        if run.state == Run.State.FAILED:
            raise CommandError(f"Run {run.pk} failed: {run.error} ({counts})")
        if run.state == Run.State.PAUSED:
            raise CommandError(f"Run {run.pk} is paused: {run.error} ({counts})")
        if run.state == Run.State.CANCELLED:
            raise CommandError(f"Run {run.pk} was cancelled. {counts}.")
        pace = f", {at.rate:,.1f} images a second" if at.rate else ""
        self.stdout.write(f"Done: {counts}{pace}.")


def find_collection(name: str) -> Collection:
    """By name or slug. CommandError lists what there is."""
    found = Collection.objects.filter(Q(name__iexact=name.strip()) | Q(slug=name.strip())).first()
    if found is None:
        there = ", ".join(repr(n) for n in Collection.objects.values_list("name", flat=True)[:10])
        raise CommandError(f"There is no collection {name!r}; there is {there or 'none yet: use ingest'}.")
    return found


def find_prompt(text: str) -> PromptVersion | None:
    """A prompt's version: "slug" is the newest, "slug@3" the third. CommandError lists the prompts."""
    if not text:
        return None
    slug, _, number = text.partition("@")
    versions = PromptVersion.objects.filter(prompt__slug=slug).order_by("-number")
    if number:
        versions = versions.filter(number=int(number)) if number.isdecimal() else versions.none()
    found = versions.first()
    if found is None:
        there = ", ".join(Prompt.objects.values_list("slug", flat=True)[:20])
        raise CommandError(f"There is no prompt {text!r}; there is {there or 'none yet'}.")
    return found


def parse_options(given: list[str], schema: dict[str, Any]) -> dict[str, Any]:
    """NAME=VALUE pairs by the model's options; the value of an option that is no text is JSON where it can be.
    CommandError."""
    found: dict[str, Any] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise CommandError(f"--option {pair}: write NAME=VALUE.")
        found[name] = value
        if schema.get("properties", {}).get(name, {}).get("type") != "string":
            with contextlib.suppress(ValueError):
                found[name] = json.loads(value)
    return found


def adapter_recipe(
    slug: str, read: str = READ[0], prompt: PromptVersion | None = None, options: list[str] | None = None
) -> Recipe:
    """The recipe of one model with its own options, overridden by those given. CommandError lists the models."""
    row = ModelAdapter.objects.filter(slug=slug).first()
    if row is None:
        there = ", ".join(ModelAdapter.objects.filter(enabled=True).values_list("slug", flat=True)[:20])
        raise CommandError(f"There is no model {slug!r}; there is {there or 'none yet: add one in the admin'}.")
    try:
        given = parse_options(options or [], option_fields(row.adapter_class))
        return get_recipe([ChannelSpec(row, prompt, given, read=read)], name=row.label)
    except ValidationError as error:
        raise CommandError(" ".join(error.messages)) from None


def find_recipe(text: str, collection: Collection | None = None) -> Recipe:
    """By number, label or the beginning of its key. CommandError when there is none, or more than one."""
    try:
        return labels.find_recipe(text, collection=collection)
    except labels.UnknownLabel as error:
        raise CommandError(str(error)) from None


def progress_text(run: Run, at: Progress) -> str:
    """ "loading photo-lite" or "120 of 5,000 images (2 %), 41.2 a second, about 2 min left, 3 failed" """
    if run.state == Run.State.PAUSED:
        return f"paused at {at.done:,} of {at.total:,} images"
    if run.phase and not at.done:
        return run.phase
    parts = [f"{at.done:,} of {at.total:,} images ({at.percent:.0f} %)"]
    if at.rate:
        parts.append(f"{at.rate:,.1f} a second")
    if at.eta_seconds is not None:
        parts.append(f"about {duration(at.eta_seconds)} left")
    if at.error:
        parts.append(f"{at.error:,} failed")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
