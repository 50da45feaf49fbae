"""/api/experiments: recipes compared on images, from the plan to the promotion."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Literal

from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, StreamingHttpResponse
from ninja import Query, Schema, Status
from pydantic import Field

from tagging.actions import labels
from tagging.actions.runs import NotNow
from tagging.api.auth import allow
from tagging.api.errors import Conflict, Problem
from tagging.api.listing import Cursor, Limit, Listing, by_id
from tagging.api.router import Router
from tagging.engine.progress import Progress
from tagging.models import Collection, Run

from .. import board as boards
from ..actions import experiments
from ..actions.preflight import preflight
from ..cells import cells, columns
from ..models import Experiment
from ..progress import progress, progress_of

router = Router(tags=["experiments"])


class RecipeRow(Schema):
    id: int = Field(description="Of the row in this experiment.")
    recipe: int
    name: str
    values: dict[str, Any] = Field(description="What it is on each axis that varies.")
    dropped_at: int | None = Field(description="Out of the race after so many images.")
    dropped_why: str


class ExperimentOut(Schema):
    id: int
    name: str
    question: str
    collection: str
    state: str
    stage: str
    racing: bool
    samples: int
    images: int
    reached: int = Field(description="So many images of the list were begun.")
    baseline: int | None = Field(description="Recipe that the others are compared with.")
    margin: float = Field(description="Differences within this count as none.")
    seed: int
    axes: dict[str, Any]
    notices: list[str]
    log: list[dict[str, Any]] = Field(description="What the controller decided, and on what evidence.")
    error: str
    cells: int = Field(description="Recipes * images * samples of the stage.")
    done: int
    cached: int = Field(description="Of done, those that needed no model.")
    errors: int
    rows: list[RecipeRow]
    created_by: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class ExperimentList(Listing[ExperimentOut]):
    pass


class Plan(Schema):
    collection: str = Field(description="Its slug.")
    axes: dict[str, Any] = Field(
        {},
        description="mode (around, product, linked), adapters (slugs), prompts (version ids), options (name → list or "
        '"0:1:0.2"), policies (version ids), combine (rules), prompt_map (adapter → version ids), exclude, recipes.',
    )
    base: str | int = Field("", description="Recipe to vary or compare with: id, label or key. Empty: the champion.")
    filter: str = Field("", max_length=2000, description="Which images, as in the grid's address (tag=cat&review=…).")
    sample: int | None = Field(None, description="So many images of the filter, drawn by `seed`.")
    seed: int = 0
    holdout: float = Field(0.0, description="Share of the images kept for the last check.")
    samples: int = Field(1, description="Replies per recipe and image.")

    model_config = {"extra": "forbid"}


class ExperimentIn(Plan):
    name: str = Field("", max_length=160)
    question: str = Field("", max_length=400)
    margin: float = 0.02
    start: Literal["", "smoke", "screen", "full"] = Field("", description="Begin at once with that stage.")
    racing: bool = Field(False, description="Drop recipes on the way that cannot win any more.")


class RunsIn(Schema):
    runs: list[int]
    baseline: int | str | None = Field(None, description="Recipe to compare with; that of the first run without it.")
    name: str = Field("", max_length=160)
    question: str = Field("", max_length=400)
    margin: float = 0.02

    model_config = {"extra": "forbid"}


class StartIn(Schema):
    stage: Literal["smoke", "screen", "full"] = "full"
    racing: bool = False

    model_config = {"extra": "forbid"}


class PlannedOut(Schema):
    name: str
    known: int
    to_run: int
    seconds: float | None
    cost: float | None


class PreflightOut(Schema):
    cells: int
    known: int = Field(description="Answered already: they cost nothing.")
    to_run: int
    images: int
    reviewed: int
    held_out: int
    samples: int
    recipes: list[PlannedOut]
    notices: list[str]
    seconds: float | None = Field(description="From the pace of earlier runs; null where a model has none.")
    loads: int
    cost: float | None
    currency: str
    memory: int | None = Field(description="Bytes that the largest model takes.")
    unknown: list[str] = Field(description="Models of which no pace is known.")
    detectable: float | None = Field(description="Smallest difference in F1 that the reviewed images can show.")


def rows() -> QuerySet[Experiment]:
    return Experiment.objects.select_related("collection", "created_by").prefetch_related("rows").defer("board")


def find(pk: int) -> Experiment:
    found = rows().filter(pk=pk).first()
    if found is None:
        raise Experiment.DoesNotExist(f"There is no experiment {pk}.")
    return found


def shown(experiment: Experiment, at: Progress | None = None) -> dict[str, Any]:
    at = at or progress(experiment)
    names = ("id", "name", "question", "state", "stage", "racing", "samples", "reached", "margin", "seed", "axes")
    more = ("notices", "log", "error", "created_at", "started_at", "finished_at")
    return {
        **{name: getattr(experiment, name) for name in (*names, *more)},
        "collection": experiment.collection.slug,
        "images": experiment.n_images,
        "baseline": experiment.baseline_id,
        "cells": at.total,
        "done": at.done,
        "cached": at.cached,
        "errors": at.error,
        "rows": [
            {
                "id": row.pk,
                "recipe": row.recipe_id,
                "name": row.name,
                "values": row.values,
                "dropped_at": row.dropped_at,
                "dropped_why": row.dropped_why,
            }
            for row in experiment.rows.all()
        ],
        "created_by": experiment.created_by.get_username() if experiment.created_by else None,
    }


def collection_named(slug: str) -> Collection:
    found = Collection.objects.filter(slug=slug).first()
    if found is None:
        raise ValidationError({"collection": f"There is no collection {slug!r}."})
    return found


@router.get("", response=ExperimentList, summary="List experiments", operation_id="list_experiments")
def list_experiments(
    request: HttpRequest,
    collection: str = "",
    state: Literal["", "draft", "running", "paused", "done", "stopped", "failed"] = "",
    cursor: Cursor = "",
    limit: Limit = 20,
) -> object:
    """Newest first."""
    allow(request, "read")
    found = rows().filter(collection=collection_named(collection)) if collection else rows()
    page = by_id(found.filter(state=state) if state else found, cursor, limit)
    at = progress_of(page["items"])
    return {**page, "items": [shown(experiment, at[experiment.pk]) for experiment in page["items"]]}


@router.post("/preflight", response=PreflightOut, summary="What it would ask and cost", operation_id="plan_experiment")
def plan_experiment(request: HttpRequest, payload: Plan) -> object:
    """Cells in all, answered already and to run; time, cost and memory from the past; the smallest difference that the
    reviewed images can show. Writes nothing. Needs the role curator."""
    allow(request, "curate")
    given = payload.dict()
    collection = collection_named(given.pop("collection"))
    return preflight(collection, given.pop("axes"), **{**given, "base": str(given["base"])})


@router.post("", response={201: ExperimentOut}, summary="Make an experiment", operation_id="create_experiment")
def create_experiment(request: HttpRequest, payload: ExperimentIn) -> object:
    """Its images are frozen and its recipes made; `start` begins at once. Needs the role curator."""
    by = allow(request, "curate", "run")
    given = payload.dict()
    stage, racing = given.pop("start"), given.pop("racing")
    collection = collection_named(given.pop("collection"))
    made = experiments.create_experiment(collection, given.pop("axes"), **{**given, "base": str(given["base"])}, by=by)
    if stage:
        experiments.start(made, stage=stage, racing=racing)
    return Status(201, shown(find(made.pk)))


@router.post("/from-runs", response={201: ExperimentOut}, summary="Compare past runs", operation_id="compare_runs")
def compare_runs(request: HttpRequest, payload: RunsIn) -> object:
    """Puts runs beside each other; nothing is computed. Needs the role curator."""
    by = allow(request, "curate", "run")
    there = Run.objects.select_related("collection", "recipe").in_bulk(payload.runs)
    if missing := [pk for pk in payload.runs if pk not in there]:
        raise ValidationError({"runs": f"There is no run {missing[0]}."})
    chosen = [there[pk] for pk in payload.runs]
    baseline = None
    if payload.baseline is not None:
        collection = chosen[0].collection if chosen else None
        try:
            baseline = labels.find_recipe(str(payload.baseline), collection=collection)
        except labels.UnknownLabel as e:
            raise ValidationError({"baseline": str(e)}) from None
    made = experiments.compare_runs(
        chosen, name=payload.name, question=payload.question, baseline=baseline, margin=payload.margin, by=by
    )
    return Status(201, shown(find(made.pk)))


@router.get("/{int:experiment_id}", response=ExperimentOut, summary="One experiment", operation_id="get_experiment")
def get_experiment(request: HttpRequest, experiment_id: int) -> object:
    """State, progress, recipes and what the controller decided."""
    allow(request, "read")
    return shown(find(experiment_id))


@router.delete(
    "/{int:experiment_id}",
    response={204: None, 409: Problem},
    summary="Delete an experiment",
    operation_id="delete_experiment",
)
def delete_experiment(request: HttpRequest, experiment_id: int) -> object:
    """The comparison goes; runs, results and decisions stay. Needs the role curator."""
    allow(request, "curate", "run")
    with _conflicts():
        experiments.delete_experiment(find(experiment_id))
    return Status(204, None)


class _conflicts:
    """NotNow as 409."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, NotNow):
            raise Conflict(str(error)) from None


