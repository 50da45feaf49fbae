"""What an option does: curves with their bands, the map of prompts and models, two recipes side by side."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from django.http import HttpResponseBase
from django.shortcuts import get_object_or_404, render

from prompts.models import PromptVersion
from tagging.models import Channel, ImageAsset, ModelAdapter, PolicyVersion
from tagging.views.guard import Request, needs

from ..board import board
from ..curves import HEIGHT, METRICS, WIDTH, curves, drawn, heat_map, series_marks, swept
from ..matrix import index_of
from ..models import Experiment, ExperimentRecipe
from ..outcomes import outcome
from .matrix_cells import mark, words_diff


@needs("read")
def page(request: Request, pk: int) -> HttpResponseBase:
    """All curves of an experiment, an option at a time, and the map."""
    experiment = get_object_or_404(Experiment.objects.select_related("collection"), pk=pk)
    found = board(experiment)
    axes = swept(found)
    axis = request.GET.get("axis", "")
    axis = axis if axis in axes else (axes[0] if axes else "")
    metric = request.GET.get("metric", "")
    metric = metric if metric in METRICS else found["metric"] if found["metric"] in METRICS else "f1"
    rows = list(experiment.rows.order_by("position"))
    names = axis_names(row.values for row in rows)
    heat = heat_map(found, places_of(rows), metric)
    context = {
        "experiment": experiment,
        "axes": axes,
        "axis": axis,
        "metric": metric,
        "metrics": [
            (name, title) for name, (title, _, _) in METRICS.items() if name in ("f1", "edits", "precision", "recall")
        ],
        "curves": [drawn(curve) for curve in curves(found, axis, names)] if axis else [],
        "width": WIDTH,
        "height": HEIGHT,
        "marks": series_marks([""] * 8),
        "heat": heat,
        "heat_rows": heat_rows(heat, names) if heat else [],
        "models": [names.get(("adapter", m), m) for m in heat.models] if heat else [],
        "rows": [{"row": row, "mark": mark(row.position)} for row in rows],
        "board": found,
    }
    return render(request, "judging/curves.html" + ("#main" if request.htmx else ""), context)


def heat_rows(heat: Any, names: dict[tuple[str, Any], str]) -> list[dict[str, Any]]:
    return [
        {"name": names.get(("prompt", prompt), "no prompt" if prompt is None else f"prompt {prompt}"), "fields": fields}
        for prompt, fields in zip(heat.prompts, heat.fields, strict=True)
    ]


def places_of(rows: list[ExperimentRecipe]) -> dict[int, tuple[str, Any]]:
    """Row → (its models, its prompt version)."""
    channels: dict[int, list[Channel]] = {}
    wanted = [row.recipe_id for row in rows]
    for channel in (
        Channel.objects.filter(recipe__in=wanted).select_related("adapter").order_by("recipe_id", "position")
    ):
        channels.setdefault(channel.recipe_id, []).append(channel)
    found: dict[int, tuple[str, Any]] = {}
    for row in rows:
        parts = channels.get(row.recipe_id, [])
        prompt = next((c.prompt_version_id for c in parts if c.prompt_version_id), None)
        found[row.pk] = (" + ".join(c.adapter.slug for c in parts), prompt)
    return found


def axis_names(values: Iterable[dict[str, Any]]) -> dict[tuple[str, Any], str]:
    """(axis, value) → what a person calls it."""
    found: dict[tuple[str, Any], str] = {}
    labels = dict(ModelAdapter.objects.values_list("slug", "label"))
    prompts, policies = set(), set()
    for one in values:
        prompts |= {one["prompt"]} if isinstance(one.get("prompt"), int) else set()
        policies |= {one["policy"]} if isinstance(one.get("policy"), int) else set()
    found |= {("adapter", slug): label for slug, label in labels.items()}
    every = PromptVersion.objects.select_related("prompt")
    found |= {("prompt", v.pk): str(v) for v in every.filter(pk__in=prompts)}
    found |= {("policy", v.pk): str(v) for v in PolicyVersion.objects.filter(pk__in=policies).select_related("policy")}
    channels = Channel.objects.filter(prompt_version__isnull=False).values_list("prompt_version", flat=True).distinct()
    missing = [pk for pk in channels[:500] if ("prompt", pk) not in found]
    found |= {("prompt", v.pk): str(v) for v in every.filter(pk__in=missing)}
    return found


@needs("read")
def sides(request: Request, pk: int) -> HttpResponseBase:
    """Two recipes: what differs in them beside what differs in what came of them."""
    experiment = get_object_or_404(Experiment, pk=pk)
    rows = list(experiment.rows.select_related("recipe__policy_version__policy").order_by("position"))
    a, b = _chosen(request.GET.get("a"), rows, 0), _chosen(request.GET.get("b"), rows, 1)
    context: dict[str, Any] = {"experiment": experiment, "rows": rows, "a": a, "b": b}
    if a is not None and b is not None and a.pk != b.pk:
        found = outcome(index_of(experiment), a.pk, b.pk)
        wanted = {image for image, _ in (*found.better, *found.worse)}
        wanted |= {image for moved in (*found.gained, *found.lost) for image in moved.examples}
        images = ImageAsset.objects.in_bulk(sorted(wanted))
        context |= {
            "outcome": found,
            "better": [(images[i], -change) for i, change in found.better if i in images],
            "worse": [(images[i], change) for i, change in found.worse if i in images],
            "gained": [(m, [images[i] for i in m.examples if i in images]) for m in found.gained],
            "lost": [(m, [images[i] for i in m.examples if i in images]) for m in found.lost],
            "recipes": _recipe_diff(a, b),
        }
    return render(request, "judging/sides.html" + ("#main" if request.htmx else ""), context)


def _chosen(text: str | None, rows: list[ExperimentRecipe], default: int) -> ExperimentRecipe | None:
    found = next((row for row in rows if text and str(row.pk) == text), None)
    return found or (rows[default] if len(rows) > default else None)


def _recipe_diff(a: ExperimentRecipe, b: ExperimentRecipe) -> list[dict[str, Any]]:
    """What is not alike in two recipes: prompts by word, everything else as before and after."""
    before, after = _parts(a), _parts(b)
    found = []
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name, ""), after.get(name, "")
        if old == new:
            continue
        text = "\n" in old + new or len(old) + len(new) > 120
        ratio = difflib.SequenceMatcher(a=old.split(), b=new.split(), autojunk=False).ratio() if text else 0.0
        found.append({"name": name, "old": old, "new": new, "html": words_diff(old, new) if ratio > 0.2 else ""})
    return found


def _parts(row: ExperimentRecipe) -> dict[str, str]:
    recipe = row.recipe
    found: dict[str, str] = {}
    channels = list(recipe.channels.select_related("adapter", "prompt_version__prompt").order_by("position"))
    for channel in channels:
        at = f"{channel.name or channel.position + 1}: " if len(channels) > 1 else ""
        found[f"{at}model"] = channel.adapter.label
        if channel.prompt_version is not None:
            found[f"{at}prompt"] = str(channel.prompt_version)
            found[f"{at}system text"] = channel.prompt_version.system
            found[f"{at}prompt text"] = channel.prompt_version.template
        found |= {f"{at}{name}": str(value) for name, value in channel.options.items()}
    found["combine"] = str(recipe.combine.get("rule", "single"))
    found["policy"] = str(recipe.policy_version)
    return found
