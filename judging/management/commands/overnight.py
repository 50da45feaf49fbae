from __future__ import annotations

import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from tagging.actions.runs import NotNow
from tagging.management.commands.tag import duration, find_collection
from tagging.models import Worker

from ...actions import overnight
from ...grid import parse_values
from ...models import OvernightSearch
from .experiment import NOBODY, lines
from .experiment import read as read_file

KNOWN = ("base", "name", "filter", "sample", "seed", "holdout", "margin")


class Command(BaseCommand):
    help = (
        "Searches for the best recipe of a collection within a time and an amount of money: rounds of experiments "
        "around the best so far, then a check on images that the search never saw. It moves no label."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", nargs="?", type=Path, help="axes and all else as YAML or JSON, as for experiment")
        parser.add_argument("--collection", metavar="NAME")
        parser.add_argument("--hours", type=float, help="of working time")
        parser.add_argument("--money", metavar="AMOUNT", help="in the currency of the models' prices")
        parser.add_argument("--base", metavar="RECIPE", help="to beat: a number, label or key; else the champion")
        parser.add_argument("--adapter", action="append", default=[], metavar="SLUG", help="a model to try")
        parser.add_argument("--prompt", action="append", default=[], type=int, metavar="ID", help="a prompt version")
        parser.add_argument("--policy", action="append", default=[], type=int, metavar="ID", help="a policy version")
        parser.add_argument(
            "--option", action="append", default=[], metavar="NAME=VALUES", help="0.2,0.4 or a range 0:1:0.2"
        )
        parser.add_argument("--wait", action="store_true", help="until it has ended; then the verdict")
        for verb in ("show", "pause", "resume", "stop"):
            parser.add_argument(f"--{verb}", type=int, metavar="ID", help=f"{verb} a search")

    def handle(self, *args: Any, file: Path | None, **options: Any) -> None:
        for verb in ("show", "pause", "resume", "stop"):
            if options[verb] is not None:
                self.tell(verb, one(options[verb]))
                return
        try:
            made = self.begin(file, options)
        except ValidationError as error:
            raise CommandError("\n".join(lines(error))) from None
        self.stdout.write(f"Search {made.pk} ({made}): {made.n_images:,} images, {duration(made.seconds)} at most.")
        if options["wait"]:
            try:
                self.wait(made)
            except KeyboardInterrupt:
                raise CommandError(f"No longer waiting; search {made.pk} goes on.", returncode=130) from None
            self.tell("show", made)

    def begin(self, file: Path | None, options: dict[str, Any]) -> OvernightSearch:
        plan = _read(file) if file else {}
        axes = {**plan.pop("axes", {})}
        for name, given in (("adapters", "adapter"), ("prompts", "prompt"), ("policies", "policy")):
            if options[given]:
                axes[name] = options[given]
        for text in options["option"]:
            name, equals, values = text.partition("=")
            if not equals:
                raise CommandError(f"{text!r}: write NAME=VALUES, as in temperature=0:1:0.2.")
            try:
                axes.setdefault("options", {})[name] = parse_values(values, name)
            except ValueError as error:
                raise CommandError(str(error)) from None
        collection = find_collection(str(options["collection"] or plan.pop("collection", "")))
        hours = options["hours"] if options["hours"] is not None else plan.get("hours")
        if hours is None:
            raise CommandError("Say how long it may take with --hours.")
        more = {name: plan[name] for name in KNOWN if name in plan}
        more["base"] = str(options["base"] or more.get("base", ""))
        money = options["money"] if options["money"] is not None else plan.get("money")
        return overnight.start_search(collection, axes, hours=float(hours), money=money, **more)

    def tell(self, verb: str, search: OvernightSearch) -> None:
        try:
            if verb != "show":
                getattr(overnight, verb)(search)
        except NotNow as error:
            raise CommandError(str(error)) from None
        search.refresh_from_db()
        money = f", {search.spent:.2f} of {search.money:.2f} {search.currency}" if search.money else ""
        used = f"{duration(search.used())} of {duration(search.seconds)}"
        self.stdout.write(f"{search}: {search.get_state_display()}, {used}{money}.")
        for entry in search.log:
            self.stdout.write(f"  {entry['text']}")
        if search.error:
            raise CommandError(search.error)
        if search.verdict:
            self.stdout.write(search.verdict)
        check = search.rounds.filter(kind="check", outcome__isnull=False).first()
        if check is not None:
            self.stdout.write(f"The last check is experiment {check.experiment_id}; promote from there.")

    def wait(self, search: OvernightSearch) -> None:
        began, warned = time.monotonic(), False
        while True:
            search.refresh_from_db()
            if search.state not in OvernightSearch.OPEN:
                return
            if not warned and time.monotonic() - began > NOBODY and not Worker.objects.alive().exists():
                warned = True
                self.stderr.write("No worker is running: start 'manage.py up'.")
            time.sleep(0.5)


def _read(file: Path) -> dict[str, Any]:
    return read_file(file, {"collection", "axes", "hours", "money", *KNOWN})


def one(pk: int) -> OvernightSearch:
    found = OvernightSearch.objects.filter(pk=pk).first()
    if found is None:
        raise CommandError(f"There is no search {pk}.")
    return found
