"""Numbers and times as people read them."""

from __future__ import annotations

from django import template

register = template.Library()


@register.filter
def thousands(value: int | None) -> str:
    """1234567 → 1,234,567."""
    return "" if value is None else f"{value:,}"


@register.filter
def rate(value: float | None) -> str:
    """Items a second with two significant digits below ten."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


@register.filter
def duration(seconds: float | None) -> str:
    """Seconds as "8 s", "3 min 20 s", "2 h 5 min" or "3 d 4 h"."""
    if seconds is None:
        return ""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 10 and rest:
        return f"{minutes} min {rest} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


@register.filter
def per_cent(part: int | None, whole: int | None) -> str:
    """part of whole, as "37%"; never 100% before all is done."""
    if not whole:
        return ""
    share = (part or 0) / whole
    return f"{min(99, round(100 * share)) if share < 1 else 100}%"


@register.filter
def size(count: float | None) -> str:
    """Bytes as disks and models' pages count them: 17.5 GB, 380 MB, 12 kB."""
    if count is None:
        return "–"
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= step:
            return f"{count / step:.1f} {unit}" if unit == "GB" else f"{count / step:.0f} {unit}"
    return f"{count:.0f} B"
