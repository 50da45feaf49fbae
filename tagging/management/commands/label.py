"""manage.py label list | set | history | back"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from ...actions import labels
from ...models import Collection, Label, LabelEvent, ModelAdapter
from .tag import find_collection, find_recipe


class Command(BaseCommand):
    help = "Labels (champion, candidate, baseline, …) that point to recipes: list them, move them, go back."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|set|history|back")
        verbs.add_parser("list", help="all labels and where they point")
        move = verbs.add_parser("set", help="point a label at a recipe")
        move.add_argument("name", help="champion, candidate, baseline, or another")
        move.add_argument("--recipe", required=True, metavar="ID|LABEL", help="a recipe's number, key or label")
        move.add_argument("--why", required=True, help="a line for the history")
        past = verbs.add_parser("history", help="the moves of a label, newest first")
        past.add_argument("name")
        for one in (move, past):
            one.add_argument("--task", default="", choices=["", *Label.Task.values], help="only for this task")
            one.add_argument("--adapter", default="", metavar="SLUG", help="only for this model")
            one.add_argument("--collection", default="", metavar="NAME", help="only in this collection")
        back = verbs.add_parser("back", help="point a label again where a move had pointed it")
        back.add_argument("event", type=int, metavar="MOVE", help="number of the move, from 'history'")
        back.add_argument("--why", default="", help="a line for the history")

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        try:
            {"list": self.show, "set": self.move, "history": self.history, "back": self.back}[verb](options)
        except (labels.UnknownLabel, ValidationError) as error:
            raise CommandError(" ".join(getattr(error, "messages", [str(error)]))) from None

    def show(self, options: dict[str, Any]) -> None:
        for label in Label.objects.select_related("recipe", "adapter", "collection"):
            self.stdout.write(f"{label.reference}\t{label.scope}\trecipe {label.recipe_id}\t{label.recipe}")

    def move(self, options: dict[str, Any]) -> None:
        adapter, collection = _scope(options)
        event = labels.move_label(
            options["name"],
            find_recipe(options["recipe"], collection),
            why=options["why"],
            task=options["task"],
            adapter=adapter,
            collection=collection,
        )
        self.stdout.write(_line(event))

    def history(self, options: dict[str, Any]) -> None:
        adapter, collection = _scope(options)
        label = labels.resolve(options["name"], options["task"], adapter, collection)
        for event in label.events.select_related("label__adapter", "label__collection", "to_recipe", "by"):
            self.stdout.write(_line(event))

    def back(self, options: dict[str, Any]) -> None:
        event = LabelEvent.objects.select_related("label", "to_recipe").filter(pk=options["event"]).first()
        if event is None:
            raise CommandError(f"There is no move {options['event']}: 'label history NAME' lists them.")
        self.stdout.write(_line(labels.back_to(event, why=options["why"])))


def _scope(options: dict[str, Any]) -> tuple[ModelAdapter | None, Collection | None]:
    adapter = None
    if options["adapter"]:
        adapter = ModelAdapter.objects.filter(slug=options["adapter"]).first()
        if adapter is None:
            raise CommandError(f"There is no model {options['adapter']!r}.")
    return adapter, find_collection(options["collection"]) if options["collection"] else None


def _line(event: LabelEvent) -> str:
    """ "move 3  2026-11-23 10:00  ann  champion (everywhere) → recipe 7 (WD)  fewer wrong words"."""
    when = timezone.localtime(event.at).strftime("%Y-%m-%d %H:%M")
    who = event.by.get_username() if event.by else "–"
    to = f"recipe {event.to_recipe_id} ({event.to_recipe})"
    return f"move {event.pk}\t{when}\t{who}\t{event.label} → {to}\t{event.why}"
