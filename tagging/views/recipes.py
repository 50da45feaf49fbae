"""Recipes: those that were kept, and one of them with all that it is and what it was used for."""

from __future__ import annotations

from django.db.models import Count, Exists, OuterRef, Q
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render

from ..actions.access import may
from ..models import Channel, Label, Recipe, Run
from .guard import Request, needs

PAGE = 50
RUNS = 20


@needs("read")
def recipes(request: Request) -> HttpResponse:
    """Newest first; those that were only tried on the workbench are left out unless `?all`."""
    used = Exists(Run.objects.filter(recipe=OuterRef("pk")).exclude(purpose=Run.Purpose.TRIAL))
    labelled = Exists(Label.objects.filter(recipe=OuterRef("pk")))
    rows = Recipe.objects.select_related("policy_version__policy").prefetch_related(
        "channels__adapter", "channels__prompt_version__prompt", "labels"
    )
    everything = "all" in request.GET
    if not everything:
        rows = rows.filter(~Q(name="") | used | labelled)
    before = request.GET.get("before", "")
    if before.isdecimal():
        rows = rows.filter(pk__lt=int(before[:18]))
    rows = rows.annotate(n_runs=Count("runs", filter=Q(runs__purpose=Run.Purpose.TAGGING)))
    found = list(rows.order_by("-pk")[: PAGE + 1])
    context = {
        "rows": found[:PAGE],
        "next": found[PAGE - 1].pk if len(found) > PAGE else None,
        "everything": everything,
        "may_curate": may(request.user, "curate"),
    }
    return render(request, "tagging/recipes.html", context)


@needs("read")
def recipe(request: Request, pk: int) -> HttpResponse:
    """Channels, rule, policy, labels and runs."""
    found = get_object_or_404(Recipe.objects.select_related("policy_version__policy", "created_by"), pk=pk)
    channels = list(found.channels.select_related("adapter", "prompt_version__prompt").order_by("position"))
    context = {
        "recipe": found,
        "channels": [(channel, own_options(channel)) for channel in channels],
        "several": len(channels) > 1,
        "rule": _rule(found),
        "labels": found.labels.select_related("adapter", "collection"),
        "runs": Run.objects.filter(recipe=found)
        .exclude(purpose=Run.Purpose.TRIAL)
        .select_related("collection")
        .order_by("-pk")[:RUNS],
        "trials": Run.objects.filter(recipe=found, purpose=Run.Purpose.TRIAL).count(),
        "may_curate": may(request.user, "curate"),
    }
    return render(request, "tagging/recipe.html", context)


def own_options(channel: Channel) -> list[tuple[str, object]]:
    """Options that are not at the defaults of the model's code."""
    try:
        defaults = channel.adapter.adapter_class.Options().model_dump(mode="json")
    except (LookupError, ImportError, TypeError, ValueError):
        defaults = {}
    return [(name, value) for name, value in channel.options.items() if name not in defaults or defaults[name] != value]


def _rule(found: Recipe) -> list[tuple[str, str]]:
    """How its channels are made into one, in words."""
    combine = found.combine
    rule = combine.get("rule", "single")
    if rule == "single":
        return []
    lines = [
        ("Asked", str(Recipe.Order(combine.get("order", "parallel")).label)),
        ("Made into one", str(Recipe.Combine(rule).label)),
    ]
    if cascade := combine.get("cascade"):
        lines.append(("Unsure", ", ".join(f"{k} {v}" for k, v in cascade.items())))
    for name, title in (("votes", "Votes"), ("at_least", "Weighted score at least"), ("unscored", "Without a score")):
        if name in combine:
            lines.append((title, f"{combine[name]}"))
    for channel, weights in combine.get("trust", {}).items():
        words = ", ".join(f"{'all' if c == '*' else c} {w:g}" for c, w in weights.items())
        lines.append((f"Trust in {channel}", words))
    for category, names in combine.get("priority", {}).items():
        lines.append(("Any other category" if category == "*" else f"Category {category}", " → ".join(names)))
    if captions := combine.get("caption"):
        lines.append(("Caption from", " → ".join(captions)))
    return lines
