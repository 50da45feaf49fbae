"""manage.py export_undo JOB | --recipe ID"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from exports import in_place
from exports.exporters.base import ExportError
from exports.management import in_place as lines
from exports.models import ExportEntry, ExportJob


class Command(BaseCommand):
    help = (
        "Take back what an export wrote beside the images: exactly where nobody wrote since, else only our words. "
        "With --recipe only files with what that recipe proposed; without a job, of all exports. "
        "The exit code is 0, or 2 when something could not be undone."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("job", nargs="?", type=int, help="Number of the export.")
        parser.add_argument("--recipe", type=int, metavar="ID", help="Only what came of this recipe.")

    def handle(self, *args: Any, **o: Any) -> None:
        if o["job"] is None and o["recipe"] is None:
            raise CommandError("Name an export, or --recipe.", returncode=lines.PROBLEMS)
        worst = 0
        try:
            for job in self._jobs(o["job"], o["recipe"]):
                worst = max(worst, lines.undo(self, job, o["recipe"]))
        except ExportError as e:
            raise CommandError(str(e), returncode=lines.PROBLEMS) from None
        if worst:
            sys.exit(worst)

    def _jobs(self, number: int | None, recipe: int | None) -> list[ExportJob]:
        if number is not None:
            found = ExportJob.objects.filter(pk=number).first()
            if found is None:
                raise CommandError(f"There is no export {number}.", returncode=lines.PROBLEMS)
            return [found]
        done = ExportEntry.objects.filter(recipe=recipe, state=ExportEntry.State.DONE)
        jobs = list(ExportJob.objects.filter(pk__in=done.values("job")).order_by("-id"))
        if not jobs:
            raise in_place.NotNow(f"Nothing by recipe {recipe} is in force.")
        return jobs
