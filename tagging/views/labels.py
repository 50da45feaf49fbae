"""Labels with their timelines: move one with a reason, or go back to where it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Window
from django.db.models.functions import RowNumber
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render

from ..actions import labels as actions
from ..actions.access import may
from ..models import Channel, Collection, Label, LabelEvent, ModelAdapter, Recipe
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


@dataclass
class Move:
    """One move with what was known of the recipe then, as words, and what the recipe is made of."""

    event: LabelEvent
    known: list[tuple[str, str]]
    parts: list[str]


@dataclass
class Row:
    """A label with its latest moves, newest first."""

    label: Label
    moves: list[Move]
    channels: list[Channel]

    @property
    def curve(self) -> dict[str, Any] | None:
        """Precision over the moves, oldest first, as points of a drawing of 120 × 32; None for fewer than two."""
        known = [m.event.metrics.get("precision") for m in reversed(self.moves)]
        values = [v[0] for v in known if isinstance(v, list) and v]
        if len(values) < 2:
            return None
        step = 112 / (len(values) - 1)
        dots = [(round(4 + i * step, 1), round(28 - 24 * v, 1)) for i, v in enumerate(values)]
        line = " ".join(f"{x},{y}" for x, y in dots)
        return {"dots": dots, "line": line, "first": f"{values[0]:.2f}", "last": f"{values[-1]:.2f}"}


def _rows() -> list[Row]:
    """Labels with their latest moves and what they point to. A handful of queries, however many labels there are."""
    found = list(Label.objects.select_related("recipe__policy_version__policy", "adapter", "collection")[:SHOWN])
    nth = Window(RowNumber(), partition_by="label_id", order_by="-id")
    events = LabelEvent.objects.filter(label__in=found).annotate(nth=nth).filter(nth__lte=MOVES)
    of_label: dict[int, list[LabelEvent]] = {label.pk: [] for label in found}
    for event in events.select_related("to_recipe__policy_version__policy", "by").order_by("-id"):
        of_label[event.label_id].append(event)
    recipes = {event.to_recipe_id for rows in of_label.values() for event in rows} | {la.recipe_id for la in found}
    channels: dict[int, list[Channel]] = {pk: [] for pk in recipes}
    parts = Channel.objects.filter(recipe__in=recipes).select_related("adapter", "prompt_version__prompt")
    for channel in parts.order_by("recipe", "position"):
        channels[channel.recipe_id].append(channel)
    return [
        Row(label, [_move_of(e, channels[e.to_recipe_id]) for e in of_label[label.pk]], channels[label.recipe_id])
        for label in found
    ]


def _move_of(event: LabelEvent, channels: list[Channel]) -> Move:
    known = [(str(name), _words(value)) for name, value in event.metrics.items()]
    return Move(event, known, [*(str(channel) for channel in channels), str(event.to_recipe.policy_version)])


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
