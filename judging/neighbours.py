"""Where a search goes next: values between those that were tried. Pure: no database, no adapter code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: how often the gaps beside the best value are halved
REFINED = 2


def between(values: Sequence[Any], best: Any, *, whole: bool) -> list[float | int]:
    """The middles of the gaps beside `best` among the numbers tried; none where they are whole and adjacent."""
    numbers = sorted({float(v) for v in values if _number(v)})
    if not _number(best) or float(best) not in numbers:
        return []
    at = numbers.index(float(best))
    found: list[float | int] = []
    for other in (*numbers[max(0, at - 1) : at], *numbers[at + 1 : at + 2]):
        middle = (float(best) + other) / 2
        if whole:
            if int(middle) in (int(best), int(other)):
                continue
            found.append(int(middle))
        else:
            found.append(round(middle, 6))
    return found


def refined(options: Mapping[str, Sequence[Any]], best: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The options whose numbers leave room beside the best value, with the new values to try."""
    found: dict[str, list[Any]] = {}
    for name, values in options.items():
        numbers = [v for v in values if _number(v)]
        if len(numbers) < 2:
            continue
        whole = all(isinstance(v, int) for v in numbers)
        if new := between(numbers, best.get(name), whole=whole):
            found[name] = list(new)
    return found


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
