"""The controller of an experiment: starts runs slice by slice, judges the race, knows when it is over.

It is called whenever a run of the experiment ends, and each minute by the sweeper. Everything it decides follows from
what is stored, and is stored with the decision: one that is killed anywhere is followed by another that decides the
same.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.db import DatabaseError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from tagging import queue
from tagging.actions.costs import prices
from tagging.actions.runs import start_run
from tagging.engine import job_leases
from tagging.models import Channel, ImageAsset, Run

from .. import board as boards
from ..images import slices, waves
from ..metrics_loading import load
from ..models import Experiment, ExperimentRecipe, ExperimentRun
from .experiments import RUN_FAILED, TASK
from .purses import share

State = Experiment.State
LEASE = timedelta(seconds=120)
log = logging.getLogger(__name__)


class Lost(Exception):
    """The experiment was paused or stopped, or another controller has it."""


def advance(experiment_id: int) -> Experiment | None:
    """Do what is due now; the experiment as it is then, None where it is gone. Harmless to call at any time."""
    experiment = _claim(experiment_id)
    if experiment is None:
        return Experiment.objects.filter(pk=experiment_id).first()
    try:
        while _step(experiment):
            pass
    except Lost:
        pass
    except DatabaseError:  # what was not written is done again, as soon as the database answers
        job_leases.let_go(_held(experiment))
        raise
    except Exception as error:
        log.exception("experiment %s", experiment.pk)
        text = " ".join(error.messages) if isinstance(error, ValidationError) else f"{type(error).__name__}: {error}"
        _held(experiment).update(
            state=State.FAILED, error=f"It could not go on. {text}"[:2000], finished_at=timezone.now(), owner=""
        )
    else:
        _held(experiment).update(owner="", lease_until=None)
    experiment.refresh_from_db()
    if experiment.state == State.RUNNING and not experiment.owner and _due(experiment):
        queue.defer(TASK, experiment.pk)  # a run ended while nobody listened
    return experiment


def _claim(pk: int) -> Experiment | None:
    experiment = Experiment.objects.select_related("collection").filter(pk=pk, state=State.RUNNING).first()
    if experiment is None or job_leases.alive(experiment):
        return None
    return experiment if job_leases.take(experiment, LEASE, where={"state": State.RUNNING}) else None


def _held(experiment: Experiment) -> QuerySet[Experiment]:
    return job_leases.ours(experiment, state=State.RUNNING)


def _keep(experiment: Experiment, **values: Any) -> None:
    """Write, and renew the lease; Lost where it is no longer ours."""
    if not _held(experiment).update(lease_until=timezone.now() + LEASE, **values):
        raise Lost(experiment.pk)
    for name, value in values.items():
        setattr(experiment, name, value)


def _rows(experiment: Experiment) -> list[ExperimentRecipe]:
    """Those in the race."""
    return list(experiment.rows.filter(dropped_at=None).select_related("recipe").order_by("position"))


def _due(experiment: Experiment) -> bool:
    """Is everything that was started over?"""
    return not _mine(experiment).filter(state__in=Run.OPEN).exists()


def _mine(experiment: Experiment) -> QuerySet[Run]:
    return Run.objects.filter(
        experiment_links__row__experiment=experiment,
        experiment_links__row__dropped_at=None,
        experiment_links__lo__isnull=False,
    ).distinct()


def _step(experiment: Experiment) -> bool:
    """Start what is missing of the present wave; when the wave is over, judge it. False when there is nothing to do
    but wait, or when it is over."""
    ends = waves(experiment.target, experiment.n_images, racing=experiment.racing)
    judged = [entry["images"] for entry in experiment.log if entry.get("what") == "wave"]
    wave = next((end for end in ends if end not in judged), None)
    if wave is None:
        _finish(experiment)
        return False
    rows = _rows(experiment)
    _start_runs(experiment, rows, wave)
    if experiment.reached < wave:
        _keep(experiment, reached=wave)
    if not _due(experiment):
        return False
    if _failed(experiment, rows, wave):
        return False
    return _judge(experiment, wave, last=wave == ends[-1])


# -- starting ---------------------------------------------------------------------------------------------------------
def _start_runs(experiment: Experiment, rows: Sequence[ExperimentRecipe], upto: int) -> None:
    """A run for each recipe, sample and slice that has none. In the order of the models, so that each is loaded once;
    within a model slice by slice, so that what is stopped in the middle is a fair comparison still."""
    links = ExperimentRun.objects.filter(row__in=rows, lo__isnull=False)
    there = set(links.values_list("row_id", "sample", "lo"))
    images = experiment.images
    wanted = slices(upto, experiment.n_images)
    for group in _by_model(rows):
        for lo, hi in wanted:
            for row in group:
                for sample in range(experiment.samples):
                    if (row.pk, sample, lo) not in there:
                        _start_run(experiment, row, sample, lo, hi, images[lo:hi].tolist())


def _by_model(rows: Sequence[ExperimentRecipe]) -> list[list[ExperimentRecipe]]:
    """Rows grouped by the model that their first channel needs, groups in order of their first row."""
    channels = Channel.objects.filter(recipe__in={row.recipe_id for row in rows}, position=0)
    model = {c.recipe_id: (c.adapter_id, str(c.adapter_config)) for c in channels}
    groups: dict[Any, list[ExperimentRecipe]] = {}
    for row in rows:
        groups.setdefault(model.get(row.recipe_id), []).append(row)
    return list(groups.values())


def _start_run(experiment: Experiment, row: ExperimentRecipe, sample: int, lo: int, hi: int, images: list[int]) -> None:
    """The run and its link in one transaction, fenced by the controller's token."""
    with transaction.atomic():
        _keep(experiment)
        chosen = ImageAsset.objects.filter(pk__in=images).usable()
        if not chosen.exists():  # the files of a whole slice are gone: nothing to run, and nothing to wait for
            return
        run = start_run(
            row.recipe,
            collection=experiment.collection,
            images=chosen,
            name=f"{experiment} · {row.name}"[:160],
            shown=False,
            sample=sample,
            purpose=Run.Purpose.EXPERIMENT,
            budget=share(experiment, lo, hi, experiment.rows.count()) if _priced(row) else None,
            by=experiment.created_by,
        )
        ExperimentRun.objects.create(row=row, run=run, sample=sample, lo=lo, hi=hi)


