"""The figures that say how far a judge can be trusted. Formulas are named with their sources."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Badge = Literal["trusted", "advisory", "off"]

Z95 = 1.959963984540054
DRAWS = 2000
#: cut-offs of the badge
TRUSTED_KAPPA, TRUSTED_LOWER, ADVISORY_KAPPA, FEWEST_DECISIONS = 0.60, 0.50, 0.40, 200


def percent(value: float) -> str:
    """0.35 → "35 %"; a tenth is shown only where it matters ("3.4 %")."""
    text = f"{100 * value:.1f}" if value < 0.1 else f"{100 * value:.0f}"
    return f"{text.removesuffix('.0')} %"


@dataclass(frozen=True, slots=True)
class Interval:
    value: float
    low: float
    high: float


def wilson(hits: float, n: float, z: float = Z95) -> Interval | None:
    """Wilson's score interval of a share; None without observations.

    Source: E. B. Wilson, JASA 22 (1927); as in Agresti and Coull (1998), equation 2.
    """
    if n <= 0:
        return None
    p = hits / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Interval(p, max(0.0, middle - half), min(1.0, middle + half))


@dataclass(frozen=True, slots=True)
class Confusion:
    """Decisions on tags: what the judge said against what people decided; "wrong" is the positive class.

    caught: both say wrong. alarm: judge wrong, person right. missed: judge right, person wrong. agreed: both right.
    """

    caught: int = 0
    alarm: int = 0
    missed: int = 0
    agreed: int = 0

    @property
    def n(self) -> int:
        return self.caught + self.alarm + self.missed + self.agreed

    @property
    def prevalence(self) -> float | None:
        """Share of the tags that people found wrong."""
        return (self.caught + self.missed) / self.n if self.n else None

    @property
    def precision(self) -> Interval | None:
        """Of what the judge calls wrong, how much is."""
        return wilson(self.caught, self.caught + self.alarm)

    @property
    def recall(self) -> Interval | None:
        """Of what is wrong, how much the judge calls so."""
        return wilson(self.caught, self.caught + self.missed)

    @property
    def agreement(self) -> float | None:
        return (self.caught + self.agreed) / self.n if self.n else None

    @property
    def kappa(self) -> float | None:
        return cohen_kappa(self.caught, self.alarm, self.missed, self.agreed)


def cohen_kappa(both: float, only_first: float, only_second: float, neither: float) -> float | None:
    """Cohen's κ of two raters on two classes; None without decisions, or where chance alone agrees fully.

    Source: J. Cohen, Educational and Psychological Measurement 20 (1960).
    """
    n = both + only_first + only_second + neither
    if not n:
        return None
    observed = (both + neither) / n
    first, second = (both + only_first) / n, (both + only_second) / n
    chance = first * second + (1 - first) * (1 - second)
    return None if chance >= 1 - 1e-12 else (observed - chance) / (1 - chance)


def kappa_interval(per_image: Sequence[Sequence[int]], *, draws: int = DRAWS, seed: int = 0) -> Interval | None:
    """κ with its 95 % percentile interval by bootstrap over images: tags of one image are not independent.

    `per_image`: a row (caught, alarm, missed, agreed) for each image. None where κ is not defined. Draws in which κ is
    not defined (one class only) count as 0: no agreement was shown.
    """
    counts = np.asarray(per_image, dtype=np.float64).reshape(-1, 4)
    if not len(counts):
        return None
    value = cohen_kappa(*counts.sum(axis=0).tolist())
    if value is None:
        return None
    sums = _resampled_sums(counts, draws, seed)
    kappas = _kappas(sums)
    low, high = np.quantile(kappas, [0.025, 0.975])
    return Interval(value, float(low), float(high))


def _resampled_sums(counts: Floats, draws: int, seed: int) -> Floats:
    """(draws, 4): column sums of resampled rows. Equal rows are drawn together (a multinomial over kinds of rows), so
    that the cost depends on how many kinds there are, not on how many images."""
    kinds, n_of_kind = np.unique(counts, axis=0, return_counts=True)
    source = np.random.default_rng(seed)
    drawn = source.multinomial(len(counts), n_of_kind / len(counts), size=draws)
    return np.asarray(drawn @ kinds, dtype=np.float64)


def _kappas(sums: Floats) -> Floats:
    n = sums.sum(axis=1)
    n[n == 0] = 1
    observed = (sums[:, 0] + sums[:, 3]) / n
    first, second = (sums[:, 0] + sums[:, 1]) / n, (sums[:, 0] + sums[:, 2]) / n
    chance = first * second + (1 - first) * (1 - second)
    defined = chance < 1 - 1e-12
    return np.where(defined, (observed - chance) / np.where(defined, 1 - chance, 1.0), 0.0)


def badge(
    kappa: Interval | None,
    decisions: int,
    *,
    decoys_accepted: float | None = None,
    drifted: bool = False,
    fewest: int = FEWEST_DECISIONS,
) -> Badge:
    """What a judge may be used for. Trusted: κ ≥ 0.60 and its lower bound ≥ 0.50. Advisory: κ from 0.40. Off: less, or
    fewer than 200 decisions (`fewest`), or a judge that takes most lies for true. Drift takes one step off."""
    found: Badge
    if kappa is None or decisions < fewest or kappa.value < ADVISORY_KAPPA:
        return "off"
    if decoys_accepted is not None and decoys_accepted > 0.5:
        return "off"
    found = "trusted" if kappa.value >= TRUSTED_KAPPA and kappa.low >= TRUSTED_LOWER else "advisory"
    if drifted:
        return "advisory" if found == "trusted" else "off"
    return found


def kappa_difference(per_image: Sequence[Sequence[int]], *, draws: int = DRAWS, seed: int = 0) -> Interval | None:
    """κ of a second rater minus κ of a first one, both against the same truth, with its paired interval by bootstrap
    over images. `per_image`: the four counts of the first and the four of the second for each image."""
    counts = np.asarray(per_image, dtype=np.float64).reshape(-1, 8)
    if not len(counts):
        return None
    whole = counts.sum(axis=0)
    first, second = cohen_kappa(*whole[:4].tolist()), cohen_kappa(*whole[4:].tolist())
    if first is None or second is None:
        return None
    sums = _resampled_sums(counts, draws, seed)
    low, high = np.quantile(_kappas(sums[:, 4:]) - _kappas(sums[:, :4]), [0.025, 0.975])
    return Interval(second - first, float(low), float(high))


def classes_kappa_interval(
    per_image: Sequence[Sequence[int]], classes: int, *, draws: int = DRAWS, seed: int = 0
) -> Interval | None:
    """κ of two raters on `classes` classes, with its interval by bootstrap over images, as `kappa_interval`.

    `per_image`: a row of classes × classes counts for each image, the first rater's classes one after the other. None
    without decisions, or where chance alone agrees fully.
    """
    counts = np.asarray(per_image, dtype=np.float64).reshape(-1, classes * classes)
    if not len(counts):
        return None
    value = _classes_kappas(counts.sum(axis=0)[None, :], classes, undefined=np.nan)[0]
    if np.isnan(value):
        return None
    kappas = _classes_kappas(_resampled_sums(counts, draws, seed), classes)
    low, high = np.quantile(kappas, [0.025, 0.975])
    return Interval(float(value), float(low), float(high))


def _classes_kappas(sums: Floats, classes: int, undefined: float = 0.0) -> Floats:
    tables = sums.reshape(-1, classes, classes)
    n = np.maximum(tables.sum(axis=(1, 2)), 1)
    observed = np.trace(tables, axis1=1, axis2=2) / n
    chance = (tables.sum(axis=2) * tables.sum(axis=1)).sum(axis=1) / n**2
    defined = (chance < 1 - 1e-12) & (tables.sum(axis=(1, 2)) > 0)
    return np.where(defined, (observed - chance) / np.where(defined, 1 - chance, 1.0), undefined)


def agreement_interval(
    per_image: Sequence[Sequence[int]], classes: int, *, draws: int = DRAWS, seed: int = 0
) -> Interval | None:
    """The share of decisions on which two raters agree, with its interval by bootstrap over images."""
    counts = np.asarray(per_image, dtype=np.float64).reshape(-1, classes * classes)
    if not len(counts) or not counts.sum():
        return None
    same = [i * classes + i for i in range(classes)]
    sums = _resampled_sums(counts, draws, seed)
    shares = sums[:, same].sum(axis=1) / np.maximum(sums.sum(axis=1), 1)
    low, high = np.quantile(shares, [0.025, 0.975])
    return Interval(float(counts[:, same].sum() / counts.sum()), float(low), float(high))


@dataclass(frozen=True, slots=True)
class Corrected:
    """A mean as the judge says it, and corrected by what people said on a part of the images."""

    raw: float
    corrected: float
    low: float
    high: float
    n_all: int
    n_reviewed: int


def corrected_mean(
    judge_all: Sequence[float], judge_reviewed: Sequence[float], human: Sequence[float]
) -> Corrected | None:
    """mean(judge on all) + mean(human − judge on reviewed), with a normal 95 % interval; values are per image.

    `judge_all` are the images without a person's decision and those with one. None with fewer than two reviewed.
    Source: Angelopoulos et al., Prediction-powered inference, Science 382 (2023), algorithm 1 (mean).
    """
    everything, own, people = (np.asarray(v, dtype=np.float64) for v in (judge_all, judge_reviewed, human))
    if len(own) != len(people):
        raise ValueError("a person's value for each reviewed image")
    if len(people) < 2 or not len(everything):
        return None
    off = people - own
    spread = off.var(ddof=1) / len(off) + (everything.var(ddof=1) / len(everything) if len(everything) > 1 else 0.0)
    value, half = float(everything.mean() + off.mean()), Z95 * math.sqrt(float(spread))
    return Corrected(float(everything.mean()), value, value - half, value + half, len(everything), len(off))


def in_holdout(image_sha256: str, share: float = 0.30) -> bool:
    """Does an image belong to the part that wording is never fitted on? Stable: by content alone, for every judge."""
    return int(image_sha256[:8] or "0", 16) / 0x1_0000_0000 >= 1 - share
