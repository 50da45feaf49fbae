"""The gate of a collection: which judge, how strict, what it has done."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render

from tagging.actions.access import may
from tagging.actions.runs import NotNow
from tagging.models import Collection, Run
from tagging.views.guard import REFUSALS, Request, needs

from ..actions import calibrating, gates
from ..models import Gate, GateOutcome, JudgeJob, JudgeProfile
from .judges import slider

SHOWN = 24


@needs("read", "GET", "HEAD", "POST")
def show(request: Request, slug: str) -> HttpResponse:
    """Settings with the promise they make, jobs and the latest outcomes."""
    collection = get_object_or_404(Collection, slug=slug)
    errors: dict[str, list[str]] = {}
    if request.method == "POST":
        if not may(request.user, "curate"):
            raise PermissionDenied(REFUSALS["curate"])
        try:
            gate = _save(request, collection)
        except ValidationError as error:
            errors = error.message_dict if hasattr(error, "error_dict") else {"": error.messages}
        else:
            messages.success(request, "The gate is set." if gate.enabled else "The gate is closed.")
            return redirect("judging:gate", slug)
    found = Gate.objects.select_related("profile__current", "version__profile").filter(collection=collection).first()
    judges = [
        p
        for p in calibrating.with_badges(JudgeProfile.objects.filter(enabled=True, kind__in=("verifier", "jury")))
        if p.current and (p.kind == "verifier" or p.current.rules.get("of") == "verifier")
    ]
    wanted = request.POST.get("judge") or request.GET.get("judge") or (found.profile.slug if found else "")
    judge = next((p for p in judges if p.slug == wanted), judges[0] if judges else None)
    values = _values(request, found if found and judge and found.profile_id == judge.pk else None, judge)
    context = {
        "collection": collection,
        "gate": found,
        "closed": gates.open_for(found) if found else "",
        "judges": judges,
        "judge": judge,
        "values": values,
        "slider": slider(judge.newest, values["accept_at"] or "closed", values["reject_at"]) if judge else None,
        "errors": errors,
        "runs": collection.runs.filter(shown=True, purpose=Run.Purpose.TAGGING).order_by("-pk")[:20],
        "jobs": JudgeJob.objects.filter(gate=found).select_related("version__profile")[:10] if found else [],
        "outcomes": GateOutcome.objects.filter(collection=collection)
        .select_related("image__collection", "verdict")
        .order_by("-id")[:SHOWN],
        "may_curate": may(request.user, "curate"),
    }
    return render(request, "judging/gate.html", context, status=422 if errors else 200)


def _values(request: Request, gate: Gate | None, judge: JudgeProfile | None) -> dict[str, Any]:
    if request.method == "POST":
        names = ("accept_at", "reject_at", "target", "audit_share")
        return {
            **{n: request.POST.get(n, "") for n in names},
            "enabled": "enabled" in request.POST,
            "automatic": "automatic" in request.POST,
        }
    if gate is not None:
        return {
            "enabled": gate.enabled,
            "automatic": gate.automatic,
            "accept_at": "" if gate.accept_at is None else f"{gate.accept_at:.2f}",
            "reject_at": "" if gate.reject_at is None else f"{gate.reject_at:.2f}",
            "target": f"{gate.target:.2f}",
            "audit_share": f"{gate.audit_share:.2f}",
        }
    chosen = judge.newest.figures.get("curve", {}).get("chosen", {}) if judge and judge.newest else {}
    accept, reject = chosen.get("accept"), chosen.get("reject")
    return {
        "enabled": True,
        "accept_at": "" if accept is None else f"{accept:.2f}",
        "reject_at": "" if reject is None else f"{reject:.2f}",
        "target": "0.95",
        "audit_share": "0.05",
    }


def _save(request: Request, collection: Collection) -> Gate:
    posted = request.POST
    profile = JudgeProfile.objects.select_related("current__profile").filter(slug=posted.get("judge", "")).first()
    if profile is None:
        raise ValidationError({"judge": "Choose a judge."})
    numbers: dict[str, float | None] = {}
    for name, needed in (("accept_at", False), ("reject_at", False), ("target", True), ("audit_share", True)):
        text = posted.get(name, "").strip().replace(",", ".")
        try:
            numbers[name] = float(text) if text else None
        except ValueError:
            raise ValidationError({name: f"{text!r} is not a number."}) from None
        if needed and numbers[name] is None:
            raise ValidationError({name: "A number is needed."})
    return gates.save_gate(
        collection,
        profile,
        enabled="enabled" in posted,
        automatic="automatic" in posted,
        accept_at=numbers["accept_at"],
        reject_at=numbers["reject_at"],
        target=numbers["target"] or 0,
        audit_share=numbers["audit_share"] or 0,
        by=request.user,
    )


@needs("curate", "POST")
def through(request: Request, slug: str) -> HttpResponse:
    """Send a run through the gate."""
    collection = get_object_or_404(Collection, slug=slug)
    text = request.POST.get("run", "")
    run = collection.runs.filter(pk=int(text)).first() if text.isascii() and text.isdigit() and len(text) < 19 else None
    if run is None:
        raise Http404("There is no such run.")
    try:
        job = gates.through_gate(collection, run, by=request.user)
    except (NotNow, ValidationError) as error:
        messages.warning(request, " ".join(getattr(error, "messages", [str(error)])))
        return redirect("judging:gate", slug)
    return redirect(job)
