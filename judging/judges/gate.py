"""The gate: from the probability that a tag is right to accept, review or reject, with thresholds that keep a promise.

An image is settled only where every proposed tag lies in the accept or the reject band; any other goes to a person with
all its tags.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .content import seeded
from .statistics import Interval, wilson

Band = Literal["accept", "review", "reject"]
TARGET = 0.95
AUDIT_SHARE = 0.05
STEPS = tuple(round(0.50 + 0.01 * i, 2) for i in range(51))  # 0.50 … 1.00
REJECT_STEPS = tuple(round(0.01 * i, 2) for i in range(51))  # 0.00 … 0.50


@dataclass(frozen=True, slots=True)
class Thresholds:
    """p_ok ≥ accept: accepted. p_ok ≤ reject: rejected. None: that band is closed."""

    accept: float | None = None
    reject: float | None = None

    @property
    def settles(self) -> bool:
        """Is a band open?"""
        return self.accept is not None or self.reject is not None

    def band(self, p_ok: float) -> Band:
        if self.accept is not None and p_ok >= self.accept:
            return "accept"
        if self.reject is not None and p_ok <= self.reject:
            return "reject"
        return "review"


@dataclass(frozen=True, slots=True)
class Judged:
    """One tag that the judge and a person decided on."""

    image: int
    p_ok: float
    right: bool


@dataclass(frozen=True, slots=True)
class Point:
    """What a threshold would do. `precision`: of what falls in its band, how much is as the band says."""

    threshold: float
    n: int
    precision: Interval | None


@dataclass(frozen=True, slots=True)
class Curve:
    """Both bands at every threshold, from calibration; and what share of images each accept threshold settles."""

    accept: tuple[Point, ...]
    reject: tuple[Point, ...]
    decisions: int


def curve(judged: Iterable[Judged]) -> Curve:
    rows = list(judged)
    p = np.array([r.p_ok for r in rows], dtype=np.float64)
    right = np.array([r.right for r in rows], dtype=bool)
    accept = tuple(_point(t, right[p >= t - 1e-9]) for t in STEPS)
    reject = tuple(_point(t, ~right[p <= t + 1e-9]) for t in REJECT_STEPS)
    return Curve(accept, reject, len(rows))


def _point(threshold: float, as_said: npt.NDArray[np.bool_]) -> Point:
    return Point(threshold, len(as_said), wilson(int(as_said.sum()), len(as_said)))


def choose(found: Curve, target: float = TARGET) -> Thresholds:
    """The widest bands whose lower Wilson bound of precision still meets the target; closed where none does."""
    return Thresholds(
        accept=next((p.threshold for p in found.accept if _meets(p, target)), None),
        reject=next((p.threshold for p in reversed(found.reject) if _meets(p, target)), None),
    )


def _meets(point: Point, target: float) -> bool:
    return point.precision is not None and point.precision.low >= target


def decisions_needed(target: float = TARGET) -> int:
    """How many decisions without a single error it takes until the lower Wilson bound meets the target."""
    n = 1
    while (found := wilson(n, n)) is not None and found.low < target:
        n += 1
    return n


@dataclass(frozen=True, slots=True)
class Promise:
    """What the thresholds would have done: the share of images that need no person, and the share of bad tags among
    those accepted, with its interval (None where nothing is accepted). `lost`: of what is rejected where nothing is
    accepted, how much was right."""

    images: int
    settled: int
    bad: Interval | None
    lost: Interval | None = None

    @property
    def saves(self) -> float:
        return self.settled / self.images if self.images else 0.0

    def text(self) -> str:
        """ "saves 62 % of reviews, lets 3 % of bad tags through (1.9–4.8 %)" """
        told = self.bad or self.lost
        if told is None:
            return f"saves {100 * self.saves:.0f} % of reviews"
        value, low, high = (f"{100 * v:.1f}".removesuffix(".0") for v in (told.value, told.low, told.high))
        if self.bad is None:
            return f"saves {100 * self.saves:.0f} % of reviews, of what it rejects {value} % is right ({low}–{high} %)"
        return f"saves {100 * self.saves:.0f} % of reviews, lets {value} % of bad tags through ({low}–{high} %)"


def promise(images: Mapping[int, Sequence[float]], judged: Iterable[Judged], thresholds: Thresholds) -> Promise:
    """`images`: p_ok of all proposed tags of each judged image (reviewed or not): how many would be settled."""
    settled = sum(1 for values in images.values() if band_of_image(values, thresholds) != "review")
    kept = [row.right for row in judged if thresholds.band(row.p_ok) == "accept"]
    return Promise(len(images), settled, wilson(len(kept) - sum(kept), len(kept)))


def told(figures: Mapping[str, Any], thresholds: Thresholds) -> Promise | None:
    """The promise of thresholds from stored figures of a calibration ("curve", "settled"); None without any. A
    threshold is taken to its hundredth."""
    settled = figures.get("settled") or {}
    if not settled.get("images"):
        return None
    row = None if thresholds.accept is None else _nearest(STEPS, thresholds.accept)
    column = 0 if thresholds.reject is None else 1 + _nearest(REJECT_STEPS, thresholds.reject)
    if row is None:  # nothing is accepted: only images of which every tag is rejected are settled
        if thresholds.reject is None:
            return Promise(settled["images"], 0, None)
        triple = figures["curve"]["reject"][column - 1][2]
        lost = Interval(1 - triple[0], 1 - triple[2], 1 - triple[1]) if triple else None
        return Promise(settled["images"], (settled.get("rejected") or [0] * column)[column - 1], None, lost)
    triple = figures["curve"]["accept"][row][2]
    bad = Interval(1 - triple[0], 1 - triple[2], 1 - triple[1]) if triple else None
    return Promise(settled["images"], settled["counts"][row][column], bad)


def _nearest(steps: Sequence[float], value: float) -> int:
    return min(range(len(steps)), key=lambda i: abs(steps[i] - value))


def band_of_image(p_ok: Sequence[float], thresholds: Thresholds) -> Band:
    """review where any tag is in doubt or there is none; reject where all are rejected; else accept."""
    bands = {thresholds.band(p) for p in p_ok}
    if not bands or "review" in bands:
        return "review"
    return "accept" if "accept" in bands else "reject"


def audited(image_sha256: str, seed: str, share: float = AUDIT_SHARE) -> bool:
    """Is this image among the random few that a person looks at although the gate would settle it?"""
    return seeded("audit", seed, image_sha256).random() < share


# -- what a decision is worth -----------------------------------------------------------------------------------------
#: how much each reason counts in the order of the review queue
WORTH = {"doubt": 0.5, "disagreement": 0.3, "rarity": 0.2}


def doubt(p_ok: Sequence[float]) -> float:
    """0..1: how uncertain the judge is of the image's tags; the mean of the most doubtful and of all."""
    if not p_ok:
        return 1.0
    each = [1 - abs(2 * p - 1) for p in p_ok]
    return (max(each) + sum(each) / len(each)) / 2


def disagreement(sets: Sequence[frozenset[str]]) -> float:
    """0..1: 1 − mean Jaccard similarity of all pairs of what several models said; 0 with fewer than two."""
    pairs = [(a, b) for i, a in enumerate(sets) for b in sets[i + 1 :]]
    if not pairs:
        return 0.0
    return 1 - sum(len(a & b) / len(a | b) if a | b else 1.0 for a, b in pairs) / len(pairs)


def rarity(counts: Sequence[int], images: int) -> float:
    """0..1: how rare the rarest tag is in the collection: 1 for one image in all, 0 for a tag on every image."""
    if not counts or images < 2:
        return 0.0
    return float(1 - np.log(max(1, min(counts))) / np.log(images)) if min(counts) < images else 0.0


def worth(*, doubt: float, disagreement: float, rarity: float) -> int:
    """0..1000: the priority of an image in the review queue."""
    parts = {"doubt": doubt, "disagreement": disagreement, "rarity": rarity}
    return round(1000 * sum(WORTH[name] * min(1.0, max(0.0, value)) for name, value in parts.items()))
