"""/api/overnight: searches for the best recipe within a time and an amount of money."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.http import HttpRequest
from ninja import Schema, Status
from pydantic import Field

from tagging.actions.runs import NotNow
from tagging.api.auth import allow
from tagging.api.errors import Conflict, Problem
from tagging.api.listing import Cursor, Limit, Listing, by_id
from tagging.api.router import Router

from ..actions import overnight as actions
from ..models import OvernightSearch
from .experiments import collection_named

router = Router(tags=["experiments"])


class RoundOut(Schema):
    number: int
    kind: str = Field(description="search, or check: the last one, on images that no other round has.")
    experiment: int
    state: str
    note: str
    outcome: dict[str, Any] | None = Field(description="Each recipe with its figures, once the round is closed.")


class SearchOut(Schema):
    id: int
    name: str
    collection: str
    state: str
    base: int = Field(description="Recipe to beat.")
    best: int = Field(description="The best so far, on the images searched on.")
    images: int
    seconds: int = Field(description="Working time it may take.")
    used_seconds: float
    money: float | None
    spent: float
    currency: str
    axes: dict[str, Any]
    log: list[dict[str, Any]]
    verdict: str = Field(description="What came of it, in words. Nothing is promoted: see /experiments/{id}/promote.")
    error: str
    rounds: list[RoundOut]
    created_at: datetime
    finished_at: datetime | None


class SearchList(Listing[SearchOut]):
    pass


class SearchIn(Schema):
    collection: str = Field(description="Its slug.")
    axes: dict[str, Any] = Field(description="What may vary: adapters, prompts, options, policies, as for experiments.")
    hours: float
    money: float | None = Field(None, description="In the currency of the models' prices; null: no limit.")
    base: str | int = Field("", description="Recipe to beat: id, label or key. Empty: the champion.")
    name: str = ""
    filter: str = "review=reviewed"
    sample: int | None = None
    seed: int = 0
    holdout: float = Field(actions.HOLDOUT, description="Share of the images kept for the last check, 0.1 to 0.5.")
    margin: float = 0.02

    model_config = {"extra": "forbid"}


def shown(search: OvernightSearch) -> dict[str, Any]:
    return {
        "id": search.pk,
        "name": search.name,
        "collection": search.collection.slug,
        "state": search.state,
        "base": search.base_id,
        "best": search.best_id,
        "images": search.n_images,
        "seconds": search.seconds,
        "used_seconds": round(search.used(), 1),
        "money": None if search.money is None else float(search.money),
        "spent": search.spent,
        "currency": search.currency,
        "axes": search.axes,
        "log": search.log,
        "verdict": search.verdict,
        "error": search.error,
        "rounds": [
            {
                "number": r.number,
                "kind": r.kind,
                "experiment": r.experiment_id,
                "state": r.experiment.state,
                "note": r.note,
                "outcome": r.outcome,
            }
            for r in search.rounds.all()
        ],
        "created_at": search.created_at,
        "finished_at": search.finished_at,
    }


def find(pk: int) -> OvernightSearch:
    found = _rows().filter(pk=pk).first()
    if found is None:
        raise OvernightSearch.DoesNotExist(f"There is no search {pk}.")
    return found


def _rows() -> Any:
    rows = OvernightSearch.objects.select_related("collection").prefetch_related("rounds__experiment")
    return rows.defer("image_ids", "sha256s", "holdout")


@router.get("", response=SearchList, summary="List searches", operation_id="list_searches")
def list_searches(request: HttpRequest, collection: str = "", cursor: Cursor = "", limit: Limit = 20) -> object:
    """Newest first."""
    allow(request, "read")
    rows = _rows().filter(collection=collection_named(collection)) if collection else _rows()
    page = by_id(rows, cursor, limit)
    return {**page, "items": [shown(search) for search in page["items"]]}


@router.post("", response={201: SearchOut}, summary="Begin a search", operation_id="start_search")
def start_search(request: HttpRequest, payload: SearchIn) -> object:
    """Rounds of experiments around the best recipe so far, within both budgets; at the end a check of the finalists on
    images that no round has seen. It moves no label. Needs the role curator."""
    by = allow(request, "curate", "run")
    given = payload.dict()
    collection = collection_named(given.pop("collection"))
    made = actions.start_search(collection, given.pop("axes"), **{**given, "base": str(given["base"])}, by=by)
    return Status(201, shown(find(made.pk)))


@router.get("/{int:search_id}", response=SearchOut, summary="One search", operation_id="get_search")
def get_search(request: HttpRequest, search_id: int) -> object:
    """State, budgets, rounds with their figures, and what came of it."""
    allow(request, "read")
    return shown(find(search_id))


def _verb(name: str, summary: str, act: Callable[[OvernightSearch], Any], doc: str) -> None:
    def view(request: HttpRequest, search_id: int) -> object:
        allow(request, "curate", "run")
        try:
            act(find(search_id))
        except NotNow as error:
            raise Conflict(str(error)) from None
        return shown(find(search_id))

    view.__name__, view.__doc__ = f"{name}_search", f"{doc} Needs the role curator."
    router.post(
        f"/{{int:search_id}}/{name}",
        response={200: SearchOut, 409: Problem},
        summary=summary,
        operation_id=f"{name}_search",
    )(view)


_verb("pause", "Pause a search", actions.pause, "Its clock stands still.")
_verb("resume", "Resume a search", actions.resume, "It goes on where it was paused.")
_verb("stop", "Stop a search", actions.stop, "No more rounds and no last check; what was found stays.")