def _priced(row: ExperimentRecipe) -> bool:
    return any(sent or got for sent, got, _ in map(prices, row.recipe.channels.all()))


# -- ending -----------------------------------------------------------------------------------------------------------
def _failed(experiment: Experiment, rows: Sequence[ExperimentRecipe], wave: int) -> bool:
    """Recipes whose model cannot be used leave the race; when that is all of them, the experiment has failed."""
    broken: dict[int, str] = {}
    links = ExperimentRun.objects.filter(row__in=rows, run__state=Run.State.FAILED).order_by("-pk")
    for pk, error in links.values_list("row_id", "run__error"):
        broken[pk] = error
    for row in rows:
        if row.pk in broken:
            with transaction.atomic():
                _keep(experiment)
                _drop(row, wave, f"{RUN_FAILED}{broken[row.pk]}")
    if rows and len(broken) == len(rows):
        text = f"No recipe could be run. {rows[0].name}: {broken[rows[0].pk]}"
        _keep(experiment, state=State.FAILED, error=text, finished_at=timezone.now(), owner="")
        return True
    return False


def _drop(row: ExperimentRecipe, wave: int, why: str) -> None:
    ExperimentRecipe.objects.filter(pk=row.pk).update(dropped_at=wave, dropped_why=why[:300])


@dataclass(frozen=True)
class Verdict:
    """What a wave of the race says. `drop`: row → why. `over`: why nothing more needs to be run; empty to go on."""

    drop: dict[int, str]
    over: str
    text: str


