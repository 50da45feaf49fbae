"""/api/collections/{slug}/gate: what a judge may decide in a collection."""

from __future__ import annotations

from datetime import datetime

from django.http import HttpRequest
from ninja import Path, Schema, Status
from pydantic import Field

from tagging.actions.runs import NotNow
from tagging.api.auth import allow
from tagging.api.collections import collection_of
from tagging.api.errors import Conflict, Problem
from tagging.api.router import Router
from tagging.models import Run

from ..actions import gates
from ..models import Gate
from .judges import judge_of
from .verdicts import JobOut, _job, job_of

router = Router(tags=["judges"])


class GateOut(Schema):
    judge: str
    version: int
    enabled: bool
    closed: str = Field(description="Why it settles nothing now; empty when it does.")
    accept_at: float | None
    reject_at: float | None
    target: float
    audit_share: float
    automatic: bool = Field(description="Every run that is shown goes through when it is done.")
    precision_low: float | None
    changed_at: datetime


class GateIn(Schema):
    judge: str = Field(description="Slug of a tag verifier, or of a jury of such.")
    enabled: bool = True
    accept_at: float | None = Field(None, description="0.5 to 1. Empty: nothing is accepted.")
    reject_at: float | None = Field(None, description="0 to 0.5. Empty: nothing is rejected.")
    target: float = Field(0.95, description="Precision per tag that the lower bound must keep.")
    audit_share: float = Field(0.05, description="Of what it would accept, so much goes to a person.")
    automatic: bool = Field(False, description="Send every run that is shown through when it is done.")

    model_config = {"extra": "forbid"}


class ThroughIn(Schema):
    run: int
    max_calls: int | None = None
    max_cost: float | None = None

    model_config = {"extra": "forbid"}


def _shown(gate: Gate) -> dict[str, object]:
    names = ("enabled", "automatic", "accept_at", "reject_at", "target", "audit_share", "precision_low", "changed_at")
    return {
        **{name: getattr(gate, name) for name in names},
        "judge": gate.profile.slug,
        "version": gate.version.number,
        "closed": gates.open_for(gate),
    }


def _gate(slug: str) -> Gate:
    collection = collection_of(slug)
    found = Gate.objects.select_related("profile", "version").filter(collection=collection).first()
    if found is None:
        raise Gate.DoesNotExist(f"{collection} has no gate.")
    return found


@router.get("", response=GateOut, summary="The gate of a collection", operation_id="get_gate")
def get_gate(request: HttpRequest, slug: Path[str]) -> object:
    allow(request, "read")
    return _shown(_gate(slug))


@router.put("", response=GateOut, summary="Set the gate of a collection", operation_id="set_gate")
def set_gate(request: HttpRequest, slug: Path[str], payload: GateIn) -> object:
    """For the judge's current version. An open band must keep the target by the newest calibration. Needs the role
    curator."""
    by = allow(request, "curate", "write")
    fields = payload.model_dump(exclude={"judge"})
    gates.save_gate(collection_of(slug), judge_of(payload.judge), by=by, **fields)
    return _shown(_gate(slug))


@router.post(
    "/runs",
    response={201: JobOut, 409: Problem},
    summary="Send a run through the gate",
    operation_id="run_through_gate",
)
def run_through_gate(request: HttpRequest, slug: Path[str], payload: ThroughIn) -> object:
    """Needs the role curator."""
    by = allow(request, "curate", "run")
    run = Run.objects.filter(pk=payload.run).first()
    if run is None:
        raise Run.DoesNotExist(f"There is no run {payload.run}.")
    try:
        job = gates.through_gate(
            collection_of(slug), run, by=by, max_calls=payload.max_calls, max_cost=payload.max_cost
        )
    except NotNow as error:
        raise Conflict(str(error)) from None
    return Status(201, _job(job_of(job.pk)))
