"""The budget of an experiment, shared out to its runs so that together they never exceed it.

What an open run may still spend is promised to it; what a run that has ended left over is free again and goes to those
that paused because their share was too small.
"""

from __future__ import annotations

import contextlib
from decimal import ROUND_DOWN, Decimal

from django.db.models import QuerySet

from tagging.actions import runs
from tagging.actions.runs import NotNow
from tagging.models import Run

from ..models import Experiment

#: the smallest amount a run can be given
LEAST = Decimal("0.0001")


def _mine(experiment: Experiment) -> QuerySet[Run]:
    return Run.objects.filter(experiment_links__row__experiment=experiment, experiment_links__lo__isnull=False)


def free(experiment: Experiment) -> float:
    """What is neither spent nor promised. One query."""
    left = float(experiment.budget or 0)
    for state, budget, spent in _mine(experiment).distinct().values_list("state", "budget", "spent"):
        left -= max(float(budget), spent) if budget is not None and state in Run.OPEN else spent
    return left


def share(experiment: Experiment, lo: int, hi: int, rows: int) -> Decimal | None:
    """For a run over [lo, hi) of the list: its part of the whole, never more than is free. None without a budget."""
    if experiment.budget is None:
        return None
    part = float(experiment.budget) * (hi - lo) / max(1, experiment.n_images * rows * experiment.samples)
    return max(LEAST, money(min(part, free(experiment))))


def top_up(experiment: Experiment) -> bool:
    """Give what is free to the runs that paused for want of it. False where too little is free to go on."""
    waiting = list(_mine(experiment).filter(state=Run.State.PAUSED, budget__isnull=False).distinct())
    if not waiting:
        return True
    each = money(free(experiment) / len(waiting))
    going = False
    for run in waiting:
        if each <= LEAST or float(each) < 0.02 * run.spent:  # not worth another turn
            continue
        with contextlib.suppress(NotNow):
            runs.set_budget(run, (run.budget or Decimal(0)) + each)
            runs.resume(run)
            going = True
    return going


def money(value: float) -> Decimal:
    """Rounded down to what a budget can hold."""
    return Decimal(str(max(0.0, value))).quantize(LEAST, rounding=ROUND_DOWN)
