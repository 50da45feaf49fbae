from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand

from tagging.actions import setup
from tagging.models import Collection


class Command(BaseCommand):
    help = (
        "Prepares an installation: database, administrator, embedded model, and, while there is no collection at all, "
        "the sample photographs with a first run. Safe to run again: it does only what is missing."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--no-samples", action="store_true", help="leave the sample photographs out")

    def handle(self, *args: Any, no_samples: bool = False, **options: Any) -> None:
        call_command("migrate", interactive=False, verbosity=0)
        made = setup.ensure_administrator()
        if made:
            password, generated = made
            if generated:
                self.stdout.write(f"Administrator: {setup.ADMIN}\nPassword:      {password}   (shown this once)")
            else:
                self.stdout.write(f"Administrator: {setup.ADMIN}, with the password of IWTAG_ADMIN_PASSWORD")
        setup.ensure_default_adapter()
        if no_samples or Collection.objects.exclude(runs=None).exists():
            return
        if Collection.objects.exclude(name=setup.SAMPLES).exists():
            return
        collection, job = setup.ensure_samples()
        if job:
            self.stdout.write(f"Indexed {job.added} sample photographs")
        if setup.ensure_first_run(collection):
            self.stdout.write("Started a first run with the embedded model photo-lite")
