"""/api/exports/{id}/entries, apply, undo: exports that write beside the images."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from ninja import Schema, Status
from pydantic import Field

from tagging.api.auth import allow
from tagging.api.errors import Conflict, Problem
from tagging.api.listing import Cursor, Limit, Listing, by_id
from tagging.api.router import Router
from tagging.models import Collection, Recipe

from . import changes, in_place
from .models import ExportEntry, ExportJob

router = Router(tags=["exports"])
KINDS_SAID = "One of: " + ", ".join(in_place.KINDS) + "."


class EntryWordOut(Schema):
    name: str
    kind: Literal["added", "removed", "withheld", "kept"]
    why: str
    paths: list[str] = Field(description='Places in the hierarchy, levels joined by " › ".')
    fields: list[str]


class EntryTextOut(Schema):
    field: str
    before: str
    after: str


class EntryOut(Schema):
    id: int
    image: int | None
    target: str = Field(description="Absolute path of the file.")
    action: Literal["create", "update", "refuse"]
    state: Literal["planned", "writing", "done", "skipped", "failed", "refused", "undone"]
    selected: bool
    words: list[EntryWordOut]
    texts: list[EntryTextOut]
    notes: list[str]
    error: str = Field(description="Why it was refused, skipped, or failed, or could not be undone.")
    sha_before: str = Field(description="SHA-256 when it was planned; empty where there was no file.")
    sha_after: str = Field(description="SHA-256 of what was written.")
    at: datetime

    @staticmethod
    def resolve_image(entry: ExportEntry) -> int | None:
        return entry.image_id

    @staticmethod
    def resolve_words(entry: ExportEntry) -> list[Any]:
        return changes.words(entry.fields)

    @staticmethod
    def resolve_texts(entry: ExportEntry) -> list[Any]:
        return changes.texts(entry.fields)


class EntryList(Listing[EntryOut]):
    pass


class EntrySelectIn(Schema):
    selected: bool
    ids: list[int] | None = Field(None, max_length=1000, description="Empty means all of `kind`.")
    kind: str = Field("", description=KINDS_SAID)

    model_config = {"extra": "forbid"}


class EntrySelectOut(Schema):
    changed: int
    summary: dict[str, Any]


class ExportUndoIn(Schema):
    entries: list[int] | None = Field(
        None, max_length=in_place.AT_ONCE, description="Only these, now; without, all in the background."
    )
    recipe: int | None = Field(None, description="Only what this recipe proposed.")

    model_config = {"extra": "forbid"}


class ExportUndoneOut(Schema):
    undone: int
    problems: list[str] = Field(description="What could not be undone and why.")


class ExportStepOut(Schema):
    id: int
    state: str
    step: str
    summary: dict[str, Any]


@router.get(
    "/{export_id}/entries",
    response=EntryList,
    summary="What an export means to write, file by file",
    operation_id="list_export_entries",
)
def list_entries(
    request: HttpRequest, export_id: int, kind: str = "", cursor: Cursor = "", limit: Limit = 50
) -> object:
    """Word by word with the reason, in the order of writing. `kind` narrows it, see `summary` of the export."""
    allow(request, "read")
    return by_id(in_place.entries_of(_job(export_id), kind), cursor, limit, newest_first=False)


@router.patch(
    "/{export_id}/entries",
    response={200: EntrySelectOut, 409: Problem},
    summary="Tick or untick files of a plan",
    operation_id="select_export_entries",
)
def select_entries(request: HttpRequest, export_id: int, payload: EntrySelectIn) -> object:
    """Unticked files are not written. 409 once the plan no longer waits. Needs the role curator."""
    allow(request, "curate", "run")
    job = _job(export_id)
    try:
        changed = in_place.select(job, payload.selected, ids=payload.ids, kind=payload.kind)
    except in_place.NotNow as e:
        raise Conflict(str(e)) from None
    return {"changed": changed, "summary": job.summary}


@router.post(
    "/{export_id}/apply",
    response={202: ExportStepOut, 409: Problem},
    summary="Write what was planned",
    operation_id="apply_export",
)
def apply(request: HttpRequest, export_id: int) -> object:
    """Exactly the ticked entries, in the background; a file that changed since is skipped and says so. Also goes on
    after a stop or a failure. Needs the role curator."""
    allow(request, "curate", "run")
    try:
        return 202, in_place.apply(_job(export_id))
    except in_place.NotNow as e:
        raise Conflict(str(e)) from None


@router.post(
    "/{export_id}/undo",
    response={200: ExportUndoneOut, 202: ExportStepOut, 409: Problem},
    summary="Take back what was written",
    operation_id="undo_export",
)
def undo(request: HttpRequest, export_id: int, payload: ExportUndoIn) -> object:
    """Every byte where nobody wrote since, else only our words. Needs the role curator."""
    allow(request, "curate", "run")
    job = _job(export_id)
    if payload.entries is not None and payload.recipe is not None:
        raise ValidationError({"recipe": "Name entries or a recipe, not both."})
    try:
        if payload.entries is None:
            return 202, in_place.undo(job, recipe=payload.recipe)
        undone, problems = in_place.undo_entries(job, payload.entries)
    except in_place.NotNow as e:
        raise Conflict(str(e)) from None
    return 200, {"undone": undone, "problems": problems}


@router.post(
    "/recipes/{recipe_id}/undo",
    response={202: list[ExportStepOut], 404: Problem, 409: Problem},
    summary="Take back everything by one recipe",
    operation_id="undo_exports_of_recipe",
)
def undo_recipe(request: HttpRequest, recipe_id: int, collection: str = "") -> object:
    """In every export (or those of one collection, by its slug) that has something by it in force, newest first, in the
    background; the jobs. 409 when there is nothing, or one of them is at work. Needs the role curator."""
    allow(request, "curate", "run")
    get_object_or_404(Recipe, pk=recipe_id)
    only = Collection.objects.filter(slug=collection).first() if collection else None
    if collection and only is None:
        raise ValidationError({"collection": f"There is no collection {collection!r}."})
    try:
        return Status(202, in_place.undo_recipe(recipe_id, only))
    except in_place.NotNow as e:
        raise Conflict(str(e)) from None


def _job(export_id: int) -> ExportJob:
    return get_object_or_404(ExportJob.objects.select_related("collection"), pk=export_id)
