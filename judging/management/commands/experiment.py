from __future__ import annotations

import json
import re
import time
from argparse import ArgumentParser
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import yaml
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from tagging.actions.runs import NotNow
from tagging.management.commands.tag import duration, find_collection
from tagging.models import Worker

from ... import board as boards
from ... import bundles
from ...actions import experiments
from ...actions.bundles import import_bundle
from ...actions.preflight import Preflight, preflight
from ...models import Experiment
from ...progress import progress
from ...report import report

NOBODY = 10.0
PLAN = ("base", "filter", "sample", "seed", "holdout", "samples")
OTHER = ("name", "question", "margin")
KNOWN = {"collection", "axes", "stage", "racing", *PLAN, *OTHER}


class Command(BaseCommand):
    help = (
        "Compares recipes on images: makes an experiment from a YAML or JSON file and starts it, or shows the "
        "leaderboard of one there is (--show ID), or writes and reads one as a file. docs/experiments.md says what a "
        "plan may say."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", nargs="?", type=Path, help="the plan: YAML or JSON")
        parser.add_argument("--show", type=int, metavar="ID", help="the leaderboard of an experiment")
        parser.add_argument(
            "--export", type=int, metavar="ID", help="write an experiment to --out, to be read elsewhere"
        )
        parser.add_argument("--report", type=int, metavar="ID", help="write one HTML page about it to --out")
        parser.add_argument("--out", type=Path, metavar="FILE", help="of --export and --report")
        parser.add_argument(
            "--import", dest="bundle", type=Path, metavar="FILE", help="an experiment that was exported"
        )
        parser.add_argument("--partial", action="store_true", help="of --import: compare the images that are here")
        parser.add_argument("--collection", metavar="NAME", help="instead of the one in the file")
        parser.add_argument("--stage", choices=Experiment.Stage.values, help="smoke: 5 images, screen: 30, full: all")
        parser.add_argument("--racing", action="store_true", help="drop recipes on the way that cannot win any more")
        parser.add_argument("--plan", action="store_true", help="only say what it would ask and cost")
        parser.add_argument("--wait", action="store_true", help="show progress, and the leaderboard at the end")
        parser.add_argument("--json", action="store_true", help="the leaderboard as JSON")

    def handle(self, *args: Any, file: Path | None, show: int | None, **options: Any) -> None:
        export, bundle, page = options["export"], options["bundle"], options["report"]
        if sum(given is not None for given in (file, show, export, bundle, page)) != 1:
            raise CommandError("Name a file, or one of --show ID, --report ID, --export ID, --import FILE.")
        if export is not None:
            self.write(one(export), bundles.lines(one(export)), options["out"])
        elif page is not None:
            self.write(one(page), report(one(page)), options["out"])
        elif bundle is not None:
            self.read(bundle, options["collection"], options["partial"], options["json"])
        elif show is not None:
            self.leaderboard(one(show), options["json"])
        else:
            assert file is not None
            self.start(file, options)

    def write(self, experiment: Experiment, parts: Iterable[str], out: Path | None) -> None:
        if out is None:
            raise CommandError("Say where to with --out FILE.")
        part = out.with_name(f"{out.name}.part")
        try:
            with part.open("w", encoding="utf-8") as f:
                f.writelines(parts)
            part.replace(out)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise CommandError(f"{out} cannot be written: {error}") from None
        self.stdout.write(f"Experiment {experiment.pk} ({experiment}) is in {out}.")

    def read(self, file: Path, collection: str | None, partial: bool, as_json: bool) -> None:
        target = find_collection(str(collection or ""))
        try:
            with file.open(encoding="utf-8") as f:
                made = import_bundle(f, target, partial=partial)
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{file} cannot be read: {error}") from None
        except ValidationError as error:
            raise CommandError("\n".join(lines(error))) from None
        self.stdout.write(
            f"Experiment {made.experiment.pk} ({made.experiment}): {len(made.recipes)} recipes, {made.images:,} "
            f"images, {made.decisions:,} decisions taken over, {made.kept_decisions:,} that stand otherwise here."
        )
        self.leaderboard(made.experiment, as_json)

    def start(self, file: Path, options: dict[str, Any]) -> None:
        plan = read(file)
        collection = find_collection(str(options["collection"] or plan.pop("collection", "")))
        plan.pop("collection", None)
        stage = options["stage"] or plan.pop("stage", "full")
        racing = bool(plan.pop("racing", False)) or options["racing"]
        plan.pop("stage", None)
        axes = plan.pop("axes", {})
        more: dict[str, Any] = {name: plan[name] for name in PLAN if name in plan}
        if "base" in more:
            more["base"] = str(more["base"])
        try:
            before = preflight(collection, axes, **more)
            self.stdout.write(planned(before))
            if options["plan"]:
                return
            other: dict[str, Any] = {name: plan[name] for name in OTHER if name in plan}
            made = experiments.create_experiment(collection, axes, **more, **other)
            experiments.start(made, stage=stage, racing=racing)
        except ValidationError as error:
            raise CommandError("\n".join(lines(error))) from None
        except NotNow as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"Experiment {made.pk} ({made}): {made.rows.count()} recipes, {made.n_images:,} images.")
        if options["wait"]:
            try:
                self.wait(made)
            except KeyboardInterrupt:
                raise CommandError(f"No longer waiting; experiment {made.pk} goes on.", returncode=130) from None
            self.leaderboard(made, options["json"])

    def wait(self, experiment: Experiment) -> None:
        terminal = getattr(self.stdout._out, "isatty", lambda: False)()
        began = shown = time.monotonic()
        warned = False
        while True:
            experiment.refresh_from_db()
            if experiment.state not in Experiment.OPEN:
                break
            now = time.monotonic()
            if not warned and now - began > NOBODY and not Worker.objects.alive().exists():
                warned = True
                self.stderr.write("No worker is running: start 'manage.py up'.")
            if now - shown >= (0.5 if terminal else 5.0):
                shown = now
                at = progress(experiment)
                text = f"{at.done:,} of {at.total:,} cells ({at.percent:.0f} %)"
                if at.eta_seconds is not None:
                    text += f", about {duration(at.eta_seconds)} left"
                self.stdout.write(f"\r\x1b[K{text}" if terminal else text, ending="" if terminal else "\n")
                self.stdout.flush()
            time.sleep(0.3)
        if terminal:
            self.stdout.write("\r\x1b[K", ending="")
        if experiment.state == Experiment.State.FAILED:
            raise CommandError(f"Experiment {experiment.pk} failed: {experiment.error}")

    def leaderboard(self, experiment: Experiment, as_json: bool) -> None:
        found = boards.board(experiment)
        if as_json:
            self.stdout.write(json.dumps(found, ensure_ascii=False, indent=2))
            return
        for line in text_table(found):
            self.stdout.write(line)


