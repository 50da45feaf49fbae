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
    """Of these replies together."""
    price_in, price_out, _ = prices(version)
    return sum((r.tokens_in or 0) * price_in + (r.tokens_out or 0) * price_out for r in replies) / 1_000_000
