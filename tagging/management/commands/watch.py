"""manage.py watch --collection NAME [--once]"""

from __future__ import annotations

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ...actions import ingest
from ...actions.watch import tick, watch_of
from ...models import IngestJob, Watch
from .tag import find_collection

#: Seconds between two ticks in the foreground.
PACE = 10.0


class Command(BaseCommand):
    help = (
        "Does what a collection's watch does, in this process and now: looks at the files, starts a run on what is "
        "new, lets a judge settle what it is sure of and exports what was reviewed, as its settings say. Without "
        "--once it goes on until Ctrl-C. The workers of 'manage.py up' do all this by themselves; runs, judges and "
        "exports are theirs in any case."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--collection", required=True, metavar="NAME", help="name or slug of the collection")
        parser.add_argument("--once", action="store_true", help="do it once, now, and end")

    def handle(self, *args: Any, collection: str, once: bool, **options: Any) -> None:
        watch = watch_of(find_collection(collection))
        if watch.pk is None or not watch.enabled:
            raise CommandError(f"{watch.collection} does not watch anything yet: switch its steps on first.")
        said: dict[str, str] = {}
        try:
            self.step(watch, force=once)
            errors = self.tell(watch, said)
            while not once:
                time.sleep(PACE)
                self.step(watch, force=False)
                self.tell(watch, said)
        except KeyboardInterrupt:
            raise CommandError("No longer watching.", returncode=130) from None
        if errors:
            raise CommandError(" ".join(errors))

    def step(self, watch: Watch, *, force: bool) -> None:
        """One tick; the ingest that it starts is done here, and then what was waiting for it."""
        watch.refresh_from_db()
        if watch.paused:
            raise CommandError(f"The watch of {watch.collection} is paused.")
        tick(watch.pk, force=force, ring=False)
        job = watch_of(watch.collection).job
        if job is None or job.state not in IngestJob.OPEN:
            return
        while job.state in IngestJob.OPEN:
            job = ingest.run_ingest(job.pk)
            if job.state in IngestJob.OPEN:  # in a worker's hands
                time.sleep(0.2)
        tick(watch.pk)

    def tell(self, watch: Watch, said: dict[str, str]) -> list[str]:
        """A line for each step that has something new to say; the errors."""
        results = watch_of(watch.collection).last_result
        for name, result in results.items():
            line = f"{name}: {result.get('error') or result.get('text', '')}"
            if said.get(name) != line:
                said[name] = line
                self.stdout.write(line)
        return [f"{name}: {result['error']}" for name, result in results.items() if result.get("error")]
