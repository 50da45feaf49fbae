"""Runs: the list, one run while it works and after, and the form that starts one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django_htmx.http import HttpResponseClientRedirect, HttpResponseStopPolling

from ..actions import runs as actions
from ..actions.access import may
from ..actions.costs import Spending, price_currency
from ..engine.progress import Progress, StageProgress
from ..models import Channel, Collection, ImageAsset, Proposal, Recipe, Run
from .guard import Request, needs
from .home import served, with_progress, workers
from .newrun import NewRun

PAGE = 30
FAILURES = 200  # failed images that are read to be grouped by what went wrong
SHOWN_FAILURES = 8  # pictures beside one error text


# -- the list ----------------------------------------------------------------------------------------------------------
@needs("read")
def runs(request: Request) -> HttpResponse:
    """Runs, newest first, by state, collection and purpose (tagging unless another is asked for); rows that move are
    polled."""
    state = request.GET.get("state", "")
    if state and state not in Run.State.values:
        return _bad(request, f"state: {state!r} is none of {', '.join(Run.State.values)}.")
    purpose = request.GET.get("purpose", Run.Purpose.TAGGING)
    if purpose not in Run.Purpose.values:
        return _bad(request, f"purpose: {purpose!r} is none of {', '.join(Run.Purpose.values)}.")
    found = Run.objects.filter(purpose=purpose).select_related("collection", "recipe").order_by("-id")
    if state:
        found = found.filter(state=state)
    slug = request.GET.get("collection", "")
    collection = get_object_or_404(Collection, slug=slug) if slug else None
    if collection:
        found = found.filter(collection=collection)
    before = request.GET.get("before", "")
    if before:
        if not before.isdecimal():
            return _bad(request, f"before: {before!r} is not a run's number.")
        found = found.filter(id__lt=int(before[:18]))
    page = list(found[: PAGE + 1])
    more = page[PAGE - 1].pk if len(page) > PAGE else None
    query = request.GET.copy()
    query.pop("before", None)
    context = {
        "rows": with_progress(page[:PAGE]),
        "live": any(run.state == Run.State.RUNNING for run in page),
        "more": more,
        "first": not before,
        "query": query.urlencode(),
        "here": request.GET.urlencode(),
        "state": state,
        "states": Run.State.choices,
        "purpose": purpose if purpose != Run.Purpose.TAGGING else "",
        "collection": collection,
        "may_curate": may(request.user, "curate"),
    }
    return render(request, "tagging/runs.html" + ("#rows" if request.htmx else ""), context)


def _bad(request: Request, text: str) -> HttpResponse:
    return render(request, "tagging/bad_request.html", {"text": text}, status=400)


# -- one run -----------------------------------------------------------------------------------------------------------
@dataclass
class Failure:
    """One kind of error with the images it struck (the first few)."""

    text: str
    count: int
    images: list[ImageAsset]


@needs("read")
def run(request: Request, pk: int) -> HttpResponse:
    found = get_object_or_404(
        Run.objects.select_related("collection", "recipe__policy_version__policy", "created_by").prefetch_related(
            "recipe__labels__adapter", "recipe__labels__collection"
        ),
        pk=pk,
    )
    context = {
        **run_context(request, found),
        "channels": list(found.recipe.channels.select_related("adapter", "prompt_version__prompt")),
        "policy": found.recipe.policy_version,
        "combine": _combine(found.recipe.combine),
    }
    # outside of what is polled: a form that is swapped away under one's fingers cannot be filled in
    if context["may_curate"] and found.state != Run.State.DONE:
        context["priced"] = price_currency(context["channels"])
    return render(request, "tagging/run.html", context)


@needs("read")
def status(request: Request, pk: int) -> HttpResponse:
    """The part of a run's page that moves. 286 ends the polling when nothing will change any more."""
    found = get_object_or_404(Run.objects.select_related("collection"), pk=pk)
    response = render(request, "tagging/run.html#status", {**run_context(request, found), "polled": True})
    return response if found.state in Run.OPEN else HttpResponseStopPolling(response.content)


def run_context(request: Request, found: Run) -> dict[str, Any]:
    at: Progress | None = with_progress([found])[0][1]
    open_now = found.state in Run.OPEN
    waiting = found.state == Run.State.RUNNING and found.started_at is None
    return {
        "run": found,
        "at": at,
        "ok": at.ok if at else 0,
        "open": open_now,
        "failures": failures(found) if at and at.error else [],
        "failures_read": FAILURES,
        "spending": Spending.of(found, at.done, at.cached) if at else None,
        # a run that nobody has taken up: say why
        "unattended": waiting and not served(workers(), "gpu", "io"),
        "may_curate": may(request.user, "curate"),
        "may_review": may(request.user, "review"),
        "stages": _stages(found, at),
        "verbs": verbs(found, at) if may(request.user, "curate") else [],
        "every": "1s" if found.state == Run.State.RUNNING else "3s",
    }


