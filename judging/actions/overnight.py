"""Begin a search for the best recipe, pause, resume and stop it. The work is done by `actions.overnight_steps`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.db.models import F
from django.utils import timezone

from tagging import queue
from tagging.actions.runs import NotNow
from tagging.models import Collection, ModelAdapter

from ..images import choose, held_out
from ..models import Experiment, OvernightRound, OvernightSearch
from ..ranking import FEWEST
from . import cells, experiments
from .experiments import NAME_LENGTH
from .preflight import reviewed

State = OvernightSearch.State
TASK = "judging.tasks.search"
MOST_HOURS = 24 * 7
#: Without a share of images for the last check, luck would be promoted.
HOLDOUT = 0.3


def start_search(
    collection: Collection,
    axes: Mapping[str, Any],
    *,
    hours: float,
    money: Decimal | float | str | None = None,
    base: str = "",
    name: str = "",
    filter: str = "review=reviewed",
    sample: int | None = None,
    seed: int = 0,
    holdout: float = HOLDOUT,
    margin: float = 0.02,
    by: AbstractBaseUser | None = None,
) -> OvernightSearch:
    """Begin. `axes`: what may vary (adapters, prompts, options, policies), as `judging.grid.Axes` reads them. `hours`
    of working time and `money`, in the currency of the models' prices, are never exceeded knowingly. `base`: the recipe
    to beat, as `find_base` takes it. ValidationError keyed by the argument or the axis."""
    limit = _check(hours, money, holdout)
    recipe = cells.find_base(base, collection)
    if recipe is None:
        raise ValidationError({"base": f"{collection} has no champion yet: name the recipe to begin with."})
    parsed = cells.axes_of({**axes, "mode": "around"})
    if parsed.combine or parsed.recipes:
        raise ValidationError({"axes": "A search varies adapters, prompts, options and policies."})
    if parsed.empty:
        raise ValidationError({"axes": "Say what may vary: models, prompts, options or policies."})
    cells.grid_of(parsed, recipe)  # what cannot be made is told now, not at night
    currency = _currency([*parsed.adapters, *(c.adapter.slug for c in recipe.channels.select_related("adapter"))])
    experiments.check_given(name, "", filter, sample, seed, 0.0, 1, margin)
    images = choose(collection, filter, sample=sample, seed=seed)
    held = held_out(images, holdout)
    search = OvernightSearch(
        name=name.strip() or f"Best recipe for {collection}"[:NAME_LENGTH],
        collection=collection,
        filter=filter,
        sample=sample,
        seed=seed,
        axes=parsed.model_dump(mode="json", exclude_defaults=True),
        base=recipe,
        best=recipe,
        margin=margin,
        seconds=max(1, round(hours * 3600)),
        money=limit,
        currency=currency,
        clock_from=timezone.now(),
        created_by=experiments.user_of(by),
    )
    search.freeze(images, held)
    for part, words in ((False, "to search on"), (True, "kept for the last check")):
        n = reviewed([pk for pk, _ in search.part(held_out=part)])
        if n < FEWEST:
            raise ValidationError(
                {"filter": f"Only {n} of the images {words} are reviewed; at least {FEWEST} are needed to measure by."}
            )
    search.save()
    queue.defer(TASK, search.pk)
    return search


def _check(hours: float, money: Decimal | float | str | None, holdout: float) -> Decimal | None:
    errors: dict[str, str] = {}
    if not 0 < hours <= MOST_HOURS:
        errors["hours"] = f"Above 0 and at most {MOST_HOURS} hours."
    if not 0.1 <= holdout <= 0.5:
        errors["holdout"] = "A share from 0.1 to 0.5."
    limit = None
    if money not in (None, ""):
        try:
            limit = Decimal(str(money)).quantize(Decimal("0.0001"))
        except InvalidOperation:
            errors["money"] = f"{money!r} is no amount of money."
        else:
            if not 0 < limit < 10**8:
                errors["money"] = "An amount above 0."
    if errors:
        raise ValidationError(errors)
    return limit


def _currency(slugs: list[str]) -> str:
    """That of the prices of these models; empty where none has one. ValidationError under "money" for several."""
    found = set()
    for row in ModelAdapter.objects.filter(slug__in=slugs):
        if row.options.get("price_in") or row.options.get("price_out"):
            found.add(str(row.options.get("currency") or ""))
    if len(found) > 1:
        raise ValidationError({"money": f"One currency, please; these models have {', '.join(sorted(found))}."})
    return found.pop() if found else ""


# -- its life ---------------------------------------------------------------------------------------------------------
def pause(search: OvernightSearch) -> None:
    """The clock stands still; its experiment is paused. NotNow unless it is running."""
    _move(search, (State.RUNNING,), State.PAUSED, "paused")
    if found := current(search):
        with contextlib.suppress(NotNow):
            experiments.pause(found)


def resume(search: OvernightSearch) -> None:
    """Go on where it was paused. NotNow unless it is paused."""
    _move(search, (State.PAUSED,), State.RUNNING, "resumed")
    if found := current(search):
        with contextlib.suppress(NotNow):
            experiments.resume(found)
    queue.defer(TASK, search.pk)


def stop(search: OvernightSearch) -> None:
    """No more rounds and no last check; what was found is kept. NotNow once it has ended."""
    _move(search, OvernightSearch.OPEN, State.STOPPED, "stopped")
    if found := current(search):
        with contextlib.suppress(NotNow):
            experiments.stop(found)
    text = "Stopped by a person before the last check: nothing here was checked on images that the search never saw."
    OvernightSearch.objects.filter(pk=search.pk).update(finished_at=timezone.now(), verdict=text)
    search.refresh_from_db()


def delete_search(search: OvernightSearch) -> None:
    """The search goes; its experiments, runs and answers stay. NotNow while it is open."""
    search.refresh_from_db(fields=["state"])
    if search.state in OvernightSearch.OPEN:
        raise NotNow(f"{search} is {search.get_state_display()}: stop it first.")
    search.delete()


def current(search: OvernightSearch) -> Experiment | None:
    """The experiment of the latest round."""
    last = OvernightRound.objects.filter(search=search).select_related("experiment").order_by("-number").first()
    return last.experiment if last else None


def _move(search: OvernightSearch, before: tuple[str, ...], after: str, verb: str) -> None:
    """The token rises: a controller at work notices before its next write. The clock is kept."""
    search.refresh_from_db()
    now = timezone.now()
    moved = OvernightSearch.objects.filter(pk=search.pk, state__in=before).update(
        state=after,
        token=F("token") + 1,
        owner="",
        lease_until=None,
        used_seconds=search.used(now),
        clock_from=now if after == State.RUNNING else None,
    )
    search.refresh_from_db()
    if not moved:
        raise NotNow(f"{search} is {search.get_state_display()} and cannot be {verb}.")
