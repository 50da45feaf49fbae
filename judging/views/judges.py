"""Judges: the list with badges, one judge with its calibration, and the form that changes it."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render

from tagging import queue
from tagging.actions.access import may
from tagging.models import Collection, Run
from tagging.views.guard import REFUSALS, Request, needs

from ..actions import calibrating, inbox
from ..actions import judges as actions
from ..api.judges import newest
from ..judges import gate as bands
from ..judges.gate import Thresholds
from ..judges.spec import ASKING
from ..models import Calibration, JudgeJob, JudgeProfile
from .judgeform import JudgeForm

JOBS, VERSIONS, RUNS = 8, 20, 100


@needs("read")
def index(request: Request) -> HttpResponse:
    """All judges, the ready ones first."""
    rows = calibrating.with_badges(JudgeProfile.objects.all())
    rows.sort(key=lambda p: (not p.enabled, p.slug))
    made = {p.slug for p in rows}
    from ..judges.builtin import PROFILES

    context = {
        "rows": [(p, p.newest, p.current.ready if p.current else "It has no version yet.") for p in rows],
        "missing": [given.name for given in PROFILES if given.slug not in made],
        "kinds": JudgeProfile.Kind.choices,
        "may_curate": may(request.user, "curate"),
    }
    return render(request, "judging/judges.html", context)


@needs("curate", "POST")
def setup(request: Request) -> HttpResponse:
    """Make the judges that come with iwtag."""
    made = actions.make_ready(request.user)
    names = ", ".join(p.name for p in made)
    messages.success(
        request, f"Made: {names}. Choose a model for those that ask one." if made else "All there already."
    )
    return redirect("judging:judges")


@needs("curate", "POST")
def new(request: Request) -> HttpResponse:
    """A judge without a model yet."""
    posted = request.POST
    try:
        profile = actions.create_profile(
            slug=posted.get("slug", ""), kind=posted.get("kind", ""), name=posted.get("name", "")
        )
        if profile.kind != JudgeProfile.Kind.JURY:
            actions.save_version(profile, by=request.user, message="Begun")
    except ValidationError as error:
        messages.warning(request, " ".join(error.messages))
        return redirect("judging:judges")
    return redirect(profile)


def find(slug: str) -> JudgeProfile:
    found = calibrating.with_badges(JudgeProfile.objects.filter(slug=slug))
    if not found:
        raise Http404(f"There is no judge {slug}.")
    return found[0]


@needs("read")
def show(request: Request, slug: str) -> HttpResponse:
    return _page(request, find(slug))


def _page(request: Request, profile: JudgeProfile, form: JudgeForm | None = None) -> HttpResponse:
    """`form` is one that was refused."""
    version, curate = profile.current, may(request.user, "curate")
    figures = newest(version)
    whole = figures[0] if figures else None
    context = {
        "judge": profile,
        "version": version,
        "lacks": version.ready if version else "It has no version yet.",
        "whole": whole,
        "figures": whole.figures if whole else {},
        "parts": figures[1:],
        "waiting": len(inbox.examples_waiting(version)) if version else 0,
        "families": sorted(version.families()) if version else [],
        "versions": profile.versions.select_related("adapter", "prompt_version__prompt", "profile", "created_by")[
            :VERSIONS
        ],
        "jobs": JudgeJob.objects.filter(version__profile=profile).select_related("version__profile", "collection")[
            :JOBS
        ],
        "asks": profile.kind in ASKING,
        "jury": profile.kind == JudgeProfile.Kind.JURY,
        "pairs": JudgeProfile.Kind.PAIRWISE in (profile.kind, version.rules.get("of") if version else ""),
        "slider": slider(whole, request.GET.get("accept", ""), request.GET.get("reject", "")),
        "may_curate": curate,
        "may_review": may(request.user, "review"),
        "counts_people": Calibration.objects.filter(version=version).exists() if version else False,
    }
    if curate:
        context |= {
            "form": form or JudgeForm(profile),
            "runs": Run.objects.listed().select_related("collection", "recipe").order_by("-pk")[:RUNS],
            "collections": Collection.objects.only("slug", "name"),
        }
    return render(request, "judging/judge.html", context, status=422 if form else 200)


def slider(whole: Calibration | None, accept: str = "", reject: str = "") -> dict[str, Any] | None:
    """What the threshold slider shows: the promise at the wanted, else at the chosen thresholds. None without data."""
    if whole is None or not whole.decisions or not whole.figures.get("settled", {}).get("images"):
        return None
    curve = whole.figures["curve"]
    chosen = Thresholds(curve["chosen"]["accept"], curve["chosen"]["reject"])
    wanted = chosen if chosen.accept is not None else Thresholds(0.9, chosen.reject)
    if accept or reject:
        wanted = Thresholds(_number(accept, 0.5, 1.0), _number(reject, 0.0, 0.49))
    return {
        "chosen": chosen,
        "at": wanted,
        "promise": bands.told(whole.figures, wanted),
        "needed": curve["needed"],
        "target": curve["chosen"]["target"],
        "data": {"accept": curve["accept"], "reject": curve["reject"], "settled": whole.figures["settled"]},
    }


def _number(text: str, low: float, high: float) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return min(high, max(low, value)) if value == value else None


@needs("curate", "POST")
def change(request: Request, slug: str) -> HttpResponse:
    """Save the form as a new version."""
    profile = find(slug)
    form = JudgeForm(profile, data=request.POST)
    if form.is_valid():
        try:
            version = actions.change(profile, by=request.user, **form.fields())
        except ValidationError as error:
            form.refuse(error)
        else:
            messages.success(
                request, f"{version} is current. Its badge begins anew: compare it with people's decisions."
            )
            return redirect(profile)
    return _page(request, profile, form)


@needs("curate")
def options(request: Request, slug: str) -> HttpResponse:
    """The options of the model just chosen; what was typed before stays where it still applies."""
    return render(request, "judging/partials/judge_options.html", {"form": JudgeForm(find(slug), swap=request.GET)})


@needs("curate", "POST")
def switch(request: Request, slug: str) -> HttpResponse:
    profile = find(slug)
    try:
        actions.set_enabled(profile, request.POST.get("enabled") == "on")
    except ValidationError as error:
        messages.warning(request, " ".join(error.messages))
    else:
        messages.success(request, f"{profile.name} is switched {'on' if profile.enabled else 'off'}.")
    return redirect(profile)


@needs("review", "POST")
def calibrate(request: Request, slug: str) -> HttpResponse:
    """Have a worker compare the judge with people now."""
    profile = find(slug)
    if profile.current is None:
        raise PermissionDenied(REFUSALS["curate"])
    queue.defer(calibrating.CALIBRATE, profile.current.pk)
    messages.success(request, "A worker compares it with people's decisions; the figures are here in a moment.")
    return redirect(profile)
