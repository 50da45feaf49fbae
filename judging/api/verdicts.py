"""/api/verdicts: jobs that make them, pages and lines of what was said."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Literal

from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, StreamingHttpResponse
from ninja import Schema, Status
from pydantic import Field

from tagging.actions.runs import NotNow
from tagging.api.auth import allow
from tagging.api.errors import Conflict, Problem
from tagging.api.listing import Cursor, Limit, Listing, by_id
from tagging.api.router import Router
from tagging.models import Collection, Run

from ..actions import gates, judge_costs, judge_jobs
from ..models import JudgedTag, JudgeJob, JudgeVerdict
from .judges import judge_of

router = Router(tags=["judges"])


class JobOut(Schema):
    id: int
    judge: str
    version: int
    subject: str = Field(description="proposals, reviewed or pairs.")
    collection: str | None
    runs: list[int]
    others: list[int]
    gate: bool = Field(description="Its verdicts go through the collection's gate.")
    state: str
    note: str = Field(description="Why it paused by itself.")
    error: str
    problems: list[str]
    total: int
    done: int
    verdicts: int = Field(description="Made by this job.")
    cached: int
    invalid: int
    errors: int
    skipped: int
    calls: int = Field(description="Questions that reached the model.")
    accepted: int
    rejected: int
    review: int
    audit: int
    tokens_in: int
    tokens_out: int
    cost: float
    currency: str
    created_at: datetime
    finished_at: datetime | None


class JobList(Listing[JobOut]):
    pass


class JobIn(Schema):
    judge: str = Field(description="Slug of the judge.")
    runs: list[int] = Field([], description="Whose proposals are judged.")
    others: list[int] = Field([], description="For a pairwise judge: the runs they are compared with.")
    reviewed: str | None = Field(None, description="Slug of a collection: judge what people decided, to calibrate.")
    experiment: int | None = Field(None, description="Votes of pairs count for this experiment.")
    share: float = Field(1.0, description="Part of the images, drawn by their content.")
    sample: int = Field(0, ge=0, le=1000, description="Which answer of several to the same question.")
    max_calls: int | None = None
    max_cost: float | None = None

    model_config = {"extra": "forbid"}


class TagVerdictOut(Schema):
    tag: str
    category: str
    verdict: str
    p_ok: float
    evidence: str
    role: str = Field(description="candidate, or which kind of decoy.")


class VerdictOut(Schema):
    id: int
    key: str
    judge: str
    kind: str
    image: int | None
    image_sha256: str
    sample: int
    state: str = Field(description="ok, or invalid: no verdict, never a pass.")
    problem: str
    overall: float | None = Field(description="0 to 1, computed by iwtag from the verdicts.")
    weight: float
    flags: list[str]
    outcome: str
    flip: bool
    subject: dict[str, Any]
    result: dict[str, Any]
    tags: list[TagVerdictOut]
    predictions: list[int]
    created_at: datetime


class VerdictList(Listing[VerdictOut]):
    pass


def _rows(judge: str, run: int | None, image: int | None, state: str, experiment: int | None) -> QuerySet[JudgeVerdict]:
    rows = JudgeVerdict.objects.select_related("version__profile").prefetch_related("tags")
    if judge:
        rows = rows.filter(version__profile__slug=judge)
    if run is not None:
        rows = rows.filter(of_runs__run=run)
    if experiment is not None:
        rows = rows.filter(of_runs__run__experiment_links__row__experiment=experiment).distinct()
    if image is not None:
        rows = rows.filter(image=image)
    return rows.filter(state=state) if state else rows


def _shown(verdict: JudgeVerdict) -> dict[str, Any]:
    names = ("key", "kind", "image_sha256", "sample", "state", "problem", "overall", "weight", "flags", "outcome")
    more = ("flip", "subject", "result", "predictions", "created_at")
    return {
        **{name: getattr(verdict, name) for name in (*names, *more)},
        "id": verdict.pk,
        "judge": str(verdict.version),
        "image": verdict.image_id,
        "tags": [_tag(tag) for tag in verdict.tags.all()],
    }


def _tag(tag: JudgedTag) -> dict[str, Any]:
    return {
        "tag": tag.name,
        "category": tag.category,
        "verdict": tag.get_word_display(),
        "p_ok": tag.p_ok,
        "evidence": tag.evidence,
        "role": tag.get_role_display(),
    }


@router.get("", response=VerdictList, summary="List verdicts", operation_id="list_verdicts")
def list_verdicts(
    request: HttpRequest,
    judge: str = "",
    run: int | None = None,
    image: int | None = None,
    experiment: int | None = None,
    state: Literal["", "ok", "invalid"] = "",
    cursor: Cursor = "",
    limit: Limit = 50,
) -> object:
    """Newest first; those of a judge (slug), run, image or experiment only where named."""
    allow(request, "read")
    page = by_id(_rows(judge, run, image, state, experiment), cursor, limit)
    return {**page, "items": [_shown(verdict) for verdict in page["items"]]}


@router.get("/lines", response=None, summary="Verdicts as JSON lines", operation_id="verdict_lines")
def verdict_lines(
    request: HttpRequest,
    judge: str = "",
    run: int | None = None,
    experiment: int | None = None,
    state: Literal["", "ok", "invalid"] = "",
) -> StreamingHttpResponse:
    """A verdict a line, oldest first, as the list has them. Streams: nothing is held in memory."""
    allow(request, "read")
    rows = _rows(judge, run, None, state, experiment)
    response = StreamingHttpResponse(_lines(rows), content_type="application/x-ndjson")
    response["Content-Disposition"] = 'attachment; filename="verdicts.jsonl"'
    return response


def _lines(rows: QuerySet[JudgeVerdict]) -> Iterator[bytes]:
    last = 0
    while page := list(rows.filter(pk__gt=last).order_by("pk")[:500]):
        last = page[-1].pk
        for verdict in page:
            shown = {**_shown(verdict), "created_at": verdict.created_at.isoformat()}
            yield json.dumps(shown, ensure_ascii=False).encode() + b"\n"


# -- jobs -------------------------------------------------------------------------------------------------------------
def _job(job: JudgeJob) -> dict[str, Any]:
    counts = ("total", "done", "verdicts", "cached", "invalid", "error", "skipped", "calls")
    gated = ("accepted", "rejected", "review", "audit")
    names = ("subject", "runs", "others", "state", "note", "error", "problems", "tokens_in", "tokens_out", "cost")
    return {
        **{name: getattr(job, name) for name in (*names, "created_at", "finished_at")},
        **{name: getattr(job, f"n_{name}") for name in (*counts, *gated) if name != "error"},
        "errors": job.n_error,
        "id": job.pk,
        "judge": job.version.profile.slug,
        "version": job.version.number,
        "collection": job.collection.slug if job.collection else None,
        "gate": job.gate_id is not None,
        "currency": judge_costs.prices(job.version)[2],
    }


def _jobs() -> QuerySet[JudgeJob]:
    return JudgeJob.objects.select_related("version__profile", "version__adapter", "collection")


def job_of(pk: int) -> JudgeJob:
    found = _jobs().filter(pk=pk).first()
    if found is None:
        raise JudgeJob.DoesNotExist(f"There is no job {pk} of a judge.")
    return found


@router.post("/jobs", response={201: JobOut}, summary="Have something judged", operation_id="start_judge_job")
def start_judge_job(request: HttpRequest, payload: JobIn) -> object:
    """In the background, on the queue of the judge's model. Needs the role curator."""
    by = allow(request, "curate", "run")
    profile = judge_of(payload.judge)
    if profile.current is None:
        raise ValidationError({"judge": f"{profile.name} has no version yet."})
    reviewed = None
    if payload.reviewed:
        reviewed = Collection.objects.filter(slug=payload.reviewed).first()
        if reviewed is None:
            raise ValidationError({"reviewed": f"There is no collection {payload.reviewed!r}."})
    job = judge_jobs.start_job(
        profile.current,
        runs=_runs("runs", payload.runs),
        others=_runs("others", payload.others),
        reviewed=reviewed,
        experiment=_experiment(payload.experiment),
        share=payload.share,
        sample=payload.sample,
        max_calls=payload.max_calls,
        max_cost=payload.max_cost,
        by=by,
    )
    return Status(201, _job(job))


