"""Shares and intervals as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from django import template

register = template.Library()


@register.filter
def share(value: float | None) -> str:
    """0.034 → "3.4 %"; nothing → "–"."""
    if value is None or value == "":
        return "–"
    text = f"{100 * float(value):.1f}"
    return f"{text.removesuffix('.0')} %"


@register.filter
def interval(triple: Sequence[float] | None) -> str:
    """[0.9, 0.8, 0.95] → "90 % (80–95 %)"; nothing → "–"."""
    if not triple:
        return "–"
    value, low, high = (f"{100 * v:.0f}" for v in triple)
    return f"{value} % ({low}–{high} %)"