def _judge(experiment: Experiment, wave: int, *, last: bool) -> bool:
    """Close the wave, write down what it said; True when there is another one."""
    verdict = race(experiment, wave) if experiment.racing and wave > 5 else Verdict({}, "", "")
    entry = {"what": "wave", "images": wave, "at": timezone.now().isoformat(), "text": verdict.text}
    entry["dropped"] = [{"row": pk, "why": why} for pk, why in verdict.drop.items()]
    with transaction.atomic():
        for row in ExperimentRecipe.objects.filter(pk__in=verdict.drop):
            _drop(row, wave, verdict.drop[row.pk])
        _keep(experiment, log=[*(e for e in experiment.log if e.get("images") != wave), entry])
        if last or verdict.over:
            _finish(experiment, verdict.over)
            return False
    return True


def race(experiment: Experiment, wave: int) -> Verdict:
    """Recipes that are worse than the leader are dropped (the baseline stays: the others are compared with it). It is
    over when the leader stands alone, or when all that are left are equivalent to it: then the cheaper, the faster or
    the one with the better figure is named."""
    sheet = load(experiment, only=[row.pk for row in _rows(experiment)])
    found = boards.race_standings(sheet, experiment)
    if found is None:
        return Verdict({}, "", "Nothing is judged on these images yet: no recipe was dropped.")
    leader, standings, results = found
    name = sheet.rows[leader].name
    drop: dict[int, str] = {}
    rivals: list[int] = []
    equal = True
    for i, standing in enumerate(standings):
        if i == leader or standing is None:
            continue
        if standing.word == "worse":
            if sheet.rows[i].recipe_id != experiment.baseline_id:
                drop[sheet.rows[i].pk] = (
                    f"{standing.delta:+.3f} ({standing.delta_low:+.3f} to {standing.delta_high:+.3f}) "
                    f"against {name} after {wave} images"
                )
            continue
        rivals.append(i)
        equal = equal and standing.word == "equivalent"
    if not rivals:
        return Verdict(drop, f"{name} is better than all others after {wave} images.", f"{name} leads alone.")
    if equal:
        chosen, why = _cheapest([leader, *rivals], results)
        return Verdict(
            drop,
            f"The {1 + len(rivals)} that are left are equivalent after {wave} images; "
            f"{sheet.rows[chosen].name} is {why}.",
            "All that are left are equivalent.",
        )
    return Verdict(drop, "", f"{name} leads; {len(rivals)} are not separate from it.")


def _cheapest(places: Sequence[int], results: Sequence[Any]) -> tuple[int, str]:
    def of(name: str) -> list[tuple[float, int]]:
        return sorted((results[i].values[name], i) for i in places if results[i].values.get(name) is not None)

    costs, seconds = of("cost_per_1000"), of("seconds_p50")
    if len(costs) == len(places) and costs[0][0] < costs[-1][0]:
        return costs[0][1], "the cheapest"
    if len(seconds) == len(places) and seconds[0][0] < seconds[-1][0]:
        return seconds[0][1], "the fastest"
    return places[0], "ahead by a hair"


def _finish(experiment: Experiment, why: str = "") -> None:
    entries = experiment.log
    if why:
        entries = [*entries, {"what": "end", "text": why, "at": timezone.now().isoformat()}]
    _keep(experiment, state=State.DONE, finished_at=timezone.now(), owner="", log=entries)


# -- the bell ---------------------------------------------------------------------------------------------------------
def run_ended(run_id: int) -> None:
    """A run has ended. When it was the last that an experiment waited for, that looks what is due."""
    waiting = Experiment.objects.filter(state=State.RUNNING, rows__links__run=run_id, rows__links__lo__isnull=False)
    for experiment in waiting.distinct():
        if _due(experiment):
            queue.defer(TASK, experiment.pk)


def sweep() -> None:
    """Ring again for experiments that wait or whose controller died."""
    running = Experiment.objects.filter(state=State.RUNNING)
    for experiment in running.only("owner", "lease_until").order_by("pk"):
        if not job_leases.alive(experiment):
            queue.defer(TASK, experiment.pk)