@router.post(
    "/{int:experiment_id}/start",
    response={200: ExperimentOut, 409: Problem},
    summary="Start, or go on to a larger stage",
    operation_id="start_experiment",
)
def start_experiment(request: HttpRequest, experiment_id: int, payload: StartIn) -> object:
    """smoke: 5 images, screen: 30, full: all. What is done is not done again. Needs the role curator."""
    allow(request, "curate", "run")
    with _conflicts():
        experiments.start(find(experiment_id), stage=payload.stage, racing=payload.racing)
    return shown(find(experiment_id))


def _verb(name: str, summary: str, act: Callable[[Experiment], Any], doc: str) -> None:
    def view(request: HttpRequest, experiment_id: int) -> object:
        allow(request, "curate", "run")
        with _conflicts():
            act(find(experiment_id))
        return shown(find(experiment_id))

    view.__name__, view.__doc__ = f"{name}_experiment", f"{doc} Needs the role curator."
    router.post(
        f"/{{int:experiment_id}}/{name}",
        response={200: ExperimentOut, 409: Problem},
        summary=summary,
        operation_id=f"{name}_experiment",
    )(view)


_verb("pause", "Pause an experiment", lambda e: experiments.pause(e), "Workers put its runs down within a second.")
_verb("resume", "Resume an experiment", lambda e: experiments.resume(e), "It goes on where it was paused.")
_verb("stop", "Stop an experiment", lambda e: experiments.stop(e), "What is done stays and is compared.")


