"""What runs and other sets of predictions cost. A price is an option of the adapter, kept with each recipe's channels;
each prediction keeps what it cost at the price of its time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import Count, QuerySet, Sum

from ..engine.purse import amount
from ..models import Channel, Prediction, Run


@dataclass(frozen=True, slots=True)
class Cost:
    """Tokens, and money by currency; `calls` counts the predictions, `unpriced` those that had no price."""

    calls: int
    unpriced: int
    tokens_in: int
    tokens_out: int
    money: tuple[tuple[str, float], ...] = ()

    @property
    def words(self) -> str:
        """ "12.40 USD", "3.10 EUR + 0.02 USD"; empty where nothing has a price."""
        return " + ".join(f"{amount(value)} {currency}" for currency, value in self.money)


def cost_of(predictions: QuerySet[Prediction]) -> Cost:
    """What these predictions cost when they were made. One query that reads them all: not for a page that polls."""
    found = (
        predictions.order_by()
        .values("currency")
        .annotate(n=Count("pk"), priced=Count("cost"), sent=Sum("tokens_in"), got=Sum("tokens_out"), money=Sum("cost"))
    )
    rows: list[dict[str, Any]] = [dict(row) for row in found]
    return Cost(
        calls=sum(r["n"] for r in rows),
        unpriced=sum(r["n"] - r["priced"] for r in rows),
        tokens_in=sum(r["sent"] or 0 for r in rows),
        tokens_out=sum(r["got"] or 0 for r in rows),
        money=tuple(sorted((r["currency"], r["money"]) for r in rows if r["currency"] and r["money"] is not None)),
    )


def run_cost(run: Run) -> Cost:
    """What the run's own calls cost; what it took from earlier answers cost it nothing."""
    return cost_of(Prediction.objects.filter(run=run))


def prices(channel: Channel) -> tuple[float, float, str]:
    """(per million tokens sent, per million received, currency) of a channel; zeros where it has no price."""
    options = channel.options
    return float(options.get("price_in") or 0), float(options.get("price_out") or 0), str(options.get("currency") or "")


def price_currency(channels: Iterable[Channel]) -> str:
    """The currency of the first channel that has a price; empty where none has."""
    return next((c for i, o, c in map(prices, channels) if i or o), "")


def check_priced(channels: Iterable[Channel]) -> None:
    """A budget needs prices, in one currency. ValidationError keyed by "budget"."""
    found = {c for i, o, c in map(prices, channels) if i or o}
    if not found:
        raise ValidationError(
            {"budget": "A budget needs a price: enter what a million tokens cost in the model's options."}
        )
    if len(found) > 1:
        raise ValidationError({"budget": f"A budget needs one currency; these models have {', '.join(sorted(found))}."})


@dataclass(frozen=True, slots=True)
class Spending:
    """What a run's page says of money: counters kept while it works, so that the page may poll."""

    spent: str
    budget: str
    tokens_in: int
    tokens_out: int
    estimate: str = ""

    @classmethod
    def of(cls, run: Run, done: int, cached: int) -> Spending | None:
        """None for a run that neither costs money nor counts tokens. The estimate: the whole, at the pace so far."""
        if not (run.spent or run.budget or run.tokens_in or run.tokens_out):
            return None
        asked = done - cached
        estimate = ""
        if run.spent and asked > 0 and run.state in Run.OPEN and done < run.n_total:
            estimate = f"{amount(run.spent + run.spent / asked * (run.n_total - done))} {run.currency}"
        return cls(
            f"{amount(run.spent)} {run.currency}" if run.spent or run.currency else "",
            f"{amount(float(run.budget))} {run.currency}" if run.budget is not None else "",
            run.tokens_in,
            run.tokens_out,
            estimate,
        )
