"""How far a recompute is, as a line that the pages which started it show."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlencode

from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django_htmx.http import HttpResponseStopPolling

from ..actions.access import may
from ..actions.recompute import cancel_recompute
from ..actions.runs import NotNow
from ..models import RecomputeJob
from .guard import Request, needs

SHOWN = 8  # jobs on a page, and tags of a summary


def _jobs() -> QuerySet[RecomputeJob]:
    return RecomputeJob.objects.select_related("run", "policy_version__policy")


def jobs_of(request: Request) -> list[RecomputeJob]:
    """The recomputes that the address names (`?jobs=3,4`)."""
    ids = [int(pk) for pk in request.GET.get("jobs", "").split(",") if pk.isdecimal()][:SHOWN]
    return list(_jobs().filter(pk__in=ids).order_by("pk")) if ids else []


def with_jobs(address: str, jobs: Iterable[RecomputeJob]) -> str:
    """The address of a page that shows how far the jobs are."""
    ids = ",".join(str(job.pk) for job in jobs)
    return f"{address}?{urlencode({'jobs': ids}, safe=',')}" if ids else address


@needs("read")
def recompute(request: Request, pk: int) -> HttpResponse:
    """One job's line. 286 ends the polling when it is over."""
    job = get_object_or_404(_jobs(), pk=pk)
    context = {"job": job, "may_curate": may(request.user, "curate")}
    response = render(request, "tagging/partials/recompute_line.html", context)
    return response if job.state in RecomputeJob.OPEN else HttpResponseStopPolling(response.content)


@needs("curate", "POST")
def cancel(request: Request, pk: int) -> HttpResponse:
    """Stop it; what was recomputed stays."""
    job = get_object_or_404(_jobs(), pk=pk)
    try:
        cancel_recompute(job)
    except NotNow:
        job.refresh_from_db()
    if not request.htmx:
        return redirect("tagging:run", job.run_id)
    return render(request, "tagging/partials/recompute_line.html", {"job": job, "may_curate": True})
