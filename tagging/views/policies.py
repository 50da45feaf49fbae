"""Policies: the list of them, and the editor with a live preview on a run."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db.models import Count, Max
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse

from ..actions import policies as actions
from ..actions.access import may
from ..actions.lists import UsedRun, current_policy_versions, light_lists, policy_in_force, recent_runs
from ..actions.previews import preview
from ..actions.recompute import start_recompute
from ..actions.runs import NotNow
from ..models import Policy, PolicyVersion, Run
from .guard import Request, needs
from .policy_form import PolicyForm, rule_changes
from .recomputes import jobs_of, with_jobs
from .wordlists import pictures

VERSIONS = 40
RUNS = 20
LIMITS = (200, 500, 1000, 2000)
EXAMPLES = 12


# -- all of them -------------------------------------------------------------------------------------------------------
@needs("read")
def policies(request: Request) -> HttpResponse:
    rows = Policy.objects.annotate(
        n_versions=Count("versions", distinct=True),
        n_recipes=Count("versions__recipes", distinct=True),
        changed_at=Max("versions__created_at"),
    )
    current = current_policy_versions()
    context = {
        "rows": [(row, current.get(row.pk)) for row in rows],
        "may_curate": may(request.user, "curate"),
    }
    return render(request, "prompts/policies.html", context)


@needs("curate", "GET", "HEAD", "POST")
def new(request: Request) -> HttpResponse:
    """Make a policy: with the defaults, or with the rules of another (`from`)."""
    errors: dict[str, list[str]] = {}
    values = request.POST if request.method == "POST" else request.GET
    if request.method == "POST":
        origin = Policy.objects.filter(slug=values.get("from", "")).first()
        begin = origin.current if origin else None
        try:
            made = actions.create_policy(
                slug=values.get("slug", "").strip(), name=values.get("name", "").strip(), note=values.get("note", "")
            )
            message = f"Copied from {begin}" if begin else "The defaults"
            lists = list(begin.wordlists.select_related("wordlist")) if begin else []
            actions.create_policy_version(made, begin.spec if begin else {}, lists, message=message, by=request.user)
        except ValidationError as e:
            errors = e.message_dict
        else:
            return redirect("tagging:policy", made.slug)
    context = {"values": values, "errors": errors, "policies": Policy.objects.all()}
    return render(request, "prompts/policy_new.html", context, status=422 if errors else 200)


# -- one of them -------------------------------------------------------------------------------------------------------
@needs("read")
def policy(request: Request, slug: str) -> HttpResponse:
    """The editor: `?v=` begins with an older version, `?diff=a..b` compares two, `?run=` chooses the preview's run."""
    row = get_object_or_404(Policy, slug=slug)
    number = request.GET.get("v", "")
    versions = row.versions.prefetch_related(light_lists())
    shown = get_object_or_404(versions, number=int(number[:9])) if number.isdecimal() else versions.first()
    return render(request, "prompts/policy.html", _page(request, row, shown, PolicyForm(shown)))


def _page(request: Request, row: Policy, shown: PolicyVersion | None, form: PolicyForm) -> dict[str, Any]:
    versions = list(
        row.versions.select_related("created_by").prefetch_related(light_lists()).order_by("-number")[: VERSIONS + 1]
    )
    runs = runs_of(row)
    wanted = request.GET.get("run", "")
    steps = list(zip(versions, [*versions[1:], None], strict=False))  # the None is there even for none
    return {
        "row": row,
        "shown": shown,
        "current": versions[0] if versions else None,
        "history": [(v, rule_changes(before, v)) for v, before in steps[:VERSIONS] if before or v.number == 1],
        "difference": _compared(row, request.GET.get("diff", "")),
        "form": form,
        "runs": runs,
        "run": next((r.run.pk for r in runs if str(r.run.pk) == wanted), runs[0].run.pk if runs else None),
        "limits": LIMITS,
        "jobs": jobs_of(request),
        "may_curate": may(request.user, "curate"),
    }


def _compared(row: Policy, text: str) -> dict[str, Any] | None:
    a, _, b = text.partition("..")
    if not (a.isdecimal() and b.isdecimal()):
        return None
    wanted = row.versions.filter(number__in=(int(a[:9]), int(b[:9]))).prefetch_related(light_lists())
    found = {v.number: v for v in wanted}
    new = found.get(int(b[:9]))
    old = found.get(int(a[:9]))
    return {"old": old, "new": new, "changes": rule_changes(old, new)} if new else None


