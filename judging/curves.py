"""From a leaderboard to pictures: a metric over each option that varies, and prompt × model as a map. No database."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: metric → (title, unit, is more better?); those with an interval in the standings get a band
METRICS: dict[str, tuple[str, str, bool | None]] = {
    "f1": ("F1", "", True),
    "edits": ("Edits an image", "", False),
    "precision": ("Precision", "", True),
    "recall": ("Recall", "", True),
    "tags_per_image": ("Tags an image", "", None),
    "stability": ("Stability between samples", "", True),
    "seconds_p50": ("Seconds an image", "s", False),
    "cost_per_1000": ("Cost of 1,000 images", "", False),
}
#: axes that are names, not numbers on a scale
_NAMED = ("adapter", "prompt", "policy", "combine")


@dataclass(frozen=True, slots=True)
class Point:
    """One recipe: `row` is its primary key, `at` its value on the axis."""

    row: int
    name: str
    at: float
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(slots=True)
class Series:
    """The recipes that differ in this option alone, in its order. `name` says what else they are."""

    name: str
    points: list[Point] = field(default_factory=list)


@dataclass(slots=True)
class Curve:
    """One metric over one option."""

    axis: str
    metric: str
    series: list[Series]


def swept(board: Mapping[str, Any]) -> list[str]:
    """Options with at least two numbers, in their order."""
    found: dict[str, set[float]] = {}
    for row in board.get("rows", ()):
        for name, value in row["values"].items():
            if name not in _NAMED and isinstance(value, int | float) and not isinstance(value, bool):
                found.setdefault(name, set()).add(float(value))
    return [name for name, values in found.items() if len(values) > 1]


def curves(board: Mapping[str, Any], axis: str, names: Mapping[tuple[str, Any], str] | None = None) -> list[Curve]:
    """A curve of each metric that can be told. `names` give (axis, value) a person's word."""
    found = []
    for metric in METRICS:
        series: dict[str, Series] = {}
        for row in board.get("rows", ()):
            at = row["values"].get(axis)
            point = _point(row, metric, at)
            if point is None:
                continue
            name = _others(row["values"], axis, names or {})
            series.setdefault(name, Series(name)).points.append(point)
        for one in series.values():
            one.points.sort(key=lambda p: p.at)
        kept = [one for one in series.values() if len(one.points) > 1]
        if kept:
            found.append(Curve(axis, metric, kept))
    return found


def _point(row: Mapping[str, Any], metric: str, at: Any) -> Point | None:
    if not isinstance(at, int | float) or isinstance(at, bool):
        return None
    standing = (row.get("standing") or {}).get(metric) or {}
    value = standing.get("value")
    if value is None:
        value = row["metrics"].get(metric)
    if value is None or not math.isfinite(value):
        return None
    return Point(row["row"], row["name"], float(at), float(value), standing.get("low"), standing.get("high"))


def _others(values: Mapping[str, Any], axis: str, names: Mapping[tuple[str, Any], str]) -> str:
    words = []
    for name, value in values.items():
        if name == axis or (name == "combine" and value == "single"):
            continue
        word = names.get((name, value))
        words.append(
            word or (str(value) if name in _NAMED else f"{name} {value:g}" if _number(value) else f"{name} {value}")
        )
    return " · ".join(words) or "all else the same"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# -- the map ----------------------------------------------------------------------------------------------------------
@dataclass(slots=True)
class Field:
    """Where a prompt meets a model: the best of its recipes there. `shade` is 0 to 100 within what is shown."""

    row: int | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    shade: int = 0
    best: bool = False
    name: str = ""


@dataclass(slots=True)
class HeatMap:
    """Prompts down, models across; the best prompt of each model is marked."""

    metric: str
    models: list[str]
    prompts: list[Any]
    fields: list[list[Field]]