class _Loader(yaml.SafeLoader):
    """Without the numbers to the base of sixty: the range 0:1:0.2 would be 60.2."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag not in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?[0-9]+\Z"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?\Z"),
    list("-+.0123456789"),
)


def one(pk: int) -> Experiment:
    found = Experiment.objects.filter(pk=pk).first()
    if found is None:
        raise CommandError(f"There is no experiment {pk}.")
    return found


def read(file: Path, known: Collection[str] = KNOWN) -> dict[str, Any]:
    """CommandError names what is wrong with the file."""
    try:
        plan = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)  # JSON is YAML
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CommandError(f"{file} cannot be read: {error}") from None
    if not isinstance(plan, dict):
        raise CommandError(f"{file} has no plan: write names and values, see docs/experiments.md.")
    if unknown := sorted(set(plan) - set(known)):
        raise CommandError(f"{file} says {unknown[0]!r}, which means nothing here; known: {', '.join(sorted(known))}.")
    return plan


def lines(error: ValidationError) -> list[str]:
    if not hasattr(error, "error_dict"):
        return list(error.messages)
    return [f"{name}: {text}" for name, texts in error.message_dict.items() for text in texts]


def planned(found: Preflight) -> str:
    parts = [f"{found.cells:,} cells: {found.known:,} answered already, {found.to_run:,} to run"]
    if found.to_run and found.seconds is not None:
        parts.append(f"about {duration(found.seconds)}")
    if found.unknown:
        parts.append(f"no pace known of {', '.join(found.unknown)}")
    if found.cost:
        parts.append(f"about {found.cost:.2f} {found.currency}".rstrip())
    text = "; ".join(parts) + "."
    if found.detectable is None:
        text += " None of the images is reviewed: nothing can be said about who is right until some are."
    else:
        text += f" {found.reviewed:,} reviewed images show differences in F1 from {found.detectable:.3f} on."
    return "\n".join([text, *found.notices])


def text_table(found: dict[str, Any]) -> list[str]:
    """The leaderboard for a terminal, best first."""
    metric = found["metric"]
    rows = sorted(found["rows"], key=lambda row: (_value(row, metric) is None, -(_value(row, metric) or 0)))
    if metric == "edits":
        rows.sort(key=lambda row: (_value(row, metric) is None, _value(row, metric) or 0))
    width = max([len(row["name"]) for row in rows] + [6])
    made = [f"{'recipe':<{width}}  {metric:>6}  {'difference':>26}  {'edits':>5}  {'s p50':>6}  verdict"]
    for row in rows:
        stands = row["standing"].get(metric) or {}
        value, delta = stands.get("value"), stands.get("delta")
        interval = ""
        if delta is not None and not row["baseline"]:
            interval = f"{delta:+.3f} ({stands['delta_low']:+.3f} … {stands['delta_high']:+.3f})"
        word = stands.get("word") or (f"dropped after {row['dropped_at']}" if row["dropped_at"] else "no results")
        if stands.get("more"):
            word += f" (about {stands['more']:,} more)"
        edits, seconds = row["metrics"].get("edits"), row["metrics"].get("seconds_p50")
        made.append(
            f"{row['name']:<{width}}  {_number(value, 3):>6}  {interval:>26}  {_number(edits, 1):>5}  "
            f"{_number(seconds, 2):>6}  {word}"
        )
    made.append(f"{found['images']:,} images, {found['judged_images']:,} judged, {found['unjudged']:,} tags unjudged.")
    return made + found["notices"]


def _value(row: dict[str, Any], metric: str) -> float | None:
    value = (row["standing"].get(metric) or {}).get("value")
    return None if value is None else float(value)


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
