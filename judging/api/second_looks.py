"""/api/collections/{slug}/second-looks: what another person says of decided tags, blind."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import Path, Schema, Status
from pydantic import Field

from tagging.api.auth import allow
from tagging.api.collections import collection_of
from tagging.api.errors import Problem
from tagging.api.router import Router
from tagging.models import Collection

from ..actions import people, second_looks

router = Router(tags=["judges"])


class SecondLooksOut(Schema):
    share: float = Field(description="Part of the reviewed images that is asked about; 0: none.")
    left: int = Field(description="Images that still have a question for you.")
    agreement: dict[str, Any] = Field(
        description="How far people agree: images, decisions, kappa (value, low, high), how many of the decisions are "
        "second looks, the same by category."
    )


class ShareIn(Schema):
    share: float = Field(description="0 to 1.")

    model_config = {"extra": "forbid"}


class QuestionOut(Schema):
    image: int
    tag: int
    name: str


class LookIn(Schema):
    image: int
    tag: int
    right: bool | None = Field(description="Does the tag fit the image? null: it cannot be told.")

    model_config = {"extra": "forbid"}


class LookOut(LookIn):
    id: int


def _shown(collection: Collection, user: Any) -> dict[str, object]:
    return {
        "share": second_looks.share_of(collection),
        "left": second_looks.images_for(collection, user).count(),
        "agreement": people.people_agreement([], [collection.pk]),
    }


@router.get("", response=SecondLooksOut, summary="How far people agree", operation_id="get_second_looks")
def get_second_looks(request: HttpRequest, slug: Path[str]) -> object:
    """Cohen's κ of people by second looks, whole and by category, and how much is left to be asked."""
    user = allow(request, "read")
    return _shown(collection_of(slug), user)


@router.put("", response=SecondLooksOut, summary="Set the part looked at twice", operation_id="set_second_look_share")
def set_second_look_share(request: HttpRequest, slug: Path[str], payload: ShareIn) -> object:
    """Needs the role curator."""
    by = allow(request, "curate", "write")
    collection = collection_of(slug)
    second_looks.set_share(collection, payload.share, by=by)
    return _shown(collection, by)


@router.get(
    "/next",
    response={200: QuestionOut, 404: Problem},
    summary="The next question to you",
    operation_id="get_next_second_look",
)
def get_next_second_look(request: HttpRequest, slug: Path[str]) -> object:
    """A decided tag of an image that you never decided on, without how it was decided. 404 when nothing is left."""
    user = allow(request, "review")
    found = next(second_looks.questions(collection_of(slug), user), None)
    if found is None:
        return Status(404, Problem(detail="Nothing is left for a second look by you."))
    return QuestionOut(image=found.image.pk, tag=found.tag_id, name=found.name)


@router.post("", response={201: LookOut}, summary="Answer one", operation_id="create_second_look")
def create_second_look(request: HttpRequest, slug: Path[str], payload: LookIn) -> object:
    """Truth stays as it is. Answered again, the newest answer counts."""
    user = allow(request, "review", "write")
    made = second_looks.answer(collection_of(slug), payload.image, payload.tag, payload.right, by=user)
    return Status(201, {"id": made.pk, **payload.model_dump()})
