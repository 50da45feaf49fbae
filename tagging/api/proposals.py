"""What runs proposed, as the API shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.http import HttpRequest
from ninja import Schema
from pydantic import Field

from ..actions.replies import RawReply, replies
from ..models import Proposal
from ..policy.combine import sources
from .auth import allow
from .router import Router


class Fate(Schema):
    """A tag of a proposal: kept, changed or dropped, and why."""

    name: str
    category: str
    score: float | None
    state: str
    reason: str
    source: str
    original: str = Field("", description="What the model called it, before the policy.")
    sources: list[str] = Field([], description="The channels that said it.")
    votes: int = Field(0, description="How many channels said it.")


class ProposalOut(Schema):
    id: int
    run: int
    image: int
    path: str
    state: str
    tags: list[Fate] = Field(description="Those merely below their threshold are not listed.")
    caption: str
    rating: str
    rating_score: float | None
    error: str
    flags: list[str] = Field(
        description='How it came about: "merge_fallback", "truncated:qwen", "failed:wd" (gave no answer), …'
    )
    prediction: int | None = Field(
        description="The raw reply it rests on; with several channels that of the first which answered."
    )
    created_at: datetime

    @staticmethod
    def resolve_run(row: Proposal) -> int:
        return row.run_id

    @staticmethod
    def resolve_image(row: Proposal) -> int:
        return row.image_id

    @staticmethod
    def resolve_path(row: Proposal) -> str:
        return row.image.path

    @staticmethod
    def resolve_prediction(row: Proposal) -> int | None:
        return row.prediction_id

    @staticmethod
    def resolve_tags(row: Proposal) -> list[dict[str, Any]]:
        return [_fate(tag) for tag in row.tags]


def _fate(tag: list[Any]) -> dict[str, Any]:
    found = dict(zip(Fate.model_fields, tag, strict=False))
    names = sources(found["source"]) if found["state"] != "added" else []
    return {**found, "sources": names, "votes": len(names)}


class ReplyOut(Schema):
    """What one channel said, as it came."""

    channel: str
    adapter: str
    role: str = Field(description="asked, or merge: it merges what the others said.")
    prompt_version: int | None
    state: str = Field(description="ok, empty, error, or skipped (a cascade did not need it).")
    note: str = Field(description="The error, or why it was not asked.")
    prediction: int | None
    text: str
    caption: str
    rating: str
    rating_score: float | None
    scores: list[tuple[str, str, float]] = Field(
        description="[label, category, probability] of a tagger, highest first."
    )
    tags: list[tuple[str, str, float | None]]
    flags: list[str]
    finish_reason: str
    tokens_in: int | None
    tokens_out: int | None
    seconds: float
    cost: float | None
    currency: str
    source: str = Field(description="What was read: original or proxy.")


class ProposalDetail(ProposalOut):
    replies: list[ReplyOut] = Field(description="Of every channel, in order; a merging model last.")

    @staticmethod
    def resolve_replies(row: Proposal) -> list[RawReply]:
        return replies(row)


router = Router(tags=["runs"])


@router.get("/{int:proposal_id}", response=ProposalDetail, summary="One proposal", operation_id="get_proposal")
def get_proposal(request: HttpRequest, proposal_id: int) -> object:
    """With every channel's reply as it came."""
    allow(request, "read")
    found = Proposal.objects.select_related("run", "image", "prediction").filter(pk=proposal_id).first()
    if found is None:
        raise Proposal.DoesNotExist(f"There is no proposal {proposal_id}.")
    return found
