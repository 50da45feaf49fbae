from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from tagging.actions import models as actions
from tagging.models import ModelAdapter


class Command(BaseCommand):
    help = "Lists models: configured, loaded; unloads one."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--unload", metavar="SLUG", help='free the memory of this model ("all" for all)')

    def handle(self, *args: Any, unload: str | None = None, **options: Any) -> None:
        if unload:
            self._unload(unload)
            return
        where = {m.slug: m for m in actions.loaded()}
        for row in ModelAdapter.objects.all():
            state = "off" if not row.enabled else f"loaded on {where[row.slug].where}" if row.slug in where else ""
            self.stdout.write(f"{row.slug:30} {row.kind:12} {row.source or '–':50} {state}".rstrip())

    def _unload(self, slug: str) -> None:
        if slug != "all" and not ModelAdapter.objects.filter(slug=slug).exists():
            raise CommandError(f"There is no model {slug!r}.")
        n = actions.unload(None if slug == "all" else [slug])
        if n:
            self.stdout.write(f"Asked {n} worker{'s' * (n != 1)} to unload {slug}.")
        else:
            self.stdout.write(f"{slug} is loaded nowhere." if slug != "all" else "Nothing is loaded.")
