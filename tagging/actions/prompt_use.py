"""Where a prompt's versions were used, and how that did: recipes, runs, labels, agreement with people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db.models import Count, Max, Q

from prompts.models import Prompt, PromptVersion

from ..models import Channel, Label, Recipe, Run
from .label_metrics import metrics_of

#: recipes whose latest run is measured when a page shows them
MEASURED = 4


@dataclass
class Use:
    """What became of one version."""

    recipes: list[int] = field(default_factory=list)
    runs: int = 0
    trials: int = 0
    last: datetime | None = None
    latest: Run | None = None
    labels: list[Label] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)


def uses_of(versions: Iterable[PromptVersion], *, measured: int = 0) -> dict[int, Use]:
    """Version id → its use. Three queries; with `measured`, some more for each of the newest that many recipes."""
    ids = [version.pk for version in versions]
    of_recipe: dict[int, set[int]] = defaultdict(set)
    found: dict[int, Use] = defaultdict(Use)
    rows = Channel.objects.filter(prompt_version__in=ids).values_list("prompt_version", "recipe").distinct()
    for version_id, recipe_id in rows:
        of_recipe[recipe_id].add(version_id)
        found[version_id].recipes.append(recipe_id)
    runs = (
        Run.objects.filter(recipe__in=of_recipe)
        .values("recipe")
        .annotate(
            n=Count("pk", filter=Q(purpose=Run.Purpose.TAGGING)),
            tried=Count("pk", filter=Q(purpose=Run.Purpose.TRIAL)),
            last=Max("created_at"),
            newest=Max("pk", filter=~Q(purpose=Run.Purpose.TRIAL)),
        )
    )
    newest: dict[int, int] = {}
    for row in runs:
        for version_id in of_recipe[row["recipe"]]:
            use = found[version_id]
            use.runs += row["n"]
            use.trials += row["tried"]
            use.last = max(filter(None, (use.last, row["last"])), default=None)
            if row["newest"]:
                newest[version_id] = max(newest.get(version_id, 0), row["newest"])
    for label in Label.objects.filter(recipe__in=of_recipe).select_related("adapter", "collection"):
        for version_id in of_recipe[label.recipe_id]:
            found[version_id].labels.append(label)
    latest = Run.objects.select_related("recipe", "collection").in_bulk(list(newest.values()))
    for version_id, run_id in newest.items():
        found[version_id].latest = latest.get(run_id)
    wanted = sorted(newest, key=lambda v: -newest[v])[:measured]
    for version_id in wanted:
        run = found[version_id].latest
        if run is not None:
            found[version_id].metrics = metrics_of(Recipe(pk=run.recipe_id))
    return dict(found)


def champions() -> dict[int, list[tuple[int, Label]]]:
    """Prompt id → (version number, label) of the champions that rest on it."""
    found: dict[int, list[tuple[int, Label]]] = defaultdict(list)
    rows = Channel.objects.filter(recipe__labels__name="champion", prompt_version__isnull=False)
    pairs = rows.values_list("prompt_version__prompt", "prompt_version__number", "recipe").distinct()
    labels: dict[int, list[Label]] = defaultdict(list)
    for label in Label.objects.filter(name="champion").select_related("adapter", "collection"):
        labels[label.recipe_id].append(label)
    for prompt_id, number, recipe_id in pairs:
        found[prompt_id] += [(number, label) for label in labels[recipe_id]]
    return dict(found)


def last_used() -> dict[int, datetime]:
    """Prompt id → when a run or trial last used one of its versions."""
    rows = Prompt.objects.listed().annotate(last=Max("versions__channels__recipe__runs__created_at"))
    return {pk: last for pk, last in rows.values_list("pk", "last") if last}
