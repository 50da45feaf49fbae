"""What a judge's replies cost, by the prices of its model's options."""

from __future__ import annotations

from collections.abc import Iterable

from tagging.models import Prediction

from ..models import JudgeProfileVersion


def prices(version: JudgeProfileVersion) -> tuple[float, float, str]:
    """(per million tokens in, out, currency); 0 where the model names none. Those of the row today, where it has any:
    a price is no part of what a version is."""
    own = version.adapter.options if version.adapter else {}
    given = {**version.options, **{k: v for k, v in own.items() if k in ("price_in", "price_out", "currency")}}
    return float(given.get("price_in") or 0), float(given.get("price_out") or 0), str(given.get("currency") or "")


def cost(version: JudgeProfileVersion, replies: Iterable[Prediction]) -> float:
    """Of these replies together: what each cost at its time, or by the prices of the model's options."""
    price_in, price_out, _ = prices(version)
    total = 0.0
    for reply in replies:
        if reply.cost is not None:
            total += reply.cost
        else:
            total += ((reply.tokens_in or 0) * price_in + (reply.tokens_out or 0) * price_out) / 1_000_000
    return total
