"""What a run spends on models that cost money, and its end when the budget is used up.

Each answer's cost is counted on the run in the transaction that stores it. A worker stops asking while what is in
flight, at the mean cost of an answer, still fits the budget; the run is paused when not even one more does.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.db.models import F, Value
from django.db.models.functions import Coalesce

from ..adapters.base import Reply
from ..models import Run


def count(run_id: int, replies: Sequence[Reply]) -> None:
    """Add tokens and cost of new replies to their run, inside the transaction that stores them. A cost in another
    currency than the run's is not added: it is on the predictions."""
    sent = sum(r.tokens_in or 0 for r in replies)
    received = sum(r.tokens_out or 0 for r in replies)
    priced = [r for r in replies if r.cost is not None and r.currency]
    if not (sent or received or priced):
        return
    run = Run.objects.filter(pk=run_id)
    run.update(tokens_in=F("tokens_in") + sent, tokens_out=F("tokens_out") + received)
    for currency in dict.fromkeys(r.currency for r in priced):
        run.filter(currency="").update(currency=currency)
        cost = sum(r.cost or 0.0 for r in priced if r.currency == currency)
        run.filter(currency=currency).update(spent=F("spent") + cost)


def pause_when_spent(run_id: int, *, expected: float = 0.0) -> bool:
    """Pause the run if its budget is spent, or if another answer, which costs about `expected`, would overspend it."""
    row = Run.objects.filter(pk=run_id, state=Run.State.RUNNING).values_list("budget", "spent", "currency").first()
    if row is None or row[0] is None or float(row[0]) > row[1] + expected:
        return False
    return bool(
        Run.objects.filter(pk=run_id, state=Run.State.RUNNING, budget=row[0]).update(
            state=Run.State.PAUSED, phase="", error=reason(float(row[0]), row[1], row[2], expected)
        )
    )


def reason(budget: float, spent: float, currency: str, expected: float = 0.0) -> str:
    """Why the run pauses, for the person who can raise the budget."""
    text = f"The budget of {amount(budget)} {currency} is used up: {amount(spent)} {currency} is spent"
    if spent < budget:
        text += f", and one more image costs about {amount(expected)}"
    return f"{text}. Raise the budget, then resume."


def amount(value: float) -> str:
    """Money with two decimals, small sums with as many as show something: 12.50, 0.0031."""
    return f"{value:,.2f}" if value >= 1 or value == 0 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


class Purse:
    """What one claim of a chunk may still ask. Not for several threads."""

    def __init__(self, run: Run, mean: float = 0.0) -> None:
        """`mean`: what an answer cost so far, 0 where nothing is known."""
        self.limited = run.budget is not None
        row = (
            Run.objects.filter(pk=run.pk).values_list("budget", Coalesce("spent", Value(0.0))).first()
            if self.limited
            else None
        )
        self.left = float(row[0]) - row[1] if row and row[0] is not None else float("inf")
        self.limited = self.left < float("inf")
        self.mean = mean
        self.asked = self.answered = 0

    def may_ask(self) -> bool:
        """Whether one more fits, besides those in flight; if so it is counted as asked."""
        if not self.limited:
            return True
        if self.left <= 0 or (self.asked - self.answered + 1) * self.mean > self.left:
            return False
        self.asked += 1
        return True

    def pay(self, cost: float) -> None:
        """One was answered at that cost."""
        self.answered += 1
        self.left -= cost
        if cost:
            self.mean = cost if not self.mean else 0.8 * self.mean + 0.2 * cost

    @property
    def used_up(self) -> bool:
        """Nothing is in flight that could leave more than expected, and one more does not fit."""
        return self.limited and (self.left <= 0 or self.mean > self.left)