def _runs(field: str, wanted: list[int]) -> list[Run]:
    there = Run.objects.select_related("collection").in_bulk(wanted[:500])
    if missing := [pk for pk in wanted if pk not in there]:
        raise ValidationError({field: f"There is no run {missing[0]}."})
    return [there[pk] for pk in wanted]


def _experiment(pk: int | None) -> Any:
    from ..models import Experiment

    if pk is None:
        return None
    found = Experiment.objects.filter(pk=pk).first()
    if found is None:
        raise ValidationError({"experiment": f"There is no experiment {pk}."})
    return found


@router.get("/jobs", response=JobList, summary="List jobs of judges", operation_id="list_judge_jobs")
def list_judge_jobs(request: HttpRequest, judge: str = "", cursor: Cursor = "", limit: Limit = 50) -> object:
    """Newest first."""
    allow(request, "read")
    rows = _jobs().filter(version__profile__slug=judge) if judge else _jobs()
    page = by_id(rows, cursor, limit)
    return {**page, "items": [_job(job) for job in page["items"]]}


@router.get("/jobs/{int:job_id}", response=JobOut, summary="One job of a judge", operation_id="get_judge_job")
def get_judge_job(request: HttpRequest, job_id: int) -> object:
    allow(request, "read")
    return _job(job_of(job_id))


