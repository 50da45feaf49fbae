"""/api/images and the decisions on them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal

from django.core.exceptions import ValidationError
from django.http import HttpRequest
from ninja import Query, Schema
from pydantic import BaseModel, Field, StrictInt, StrictStr

from ..actions import review
from ..actions.tags import resolve_tags
from ..filters import ImageFilter
from ..models import ImageAsset, ImageTag, Proposal, TagEdit
from ..queries import TagRow, filtered, page, tags_of
from .auth import allow
from .collections import collection_of
from .errors import Problem
from .listing import Cursor, Limit, Listing, TwoWay, by_id
from .proposals import ProposalOut
from .router import Router

router = Router(tags=["images"])
Id = StrictInt | StrictStr


class TagOn(BaseModel):
    """A tag of an image: proposed by the shown run, or a person's word (accepted, rejected, added).

    Not a ninja Schema: a page has thousands of these, and their attribute look-ups took most of its time.
    """

    id: int
    name: str
    category: str
    parent: str
    state: Literal["proposed", "accepted", "rejected", "added"]
    score: float | None
    run: int | None

    @staticmethod
    def of(row: TagRow) -> dict[str, Any]:
        return {
            "id": row.id,
            "name": row.name,
            "category": row.category,
            "parent": row.parent,
            "state": _STATES[row.state],
            "score": row.score,
            "run": row.run_id,
        }


_STATES = {state.value: state.label for state in ImageTag.State}


class ImageOut(Schema):
    id: int
    collection: str
    path: str
    sha256: str
    size: int = Field(description="Bytes.")
    format: str
    width: int
    height: int
    captured_at: datetime | None
    state: str
    error: str
    missing_since: datetime | None
    review_state: str
    reviewed_at: datetime | None
    reviewed_by: str | None
    caption: str
    caption_state: str
    rating: str
    rating_score: float | None = Field(description="Empty when a person set the rating.")
    proposal_state: str = Field(description="ok, empty or error of the run that is shown.")
    top_score: float | None
    priority: int
    tags: list[TagOn]

    @staticmethod
    def of(image: ImageAsset, slug: str, tags: list[TagRow]) -> dict[str, Any]:
        names = ImageOut.model_fields.keys() - {"collection", "tags", "reviewed_by"}
        by = image.reviewed_by.get_username() if image.reviewed_by else None
        return {
            **{n: getattr(image, n) for n in names},
            "collection": slug,
            "tags": [TagOn.of(tag) for tag in tags],
            "reviewed_by": by,
        }


class ImageDetail(ImageOut):
    orientation: int
    frames: int
    proposals: list[ProposalOut] = Field(description="Of the latest runs, newest first, at most 20.")


class ImageList(TwoWay[ImageOut]):
    pass


class ImageQuery(Schema):
    """The filters of the grid."""

    collection: str = Field(description="Its slug.")
    review: str = Field("", description="unreviewed, skipped or reviewed.")
    run: int | None = Field(None, description="Images of that run.")
    tag: list[str] = Field([], description="Names of tags in force; repeat it for all of them.")
    not_tag: list[str] = Field([], description="Names of tags that are not in force.")
    min_score: float | None = Field(None, description="Of the named tags, else of the highest of the image.")
    max_score: float | None = None
    rating: str = ""
    errors: bool = Field(False, description="Unreadable files and failed proposals.")
    missing: bool = Field(False, description="Vanished files; left out otherwise.")
    q: str = Field("", description="Text in the path.")
    sort: str = Field("", description="queue, id, -id, score, -score.")


class DecisionIn(Schema):
    """Tags by id or name. Either one verb for the whole image, or single decisions."""

    verb: Literal["accept", "reject", "skip"] | None = Field(
        None, description="For the whole image: all proposals that were seen."
    )
    seen: list[int] | None = Field(
        None, description="Ids of the tags in force when you looked. Others are then left alone and reported."
    )
    accept: list[Id] = Field([], description="These are right.")
    reject: list[Id] = Field([], description="These are wrong, and stay away.")
    clear: list[Id] = Field([], description="Take decisions back.")
    add: list[str] = Field([], description="Names; new ones are made.")
    caption: str | None = None
    rating: str | None = None
    review: Literal["unreviewed", "skipped", "reviewed"] | None = None

    model_config = {"extra": "forbid"}


class DecisionOut(Schema):
    batch: uuid.UUID | None = Field(description="Names the decision, for undo; empty when nothing changed.")
    edits: int
    changed_by_others: list[int] = Field(description="Tags that were not as `seen`, and that you did not speak of.")
    image: ImageOut


class EditOut(Schema):
    id: int
    kind: str
    tag: str | None
    before: Any
    after: Any
    batch: uuid.UUID
    undoes: int | None
    by: str | None
    door: str
    at: datetime

    @staticmethod
    def resolve_tag(edit: TagEdit) -> str | None:
        return edit.tag.name if edit.tag else None

    @staticmethod
    def resolve_by(edit: TagEdit) -> str | None:
        return edit.by.get_username() if edit.by else None

    @staticmethod
    def resolve_undoes(edit: TagEdit) -> int | None:
        return edit.undoes_id

    @staticmethod
    def resolve_before(edit: TagEdit) -> Any:
        return _readable(edit, edit.before)

    @staticmethod
    def resolve_after(edit: TagEdit) -> Any:
        return _readable(edit, edit.after)


class EditList(Listing[EditOut]):
    pass


class UndoIn(Schema):
    batch: uuid.UUID | None = Field(None, description="Empty: your last decision on this image.")

    model_config = {"extra": "forbid"}


class UndoneOut(Schema):
    batch: uuid.UUID | None = Field(description="Names the undo itself: undo it to redo.")
    edits: int
    images: list[int]
    skipped: list[int] = Field(description="Images on which something stayed: decided again since by somebody.")


def _readable(edit: TagEdit, value: Any) -> Any:
    return ImageTag.State(value).label if edit.kind == TagEdit.Kind.TAG and value is not None else value


def _image(image_id: int) -> ImageAsset:
    image = ImageAsset.objects.select_related("collection", "reviewed_by").filter(pk=image_id).first()
    if image is None:
        raise ImageAsset.DoesNotExist(f"There is no image {image_id}.")
    return image


def _with_tags(image: ImageAsset) -> dict[str, Any]:
    return ImageOut.of(image, image.collection.slug, tags_of([image.pk])[image.pk])


@router.get("", response=ImageList, summary="Images of a collection", operation_id="list_images")
def list_images(request: HttpRequest, filters: Query[ImageQuery], cursor: Cursor = "", limit: Limit = 50) -> object:
    """With their tags; filtered and sorted as in the grid. Pages cost the same at any depth."""
    allow(request, "read")
    collection = collection_of(filters.collection)
    images = filtered(collection, ImageFilter.parse(request.GET)).select_related("reviewed_by")
    found = page(images, cursor, limit)
    tags = tags_of(image.pk for image in found.items)
    return {
        "items": [ImageOut.of(image, collection.slug, tags[image.pk]) for image in found.items],
        "next_cursor": found.next_cursor,
        "prev_cursor": found.prev_cursor,
    }


@router.get("/{int:image_id}", response=ImageDetail, summary="One image", operation_id="get_image")
def get_image(request: HttpRequest, image_id: int) -> object:
    allow(request, "read")
    image = _image(image_id)
    proposals = Proposal.objects.filter(image=image).order_by("-pk").select_related("image")[:20]
    more = {"orientation": image.orientation, "frames": image.frames, "proposals": list(proposals)}
    return {**_with_tags(image), **more}


@router.get(
    "/{int:image_id}/decisions", response=EditList, summary="History of an image", operation_id="list_decisions"
)
def list_decisions(request: HttpRequest, image_id: int, cursor: Cursor = "", limit: Limit = 50) -> object:
    """Every change by a person, newest first; an undo is a change that names the one it undoes."""
    allow(request, "read")
    return by_id(TagEdit.objects.filter(image=_image(image_id)).select_related("tag", "by"), cursor, limit)


@router.post(
    "/{int:image_id}/decisions",
    response=DecisionOut,
    summary="Decide on an image",
    operation_id="decide",
)
def decide(request: HttpRequest, image_id: int, payload: DecisionIn) -> object:
    """Needs the role reviewer."""
    by = allow(request, "review", "write")
    single = payload.dict(exclude={"verb", "seen"}, exclude_defaults=True)
    if payload.verb and single:
        name = next(iter(single))
        raise ValidationError({name: f"The verb {payload.verb!r} speaks of the whole image: leave {name!r} out."})
    if payload.verb == "skip":
        done = review.skip_image(image_id, by=by, door="api")
    elif payload.verb:
        whole = review.accept_image if payload.verb == "accept" else review.reject_image
        done = whole(image_id, by=by, door="api", seen=payload.seen)
    else:
        for name in ("accept", "reject", "clear"):
            if name in single:
                single[name] = _tag_ids(single[name], name)
        done = review.decide(image_id, by=by, door="api", seen=payload.seen, **single)
    return {
        "batch": done.batch,
        "edits": done.edits,
        "changed_by_others": done.changed_by_others,
        "image": _with_tags(done.image),
    }


def _tag_ids(given: Iterable[Id], field: str) -> list[int]:
    names = [value for value in given if isinstance(value, str)]
    tags = resolve_tags(names, create=False, field=field) if names else {}
    for name in names:
        if name not in tags:
            raise ValidationError({field: f"There is no tag {name!r}."})
    return [tags[value].pk if isinstance(value, str) else value for value in given]


@router.post(
    "/{int:image_id}/decisions/undo",
    response={200: UndoneOut, 409: Problem},
    summary="Undo a decision",
    operation_id="undo_decision",
)
def undo(request: HttpRequest, image_id: int, payload: UndoIn | None = None) -> object:
    """The whole batch, on all its images. What somebody decided again since stays and is named. Needs the role
    reviewer."""
    by = allow(request, "review", "write")
    image, batch = _image(image_id), payload.batch if payload else None
    if batch and not TagEdit.objects.filter(batch=batch, image=image).exists():
        raise review.NothingToUndo("There is no such decision on this image.")
    done = review.undo(batch, by=by) if batch else review.undo_last(by, image_id=image_id)
    return {"batch": done.batch, "edits": done.edits, "images": done.image_ids, "skipped": done.skipped}
