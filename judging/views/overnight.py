"""Searches for the best recipe: the list with the form, one search while it works, and its report in the morning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django_htmx.http import HttpResponseStopPolling

from tagging.actions.access import may
from tagging.actions.runs import NotNow
from tagging.views.guard import Request, needs
from tagging.views.home import served, workers

from .. import metrics
from ..actions import overnight as actions
from ..models import OvernightRound, OvernightSearch
from ..plans import Plan
from ..progress import progress_of
from .experiments import NAMES

SHOWN = 50
SHOWN_AT_FIRST = {"hours": "3", "money": "", "filter": "review=reviewed", "holdout": "30", "sample": "", "seed": "0"}


@needs("read")
def index(request: Request) -> HttpResponse:
    """Newest first."""
    rows = OvernightSearch.objects.select_related("collection", "best", "base").defer("image_ids", "sha256s", "holdout")
    return render(request, "judging/overnight.html", {"rows": rows[:SHOWN], "may_curate": may(request.user, "curate")})


@needs("curate", "GET", "HEAD", "POST")
def new(request: Request) -> HttpResponse:
    """The form; POST begins."""
    posted = request.method == "POST"
    plan = Plan(request.POST if posted else request.GET, bound=posted)
    values = {name: plan.value(name, "" if posted else shown) for name, shown in SHOWN_AT_FIRST.items()}
    values["name"] = plan.value("name")
    if posted:
        made = _begin(request, plan)
        if made is not None:
            messages.success(request, "On its way. It moves no label: that is for you to do in the morning.")
            return redirect(made)
    context = {"plan": plan, "values": values, "errors": plan.errors}
    return render(request, "judging/overnight_new.html", context, status=422 if plan.errors else 200)


def _begin(request: Request, plan: Plan) -> OvernightSearch | None:
    plan.mode = "around"
    axes = plan.axes()
    axes.pop("combine", None)
    axes.pop("recipes", None)
    hours = plan.number("hours", float, 0.0)
    holdout = plan.number("holdout", float, 30.0) / 100
    sample, seed = plan.number("sample", int, None), plan.number("seed", int, 0)
    if plan.collection is None:
        plan.refuse("collection", "Choose a collection.")
    if plan.errors or plan.collection is None:
        return None
    try:
        return actions.start_search(
            plan.collection,
            axes,
            hours=hours,
            money=plan.value("money").strip().replace(",", ".") or None,
            base=plan.base,
            name=plan.value("name"),
            filter=plan.value("filter"),
            sample=sample,
            seed=seed,
            holdout=holdout,
            by=request.user,
        )
    except ValidationError as e:
        plan.take(e)
        return None


def _context(request: Request, search: OvernightSearch) -> dict[str, Any]:
    rounds = list(search.rounds.select_related("experiment").prefetch_related("experiment__rows"))
    at = progress_of([r.experiment for r in rounds[-1:]])
    check = next((r for r in rounds if r.kind == OvernightRound.Kind.CHECK), None)
    curate = may(request.user, "curate")
    verbs = []
    if curate:
        if search.state == OvernightSearch.State.RUNNING:
            verbs.append(("pause", "Pause", "btn", ""))
        if search.state == OvernightSearch.State.PAUSED:
            verbs.append(("resume", "Resume", "btn btn-primary", ""))
        if search.state in OvernightSearch.OPEN:
            verbs.append(("stop", "Stop", "btn btn-danger", "Stop before the last check? What was found stays."))
        else:
            verbs.append(("delete", "Delete", "btn btn-quiet", "Delete this search? Its experiments and runs stay."))
    return {
        "search": search,
        "rounds": [
            {
                "of": r,
                "at": at.get(r.experiment_id),
                "metric": NAMES[r.outcome["metric"]][0] if r.outcome else "",
                "rows": ranked(r),
            }
            for r in rounds
        ],
        "check": {"of": check, "rows": ranked(check), "metric": NAMES[check.outcome["metric"]][0]}
        if check and check.outcome
        else None,
        "tried": len({row["recipe"] for r in rounds if r.outcome for row in r.outcome["rows"]}),
        "open": search.state in OvernightSearch.OPEN,
        "used": search.used(),
        "verbs": verbs,
        "may_promote": request.user.has_perm("judging.promote_experiment"),
        "unattended": search.state == OvernightSearch.State.RUNNING and not served(workers(), "gpu", "io"),
    }


def ranked(round_: OvernightRound) -> list[dict[str, Any]]:
    """The recipes of a round that is closed, best first, those out of the race last."""
    if not round_.outcome:
        return []
    sign = 1 if metrics.METRICS[round_.outcome["metric"]] else -1
    rows: list[dict[str, Any]] = list(round_.outcome["rows"])
    return sorted(rows, key=lambda r: (not r["compared"], -sign * (r["value"] if r["value"] is not None else -1e9)))


def _one(pk: int) -> OvernightSearch:
    rows = OvernightSearch.objects.select_related("collection", "base", "best", "created_by")
    return get_object_or_404(rows, pk=pk)


@needs("read")
def show(request: Request, pk: int) -> HttpResponse:
    """One search: while it works, and its report."""
    return render(request, "judging/search.html", _context(request, _one(pk)))


@needs("read")
def status(request: Request, pk: int) -> HttpResponse:
    """The part that moves; 286 ends the polling when nothing will change any more."""
    found = _one(pk)
    response = render(request, "judging/search.html#status", _context(request, found))
    return response if found.state in OvernightSearch.OPEN else HttpResponseStopPolling(response.content)


ACTIONS: dict[str, tuple[Callable[[OvernightSearch], object], str]] = {
    "pause": (actions.pause, "Paused. The clock stands still."),
    "resume": (actions.resume, "Going on."),
    "stop": (actions.stop, "Stopped. What was found stays."),
    "delete": (actions.delete_search, "Deleted. Its experiments and runs stay."),
}


@needs("curate", "POST")
def act(request: Request, pk: int, verb: str) -> HttpResponse:
    """pause, resume, stop or delete."""
    found = get_object_or_404(OvernightSearch, pk=pk)
    if verb not in ACTIONS:
        raise Http404(f"A search cannot be told to {verb}.")
    action, text = ACTIONS[verb]
    target = reverse("judging:overnight") if verb == "delete" else reverse("judging:search", args=[pk])
    try:
        action(found)
        messages.success(request, text)
    except NotNow as e:
        messages.warning(request, str(e))
        target = reverse("judging:search", args=[pk])
    return HttpResponseRedirect(target)
