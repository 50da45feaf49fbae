"""Jobs of judges: begun from a form, watched while they work, paused, stopped, taken back."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django_htmx.http import HttpResponseStopPolling

from tagging.actions.access import may
from tagging.actions.runs import NotNow
from tagging.actions.undo import NothingToUndo
from tagging.models import Collection, Run
from tagging.views.guard import REFUSALS, Request, needs

from ..actions import gates, judge_costs, judge_jobs
from ..models import GateOutcome, JudgeJob
from .judges import find

State = JudgeJob.State


@needs("curate", "POST")
def ask(request: Request, slug: str) -> HttpResponse:
    """Have something judged."""
    judge = find(slug)
    posted = request.POST
    try:
        if judge.current is None:
            raise ValidationError({"judge": f"{judge.name} has no version yet."})
        reviewed = None
        if posted.get("what") == "reviewed":
            reviewed = Collection.objects.filter(slug=posted.get("collection", "")).first()
        job = judge_jobs.start_job(
            judge.current,
            runs=_runs(posted.get("run", "")) if posted.get("what") != "reviewed" else [],
            others=_runs(posted.get("against", "")),
            reviewed=reviewed,
            part=posted.get("part", ""),
            share=_float(posted.get("share", ""), 100.0) / 100,
            max_calls=_int(posted.get("max_calls", "")),
            by=request.user,
        )
    except ValidationError as error:
        messages.warning(request, " ".join(error.messages))
        return redirect(judge)
    return redirect(job)


def _runs(text: str) -> list[Run]:
    if not text:
        return []
    found = Run.objects.select_related("collection").filter(pk=_int(text) or 0).first()
    if found is None:
        raise ValidationError({"runs": f"There is no run {text!r}."})
    return [found]


def _int(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _float(text: str, default: float) -> float:
    try:
        return float(text) if text.strip() else default
    except ValueError:
        raise ValidationError({"share": f"{text!r} is not a number."}) from None


def _one(pk: int) -> JudgeJob:
    related = ("version__profile", "version__adapter", "collection", "gate", "created_by")
    found = JudgeJob.objects.select_related(*related).filter(pk=pk).first()
    if found is None:
        raise Http404(f"There is no job {pk}.")
    return found


def _context(request: Request, job: JudgeJob) -> dict[str, Any]:
    verbs = []
    if may(request.user, "curate"):
        if job.state in JudgeJob.ACTIVE:
            verbs.append(("pause", "Pause", "", "btn"))
        if job.state in (State.PAUSED, State.FAILED):
            verbs.append(("resume", "Resume", "", "btn btn-primary"))
        if job.state in JudgeJob.OPEN:
            verbs.append(("cancel", "Stop", "Stop for good? The verdicts so far stay.", "btn btn-danger"))
        elif job.n_accepted + job.n_rejected and GateOutcome.objects.filter(job=job).exclude(band="review").exists():
            n = job.n_accepted + job.n_rejected
            question = f"Take back what the gate decided on {n} images? What a person decided since stays."
            verbs.append(("undo", "Take back", question, "btn btn-danger"))
    return {
        "job": job,
        "live": job.state in JudgeJob.ACTIVE,
        "verbs": verbs,
        "currency": judge_costs.prices(job.version)[2],
        "runs": Run.objects.filter(pk__in=job.runs[:20]),
        "others": Run.objects.filter(pk__in=job.others[:20]),
        "may_review": may(request.user, "review"),
    }


@needs("read")
def show(request: Request, pk: int) -> HttpResponse:
    return render(request, "judging/judge_job.html", _context(request, _one(pk)))


@needs("read")
def status(request: Request, pk: int) -> HttpResponse:
    """The part that moves; polling ends with the job."""
    context = _context(request, _one(pk))
    response = render(request, "judging/judge_job.html#status", context)
    return response if context["live"] else HttpResponseStopPolling(response.content)


@needs("curate", "POST")
def act(request: Request, pk: int, verb: str) -> HttpResponse:
    """Pause, resume, stop, or take back what the gate decided."""
    job = _one(pk)
    if not may(request.user, "curate"):
        raise PermissionDenied(REFUSALS["curate"])
    verbs = {"pause": judge_jobs.pause, "resume": judge_jobs.resume, "cancel": judge_jobs.cancel}
    try:
        if verb == "undo":
            undone = gates.take_back(job, by=request.user)
            left = f", {len(undone.skipped)} left as a person decided" if undone.skipped else ""
            messages.success(request, f"{len(undone.image_ids)} images are back in the queue{left}.")
        elif verb in verbs:
            if verb == "resume" and "max_calls" in request.POST:
                budget = _int(request.POST["max_calls"])
                judge_jobs.set_budget(job, max_calls=budget, max_cost=job.max_cost)
            verbs[verb](job)
        else:
            raise Http404(f"A job cannot {verb}.")
    except (NotNow, NothingToUndo, ValidationError) as error:
        messages.warning(request, " ".join(getattr(error, "messages", [str(error)])))
    return redirect(job)