def _stages(found: Run, at: Progress | None) -> list[tuple[str, StageProgress]]:
    """The stages of a run with several channels, by name."""
    if at is None or not at.stages:
        return []
    rows = Channel.objects.filter(recipe=found.recipe_id).select_related("adapter").order_by("position")
    names = {row.position: row.source for row in rows}
    return [(names.get(stage.stage, "combined"), stage) for stage in at.stages]


def _combine(rule: dict[str, Any]) -> dict[str, Any] | None:
    """How several channels become one, for the page."""
    if rule.get("rule", "single") == "single":
        return None
    rest = [(name.replace("_", " "), value) for name, value in rule.items() if name not in ("rule", "order")]
    return {"rule": Recipe.Combine(rule["rule"]).label, "order": rule.get("order", "parallel"), "rest": rest}


def failures(found: Run) -> list[Failure]:
    """The run's errors grouped by text, most frequent first. One query; an image's own name does not split a group."""
    failed = (
        Proposal.objects.filter(run=found, state=Proposal.State.ERROR)
        .select_related("image__collection")
        .order_by("image_id")
        .only("error", "run_id", "image__path", "image__sha256", "image__collection__slug")
    )
    groups: dict[str, list[ImageAsset]] = {}
    for proposal in failed[:FAILURES]:
        image = proposal.image
        text = proposal.error.replace(image.path, "…").replace(image.name, "…").removeprefix("…: ").strip()
        groups.setdefault(text, []).append(image)
    counts = Counter({text: len(images) for text, images in groups.items()})
    return [Failure(text, n, groups[text][:SHOWN_FAILURES]) for text, n in counts.most_common()]


@dataclass(frozen=True)
class Verb:
    """A button of the run's page."""

    slug: str
    label: str
    look: str = ""
    confirm: str = ""


def verbs(found: Run, at: Progress | None) -> list[Verb]:
    """What a curator can do with the run now."""
    cancel = Verb("cancel", "Cancel", "btn-danger", "Cancel this run? What is already tagged stays.")
    match found.state:
        case Run.State.RUNNING:
            return [Verb("pause", "Pause"), cancel]
        case Run.State.PAUSED:
            if found.error:  # its budget is spent: that is raised first, beside what says so
                return [cancel]
            return [Verb("resume", "Resume", "btn-primary"), cancel]
        case Run.State.FAILED:
            return [Verb("retry", "Try again", "btn-primary")]
        case Run.State.CANCELLED:
            return [Verb("retry", "Go on")]
    return [Verb("retry", "Retry failed images")] if at and at.error else []


ACTIONS: dict[str, tuple[Callable[[Run], object], str]] = {
    "pause": (actions.pause, "Paused. What is being computed now is still kept."),
    "resume": (actions.resume, "Going on."),
    "cancel": (actions.cancel, "Cancelled. What was tagged stays."),
    "retry": (actions.retry_failed, "On its way again."),
}


@needs("curate", "POST")
def act(request: Request, pk: int, verb: str) -> HttpResponse:
    """pause, resume, cancel or retry; what the run's state does not allow is said, not done."""
    found = get_object_or_404(Run, pk=pk)
    if verb not in ACTIONS:
        raise Http404(f"A run cannot be told to {verb}.")
    action, text = ACTIONS[verb]
    try:
        action(found)
    except actions.NotNow as e:
        messages.warning(request, str(e))
    else:
        messages.success(request, text)
    target = reverse("tagging:run", args=[pk])
    return HttpResponseClientRedirect(target) if request.htmx else HttpResponseRedirect(target)


@needs("curate", "POST")
def budget(request: Request, pk: int) -> HttpResponse:
    """Set, raise or take away what the run may cost; with `resume` it goes on at once."""
    found = get_object_or_404(Run, pk=pk)
    try:
        actions.set_budget(found, request.POST.get("budget", "").strip())
        if "resume" in request.POST:
            actions.resume(found)
    except ValidationError as e:
        messages.error(request, " ".join(e.messages))
    except actions.NotNow as e:
        messages.warning(request, str(e))
    else:
        messages.success(request, "Going on." if "resume" in request.POST else "The budget is set.")
    return HttpResponseRedirect(reverse("tagging:run", args=[pk]))


# -- a new one ---------------------------------------------------------------------------------------------------------
@needs("curate", "GET", "HEAD", "POST")
def new(request: Request) -> HttpResponse:
    """The form that starts a run; POST starts it."""
    sent = request.method == "POST"
    form = NewRun(request.POST if sent else request.GET, bound=sent, user=request.user)
    if request.method == "POST" and form.is_valid():
        try:
            started = form.start(request.user)
        except ValidationError as e:
            form.refuse(e)
        else:
            messages.success(request, f"{started} is on its way.")
            return redirect(started)
    return render(request, "tagging/run_new.html", {"form": form}, status=422 if form.has_errors else 200)
