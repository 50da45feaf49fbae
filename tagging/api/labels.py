"""/api/labels: names that point to recipes, their moves and the way back."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from ninja import Schema, Status
from pydantic import Field

from ..actions import labels
from ..models import Collection, Label, LabelEvent, ModelAdapter
from .auth import allow
from .listing import Cursor, Limit, Listing, by_id
from .router import Router

router = Router(tags=["labels"])


class LabelOut(Schema):
    id: int
    name: str
    task: str = Field(description="Empty: any task.")
    adapter: str | None = Field(description="Empty: any model.")
    collection: str | None = Field(description="Empty: everywhere.")
    reference: str = Field(description="What to write where a recipe is asked for: [task/]name[@model].")
    recipe: int
    moved_at: datetime

    @staticmethod
    def resolve_adapter(row: Label) -> str | None:
        return row.adapter.slug if row.adapter else None

    @staticmethod
    def resolve_collection(row: Label) -> str | None:
        return row.collection.slug if row.collection else None

    @staticmethod
    def resolve_recipe(row: Label) -> int:
        return row.recipe_id


class LabelEventOut(Schema):
    id: int
    label: LabelOut
    from_recipe: int | None
    to_recipe: int
    why: str
    metrics: dict[str, Any] = Field(description="What was measured of the new recipe at that time.")
    back_to: int | None = Field(description="The event that this one restored.")
    by: str | None
    at: datetime

    @staticmethod
    def resolve_from_recipe(row: LabelEvent) -> int | None:
        return row.from_recipe_id

    @staticmethod
    def resolve_to_recipe(row: LabelEvent) -> int:
        return row.to_recipe_id

    @staticmethod
    def resolve_back_to(row: LabelEvent) -> int | None:
        return row.back_to_id

    @staticmethod
    def resolve_by(row: LabelEvent) -> str | None:
        return row.by.get_username() if row.by else None


class LabelIn(Schema):
    name: str = Field(max_length=40, description="champion, candidate, baseline, or another.")
    recipe: int | str = Field(description="A recipe's id, or a label that points to it.")
    why: str = Field(max_length=labels.WHY_LENGTH)
    task: Literal["", "tags", "caption"] = ""
    adapter: str | None = Field(None, description="slug of a model: the label is only for recipes with it.")
    collection: str | None = Field(None, description="slug of a collection: the label applies only there.")
    metrics: dict[str, Any] = Field({}, description="What you measured, kept beside what iwtag knows of the recipe.")

    model_config = {"extra": "forbid"}


class BackIn(Schema):
    why: str = Field("", max_length=labels.WHY_LENGTH)

    model_config = {"extra": "forbid"}


class LabelList(Listing[LabelOut]):
    pass


class LabelEventList(Listing[LabelEventOut]):
    pass


def _events() -> QuerySet[LabelEvent]:
    return LabelEvent.objects.select_related("label__adapter", "label__collection", "to_recipe", "by")


@router.get("", response=LabelList, summary="List labels", operation_id="list_labels")
def list_labels(
    request: HttpRequest,
    name: str = "",
    collection: str = "",
    adapter: str = "",
    cursor: Cursor = "",
    limit: Limit = 50,
) -> object:
    """In the order they were made; those of one name, collection (slug) or model (slug) only where named."""
    allow(request, "read")
    rows = Label.objects.select_related("adapter", "collection")
    for field, value in (("name", name), ("collection__slug", collection), ("adapter__slug", adapter)):
        rows = rows.filter(**{field: value}) if value else rows
    return by_id(rows, cursor, limit, newest_first=False)


@router.post("", response={201: LabelEventOut}, summary="Point a label at a recipe", operation_id="move_label")
def move_label(request: HttpRequest, payload: LabelIn) -> object:
    """The label is made where the scope has none of that name. Needs the role curator."""
    by = allow(request, "curate", "write")
    collection = _named(Collection, "collection", payload.collection)
    try:
        recipe = labels.find_recipe(str(payload.recipe), collection=collection)
    except labels.UnknownLabel as e:
        raise ValidationError({"recipe": str(e)}) from None
    event = labels.move_label(
        payload.name,
        recipe,
        why=payload.why,
        task=payload.task,
        adapter=_named(ModelAdapter, "adapter", payload.adapter),
        collection=collection,
        metrics=payload.metrics,
        by=by,
    )
    return Status(201, event)


def _named(model: Any, field: str, slug: str | None) -> Any:
    if slug is None:
        return None
    found = model.objects.filter(slug=slug).first()
    if found is None:
        raise ValidationError({field: f"There is no {field} {slug!r}."})
    return found


@router.get("/{int:label_id}/history", response=LabelEventList, summary="Moves of a label", operation_id="list_moves")
def history(request: HttpRequest, label_id: int, cursor: Cursor = "", limit: Limit = 50) -> object:
    """Newest first: who, when, why, and what was known then."""
    allow(request, "read")
    if not Label.objects.filter(pk=label_id).exists():
        raise Label.DoesNotExist(f"There is no label {label_id}.")
    return by_id(_events().filter(label=label_id), cursor, limit)


@router.post(
    "/events/{int:event_id}/back",
    response={201: LabelEventOut},
    summary="Go back to an earlier move",
    operation_id="back_to_move",
)
def back(request: HttpRequest, event_id: int, payload: BackIn) -> object:
    """The label points again where that move had pointed it: prompt, options, adapter, lists and policy together.
    That is a new move. Needs the role curator."""
    by = allow(request, "curate", "write")
    event = _events().filter(pk=event_id).first()
    if event is None:
        raise LabelEvent.DoesNotExist(f"There is no move {event_id}.")
    return Status(201, labels.back_to(event, why=payload.why, by=by))
