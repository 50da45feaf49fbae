"""/api/collections/{slug}/watch: what a collection does by itself."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.http import HttpRequest
from ninja import Path, Schema, Status
from pydantic import Field

from .. import watching
from ..actions import runs, watch
from ..models import Watch
from .auth import allow
from .collections import collection_of
from .errors import Conflict, Problem
from .router import Router

router = Router(tags=["collections"])


class WatchOut(Schema):
    collection: str
    active: bool = Field(description="Something is done by itself: not paused, and a step is on.")
    paused: bool
    look: bool = Field(description="Look for new files.")
    tag: bool = Field(description="Run the recipe on images that it has not seen.")
    interval_seconds: int
    settle_seconds: int = Field(description="Files that changed within these seconds are left for the next look.")
    recipe: str = Field(description="A label ([task/]name[@model]) or a recipe's number.")
    steps: dict[str, dict[str, Any]] = Field(description='Settings of further steps: "gate", "export".')
    last_looked_at: datetime | None
    next_look_at: datetime | None = Field(description="Empty when there will be none, and before the first.")
    last_result: dict[str, dict[str, Any]] = Field(description="By step: at, text, error.")


class WatchIn(Schema):
    """What is left out stays as it is."""

    paused: bool | None = None
    look: bool | None = None
    tag: bool | None = None
    interval_seconds: int | None = None
    settle_seconds: int | None = None
    recipe: str | None = Field(None, max_length=140)
    steps: dict[str, dict[str, Any]] = Field(
        {},
        description='E.g. {"gate": {"enabled": true, "max_cost": 2.5}, "export": {"enabled": true, "format": "csv"}}.',
    )

    model_config = {"extra": "forbid"}


def _shown(row: Watch) -> dict[str, Any]:
    names = ("active", "paused", "look", "tag", "interval_seconds", "settle_seconds", "recipe", "last_looked_at")
    return {
        **{name: getattr(row, name) for name in names},
        "collection": row.collection.slug,
        "next_look_at": row.next_look,
        "steps": {name: row.steps.get(name, {"enabled": False}) for name in watching.steps()},
        "last_result": {
            name: {key: result.get(key, "") for key in ("at", "text", "error")}
            for name, result in row.last_result.items()
        },
    }


@router.get("", response={200: WatchOut, 404: Problem}, summary="What it does by itself", operation_id="get_watch")
def get_watch(request: HttpRequest, slug: Path[str]) -> object:
    """State, times, and what each step did last. A collection without settings does nothing by itself."""
    allow(request, "read")
    return _shown(watch.watch_of(collection_of(slug)))


@router.put("", response={200: WatchOut, 404: Problem}, summary="Change what it does", operation_id="set_watch")
def set_watch(request: HttpRequest, slug: Path[str], payload: WatchIn) -> object:
    """Every step is off until it is switched on. Needs the role curator."""
    by = allow(request, "curate", "write")
    given = {name: value for name, value in payload.dict(exclude={"steps"}).items() if value is not None}
    collection = collection_of(slug)
    watch.configure(collection, {**given, **payload.steps}, by=by)
    return _shown(watch.watch_of(collection))


@router.post(
    "/look",
    response={202: WatchOut, 404: Problem, 409: Problem},
    summary="Do it all now",
    operation_id="look_now",
)
def look_now(request: HttpRequest, slug: Path[str]) -> object:
    """A worker does all steps at once, whatever the interval says. 409 while it is paused. Needs the role curator."""
    allow(request, "curate", "run")
    row = watch.watch_of(collection_of(slug))
    if row.pk is None:
        raise Conflict("This collection has no watch yet: change its settings first.")
    try:
        watch.look_now(row)
    except runs.NotNow as e:
        raise Conflict(str(e)) from None
    return Status(202, _shown(watch.watch_of(row.collection)))
