"""Promotion with its evidence, the watch afterwards, and ensembles from stored answers."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse

from tagging.models import ImageAsset, Label
from tagging.views.guard import Request, needs

from .. import ensembles
from ..actions import promote as actions
from ..models import Experiment, ExperimentRecipe
from .experiments import NAMES

PERMISSION = "judging.promote_experiment"


@needs("read", "GET", "HEAD", "POST")
def promote(request: Request, pk: int, row_pk: int) -> HttpResponse:
    """What speaks for and against a recipe, worst images first; POST moves the label."""
    experiment = get_object_or_404(Experiment.objects.select_related("collection"), pk=pk)
    row = get_object_or_404(ExperimentRecipe.objects.select_related("recipe"), pk=row_pk, experiment=experiment)
    try:
        found = actions.evidence(experiment, row)
    except ValidationError as e:
        messages.warning(request, " ".join(e.messages))
        return redirect(experiment)
    errors: dict[str, list[str]] = {}
    if request.method == "POST":
        if not request.user.has_perm(PERMISSION):
            raise PermissionDenied("Promoting a recipe takes the permission to, which curators have.")
        try:
            event = actions.promote(
                experiment,
                row,
                name=request.POST.get("name", "champion").strip(),
                why=request.POST.get("why", ""),
                collection=experiment.collection if request.POST.get("scope") == "collection" else None,
                by=request.user,
            )
        except ValidationError as e:
            errors = e.message_dict if hasattr(e, "error_dict") else {"form": e.messages}
        else:
            messages.success(request, f"{event.label} points to {row.recipe} now.")
            return redirect(reverse("tagging:labels") + f"#label-{event.label_id}")
    listed = [*found.regressed, *found.improved]
    there = ImageAsset.objects.only("pk", "path", "sha256").in_bulk([one.image for one in listed])
    context = {
        "experiment": experiment,
        "row": row,
        "found": found,
        "metric": NAMES[found.metric][0],
        "regressed": [(one, there[one.image]) for one in found.regressed if one.image in there],
        "improved": [(one, there[one.image]) for one in found.improved[:24] if one.image in there],
        "errors": errors,
        "values": {
            "name": request.POST.get("name", "champion"),
            "why": request.POST.get("why", ""),
            "scope": request.POST.get("scope", "collection"),
        },
        "usual": Label.USUAL,
        "may_promote": request.user.has_perm(PERMISSION),
    }
    return render(request, "judging/promote.html", context, status=422 if errors else 200)


@needs("read", "POST")
def roll_back(request: Request, pk: int) -> HttpResponse:
    """A label goes back to what it pointed to before."""
    if not request.user.has_perm(PERMISSION):
        raise PermissionDenied("Rolling back takes the permission to promote, which curators have.")
    label = get_object_or_404(Label.objects.select_related("recipe", "adapter", "collection"), pk=pk)
    found = actions.watch(label)
    try:
        if found is None:
            raise ValidationError(f"{label} was not moved on the evidence of an experiment.")
        event = actions.roll_back(found, by=request.user)
    except ValidationError as e:
        messages.warning(request, " ".join(e.messages))
    else:
        messages.success(request, f"{label} points to {event.to_recipe} again.")
    return redirect("judging:experiments")


@needs("read")
def watched(request: Request) -> HttpResponse:
    """Alarms of promoted recipes, as a part of other pages: nothing where all is well."""
    alarms = [one for one in actions.watched() if one.alarm]
    return render(request, "judging/watched.html", {"alarms": alarms, "may_promote": request.user.has_perm(PERMISSION)})


# -- together ----------------------------------------------------------------------------------------------------------
@needs("read", "GET", "HEAD", "POST")
def together(request: Request, pk: int) -> HttpResponse:
    """What chosen recipes would score together; POST saves one of the rules as a recipe."""
    experiment = get_object_or_404(Experiment.objects.select_related("collection"), pk=pk)
    data = request.POST if request.method == "POST" else request.GET
    wanted = [int(text) for text in data.getlist("row") if text.isascii() and text.isdigit() and len(text) < 19]
    context: dict[str, Any] = {
        "experiment": experiment,
        "rows": [(row, row.pk in wanted) for row in experiment.rows.order_by("position")],
        "most": ensembles.MOST,
        "may_curate": request.user.has_perm("tagging.add_run"),
    }
    try:
        if request.method == "POST":
            return _save(request, experiment, wanted)
        if wanted:
            found = ensembles.together(experiment, wanted)
            context |= {"found": found, "lines": _lines(found), "members": _members(found)}
    except ValidationError as e:
        context["errors"] = e.messages
    return render(request, "judging/together.html", context, status=422 if context.get("errors") else 200)


def _save(request: Request, experiment: Experiment, wanted: list[int]) -> HttpResponse:
    if not request.user.has_perm("tagging.add_run"):
        raise PermissionDenied("Saving a recipe takes the role of a curator.")
    try:
        rule = json.loads(request.POST.get("rule", ""))
    except ValueError:
        rule = None
    if not isinstance(rule, dict):
        raise ValidationError({"rule": "Say which rule."})
    made = ensembles.save_recipe(experiment, wanted, rule, by=request.user)
    messages.success(request, f"Saved as recipe {made.pk}, {made}. Run it, or put it into an experiment.")
    return redirect(
        reverse("judging:experiment_new") + f"?collection={experiment.collection.slug}&mode=linked&recipe={made.pk}"
    )


def _members(found: ensembles.Together) -> list[tuple[ExperimentRecipe, dict[str, Any], bool]]:
    return [(row, values, row.pk == found.best) for row, values in found.members]


def _lines(found: ensembles.Together) -> list[dict[str, Any]]:
    """Best first, with what each member adds in the members' order."""
    order = [row.pk for row, _ in found.members]
    rows = sorted(found.outcomes, key=lambda o: -(o.values.get("f1") or -1.0))
    return [
        {
            "outcome": o,
            "standing": o.standing or {},
            "tone": {"better": "ok", "worse": "error", "equivalent": "info"}.get(
                str((o.standing or {}).get("word")), "warning"
            ),
            "rule": json.dumps(o.rule),
            "adds": [(o.adds.get(pk), o.asked.get(pk, 1.0)) for pk in order],
        }
        for o in rows
    ]
