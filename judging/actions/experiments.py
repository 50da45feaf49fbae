"""Make an experiment, start, pause, resume and stop it. The work is done by the controller (`actions.advance`)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from tagging import queue
from tagging.actions import runs
from tagging.actions.runs import NotNow
from tagging.models import Collection, ImageAsset, Proposal, Recipe, Run

from ..grid import MAX_SAMPLES
from ..images import MAX_IMAGES, choose, held_out, place
from ..models import Experiment, ExperimentRecipe, ExperimentRun
from . import cells

State, Stage = Experiment.State, Experiment.Stage
TASK = "judging.tasks.advance"
NAME_LENGTH, QUESTION_LENGTH, FILTER_LENGTH = 160, 400, 2000
MAX_RUNS = 100
#: how the reason begins for which a recipe leaves an experiment because its model cannot be used
RUN_FAILED = "its run failed: "


def create_experiment(
    collection: Collection,
    axes: Mapping[str, Any],
    *,
    name: str = "",
    question: str = "",
    base: str = "",
    filter: str = "",
    sample: int | None = None,
    seed: int = 0,
    holdout: float = 0.0,
    samples: int = 1,
    margin: float = 0.02,
    images: Sequence[tuple[int, str]] | None = None,
    budget: Decimal | None = None,
    by: AbstractBaseUser | None = None,
) -> Experiment:
    """An experiment, not started: its images frozen, its recipes made.

    `base`: a recipe's number, label or key; without one the champion that applies to the collection, if any. `filter`:
    as in the grid's address. `holdout`: share of the images that no standing sees but the last check. `samples`:
    replies asked for per recipe and image. `images`: (primary key, sha256) of a list drawn before, instead of the
    filter's. `budget`: what all its runs may cost. ValidationError keyed by the argument, or by the axis.
    """
    check_given(name, question, filter, sample, seed, holdout, samples, margin)
    parsed = cells.axes_of(axes)
    recipe = cells.find_base(base, collection)
    grid, values = cells.grid_of(parsed, recipe)
    chosen = list(images) if images is not None else choose(collection, filter, sample=sample, seed=seed)
    names = cells.names_of(grid.cells, values)
    made = cells.recipes_for(grid.cells, names, by=by)
    experiment = Experiment(
        name=name.strip() or question.strip()[:NAME_LENGTH] or f"Comparison on {collection}"[:NAME_LENGTH],
        question=question.strip(),
        collection=collection,
        filter=filter,
        sample=sample,
        seed=seed,
        axes=parsed.model_dump(mode="json", exclude_defaults=True) | {"mode": parsed.mode},
        notices=grid.notices,
        samples=samples,
        margin=margin,
        budget=budget,
        baseline=recipe or made[0][0],
        created_by=user_of(by),
    )
    experiment.freeze(chosen, held_out(chosen, holdout))
    with transaction.atomic():
        experiment.save()
        _add_rows(experiment, made, values)
    return experiment


def _add_rows(
    experiment: Experiment, made: Sequence[tuple[Recipe, str]], values: Sequence[Mapping[str, Any]]
) -> list[ExperimentRecipe]:
    """Each recipe once: two cells may be the same recipe after all."""
    rows: dict[int, ExperimentRecipe] = {}
    for (recipe, name), value in zip(made, values, strict=True):
        if recipe.pk not in rows:
            rows[recipe.pk] = ExperimentRecipe(
                experiment=experiment, recipe=recipe, position=len(rows), name=name, values=dict(value)
            )
    return ExperimentRecipe.objects.bulk_create(rows.values())


def check_given(
    name: str,
    question: str,
    query: str,
    sample: int | None,
    seed: int,
    holdout: float,
    samples: int,
    margin: float,
) -> None:
    found: dict[str, str] = {}
    for field, text, length in (
        ("name", name, NAME_LENGTH),
        ("question", question, QUESTION_LENGTH),
        ("filter", query, FILTER_LENGTH),
    ):
        if len(text) > length:
            found[field] = f"At most {length} characters."
    if sample is not None and not 1 <= sample <= MAX_IMAGES:
        found["sample"] = f"From 1 to {MAX_IMAGES:,} images."
    if not 0 <= seed < 2**31:
        found["seed"] = "A whole number from 0 to 2,147,483,647."
    if not 0 <= holdout <= 0.5:
        found["holdout"] = "A share from 0 to 0.5."
    if not 1 <= samples <= MAX_SAMPLES:
        found["samples"] = f"From 1 to {MAX_SAMPLES} replies per recipe and image."
    if not 0 < margin < 0.5:
        found["margin"] = "A difference above 0 and below 0.5."
    if found:
        raise ValidationError(found)


def user_of(by: AbstractBaseUser | None) -> User | None:
    return by if isinstance(by, User) and by.is_authenticated else None


# -- from what is there -----------------------------------------------------------------------------------------------
def compare_runs(
    given: Sequence[Run],
    *,
    name: str = "",
    question: str = "",
    baseline: Recipe | None = None,
    seed: int = 0,
    margin: float = 0.02,
    by: AbstractBaseUser | None = None,
) -> Experiment:
    """Past runs put beside each other: nothing is computed. The images are those of all runs together.

    ValidationError under "runs" for fewer than two, more than 100, runs of several collections, or more images than an
    experiment takes.
    """
    chosen = list({run.pk: run for run in given}.values())
    check_given(name, question, "", None, seed, 0.0, 1, margin)
    if not 2 <= len(chosen) <= MAX_RUNS:
        raise ValidationError({"runs": f"Choose from 2 to {MAX_RUNS} runs."})
    collections = {run.collection_id for run in chosen}
    if len(collections) != 1 or None in collections:
        raise ValidationError({"runs": "Choose runs of one collection."})
    pks = [run.pk for run in chosen]
    seen = Proposal.objects.filter(run__in=pks).order_by().values_list("image_id", flat=True).distinct()
    ids = set(seen[: MAX_IMAGES + 1])
    if len(ids) > MAX_IMAGES:
        raise ValidationError({"runs": f"Together they have more than {MAX_IMAGES:,} images, the most there may be."})
    if not ids:
        raise ValidationError({"runs": "These runs have no results yet."})
    known = [
        pair for part in _parts(ids) for pair in ImageAsset.objects.filter(pk__in=part).values_list("pk", "sha256")
    ]
    known.sort(key=lambda pair: (place(pair[1], seed), pair))
    experiment = Experiment(
        name=name.strip() or f"{len(chosen)} runs on {chosen[0].collection}"[:NAME_LENGTH],
        question=question.strip(),
        collection=chosen[0].collection,
        seed=seed,
        axes={"mode": "linked", "recipes": list(dict.fromkeys(run.recipe_id for run in chosen))},
        margin=margin,
        samples=1 + max(run.sample for run in chosen),
        baseline=baseline or chosen[0].recipe,
        state=State.DONE,
        reached=len(known),
        finished_at=timezone.now(),
        created_by=user_of(by),
    )
    experiment.freeze(known)
    _, values = cells.grid_of(cells.axes_of(experiment.axes), None)
    by_recipe = dict(zip(experiment.axes["recipes"], values, strict=False))
    with transaction.atomic():
        experiment.save()
        for position, (recipe, of) in enumerate(_columns(chosen)):
            row = ExperimentRecipe.objects.create(
                experiment=experiment,
                recipe_id=recipe,
                position=position,
                name=str(of[0])[:200],
                values=by_recipe.get(recipe, {}),
            )
            ExperimentRun.objects.bulk_create(ExperimentRun(row=row, run=run, sample=run.sample) for run in of)
    return experiment


def _columns(chosen: Sequence[Run]) -> list[tuple[int, list[Run]]]:
    """(recipe, runs): samples of one recipe are one column, a recipe that was run twice is two."""
    columns: list[tuple[int, list[Run]]] = []
    for run in chosen:
        for recipe, of in columns:
            if recipe == run.recipe_id and run.sample not in [other.sample for other in of]:
                of.append(run)
                break
        else:
            columns.append((run.recipe_id, [run]))
    return columns


def _parts(ids: set[int], size: int = 500) -> list[list[int]]:
    ordered = sorted(ids)
    return [ordered[at : at + size] for at in range(0, len(ordered), size)]


# -- its life ---------------------------------------------------------------------------------------------------------
# Each verb is one transaction that begins with an UPDATE of the experiment: two people who press at once take turns, so
# that its runs are always as the experiment is.
def start(experiment: Experiment, *, stage: str = Stage.FULL, racing: bool = False) -> None:
    """Begin, or go on to a larger stage; what is done already is not done again. ValidationError under "stage".
    NotNow while it runs, or when everything of that stage is done."""
    if stage not in Stage.values:
        raise ValidationError({"stage": f"{stage!r} is none of {', '.join(Stage.values)}."})
    linked = ExperimentRun.objects.filter(row__experiment=experiment)
    if linked.exists() and not linked.filter(lo__isnull=False).exists():
        raise NotNow(f"{experiment} compares runs that are there: there is nothing to start.")
    again = experiment.rows.filter(dropped_at__isnull=False, dropped_why__startswith=RUN_FAILED)
    startable = Experiment.objects.filter(pk=experiment.pk).exclude(state=State.RUNNING)
    with transaction.atomic():
        changed = startable.update(
            state=State.RUNNING,
            stage=stage,
            racing=racing,
            error="",
            token=F("token") + 1,
            owner="",
            lease_until=None,
            finished_at=None,
            started_at=experiment.started_at or timezone.now(),
        )
        if not changed:
            raise NotNow(f"{experiment} is running already.")
        if again.update(dropped_at=None, dropped_why=""):  # its mend may be there now: try it once more
            Experiment.objects.filter(pk=experiment.pk).update(log=[])
        _wake(experiment)
        queue.defer(TASK, experiment.pk)
    experiment.refresh_from_db()


def pause(experiment: Experiment) -> None:
    """Workers put its runs down within a second. NotNow unless it is running."""
    with transaction.atomic():
        _move(experiment, (State.RUNNING,), State.PAUSED, "paused")
        for run in _open_runs(experiment):
            _quietly(runs.pause, run)


def resume(experiment: Experiment) -> None:
    """Go on where it was paused. NotNow unless it is paused."""
    with transaction.atomic():
        _move(experiment, (State.PAUSED,), State.RUNNING, "resumed")
        _wake(experiment)
        queue.defer(TASK, experiment.pk)


def stop(experiment: Experiment) -> None:
    """No more runs; what is done stays and is compared. `start` goes on later. NotNow once it has ended."""
    with transaction.atomic():
        _move(experiment, (State.RUNNING, State.PAUSED), State.STOPPED, "stopped", finished_at=timezone.now())
        for run in _open_runs(experiment):
            _quietly(runs.cancel, run)


def delete_experiment(experiment: Experiment) -> None:
    """The comparison goes; its runs, their results and the decisions stay. NotNow while it is running."""
    with transaction.atomic():
        experiment.refresh_from_db(fields=["state"], from_queryset=Experiment.objects.select_for_update())
        if experiment.state in Experiment.OPEN:
            raise NotNow(f"{experiment} is {experiment.get_state_display()}: stop it first.")
        experiment.delete()


def _move(experiment: Experiment, before: Sequence[str], after: str, verb: str, **more: Any) -> None:
    """The token rises: a controller that is at work notices before its next write."""
    moved = Experiment.objects.filter(pk=experiment.pk, state__in=before).update(
        state=after, token=F("token") + 1, owner="", lease_until=None, **more
    )
    experiment.refresh_from_db()
    if not moved:
        raise NotNow(f"{experiment} is {experiment.get_state_display()} and cannot be {verb}.")


def _open_runs(experiment: Experiment) -> list[Run]:
    """Runs that it started and that are under way."""
    mine = Run.objects.filter(experiment_links__row__experiment=experiment, experiment_links__lo__isnull=False)
    return list(mine.filter(state__in=Run.OPEN).distinct())


def _wake(experiment: Experiment) -> None:
    """Its runs that were paused or stopped go on; those that failed try again."""
    mine = Run.objects.filter(experiment_links__row__experiment=experiment, experiment_links__lo__isnull=False)
    dropped = ExperimentRecipe.objects.filter(experiment=experiment, dropped_at__isnull=False).values("pk")
    for run in mine.exclude(experiment_links__row__in=dropped).distinct():
        if run.state == Run.State.PAUSED:
            _quietly(runs.resume, run)
        elif run.state in (Run.State.CANCELLED, Run.State.FAILED):
            _quietly(runs.retry_failed, run)


def _quietly(act: Any, run: Run) -> None:
    """Somebody else may have moved the run just now."""
    with contextlib.suppress(NotNow):
        act(run)
