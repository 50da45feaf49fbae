"""/api/experiments/{id}/votes: pairwise votes of people, and the ranking that all votes give."""

from __future__ import annotations

import random
import secrets
from typing import Any, Literal

from django.http import HttpRequest
from ninja import Path, Schema, Status
from pydantic import Field

from tagging.api.auth import allow
from tagging.api.errors import Problem
from tagging.api.router import Router

from ..actions import arena
from .experiments import find

router = Router(tags=["experiments"])


class BoutOut(Schema):
    image: int
    left: int = Field(description="Row of the experiment whose answer stands left.")
    right: int


class VoteIn(BoutOut):
    winner: Literal["left", "right", "tie"]
    seconds: float | None = Field(None, ge=0, description="How long it took to decide.")


class VoteOut(Schema):
    id: int
    image: int
    a: int = Field(description="The recipe that was made first.")
    b: int
    winner: Literal["a", "b", "tie"]


@router.get("", response=dict[str, Any], summary="Ranking by votes", operation_id="get_vote_ranking")
def get_vote_ranking(
    request: HttpRequest,
    experiment_id: Path[int],
    of: Literal["all", "people", "judges"] = "all",
    control_length: bool = False,
) -> object:
    """Bradley–Terry strengths with 95 % intervals and ranks as ranges. `control_length` takes out what a longer list is
    worth by its length."""
    allow(request, "read")
    return arena.standings(find(experiment_id), of, control_length=control_length)


@router.get(
    "/next", response={200: BoutOut, 404: Problem}, summary="The next pair to vote on", operation_id="get_next_bout"
)
def get_next_bout(request: HttpRequest, experiment_id: Path[int]) -> object:
    """The two recipes whose order is least settled, on an image where they differ; sides at random. 404 when nothing is
    left."""
    user = allow(request, "review")
    found = arena.next_bout(find(experiment_id), user, random.Random(secrets.randbits(64)))
    if found is None:
        return Status(404, Problem(detail="Nothing is left to vote on."))
    return BoutOut(image=found.image, left=found.left, right=found.right)


@router.post("", response={201: VoteOut}, summary="Vote on a pair", operation_id="create_vote")
def create_vote(request: HttpRequest, experiment_id: Path[int], payload: VoteIn) -> object:
    """One vote a person, pair and image."""
    user = allow(request, "review", "write")
    bout = arena.Bout(payload.image, payload.left, payload.right)
    made = arena.vote(find(experiment_id), bout, payload.winner, by=user, seconds=payload.seconds)
    return Status(201, {"id": made.pk, "image": made.image_id, "a": made.a_id, "b": made.b_id, "winner": made.winner})