def heat_map(board: Mapping[str, Any], rows: Mapping[int, tuple[str, Any]], metric: str = "f1") -> HeatMap | None:
    """None where there are not at least two prompts or two models. `rows`: row → (model, prompt), all of them."""
    more = METRICS[metric][2] is not False
    sign = 1 if more else -1
    best: dict[tuple[str, Any], Field] = {}
    for row in board.get("rows", ()):
        if row["row"] not in rows:
            continue
        standing = (row.get("standing") or {}).get(metric) or {}
        value = standing.get("value")
        there = best.setdefault(rows[row["row"]], Field())
        if value is not None and (there.value is None or sign * value > sign * there.value):
            best[rows[row["row"]]] = Field(
                row["row"], value, standing.get("low"), standing.get("high"), name=row["name"]
            )
    models = list(dict.fromkeys(model for model, _ in best))
    prompts = list(dict.fromkeys(prompt for _, prompt in best))
    told = [f.value for f in best.values() if f.value is not None]
    if (len(models) < 2 and len(prompts) < 2) or prompts == [None] or not told:
        return None
    low, high = min(told), max(told)
    for found in best.values():
        if found.value is not None:
            share = (found.value - low) / (high - low) if high > low else 1.0
            found.shade = round(100 * (share if more else 1 - share))
    for model in models:
        column = [f for (m, _), f in best.items() if m == model and f.value is not None]
        if len(column) > 1:
            max(column, key=lambda f: sign * (f.value or 0.0)).best = True
    return HeatMap(metric, models, prompts, [[best.get((m, p), Field()) for m in models] for p in prompts])


# -- drawing ----------------------------------------------------------------------------------------------------------
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 260, 52, 14, 12, 36


@dataclass(slots=True)
class Drawn:
    """A curve in the units of its SVG."""

    curve: Curve
    title: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[dict[str, Any]]


def drawn(curve: Curve) -> Drawn:
    """Places of points, lines and bands. The y axis spans the values with their bands, and a little more."""
    points = [p for s in curve.series for p in s.points]
    xs = sorted({p.at for p in points})
    values = [v for p in points for v in (p.value, p.low, p.high) if v is not None]
    y_ticks = _ticks(min(values), max(values))
    low, high = min(y_ticks[0], *values), max(y_ticks[-1], *values)

    def x(value: float) -> float:
        return round(LEFT + (value - xs[0]) / (xs[-1] - xs[0]) * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        span = high - low or 1.0
        return round(HEIGHT - BOTTOM - (value - low) / span * (HEIGHT - TOP - BOTTOM), 1)

    lines = []
    for n, series in enumerate(curve.series):
        banded = [p for p in series.points if p.low is not None and p.high is not None]
        upper = [f"{x(p.at)},{y(p.high or 0)}" for p in banded]
        lower = [f"{x(p.at)},{y(p.low or 0)}" for p in reversed(banded)]
        lines.append(
            {
                "number": n,
                "name": series.name,
                "path": " ".join(f"{x(p.at)},{y(p.value)}" for p in series.points),
                "band": " ".join([*upper, *lower]) if len(banded) > 1 else "",
                "points": [{"p": p, "x": x(p.at), "y": y(p.value), "text": number(p.value)} for p in series.points],
            }
        )
    shown = xs if len(xs) <= 8 else [xs[round(i * (len(xs) - 1) / 6)] for i in range(7)]
    return Drawn(
        curve, METRICS[curve.metric][0], [(x(v), f"{v:g}") for v in shown], [(y(v), number(v)) for v in y_ticks], lines
    )


def _ticks(low: float, high: float) -> list[float]:
    """Four or five round numbers around what is shown."""
    if high - low < 1e-9:
        pad = abs(high) * 0.1 or 0.5
        low, high = low - pad, high + pad
    step = 10 ** math.floor(math.log10((high - low) / 3))
    for factor in (1, 2, 5, 10):
        if (high - low) / (step * factor) <= 5:
            step *= factor
            break
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(n * step, 10) for n in range(first, last + 1)]


def number(value: float) -> str:
    """Three digits that matter."""
    return f"{value:.3f}".rstrip("0").rstrip(".") if abs(value) < 10 else f"{value:,.1f}".rstrip("0").rstrip(".")


def series_marks(series: Sequence[str]) -> list[str]:
    """A shape for each series, in the order of their lines."""
    shapes = "●▲■◆★✚▼◗"
    return [shapes[i % len(shapes)] for i in range(len(series))]
