"""Strengths from pairwise votes: Bradley–Terry with ties, ranks as ranges.

A tie is half a win for each side. The strengths maximise Σ w·[y·log σ(x) + (1−y)·log σ(−x)] with
x = θ_a − θ_b + β·z, where z is the relative difference in the number of tags, so that longer lists do not win by being
long (the "style control" of the Chatbot Arena). Draws are over images: the votes on one picture stay together. All
refits are one batched Newton iteration in numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: points per unit of θ: 400 points are odds of ten to one, as in chess
POINTS = 400 / np.log(10)
MIDDLE = 1000.0
#: so many votes' worth of pull to the middle: keeps a recipe that won all its votes finite
PRIOR = 0.5
REFITS = 500


@dataclass(frozen=True, slots=True)
class Votes:
    """(m,) each: players a and b, outcome for a (1, 0.5 or 0), image, and the covariate z."""

    a: Ints
    b: Ints
    outcome: Floats
    image: Ints
    z: Floats

    @classmethod
    def of(cls, a: Ints, b: Ints, outcome: Floats, image: Ints, tags_a: Ints, tags_b: Ints) -> Votes:
        """The covariate is (tags_a − tags_b) / (tags_a + tags_b), 0 where neither shows any."""
        total = np.maximum(tags_a + tags_b, 1)
        return cls(a, b, outcome, image, (tags_a - tags_b) / total)


@dataclass(frozen=True, slots=True)
class Strength:
    """`rating` in points around 1000 with its 95 % interval; `rank` as a range, 1 is best."""

    rating: float
    low: float
    high: float
    rank_low: int
    rank_high: int
    votes: int


def bradley_terry(
    votes: Votes, players: int, *, refits: int = REFITS, seed: int = 0, control_length: bool = False
) -> tuple[list[Strength], float]:
    """The strength of each player, and β of the covariate (0 without `control_length`).

    A player without votes stays in the middle with all ranks open.
    """
    if not len(votes.a):
        return [Strength(MIDDLE, MIDDLE, MIDDLE, 1, players, 0) for _ in range(players)], 0.0
    images, place = np.unique(votes.image, return_inverse=True)
    rng = np.random.default_rng([seed, len(images)])
    picked = rng.integers(0, len(images), size=(refits, len(images)), dtype=np.int32)
    picked += (np.arange(refits, dtype=np.int32) * len(images))[:, None]
    drawn = np.bincount(picked.ravel(), minlength=refits * len(images)).reshape(refits, len(images))
    weights = np.concatenate([np.ones((1, len(images))), drawn])[:, place]
    if control_length:
        design = np.zeros((len(votes.a), players + 1))
        design[:, players] = votes.z
        y, w = votes.outcome, weights
        design[np.arange(len(y)), votes.a] += 1.0
        design[np.arange(len(y)), votes.b] -= 1.0
        theta = _fit(design, w, w * y, players)
    else:
        theta = _fit(*_grouped(votes, players, weights), players)
    strength = theta[:, :players] - theta[:, :players].mean(axis=1, keepdims=True)
    beta = float(theta[0, players]) if control_length else 0.0
    n = np.bincount(votes.a, minlength=players) + np.bincount(votes.b, minlength=players)
    return _strengths(strength, n), beta


def _grouped(votes: Votes, players: int, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Without a covariate all votes on a pair are one row: (design, weight, weighted outcome)."""
    low, high = np.minimum(votes.a, votes.b), np.maximum(votes.a, votes.b)
    outcome = np.where(votes.a <= votes.b, votes.outcome, 1 - votes.outcome)
    codes, place = np.unique(low * players + high, return_inverse=True)
    member = np.zeros((len(place), len(codes)))
    member[np.arange(len(place)), place] = 1.0
    design = np.zeros((len(codes), players))
    design[np.arange(len(codes)), codes // players] += 1.0
    design[np.arange(len(codes)), codes % players] -= 1.0
    return design, weights @ member, (weights * outcome) @ member


def _fit(design: Floats, w: Floats, wy: Floats, players: int) -> Floats:
    """(fits, parameters) by Newton's method for all fits at once. `w` and `wy` are (fits, rows)."""
    size = design.shape[1]
    ridge = np.full(size, PRIOR / 4)
    ridge[players:] = 1e-3
    upper = np.triu_indices(size)
    products = design[:, upper[0]] * design[:, upper[1]]
    theta = np.zeros((len(w), size))
    hessian = np.empty((len(w), size, size))
    for _ in range(25):
        p = 1 / (1 + np.exp(-np.clip(theta @ design.T, -30, 30)))
        gradient = (wy - w * p) @ design - ridge * theta
        curvature = (w * p * (1 - p)) @ products
        hessian[:, upper[0], upper[1]] = curvature
        hessian[:, upper[1], upper[0]] = curvature
        hessian[:, np.arange(size), np.arange(size)] += ridge
        step = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        step /= np.maximum(1.0, np.abs(step).max(axis=1, keepdims=True) / 2.0)
        theta += step
        if np.abs(step).max() < 1e-6:
            break
    return theta


def _strengths(theta: Floats, n: Ints) -> list[Strength]:
    players = theta.shape[1]
    point, draws = theta[0], theta[1:]
    if not len(draws):
        draws = theta
    ends = np.quantile(draws, [0.025, 0.975], axis=0)
    ranks = 1 + (draws[:, None, :] > draws[:, :, None] + 1e-12).sum(axis=2)
    places = np.quantile(ranks, [0.025, 0.975], axis=0, method="inverted_cdf")
    found = []
    for i in range(players):
        first, last = (int(places[0, i]), int(places[1, i])) if n[i] else (1, players)
        low, high = MIDDLE + POINTS * min(ends[0, i], point[i]), MIDDLE + POINTS * max(ends[1, i], point[i])
        found.append(Strength(float(MIDDLE + POINTS * point[i]), float(low), float(high), first, last, int(n[i])))
    return found


def next_pair(strengths: list[Strength]) -> tuple[int, int] | None:
    """The pair whose order is least settled: the largest overlap of intervals, fewest votes first. None for one."""
    best: tuple[float, int, int] | None = None
    for i, one in enumerate(strengths):
        for j in range(i + 1, len(strengths)):
            other = strengths[j]
            widest = max(one.high, other.high) - min(one.low, other.low)
            overlap = min(one.high, other.high) - max(one.low, other.low)
            share = overlap / widest if widest > 0 else 1.0
            weight = share - 1e-3 * min(one.votes, other.votes) / (1 + max(s.votes for s in strengths))
            if not one.votes or not other.votes:
                weight = 2.0 - 1e-3 * (one.votes + other.votes)
            if best is None or weight > best[0]:
                best = (weight, i, j)
    return best[1:] if best else None