@router.get(
    "/{int:experiment_id}/leaderboard",
    response=dict[str, Any],
    summary="Leaderboard",
    operation_id="get_leaderboard",
)
def get_leaderboard(request: HttpRequest, experiment_id: int) -> object:
    """Each recipe's metrics and its standing against the baseline: difference with 95 % interval, Holm's p, the chance
    of being best, and better, worse, equivalent or not enough images (about `more` more)."""
    allow(request, "read")
    return boards.board(find(experiment_id))


@router.get(
    "/{int:experiment_id}/leaderboard.csv",
    response=str,
    summary="Leaderboard as a table",
    operation_id="get_leaderboard_csv",
)
def get_leaderboard_csv(request: HttpRequest, experiment_id: int) -> object:
    """A line for each recipe, with its key."""
    allow(request, "read")
    experiment = find(experiment_id)
    found = boards.board(experiment)
    return _file(_csv(boards.table(found)), f"experiment-{experiment_id}-leaderboard.csv", "text/csv; charset=utf-8")


@router.get(
    "/{int:experiment_id}/cells",
    response=str,
    summary="Every cell: recipe, image, what was proposed and decided",
    operation_id="list_cells",
)
def list_cells(
    request: HttpRequest,
    experiment_id: int,
    format: Literal["jsonl", "csv"] = Query("jsonl", description="A JSON object a line, or a table."),
) -> object:
    """One line for each recipe, sample and image, with the key of the recipe and of the prediction, the fate of each
    tag and whether a person found it right. Streamed."""
    allow(request, "read")
    experiment = find(experiment_id)
    name = f"experiment-{experiment_id}-cells.{format}"
    if format == "csv":
        return _file(_csv(columns(cells(experiment))), name, "text/csv; charset=utf-8")
    lines = (json.dumps(cell, ensure_ascii=False) + "\n" for cell in cells(experiment))
    return _file(lines, name, "application/x-ndjson; charset=utf-8")


def _file(lines: Iterator[str], name: str, kind: str) -> StreamingHttpResponse:
    response = StreamingHttpResponse((line.encode() for line in lines), content_type=kind)
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def _csv(given: Iterator[list[Any]]) -> Iterator[str]:
    """Lines of a table. Cells that a spreadsheet would take for a formula are quoted by an apostrophe."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    for row in given:
        writer.writerow(
            [f"'{v}" if isinstance(v, str) and v[:1] in ("=", "+", "-", "@", "\t", "\r") else v for v in row]
        )
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
