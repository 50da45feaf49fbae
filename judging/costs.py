"""What replies cost, from their tokens and the prices of the model that gave them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tagging.models import Channel

from .metrics import Said
from .models import ExperimentRecipe

PER = 1_000_000


def prices(options: Mapping[str, Any]) -> tuple[float, float, str] | None:
    """(price of a million tokens in, out, currency) of a channel's or an adapter's options; None where none is set."""
    price_in, price_out = options.get("price_in"), options.get("price_out")
    if price_in is None and price_out is None:
        return None
    return float(price_in or 0), float(price_out or 0), str(options.get("currency") or "")


def add_costs(rows: Sequence[ExperimentRecipe], said: Sequence[Said]) -> None:
    """Fill `cost` of recipes whose model has prices. The adapter's present prices count: they are no part of a recipe's
    identity. One query. A recipe of several channels is left out: its tokens are not told apart here."""
    channels: dict[int, list[Channel]] = {}
    for channel in Channel.objects.filter(recipe__in={r.recipe_id for r in rows}).select_related("adapter"):
        channels.setdefault(channel.recipe_id, []).append(channel)
    for row, found in zip(rows, said, strict=True):
        of = channels.get(row.recipe_id, [])
        price = prices({**of[0].options, **of[0].adapter.options}) if len(of) == 1 else None
        if price is None:
            continue
        tokens_in, tokens_out = np.nan_to_num(found.tokens_in), np.nan_to_num(found.tokens_out)
        spent = (tokens_in * price[0] + tokens_out * price[1]) / PER
        found.cost = np.where(np.isnan(found.tokens_in) & np.isnan(found.tokens_out), np.nan, spent)
        found.currency = price[2]
