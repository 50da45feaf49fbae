"""/api/health: open to all, says nothing about anybody's pictures."""

from __future__ import annotations

from typing import Literal

from django.http import HttpRequest
from ninja import Schema, Status
from pydantic import Field

from .. import health as watch
from .router import Router

router = Router(tags=["health"], auth=None)


class WorkerOut(Schema):
    queue: str
    alive: bool
    beat_age_seconds: float
    models: int = Field(description="Loaded now.")


class HealthOut(Schema):
    status: Literal["ok", "degraded", "down"] = Field(description="degraded: a queue has no living worker.")
    database: str
    error: str
    chunks_waiting: int = Field(description="Slices of running runs that no worker has taken.")
    queue_age_seconds: float = Field(description="How long the oldest work waits that nobody has begun.")
    missing_queues: list[str]
    workers: list[WorkerOut]


@router.get("", response={200: HealthOut, 503: HealthOut}, auth=None, summary="Health", operation_id="health")
def health(request: HttpRequest) -> object:
    """503 when the database cannot be used; 200 otherwise, with what is amiss in it."""
    found = watch.health()
    return Status(503 if found.status == "down" else 200, found)