class JudgeBudgetIn(Schema):
    max_calls: int | None = None
    max_cost: float | None = None

    model_config = {"extra": "forbid"}


@router.post(
    "/jobs/{int:job_id}/budget", response=JobOut, summary="Change the budget of a job", operation_id="judge_job_budget"
)
def judge_job_budget(request: HttpRequest, job_id: int, payload: JudgeBudgetIn) -> object:
    """What is left out is no limit. Needs the role curator."""
    allow(request, "curate", "run")
    job = job_of(job_id)
    judge_jobs.set_budget(job, max_calls=payload.max_calls, max_cost=payload.max_cost)
    return _job(job_of(job_id))


def _verb(name: str, summary: str, act: Callable[[JudgeJob], None], doc: str) -> None:
    def operation(request: HttpRequest, job_id: int) -> object:
        allow(request, "curate", "run")
        job = job_of(job_id)
        try:
            act(job)
        except NotNow as error:
            raise Conflict(str(error)) from None
        return _job(job_of(job_id))

    operation.__name__ = f"{name}_judge_job"
    operation.__doc__ = doc
    router.post(
        f"/jobs/{{int:job_id}}/{name}",
        response={200: JobOut, 409: Problem},
        summary=summary,
        operation_id=f"{name}_judge_job",
    )(operation)


_verb("pause", "Pause a job", judge_jobs.pause, "It stops after what is in work. Needs the role curator.")
_verb("resume", "Resume a job", judge_jobs.resume, "It goes on where it stopped. Needs the role curator.")
_verb("cancel", "Cancel a job", judge_jobs.cancel, "The verdicts so far stay. Needs the role curator.")


class TakenBack(Schema):
    images: int
    left: int = Field(description="Images on which somebody decided since: left as they are.")


@router.post(
    "/jobs/{int:job_id}/undo",
    response={200: TakenBack, 409: Problem},
    summary="Take back what the gate decided",
    operation_id="undo_judge_job",
)
def undo_judge_job(request: HttpRequest, job_id: int) -> object:
    """Everything that the gate settled in this job, at once. Needs the role curator."""
    by = allow(request, "curate", "write")
    undone = gates.take_back(job_of(job_id), by=by)
    return {"images": len(undone.image_ids), "left": len(undone.skipped)}
