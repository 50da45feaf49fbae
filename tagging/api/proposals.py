"""What runs proposed, as the API shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ninja import Schema
from pydantic import Field

from ..models import Proposal


class Fate(Schema):
    """A tag of a proposal: kept, changed or dropped, and why."""

    name: str
    category: str
    score: float | None
    state: str
    reason: str
    source: str
    original: str = Field("", description="What the model called it, before the policy.")


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
    prediction: int | None = Field(description="The raw reply it rests on.")
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
        return [dict(zip(Fate.model_fields, tag, strict=False)) for tag in row.tags]
