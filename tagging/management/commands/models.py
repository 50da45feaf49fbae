from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from tagging.actions import models as actions
from tagging.adapters import scan
from tagging.models import ModelAdapter, ModelDownload
from tagging.templatetags.humanise import size


class Command(BaseCommand):
    help = "Lists models: configured, loaded, on disk, on their way. Unloads one."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--unload", metavar="SLUG", help='free the memory of this model ("all" for all)')
        parser.add_argument("--json", action="store_true", help="the list as JSON")

    def handle(self, *args: Any, unload: str | None = None, json: bool = False, **options: Any) -> None:
        if unload:
            self._unload(unload)
        elif json:
            self._as_json()
        else:
            self._configured()
            self._on_disk()
            self._downloads()

    def _configured(self) -> None:
        where = {m.slug: m for m in actions.loaded()}
        self.stdout.write("Configured")
        for row in ModelAdapter.objects.exclude(kind="import"):
            problems = actions.problems(row)
            state = "off" if not row.enabled else "ready" if not problems else "cannot be used"
            if problems and not any(p.fatal for p in problems):
                state = "not on this machine"
            if row.slug in where:
                state += f", loaded on {where[row.slug].where}"
            self.stdout.write(f"  {row.slug:28} {row.kind:12} {state:28} {row.source}".rstrip())
            for problem in problems:
                self.stdout.write(f"      {problem.message} {problem.mend}")

    def _on_disk(self) -> None:
        scanned, cached = scan.scan(settings.IWTAG_MODELS_DIRS), scan.hub_cache()
        if scanned.found or scanned.problems:
            self.stdout.write("In the folders of IWTAG_MODELS_DIRS")
        for problem in scanned.problems:
            self.stdout.write(f"  {problem}")
        for found in scanned.found:
            self._found(found)
        if cached:
            self.stdout.write(f"In the hub's cache, {scan.cache_folder()}")
        for one in cached:
            names = f" ({', '.join(one.refs)})" if one.refs else ""
            more = f" {one.revision[:8]}{names}{', not complete' if one.partial else ''}"
            self._found(one.found, more)

    def _found(self, found: scan.Found, more: str = "") -> None:
        self.stdout.write(f"  {found.name:40} {size(found.bytes):>9}{more}")
        if found.best:
            self.stdout.write(f"      looks like {found.best.kind}: {found.best.guess.reason}")
        elif found.note:
            self.stdout.write(f"      {found.note}")

    def _downloads(self) -> None:
        jobs = list(ModelDownload.objects.filter(state__in=ModelDownload.OPEN))
        if jobs:
            self.stdout.write("On their way")
        for job in jobs:
            done = f"{size(job.bytes_done)} of {size(job.bytes_total)}" if job.bytes_total else job.get_state_display()
            self.stdout.write(f"  {job!s:40} {done}")

    def _as_json(self) -> None:
        cached = [
            {"source": c.source, "revision": c.revision, "refs": c.refs, "bytes": c.bytes, "partial": c.partial}
            for c in scan.hub_cache()
        ]
        found = [
            {
                "name": f.name,
                "source": f.source,
                "bytes": f.bytes,
                "guesses": [{"kind": o.kind, "reason": o.guess.reason} for o in f.offers],
                "note": f.note,
            }
            for f in scan.scan(settings.IWTAG_MODELS_DIRS).found
        ]
        configured = [
            {"slug": r.slug, "kind": r.kind, "source": r.source, "revision": r.revision, "enabled": r.enabled}
            for r in ModelAdapter.objects.exclude(kind="import")
        ]
        loaded = [{"slug": m.slug, "place": m.place, "host": m.host, "in_use": m.in_use} for m in actions.loaded()]
        listing = {"configured": configured, "loaded": loaded, "found": found, "cached": cached}
        self.stdout.write(json.dumps(listing, indent=2))

    def _unload(self, slug: str) -> None:
        if slug != "all" and not ModelAdapter.objects.filter(slug=slug).exists():
            raise CommandError(f"There is no model {slug!r}.")
        n = actions.unload(None if slug == "all" else [slug])
        if n:
            self.stdout.write(f"Asked {n} worker{'s' * (n != 1)} to unload {slug}.")
        else:
            self.stdout.write(f"{slug} is loaded nowhere." if slug != "all" else "Nothing is loaded.")
