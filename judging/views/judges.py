"""Judges: the list with badges, one judge with its calibration, and the form that changes it."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render

from prompts.models import PromptVersion
from tagging import queue
from tagging.actions.access import may
from tagging.models import Collection, ModelAdapter, Run
from tagging.views.guard import REFUSALS, Request, needs

from ..actions import calibrating, inbox
from ..actions import judges as actions
from ..api.judges import newest
from ..judges import gate as bands
from ..judges.gate import Thresholds
from ..judges.spec import ASKING, SPECS
from ..models import Calibration, JudgeJob, JudgeProfile

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
    return _page(request, find(slug), {}, None)


def _page(request: Request, profile: JudgeProfile, errors: dict[str, list[str]], posted: Any) -> HttpResponse:
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
        "errors": errors,
        "may_curate": curate,
        "may_review": may(request.user, "review"),
        "counts_people": Calibration.objects.filter(version=version).exists() if version else False,
    }
    if curate:
        context |= _form(profile, posted)
    return render(request, "judging/judge.html", context, status=422 if errors else 200)


def _form(profile: JudgeProfile, posted: Any) -> dict[str, Any]:
    """What the form of changes and that of new jobs offer."""
    version = profile.current
    tasks = ("pairwise",) if profile.kind == JudgeProfile.Kind.PAIRWISE else ("judge",)
    prompts = (
        PromptVersion.objects.filter(prompt__task__in=tasks).select_related("prompt").order_by("prompt", "-number")
    )
    adapters = []
    for row in ModelAdapter.objects.filter(enabled=True):
        try:
            if row.adapter_class.capabilities.prompt:
                adapters.append(row)
        except (LookupError, ImportError):
            continue
    own = version.options if version else {}
    values = {
        "adapter": version.adapter.slug if version and version.adapter else "",
        "prompt_version": str(version.prompt_version_id or "") if version else "",
        "rubric": version.rubric if version else "",
        "rules": json.dumps(version.rules if version else {}, indent=2, ensure_ascii=False),
        "options": json.dumps(own, indent=2, ensure_ascii=False),
        "members": [str(m.profile.slug) for m in version.members.all()] if version else [],
        "message": "",
    }
    if posted is not None:
        values |= {name: posted.get(name, "") for name in values if name != "members"}
        values["members"] = posted.getlist("members")
    fields = SPECS[profile.kind].model_json_schema().get("properties", {})
    return {
        "values": values,
        "adapters": adapters,
        "prompt_versions": list(prompts[:200]),
        "others": JudgeProfile.objects.filter(current__isnull=False, kind__in=sorted(ASKING)).exclude(pk=profile.pk),
        "rule_help": [(name, f.get("description", "")) for name, f in fields.items() if f.get("description")],
        "runs": Run.objects.listed().select_related("collection", "recipe").order_by("-pk")[:RUNS],
        "collections": Collection.objects.only("slug", "name"),
    }


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
    try:
        version = actions.change(profile, by=request.user, **_posted(profile, request.POST))
    except ValidationError as error:
        found = error.message_dict if hasattr(error, "error_dict") else {"": error.messages}
        return _page(request, find(slug), found, request.POST)
    messages.success(request, f"{version} is current. Its badge begins anew: compare it with people's decisions.")
    return redirect(profile)


def _posted(profile: JudgeProfile, posted: Any) -> dict[str, Any]:
    errors: dict[str, list[str]] = {}
    found: dict[str, Any] = {"message": posted.get("message", ""), "rubric": posted.get("rubric", "")}
    for name in ("rules", "options"):
        text = posted.get(name, "").strip()
        try:
            found[name] = json.loads(text) if text else {}
            if not isinstance(found[name], dict):
                raise ValueError("an object with names and values is needed")
        except ValueError as error:
            errors[name] = [f"This is not JSON: {error}."]
    if profile.kind in ASKING:
        slug, prompt = posted.get("adapter", ""), posted.get("prompt_version", "")
        found["adapter"] = ModelAdapter.objects.filter(slug=slug).first()
        if slug and found["adapter"] is None:
            errors["adapter"] = [f"There is no model {slug!r}."]
        before = profile.current.adapter if profile.current else None
        if found["adapter"] != before and profile.current and found.get("options") == profile.current.options:
            found["options"] = {}  # they were the other model's
        is_number = prompt.isascii() and prompt.isdigit() and len(prompt) < 19
        found["prompt_version"] = PromptVersion.objects.filter(pk=int(prompt)).first() if is_number else None
    else:
        found.pop("options", None)
    if profile.kind == JudgeProfile.Kind.JURY:
        slugs = posted.getlist("members")
        rows = JudgeProfile.objects.filter(slug__in=slugs, current__isnull=False).select_related("current__profile")
        found["members"] = [row.current for row in rows]
    if errors:
        raise ValidationError(errors)
    return found


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
