"""Labels with their timelines: move one with a reason, or go back to where it was."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Window
from django.db.models.functions import RowNumber
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render

from ..actions import labels as actions
from ..actions.access import may
from ..models import Collection, Label, LabelEvent, ModelAdapter, Recipe
from .guard import REFUSALS, Request, needs

SHOWN = 200  # labels on the page
MOVES = 20  # moves of each label; the API has them all


@needs("read", "GET", "HEAD", "POST")
def labels(request: Request) -> HttpResponse:
    """All labels, each with its latest moves; curators get the form that moves one (?recipe= fills it in)."""
    errors: dict[str, list[str]] = {}
    if request.method == "POST":
        if not may(request.user, "curate"):
            raise PermissionDenied(REFUSALS["curate"])
        try:
            event = _move(request)
        except ValidationError as e:
            errors = e.message_dict
        else:
            messages.success(request, f"{event.label} points to {event.to_recipe}.")
            return redirect("tagging:labels")
    values = request.POST if request.method == "POST" else request.GET
    names = ("name", "task", "adapter", "collection", "recipe", "why")
    context = {
        "rows": _rows(),
        "values": {name: values.get(name, "") for name in names},
        "errors": errors,
        "usual": Label.USUAL,
        "tasks": Label.Task.choices,
        "adapters": ModelAdapter.objects.only("slug", "label") if may(request.user, "curate") else [],
        "collections": Collection.objects.only("slug", "name") if may(request.user, "curate") else [],
        "recipes": Recipe.objects.order_by("-pk")[:100] if may(request.user, "curate") else [],
        "may_curate": may(request.user, "curate"),
        "why_length": actions.WHY_LENGTH,
    }
    return render(request, "tagging/labels.html", context, status=422 if errors else 200)


def _rows() -> list[tuple[Label, list[tuple[LabelEvent, list[tuple[str, str]]]]]]:
    """Labels with their latest moves, and what was known at each as words. Two queries."""
    found = list(Label.objects.select_related("recipe", "adapter", "collection")[:SHOWN])
    moves: dict[int, list[tuple[LabelEvent, list[tuple[str, str]]]]] = {label.pk: [] for label in found}
    nth = Window(RowNumber(), partition_by="label_id", order_by="-id")
    events = LabelEvent.objects.filter(label__in=found).annotate(nth=nth).filter(nth__lte=MOVES)
    for event in events.select_related("to_recipe", "by").order_by("-id"):
        known = [(str(name), _words(value)) for name, value in event.metrics.items()]
        moves[event.label_id].append((event, known))
    return [(label, moves[label.pk]) for label in found]


def _words(value: Any) -> str:
    """A share with its interval as "0.67 (0.21 to 0.94)"; everything else as it is."""
    if isinstance(value, list) and len(value) == 3 and all(isinstance(v, (int, float)) for v in value):
        return f"{value[0]:.2f} ({value[1]:.2f} to {value[2]:.2f})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _move(request: Request) -> LabelEvent:
    posted = request.POST
    collection = _named(Collection, "collection", posted.get("collection", ""))
    try:
        recipe = actions.find_recipe(posted.get("recipe", ""), collection=collection)
    except actions.UnknownLabel as e:
        raise ValidationError({"recipe": str(e)}) from None
    return actions.move_label(
        posted.get("name", ""),
        recipe,
        why=posted.get("why", ""),
        task=posted.get("task", ""),
        adapter=_named(ModelAdapter, "adapter", posted.get("adapter", "")),
        collection=collection,
        by=request.user,
    )


def _named(model: Any, field: str, slug: str) -> Any:
    if not slug:
        return None
    found = model.objects.filter(slug=slug).first()
    if found is None:
        raise ValidationError({field: f"There is no {field} {slug!r}."})
    return found


@needs("curate", "POST")
def back(request: Request, pk: int) -> HttpResponse:
    """Point the label again where that move had pointed it."""
    event = get_object_or_404(
        LabelEvent.objects.select_related("label__adapter", "label__collection", "to_recipe"), pk=pk
    )
    try:
        actions.back_to(event, by=request.user)
    except ValidationError as e:
        messages.warning(request, " ".join(e.messages))
    else:
        messages.success(request, f"{event.label} points to {event.to_recipe} again.")
    return redirect("tagging:labels")
