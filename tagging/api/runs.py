"""/api/runs: start, watch, stop; and what they proposed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Literal

from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from ninja import Schema, Status
from pydantic import Field

from prompts.models import PromptVersion

from ..actions import labels, presets, recipes, runs
from ..actions.costs import run_cost
from ..engine.progress import progress
from ..filters import ImageFilter
from ..models import Collection, ImageAsset, ModelAdapter, OptionPreset, Proposal, Recipe, Run
from ..queries import filtered
from .auth import allow
from .collections import collection_of
from .errors import Conflict, Problem
from .listing import Cursor, Limit, Listing, by_id
from .presets import preset_of
from .proposals import ProposalOut
from .router import Router

router = Router(tags=["runs"])


class Counts(Schema):
    ok: int
    empty: int = Field(description="The model had nothing to say.")
    error: int
    cached: int = Field(description="Of ok and empty, those found without running the model.")
    fallback: int = Field(0, description="Images whose merging model gave nothing usable: the weighted union stands.")
    waiting: int


class StageOut(Schema):
    """One stage of a run with several channels."""

    stage: int = Field(description="Position of the channel; the last one combines them.")
    done: int
    total: int
    error: int
    skipped: int = Field(description="Images that a cascade needed not ask about.")
    cached: int
    rate: float | None


class RunOut(Schema):
    id: int
    name: str
    collection: str | None
    recipe: int
    state: str
    phase: str = Field(description="What a worker is doing for it now.")
    error: str
    shown: bool
    purpose: str = Field(description="tagging, trial (of the workbench) or experiment.")
    sample: int = Field(description="Which answer of several to the same question.")
    priority: int
    provider: str = Field(description="What really computes.")
    load_seconds: float | None
    budget: float | None = Field(description="What it may cost; it pauses there.")
    spent: float = Field(description="What its own calls cost; what was known from before is free.")
    currency: str
    tokens_in: int
    tokens_out: int
    total: int
    done: int
    counts: Counts
    stages: list[StageOut] = Field(description="One by one, where the recipe has several channels.")
    rate: float | None = Field(description="Images a second.")
    eta_seconds: float | None
    created_by: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class RunList(Listing[RunOut]):
    pass


class ProposalList(Listing[ProposalOut]):
    pass


class RunImages(Schema):
    """Which images of the collection; as the filters of /api/images. All usable ones when it is left out."""

    review: Literal["", "unreviewed", "skipped", "reviewed"] = ""
    run: int | None = None
    tag: list[str] = []
    not_tag: list[str] = []
    min_score: float | None = None
    max_score: float | None = None
    rating: str = ""
    errors: bool = False
    q: str = ""

    model_config = {"extra": "forbid"}


class RunIn(Schema):
    collection: str = Field(description="Its slug.")
    recipe: int | str | None = Field(
        None, description="A recipe that exists: its id, or a label ([task/]name[@model]) that applies here. Or:"
    )
    adapter: str | None = Field(None, description="slug of an adapter, from which a recipe is made.")
    prompt_version: int | None = Field(None, description="With `adapter`, where it takes a prompt.")
    options: dict[str, Any] = Field({}, description="With `adapter`; those left out take its own.")
    preset: int | None = Field(None, description="With `adapter`: a saved preset, over which `options` go.")
    images: RunImages | None = None
    name: str = Field("", max_length=160)
    shown: bool | None = Field(
        None, description="Its proposals are shown for review as they come. Left out: for tagging they are."
    )
    purpose: Literal["tagging", "trial", "experiment"] = Field(
        "tagging", description="The others are left out of lists of runs."
    )
    read: Literal["original", "proxy"] = Field(
        "original",
        description="With `adapter`: the pixels that the model gets. The proxy is the 1,024 px rendition made at "
        "indexing: much less decoding, nearly the same answer; an image without one is read from its original.",
    )
    sample: int = Field(0, ge=0, le=999, description="Another number asks a model that varies once more.")
    variables: dict[str, str | int | float | bool] = Field(
        {}, description="With `adapter`: values of the prompt's free variables."
    )
    priority: int = Field(0, ge=-1000, le=1000)
    budget: float | None = Field(
        None, gt=0, description="What it may cost, in the currency of its model's prices; it pauses there."
    )

    model_config = {"extra": "forbid"}


class BudgetIn(Schema):
    budget: float | None = Field(gt=0, description="null: no limit.")

    model_config = {"extra": "forbid"}


class CostOut(Schema):
    calls: int = Field(description="Answers that the run asked for itself.")
    unpriced: int = Field(description="Of these, those whose model had no price.")
    tokens_in: int
    tokens_out: int
    money: dict[str, float] = Field(description="Currency → amount.")


def _shown(rows: Sequence[Run]) -> list[dict[str, Any]]:
    """One query for the progress of all."""
    found = progress(rows)
    names = (
        "id",
        "name",
        "state",
        "phase",
        "phase_seconds",
        "error",
        "shown",
        "purpose",
        "sample",
        "priority",
        "provider",
        "load_seconds",
        "budget",
        "spent",
        "currency",
        "tokens_in",
        "tokens_out",
    )
    times = ("created_at", "started_at", "finished_at")
    shown = []
    for run in rows:
        p = found[run.pk]
        counts = {
            "ok": p.ok,
            "empty": p.empty,
            "error": p.error,
            "cached": p.cached,
            "fallback": p.fallback,
            "waiting": p.left,
        }
        shown.append(
            {
                **{name: getattr(run, name) for name in (*names, *times)},
                "collection": run.collection.slug if run.collection else None,
                "recipe": run.recipe_id,
                "total": p.total,
                "done": p.done,
                "counts": counts,
                "stages": [{name: getattr(stage, name) for name in StageOut.model_fields} for stage in p.stages],
                "rate": p.rate,
                "eta_seconds": p.eta_seconds,
                "created_by": run.created_by.get_username() if run.created_by else None,
            }
        )
    return shown


def _run(run_id: int) -> Run:
    run = _runs().filter(pk=run_id).first()
    if run is None:
        raise Run.DoesNotExist(f"There is no run {run_id}.")
    return run


def _runs() -> QuerySet[Run]:
    return Run.objects.select_related("collection", "created_by")


@router.get("", response=RunList, summary="List runs", operation_id="list_runs")
def list_runs(
    request: HttpRequest,
    collection: str = "",
    state: Literal["", "running", "paused", "cancelled", "done", "failed"] = "",
    purpose: Literal["tagging", "trial", "experiment", "any"] = "tagging",
    cursor: Cursor = "",
    limit: Limit = 20,
) -> object:
    """Newest first. Trials of the workbench and runs of experiments only where `purpose` asks for them."""
    allow(request, "read")
    rows = _runs() if purpose == "any" else _runs().filter(purpose=purpose)
    rows = rows.filter(collection=collection_of(collection)) if collection else rows
    found = by_id(rows.filter(state=state) if state else rows, cursor, limit)
    return {**found, "items": _shown(found["items"])}


@router.post("", response={201: RunOut}, summary="Start a run", operation_id="start_run")
def start_run(request: HttpRequest, payload: RunIn) -> object:
    """The list of images is frozen now; workers begin at once. Needs the role curator."""
    by = allow(request, "curate", "run")
    collection = Collection.objects.filter(slug=payload.collection).first()
    if collection is None:
        raise ValidationError({"collection": f"There is no collection {payload.collection!r}."})
    images = _images(collection, payload.images) if payload.images else None
    run = runs.start_run(
        _recipe(payload, collection, by),
        collection=collection,
        images=images,
        name=payload.name,
        shown=payload.shown,
        purpose=payload.purpose,
        sample=payload.sample,
        priority=payload.priority,
        budget=payload.budget,
        by=by,
    )
    return Status(201, _shown([_run(run.pk)])[0])


def _images(collection: Collection, given: RunImages) -> QuerySet[ImageAsset]:
    try:
        chosen = filtered(collection, ImageFilter.parse(given.dict()))
    except ValidationError as e:
        raise ValidationError({f"images.{name}": messages for name, messages in e.message_dict.items()}) from None
    return chosen.filter(state=ImageAsset.State.READY)


def _recipe(payload: RunIn, collection: Collection, by: Any) -> Recipe:
    if (payload.recipe is None) == (payload.adapter is None):
        raise ValidationError({"recipe": "Name either a recipe or an adapter."})
    if payload.recipe is not None:
        for name in ("prompt_version", "options", "preset", "variables", "read"):
            if getattr(payload, name) not in (None, {}, "original"):
                raise ValidationError({name: "A recipe has its own: give this with an adapter only."})
        try:
            return labels.find_recipe(str(payload.recipe), collection=collection)
        except labels.UnknownLabel as e:
            raise ValidationError({"recipe": str(e)}) from None
    adapter = ModelAdapter.objects.filter(slug=payload.adapter).first()
    if adapter is None:
        raise ValidationError({"adapter": f"There is no adapter {payload.adapter!r}."})
    prompt = None
    if payload.prompt_version is not None:
        prompt = PromptVersion.objects.filter(pk=payload.prompt_version).first()
        if prompt is None:
            raise ValidationError({"prompt_version": f"There is no prompt version {payload.prompt_version}."})
    options = payload.options
    if payload.preset is not None:
        try:
            options = presets.apply_preset(adapter, preset_of(payload.preset, by), options)
        except OptionPreset.DoesNotExist as e:
            raise ValidationError({"preset": str(e)}) from None
    try:
        channel = recipes.ChannelSpec(adapter, prompt, options, variables=payload.variables, read=payload.read)
        return recipes.get_recipe([channel], by=by)
    except ValidationError as e:
        named = {"prompt_version" if n == "prompt" else n: messages for n, messages in e.message_dict.items()}
        raise ValidationError(named) from None


@router.get("/{int:run_id}", response=RunOut, summary="One run", operation_id="get_run")
def get_run(request: HttpRequest, run_id: int) -> object:
    """State, counts, rate and time left."""
    allow(request, "read")
    return _shown([_run(run_id)])[0]


@router.get("/{int:run_id}/proposals", response=ProposalList, summary="What it proposed", operation_id="list_proposals")
def list_proposals(
    request: HttpRequest,
    run_id: int,
    state: Literal["", "ok", "empty", "error"] = "",
    cursor: Cursor = "",
    limit: Limit = 50,
) -> object:
    """In the order they came, each with the fate of every tag and the reason."""
    allow(request, "read")
    rows = Proposal.objects.filter(run=_run(run_id)).select_related("image")
    return by_id(rows.filter(state=state) if state else rows, cursor, limit, newest_first=False)


@router.get("/{int:run_id}/cost", response=CostOut, summary="What it cost", operation_id="get_run_cost")
def get_run_cost(request: HttpRequest, run_id: int) -> object:
    """Counted from its predictions, in each currency; what it took from earlier answers cost nothing."""
    allow(request, "read")
    found = run_cost(_run(run_id))
    return {
        "calls": found.calls,
        "unpriced": found.unpriced,
        "tokens_in": found.tokens_in,
        "tokens_out": found.tokens_out,
        "money": dict(found.money),
    }


@router.post(
    "/{int:run_id}/budget",
    response={200: RunOut, 409: Problem},
    summary="Set a run's budget",
    operation_id="set_run_budget",
)
def set_run_budget(request: HttpRequest, run_id: int, payload: BudgetIn) -> object:
    """What it may cost in all, spent so far included. A run that paused for its budget goes on when it is resumed.
    Needs the role curator."""
    allow(request, "curate", "run")
    try:
        runs.set_budget(_run(run_id), payload.budget)
    except runs.NotNow as e:
        raise Conflict(str(e)) from None
    return _shown([_run(run_id)])[0]


def _verb(name: str, summary: str, act: Callable[[Run], Any], doc: str) -> None:
    """POST /runs/{id}/<name>, answering with the run as it is then."""

    def view(request: HttpRequest, run_id: int) -> object:
        allow(request, "curate", "run")
        try:
            act(_run(run_id))
        except runs.NotNow as e:
            raise Conflict(str(e)) from None
        return _shown([_run(run_id)])[0]

    view.__name__, view.__doc__ = f"{name}_run", f"{doc} Needs the role curator."
    path = f"/{{int:run_id}}/{name}"
    router.post(path, response={200: RunOut, 409: Problem}, summary=summary, operation_id=f"{name}_run")(view)


_verb("pause", "Pause a run", lambda run: runs.pause(run), "Workers let go within a second.")
_verb("resume", "Resume a run", lambda run: runs.resume(run), "A paused run goes on where it was.")
_verb("cancel", "Cancel a run", lambda run: runs.cancel(run), "What it proposed so far stays.")
_verb("retry", "Retry what failed", lambda run: runs.retry_failed(run), "Only the images that ended in an error.")