def runs_of(row: Policy) -> list[UsedRun]:
    """Runs to try rules on, newest first: those that the policy is in force on, then the others."""
    runs = recent_runs()
    in_force = policy_in_force(runs)
    found = [UsedRun(run, in_force[run.pk], in_force[run.pk].policy_id == row.pk) for run in runs]
    return sorted(found, key=lambda one: not one.uses)[:RUNS]


@needs("curate", "POST")
def show_changes(request: Request, slug: str) -> HttpResponse:
    """What the rules as they are typed would change in the chosen run: before and after, with every tag's fate."""
    row = get_object_or_404(Policy, slug=slug)
    form = PolicyForm(row.current, request.POST)
    context: dict[str, Any] = {"row": row}
    if not form.is_valid():
        return render(request, "prompts/policy.html#changes", {**context, "problems": form.all_errors})
    run = Run.objects.select_related("recipe").filter(pk=_number(request.POST.get("run", ""))).first()
    try:
        if run is None:
            actions.compile_checked(form.spec, form.chosen())
            return render(request, "prompts/policy.html#changes", {**context, "no_run": True})
        limit = _number(request.POST.get("limit", ""))
        found = preview(
            run,
            form.spec,
            form.chosen(),
            limit=limit if limit in LIMITS else LIMITS[1],
            examples=EXAMPLES,
            unchanged=True,
        )
    except ValidationError as error:
        form.refuse(error)
        return render(request, "prompts/policy.html#changes", {**context, "problems": form.all_errors})
    context |= {"found": found, "pictures": pictures(e.image for e in found.examples), "run": run}
    context["in_force"] = policy_in_force([run])[run.pk]
    return render(request, "prompts/policy.html#changes", context)


def _number(text: str) -> int:
    return int(text[:18]) if text.isdecimal() else 0


@needs("curate", "POST")
def save(request: Request, slug: str) -> HttpResponse:
    """A new version, and where asked a recompute of the ticked runs with it."""
    row = get_object_or_404(Policy, slug=slug)
    form = PolicyForm(row.current, request.POST)
    base, message = request.POST.get("base", ""), request.POST.get("message", "").strip()
    version = None
    if not message:
        form.errors["message"] = ["Say in a line what changed."]
    if form.is_valid() and not form.errors:
        try:
            version = actions.create_policy_version(
                row,
                form.spec,
                form.chosen(),
                message=message,
                base=int(base) if base.isdecimal() else None,
                by=request.user,
            )
        except ValidationError as error:
            form.refuse(error)
    if version is None:
        context = _page(request, row, row.current, form)
        return render(request, "prompts/policy.html", {**context, "message": message}, status=422)
    same = base.isdecimal() and version.number == int(base)
    messages.info(request, "Nothing changed: no new version.") if same else messages.success(
        request, f"Saved as version {version.number}."
    )
    return _recomputed(request, row, version)


def _recomputed(request: Request, row: Policy, version: PolicyVersion) -> HttpResponse:
    jobs = []
    ids = [_number(pk) for pk in request.POST.getlist("recompute")] if "and_run" in request.POST else []
    for run in Run.objects.filter(pk__in=ids):
        try:
            jobs.append(start_recompute(run, version, by=request.user))
        except NotNow as error:
            messages.warning(request, str(error))
    return HttpResponseRedirect(with_jobs(reverse("tagging:policy", args=[row.slug]), jobs))


@needs("curate", "POST")
def back(request: Request, slug: str, number: int) -> HttpResponse:
    """Restore an older version: its rules and its versions of the lists become the newest one."""
    row = get_object_or_404(Policy, slug=slug)
    old = get_object_or_404(row.versions, number=number)
    lists = list(old.wordlists.select_related("wordlist"))
    made = actions.create_policy_version(row, old.spec, lists, message=f"Back to version {number}", by=request.user)
    messages.success(request, f"Version {made.number} has the rules of version {number}.")
    return redirect("tagging:policy", row.slug)


@needs("curate", "POST")
def rename(request: Request, slug: str) -> HttpResponse:
    """Name and note; the slug stays, for commands and recipes say it."""
    row = get_object_or_404(Policy, slug=slug)
    row.name = request.POST.get("name", "").strip() or row.name
    row.note = request.POST.get("note", "").strip()
    try:
        row.full_clean()
    except ValidationError as error:
        for line in error.messages:
            messages.error(request, line)
    else:
        row.save(update_fields=["name", "note"])
    return redirect("tagging:policy", row.slug)
