"""Experiments: the list, the form, one experiment while it runs and after."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django_htmx.http import HttpResponseClientRedirect, HttpResponseStopPolling

from tagging.actions.access import may
from tagging.actions.runs import NotNow
from tagging.engine.progress import Progress
from tagging.models import Collection, Run
from tagging.views.guard import Request, needs
from tagging.views.home import served, workers

from .. import board as boards
from .. import metrics
from ..actions import experiments as actions
from ..actions.judge_experiment import judge_experiment
from ..judge_columns import columns
from ..models import Experiment, JudgeJob, JudgeProfile
from ..plans import Plan
from ..progress import progress, progress_of

PAGE = 30
JOBS = 8  # of judges, the newest


# -- the list ----------------------------------------------------------------------------------------------------------
@needs("read")
def index(request: Request) -> HttpResponse:
    """Newest first; rows that move are polled."""
    found = Experiment.objects.select_related("collection").prefetch_related("rows").defer("board", "image_ids")
    slug = request.GET.get("collection", "")
    collection = get_object_or_404(Collection, slug=slug) if slug else None
    if collection:
        found = found.filter(collection=collection)
    before = request.GET.get("before", "")
    if before:
        if not (before.isascii() and before.isdecimal()):
            raise Http404("There is no such page.")
        found = found.filter(pk__lt=int(before[:18]))
    page = list(found.order_by("-pk")[: PAGE + 1])
    at = progress_of(page[:PAGE])
    query = request.GET.copy()
    query.pop("before", None)
    context = {
        "rows": [(experiment, at[experiment.pk]) for experiment in page[:PAGE]],
        "live": any(experiment.state == Experiment.State.RUNNING for experiment in page),
        "more": page[PAGE - 1].pk if len(page) > PAGE else None,
        "first": not before,
        "query": query.urlencode(),
        "here": request.GET.urlencode(),
        "collection": collection,
        "may_curate": may(request.user, "curate"),
    }
    return render(request, "judging/experiments.html" + ("#rows" if request.htmx else ""), context)


# -- a new one ---------------------------------------------------------------------------------------------------------
@needs("curate", "GET", "HEAD", "POST")
def new(request: Request) -> HttpResponse:
    """The form; POST makes the experiment and starts the stage whose button was pressed."""
    plan = Plan(request.POST if request.method == "POST" else request.GET, bound=request.method == "POST")
    if request.method == "POST":
        made = plan.make(request.user)
        if made is not None:
            stage = request.POST.get("stage", "")
            try:
                if stage:
                    actions.start(made, stage=stage, racing="racing" in request.POST)
            except (ValidationError, NotNow) as e:
                messages.warning(request, str(e))
            return redirect(made)
    return render(request, "judging/experiment_new.html", {"plan": plan}, status=422 if plan.errors else 200)


@needs("curate", "POST")
def plan(request: Request) -> HttpResponse:
    """The preflight of what is typed, and the names of the options that can be varied. Writes nothing."""
    found = Plan(request.POST, bound=True)
    found.look()
    return render(request, "judging/experiment_new.html#preflight", {"plan": found})


@needs("curate", "POST")
def from_runs(request: Request) -> HttpResponse:
    """Runs ticked somewhere, beside each other."""
    wanted = [int(text) for text in request.POST.getlist("run") if text.isascii() and text.isdigit() and len(text) < 19]
    there = Run.objects.select_related("collection", "recipe").in_bulk(wanted)
    try:
        made = actions.compare_runs([there[pk] for pk in wanted if pk in there], by=request.user)
    except ValidationError as e:
        messages.warning(request, " ".join(e.messages))
        return redirect("judging:experiments")
    return redirect(made)


# -- one of them -------------------------------------------------------------------------------------------------------
def _one(pk: int) -> Experiment:
    rows = Experiment.objects.select_related("collection", "created_by", "baseline").prefetch_related("rows__recipe")
    return get_object_or_404(rows, pk=pk)


@needs("read")
def show(request: Request, pk: int) -> HttpResponse:
    """One experiment. The leaderboard comes by itself: it may have to be computed."""
    found = _one(pk)
    jobs = JudgeJob.objects.filter(experiment=found).select_related("version__profile", "collection")
    context = {
        **_context(request, found),
        "metric": _metric(request),
        "judges": JudgeProfile.objects.filter(enabled=True, current__isnull=False).order_by("name"),
        "jobs": jobs[:JOBS],
    }
    return render(request, "judging/experiment.html", context)


@needs("curate", "POST")
def judge(request: Request, pk: int) -> HttpResponse:
    """Have a judge look at what the recipes proposed."""
    found = get_object_or_404(Experiment.objects.select_related("collection"), pk=pk)
    profile = get_object_or_404(JudgeProfile.objects.select_related("current"), slug=request.POST.get("judge", ""))
    row, share = request.POST.get("row", ""), request.POST.get("share", "").strip() or "100"
    rows = found.rows.filter(pk=int(row)) if row.isascii() and row.isdigit() and len(row) < 19 else found.rows.none()
    try:
        try:
            part = float(share) / 100
        except ValueError:
            raise ValidationError({"share": f"{share[:40]!r} is not a number."}) from None
        job = judge_experiment(found, profile, rows=list(rows), share=part, by=request.user)
    except ValidationError as e:
        messages.warning(request, " ".join(e.messages))
        return redirect(found)
    return redirect(job)


@needs("read")
def status(request: Request, pk: int) -> HttpResponse:
    """The part that moves; 286 ends the polling when nothing will change any more."""
    found = _one(pk)
    response = render(request, "judging/experiment.html#status", {**_context(request, found), "polled": True})
    return response if found.state in Experiment.OPEN else HttpResponseStopPolling(response.content)


@needs("read")
def leaderboard(request: Request, pk: int) -> HttpResponse:
    """The table, computed where something has changed since."""
    found = _one(pk)
    wanted = _metric(request)
    board = boards.board(found)
    metric = wanted if wanted in board["metrics"] else board["metric"]
    context = {
        "experiment": found,
        "board": board,
        "metric": metric,
        "lines": lines(board, metric),
        "names": [(name, NAMES[name][0]) for name in board["metrics"]],
        "title": NAMES[metric][0],
        "more_is_better": metrics.METRICS[metric],
        "priced": any(row["metrics"].get("cost_per_1000") is not None for row in board["rows"]),
        "may_review": may(request.user, "review"),
        "may_promote": request.user.has_perm("judging.promote_experiment"),
    }
    return render(request, "judging/leaderboard.html", context)


@needs("read")
def judge_scores(request: Request, pk: int) -> HttpResponse:
    """What judges say of each recipe: a part of the page that comes by itself."""
    found = get_object_or_404(Experiment, pk=pk)
    return render(request, "judging/judge_scores.html", {"columns": columns(found), "experiment": found})


#: metric → (name, digits, per cent?)
NAMES: dict[str, tuple[str, int]] = {
    "f1": ("F1", 3),
    "edits": ("edits per image", 2),
    "jaccard": ("Jaccard", 3),
    "precision": ("precision", 3),
    "recall": ("recall", 3),
    "caption": ("caption likeness", 3),
}


def _metric(request: Request) -> str:
    metric = request.GET.get("metric", "")
    return metric if metric in NAMES else ""


@dataclass
class Line:
    """A recipe in the table. `left`, `width`, `at`: where the interval lies on the axis, in per cent."""

    row: dict[str, Any]
    place: int | None
    value: float | None
    standing: dict[str, Any]
    left: float = 0.0
    width: float = 0.0
    at: float = 0.0
    drawn: bool = False

    @property
    def tone(self) -> str:
        return {"better": "ok", "worse": "error", "equivalent": "info", "baseline": "quiet"}.get(self.word, "warning")

    @property
    def word(self) -> str:
        return str(self.standing.get("word") or "")

    @property
    def mark(self) -> str:
        return {"better": "▲", "worse": "▼", "equivalent": "=", "baseline": "●"}.get(self.word, "?")


def lines(board: dict[str, Any], metric: str) -> list[Line]:
    """Best first; then those that are out of the race, then those without results. All intervals share one axis, with
    zero (the baseline) in it."""
    found = []
    for row in board["rows"]:
        standing = row["standing"].get(metric) or {}
        value = standing.get("value")
        if value is None and metric in row["metrics"]:
            value = row["metrics"][metric]
        found.append(Line(row, None, value, standing))
    sign = 1 if metrics.METRICS[metric] else -1
    found.sort(
        key=lambda n: (not n.standing, n.row["dropped_at"] is None, -sign * (n.value if n.value is not None else -1e9))
    )
    for place, line in enumerate((line for line in found if line.standing), 1):
        line.place = place
    ends = [e for n in found for e in (n.standing.get("delta_low"), n.standing.get("delta_high")) if e is not None]
    reach = max([abs(e) for e in ends] + [board["margin"], 1e-6]) * 1.08
    for line in found:
        low, high, delta = (line.standing.get(name) for name in ("delta_low", "delta_high", "delta"))
        if low is not None and high is not None and delta is not None and math.isfinite(low) and math.isfinite(high):
            line.drawn = True
            line.left = 50 + 50 * low / reach
            line.width = 50 * (high - low) / reach
            line.at = 50 + 50 * delta / reach
    return found


def _context(request: Request, found: Experiment) -> dict[str, Any]:
    at: Progress = progress(found)
    curate = may(request.user, "curate")
    asked = found.rows.filter(links__lo__isnull=False).exists() or not found.rows.filter(links__isnull=False).exists()
    return {
        "experiment": found,
        "at": at,
        "open": found.state in Experiment.OPEN,
        "every": "2s" if found.state == Experiment.State.RUNNING else "4s",
        "may_curate": curate,
        "may_review": may(request.user, "review"),
        "verbs": verbs(found, asked) if curate else [],
        "asked": asked,
        "rows": list(found.rows.all()),
        "unattended": found.state == Experiment.State.RUNNING and not served(workers(), "gpu", "io"),
        "dropped": [row for row in found.rows.all() if row.dropped_at is not None],
    }


@dataclass(frozen=True)
class Verb:
    slug: str
    label: str
    look: str = ""
    confirm: str = ""
    stage: str = ""


def verbs(found: Experiment, asked: bool) -> list[Verb]:
    """What a curator can do with it now."""
    delete = Verb("delete", "Delete", "btn-quiet", "Delete this comparison? Its runs and all decisions stay.")
    stop = Verb("stop", "Stop", "btn-danger", "Stop? What is done stays and is compared.")
    match found.state:
        case Experiment.State.RUNNING:
            return [Verb("pause", "Pause"), stop]
        case Experiment.State.PAUSED:
            return [Verb("resume", "Resume", "btn-primary"), stop]
    if not asked:
        return [delete]
    stages = []
    if found.state == Experiment.State.DRAFT and found.n_images > 5:
        stages.append(Verb("start", "Smoke, 5 images", stage="smoke"))
    if found.reached < 30 < found.n_images:
        stages.append(Verb("start", "Screen, 30 images", stage="screen"))
    if found.reached < found.n_images or found.state != Experiment.State.DONE:
        stages.append(Verb("race", f"Race, up to {found.n_images:,}", stage="full"))
        stages.append(Verb("start", f"All {found.n_images:,} images", "btn-primary", stage="full"))
    return [*stages, delete]


ACTIONS: dict[str, tuple[Callable[[Experiment], object], str]] = {
    "pause": (actions.pause, "Paused."),
    "resume": (actions.resume, "Going on."),
    "stop": (actions.stop, "Stopped. What is done stays."),
}


@needs("curate", "POST")
def act(request: Request, pk: int, verb: str) -> HttpResponse:
    """start, race, pause, resume, stop or delete; what its state does not allow is said, not done."""
    found = get_object_or_404(Experiment, pk=pk)
    target = reverse("judging:experiment", args=[pk])
    try:
        if verb in ("start", "race"):
            actions.start(found, stage=request.POST.get("stage", "full"), racing=verb == "race")
            messages.success(request, "On its way.")
        elif verb == "delete":
            actions.delete_experiment(found)
            messages.success(request, f"{found} is deleted.")
            target = reverse("judging:experiments")
        elif verb in ACTIONS:
            action, text = ACTIONS[verb]
            action(found)
            messages.success(request, text)
        else:
            raise Http404(f"An experiment cannot be told to {verb}.")
    except (NotNow, ValidationError) as e:
        messages.warning(request, " ".join(e.messages) if isinstance(e, ValidationError) else str(e))
    return HttpResponseClientRedirect(target) if request.htmx else HttpResponseRedirect(target)
