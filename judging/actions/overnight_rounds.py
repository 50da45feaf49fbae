"""What a search tries next: recipes one step from the best that fit into what is left, and who goes to the last check.
Reads only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from tagging.models import Recipe

from .. import metrics
from ..models import OvernightRound, OvernightSearch
from ..neighbours import REFINED, refined
from . import cells
from .preflight import Preflight, preflight

Kind = OvernightRound.Kind
#: recipes of a round, the one to beat included; finalists of the last check
ROUND, FINALISTS = 12, 3
#: of either budget, kept for the last check where nothing better is known
RESERVE = 0.15


def tried_of(search: OvernightSearch) -> set[int]:
    """Recipes that took part in any round."""
    rounds = search.rounds.filter(kind=Kind.SEARCH)
    return set(rounds.values_list("experiment__rows__recipe", flat=True)) - {None}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recipe to try, with what it is called."""

    recipe: int
    name: str


def candidates(search: OvernightSearch) -> list[Candidate]:
    """Untried recipes one step from the best, in an order drawn with the seed. Where all of them are tried, values
    between those that were: the gaps beside the best are halved, at most twice. ValidationError where the space cannot
    be made any more."""
    tried = tried_of(search)
    best = Recipe.objects.get(pk=search.best_id)
    axes = cells.axes_of({**search.axes, "mode": "around"})
    for _ in range(1 + REFINED):
        grid, values = cells.grid_of(axes, best)
        made = cells.recipes_for(grid.cells, cells.names_of(grid.cells, values))
        new = {recipe.pk: Candidate(recipe.pk, name) for recipe, name in made if recipe.pk not in tried | {best.pk}}
        if new:
            return sorted(new.values(), key=lambda c: _draw(search, c))
        options = dict(cells.cells_of([best])[best.pk].parts[0].options)
        more = refined(axes.options, options)
        if not more:
            return []
        axes = axes.model_copy(update={"options": {n: [*axes.options[n], *more.get(n, [])] for n in axes.options}})
    return []


def _draw(search: OvernightSearch, candidate: Candidate) -> bytes:
    return hashlib.blake2b(f"{search.seed} {candidate.recipe}".encode(), digest_size=8).digest()


def affordable(search: OvernightSearch, recipes: Sequence[int]) -> list[int]:
    """As many of them as the estimates say fit into what is left, the reserve for the last check taken off."""
    seconds = search.seconds_left - reserve(search) * search.seconds
    left = search.money_left
    if left is not None:
        left -= reserve(search) * float(search.money or 0)
    chosen = list(recipes)
    while chosen:
        before = _estimate(search, [search.best_id, *chosen])
        slow = before.seconds is not None and before.seconds > seconds
        dear = left is not None and before.cost is not None and before.cost > left
        if not slow and not dear:
            return chosen
        chosen = chosen[: len(chosen) // 2]
    return []


def _estimate(search: OvernightSearch, recipes: Sequence[int]) -> Preflight:
    return preflight(
        search.collection, {"mode": "linked", "recipes": list(recipes)}, images=search.part(held_out=False)
    )


def finalists_of(search: OvernightSearch) -> list[int]:
    """The best first, then those that did better than the recipe to beat; by their figures when they were last seen."""
    seen: dict[int, float] = {}
    base: float | None = None
    for round_ in search.rounds.filter(kind=Kind.SEARCH, outcome__isnull=False).order_by("number"):
        outcome = round_.outcome or {}
        sign = 1 if metrics.METRICS[outcome["metric"]] else -1
        for row in outcome["rows"]:
            if row["value"] is None or not row["compared"]:
                continue
            if row["recipe"] == search.base_id:
                base = sign * row["value"]
            seen[row["recipe"]] = sign * row["value"]
    better = [pk for pk, value in seen.items() if pk != search.base_id and (base is None or value > base)]
    better.sort(key=lambda pk: (pk != search.best_id, -seen[pk], pk))
    return better[:FINALISTS]


def reserve(search: OvernightSearch) -> float:
    """The check asks up to four recipes of the held-out images, once."""
    held = sum(search.held_out)
    dev = max(1, search.n_images - held)
    return min(0.4, max(RESERVE, (FINALISTS + 1) * held / (ROUND * dev)))
