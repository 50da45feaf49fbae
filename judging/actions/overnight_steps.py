"""The controller of a search: plans a round, waits for its experiment, keeps the best, stops at the budget, and has the
finalists checked on images that no round has seen.

Called whenever something of it ends, and each minute by the sweeper. Everything it decides follows from what is stored,
and is stored with the decision: one that is killed anywhere is followed by another that decides the same.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.db import DatabaseError, transaction
from django.db.models import QuerySet, Sum
from django.utils import timezone

from tagging import queue
from tagging.actions.runs import NotNow
from tagging.engine import job_leases
from tagging.models import Run

from .. import board as boards
from .. import metrics
from ..models import Experiment, OvernightRound, OvernightSearch
from . import experiments
from .overnight import TASK, current
from .overnight_rounds import ROUND, affordable, candidates, finalists_of, reserve
from .purses import LEAST, money, top_up

State, Kind = OvernightSearch.State, OvernightRound.Kind
LEASE = timedelta(seconds=120)
#: after these many rounds it is enough
ROUNDS = 40
log = logging.getLogger(__name__)


class Lost(Exception):
    """The search was paused or stopped, or another controller has it."""


def advance_search(search_id: int) -> OvernightSearch | None:
    """Do what is due now; the search as it is then, None where it is gone. Harmless to call at any time."""
    search = _claim(search_id)
    if search is None:
        return OvernightSearch.objects.filter(pk=search_id).first()
    try:
        while _step(search):
            pass
    except Lost:
        pass
    except DatabaseError:  # what was not written is done again, as soon as the database answers
        job_leases.let_go(_held(search))
        raise
    except Exception as error:
        log.exception("search %s", search.pk)
        _give_up(search, error)
    else:
        _held(search).update(owner="", lease_until=None)
    search.refresh_from_db()
    return search


def _claim(pk: int) -> OvernightSearch | None:
    search = OvernightSearch.objects.select_related("collection", "base", "best").filter(pk=pk).first()
    if search is None or search.state != State.RUNNING or job_leases.alive(search):
        return None
    return search if job_leases.take(search, LEASE, where={"state": State.RUNNING}) else None


def _held(search: OvernightSearch) -> QuerySet[OvernightSearch]:
    return job_leases.ours(search, state=State.RUNNING)


def _keep(search: OvernightSearch, **values: Any) -> None:
    """Write, and renew the lease; Lost where it is no longer ours."""
    if not _held(search).update(lease_until=timezone.now() + LEASE, **values):
        raise Lost(search.pk)
    for name, value in values.items():
        setattr(search, name, value)


def _note(search: OvernightSearch, text: str) -> list[dict[str, Any]]:
    return [*search.log, {"at": timezone.now().isoformat(), "text": text}]


def spent_of(search: OvernightSearch) -> float:
    """What the runs of its rounds cost so far; what was known from before is free. One query."""
    mine = Run.objects.filter(experiment_links__row__experiment__overnight_round__search=search).distinct()
    return float(Run.objects.filter(pk__in=mine.values("pk")).aggregate(n=Sum("spent"))["n"] or 0.0)


# -- a step -----------------------------------------------------------------------------------------------------------
def _step(search: OvernightSearch) -> bool:
    """True when there is something more to do at once."""
    _keep(search, spent=spent_of(search))
    last = search.rounds.select_related("experiment").order_by("-number").first()
    if last is None:
        return _next_round(search)
    if last.outcome is None:
        return _wait(search, last)
    if last.kind == Kind.CHECK:
        _end(search, last)
        return False
    return _next_round(search)


def _wait(search: OvernightSearch, round_: OvernightRound) -> bool:
    """Start, watch or close the present round."""
    experiment = round_.experiment
    if experiment.state == Experiment.State.DRAFT:
        with contextlib.suppress(NotNow):
            experiments.start(experiment, stage="full", racing=round_.kind == Kind.SEARCH)
        return False
    if experiment.state in Experiment.OPEN:
        over = _over(search, checking=round_.kind == Kind.CHECK) or _broke(search, experiment)
        if not over:
            return False
        with contextlib.suppress(NotNow):
            experiments.stop(experiment)
        _keep(search, log=_note(search, f"Round {round_.number} ends early: {over}."))
        experiment.refresh_from_db()
    _close(search, round_)
    return True


def _over(search: OvernightSearch, *, checking: bool) -> str:
    """Why no more may be asked; empty while there is room. The search leaves some of both for the last check."""
    share = 0.0 if checking else reserve(search)
    if search.seconds_left <= share * search.seconds:
        return "its time is used up" if checking else "what time is left is for the last check"
    left = search.money_left
    if left is not None and left <= share * float(search.money or 0):
        return "its money is used up" if checking else "what money is left is for the last check"
    return ""


def _broke(search: OvernightSearch, experiment: Experiment) -> str:
    """Runs that paused because their share of the money was too small get what others left over; where that is too
    little, they would wait for ever."""
    if experiment.budget is None or experiment.state != Experiment.State.RUNNING or top_up(experiment):
        return ""
    return "its money is used up" if search.state == State.RUNNING else ""


# -- closing a round --------------------------------------------------------------------------------------------------
def _close(search: OvernightSearch, round_: OvernightRound) -> None:
    """Write down how each recipe did, and go on from the best of them."""
    experiment = round_.experiment
    found = boards.board(experiment)
    metric = found["metric"]
    sign = 1 if metrics.METRICS[metric] else -1
    rows = []
    for row in found["rows"]:
        stands = row["standing"].get(metric) or {}
        value = stands.get("value")
        rows.append(
            {
                "recipe": row["recipe"],
                "row": row["row"],
                "name": row["name"],
                "images": row["done"],
                "value": value if value is not None else row["metrics"].get(metric),
                "compared": value is not None,
                **{k: stands.get(k) for k in ("low", "high", "delta", "delta_low", "delta_high", "word", "more")},
                "dropped": row["dropped_why"],
                "edits": row["metrics"].get("edits"),
                "cost_per_1000": row["metrics"].get("cost_per_1000"),
                "seconds": row["metrics"].get("seconds_p50"),
            }
        )
    outcome = {"metric": metric, "judged": found["judged_images"], "images": found["images"], "rows": rows}
    best, note = search.best_id, ""
    if round_.kind == Kind.SEARCH:
        told = {row["recipe"]: sign * row["value"] for row in rows if row["compared"]}
        if told:
            leader = max(told, key=lambda pk: (told[pk], pk == search.best_id, -pk))
            if told[leader] > told.get(search.best_id, float("-inf")) + 1e-12:
                best = leader
        name = next((row["name"] for row in rows if row["recipe"] == best), "")
        note = f"{name} leads now." if best != search.best_id else "Nothing did better than what led before."
    with transaction.atomic():
        _keep(
            search,
            best_id=best,
            spent=spent_of(search),
            log=_note(search, f"Round {round_.number}: {note}" if note else "The last check is done."),
        )
        OvernightRound.objects.filter(pk=round_.pk).update(outcome=outcome, note=note)
    if experiment.state == Experiment.State.FAILED:
        _keep(search, log=_note(search, f"Round {round_.number} failed: {experiment.error[:300]}"))


# -- planning ---------------------------------------------------------------------------------------------------------
def _next_round(search: OvernightSearch) -> bool:
    """Another round of the search, else the last check, else the end."""
    number = 1 + (search.rounds.order_by("-number").values_list("number", flat=True).first() or 0)
    why = _over(search, checking=False) or ("it has had enough rounds" if number > ROUNDS else "")
    if not why:
        found = candidates(search)
        why = "" if found else "everything within the given ranges was tried"
        if found:
            chosen = affordable(search, [c.recipe for c in found[: ROUND - 1]])
            why = "" if chosen else "another round does not fit into what is left"
            if chosen:
                _begin(search, number, Kind.SEARCH, [search.best_id, *chosen], base=search.best_id)
                return True
    _keep(search, log=_note(search, f"The search is over: {why}."))
    finalists = finalists_of(search)
    if not finalists:
        text = f"Nothing that was tried did better than {search.base} on the images searched on: nothing to promote."
        _finish(search, text)
        return False
    _begin(search, number, Kind.CHECK, [search.base_id, *finalists], base=search.base_id)
    return True


def _begin(search: OvernightSearch, number: int, kind: str, recipes: Sequence[int], *, base: int) -> None:
    """The experiment of a round and the round, in one transaction fenced by the token; it is started by `_wait`."""
    left = search.money_left
    if left is not None and kind == Kind.SEARCH:
        left -= reserve(search) * float(search.money or 0)
    words = "last check" if kind == Kind.CHECK else f"round {number}"
    with transaction.atomic():
        _keep(search)
        made = experiments.create_experiment(
            search.collection,
            {"mode": "linked", "recipes": list(dict.fromkeys(recipes))},
            base=str(base),
            name=f"{search.name}: {words}"[: experiments.NAME_LENGTH],
            question="Which of the finalists is better on images that the search never saw?"
            if kind == Kind.CHECK
            else "",
            seed=search.seed,
            margin=search.margin,
            images=search.part(held_out=kind == Kind.CHECK),
            budget=max(LEAST, money(left)) if left is not None else None,
            by=search.created_by,
        )
        OvernightRound.objects.create(search=search, number=number, kind=kind, experiment=made)


# -- ending -----------------------------------------------------------------------------------------------------------
def _end(search: OvernightSearch, check: OvernightRound) -> None:
    """What the last check says, in words."""
    rows = (check.outcome or {}).get("rows", [])
    better = [row for row in rows if row["word"] == "better"]
    if check.experiment.state == Experiment.State.STOPPED and not better:
        text = "The last check was cut short by the budget: what it had seen by then does not show a better recipe."
    elif better:
        first = max(better, key=lambda row: abs(row["delta"] or 0))
        text = (
            f"{first['name']} is better than {search.base} on images that the search never saw: "
            f"{first['delta']:+.3f} ({first['delta_low']:+.3f} to {first['delta_high']:+.3f})."
        )
    elif any(row["word"] == "not enough images" for row in rows):
        more = max((row["more"] or 0 for row in rows), default=0)
        text = f"The images kept for the last check cannot tell the finalists from {search.base}."
        text += f" About {more} more would." if more else ""
    else:
        text = f"No finalist is better than {search.base} on images that the search never saw."
    _finish(search, text)


def _finish(search: OvernightSearch, text: str) -> None:
    now = timezone.now()
    _keep(
        search,
        verdict=text,
        state=State.DONE,
        used_seconds=search.used(now),
        clock_from=None,
        finished_at=now,
        owner="",
    )


def _give_up(search: OvernightSearch, error: Exception) -> None:
    """It ends with the reason on its page, and at once what its round has open is stopped: nobody would look at the
    answers."""
    text = " ".join(error.messages) if isinstance(error, ValidationError) else f"{type(error).__name__}: {error}"
    now = timezone.now()
    with contextlib.suppress(Lost), transaction.atomic():
        _keep(
            search,
            error=f"It could not go on. {text}"[:2000],
            state=State.FAILED,
            used_seconds=search.used(now),
            clock_from=None,
            finished_at=now,
            owner="",
        )
        if found := current(search):
            with contextlib.suppress(NotNow):
                experiments.stop(found)


# -- the bell ---------------------------------------------------------------------------------------------------------
def experiment_moved(experiment_id: int) -> None:
    """An experiment was looked after: if it is a round of a search, that looks what is due."""
    for pk in OvernightRound.objects.filter(experiment=experiment_id, search__state=State.RUNNING).values_list(
        "search", flat=True
    ):
        queue.defer(TASK, pk)


def run_ended(run_id: int) -> None:
    """A run of a search has ended: it looks at its budget."""
    waiting = OvernightSearch.objects.filter(
        state=State.RUNNING, rounds__experiment__rows__links__run=run_id, money__isnull=False
    )
    for pk in waiting.distinct().values_list("pk", flat=True):
        queue.defer(TASK, pk)


def sweep() -> None:
    """Ring again for searches that run: budgets are looked at each minute."""
    running = OvernightSearch.objects.filter(state=State.RUNNING)
    for search in running.only("owner", "lease_until").order_by("pk"):
        if not job_leases.alive(search):
            queue.defer(TASK, search.pk)
