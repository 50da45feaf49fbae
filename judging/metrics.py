"""How well recipes do against what people decided: numbers from arrays, no database.

A tag that a person accepted or added is right, one that a person rejected is wrong. One that nobody saw is *unjudged*,
not wrong: precision, recall and F1 leave it out, `f1_low` counts all unjudged as wrong, `f1_high` all as right, and
`coverage` says how much of what was proposed is judged at all. Without that, the recipe whose output was reviewed would
always win.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

#: a tag counts for the macro average when people confirmed it on so many images
SUPPORT = 5
#: precision is told for the first so many tags
FIRST = (1, 3, 5, 10)
#: bins of the reliability diagram
BINS = 10


@dataclass(frozen=True, slots=True)
class Truth:
    """What people decided on `n` images. `pairs` are image * len(tags) + tag, ascending; `right` says how it went.

    `reviewed`: images of which a person has spoken. Places of images and tags are those of the sheet.
    """

    n: int
    tags: tuple[str, ...]
    categories: tuple[str, ...]
    known: Flags  # of tags: is it in the vocabulary?
    pairs: Ints
    right: Flags
    reviewed: Flags

    @property
    def positives(self) -> Ints:
        """(n,) how many right tags each image has."""
        return np.bincount(self.pairs[self.right] // max(1, len(self.tags)), minlength=self.n)

    def of(self, image: Ints, tag: Ints) -> npt.NDArray[np.int8]:
        """1 where the tag is right on the image, 0 where it is wrong, -1 where nobody has said."""
        wanted = image * len(self.tags) + tag
        found = np.full(len(wanted), -1, np.int8)
        if len(self.pairs) and len(wanted):
            at = np.minimum(np.searchsorted(self.pairs, wanted), len(self.pairs) - 1)
            hit = self.pairs[at] == wanted
            found[hit] = self.right[at[hit]]
        return found


@dataclass(slots=True)
class Said:
    """What one recipe said: one entry per (sample, image, tag), tags in the order in which they were proposed.

    `score` is NaN where the model gives none. `seen` (samples, n): is there a result, empty ones included? The other
    arrays are (samples, n) too, NaN where there is nothing to say.
    """

    image: Ints
    tag: Ints
    sample: Ints
    rank: Ints
    score: Floats
    seen: Flags
    seconds: Floats
    tokens_in: Floats
    tokens_out: Floats
    cost: Floats
    banned: Floats
    parse_failed: Floats
    truncated: Floats
    caption: Floats  # normalised edit distance to the reviewed text, 0 same … 1 all different
    denied: Floats  # things named in the caption that people said are not there
    errors: int = 0
    currency: str = ""

    @property
    def done(self) -> Flags:
        """(n,) images of which at least one sample is there."""
        return np.asarray(self.seen.any(axis=0))


class Counts(NamedTuple):
    """(n,) each, averaged over the samples of an image; 0 where the recipe has no result."""

    right: Floats
    wrong: Floats
    missed: Floats
    unjudged: Floats
    jaccard: Floats


@dataclass(slots=True)
class Result:
    """The numbers of one recipe. `values` are JSON-ready, None where nothing can be said."""

    counts: Counts
    values: dict[str, Any] = field(default_factory=dict)
    by_tag: dict[str, list[float]] = field(default_factory=dict)  # tag → [support, right, wrong, missed, unjudged]
    by_category: dict[str, dict[str, Any]] = field(default_factory=dict)
    reliability: list[list[float]] = field(default_factory=list)  # [mean score, share right, tags] a bin


def common(rows: Sequence[Said]) -> tuple[Flags, list[bool]]:
    """Images that all recipes compared have, and which recipes are compared.

    A recipe that has fewer than half as many images as the one with the most is not compared: it is still on its way.
    """
    if not rows:
        return np.zeros(0, bool), []
    done = np.stack([row.done for row in rows])
    n = done.sum(axis=1)
    ready = (n > 0) & (2 * n >= n.max())
    if not ready.any():
        return np.zeros(done.shape[1], bool), [False] * len(rows)
    return np.asarray(done[ready].all(axis=0)), ready.tolist()


def count(truth: Truth, row: Said, verdict: npt.NDArray[np.int8] | None = None) -> Counts:
    """Right, wrong, missed and unjudged tags of each image."""
    n = truth.n
    verdict = truth.of(row.image, row.tag) if verdict is None else verdict
    samples = np.maximum(row.seen.sum(axis=0), 1).astype(float)
    right, wrong, unjudged = (np.bincount(row.image[verdict == value], minlength=n) / samples for value in (1, 0, -1))
    done = row.done
    missed = np.where(done, truth.positives - right, 0.0)
    return Counts(right, wrong, np.maximum(missed, 0.0), unjudged, _jaccard(truth, row, verdict))


def _jaccard(truth: Truth, row: Said, verdict: npt.NDArray[np.int8]) -> Floats:
    """(n,) mean over samples of |said and right| / |said and judged, or right|; 1 where both are empty."""
    n, samples = truth.n, len(row.seen)
    place = row.sample * n + row.image
    right = np.bincount(place[verdict == 1], minlength=samples * n).reshape(samples, n)
    wrong = np.bincount(place[verdict == 0], minlength=samples * n).reshape(samples, n)
    union = truth.positives[None, :] + wrong
    each = np.where(union > 0, right / np.maximum(union, 1), 1.0)
    return np.asarray((each * row.seen).sum(axis=0) / np.maximum(row.seen.sum(axis=0), 1))


def measure(truth: Truth, row: Said, within: Flags) -> Result:
    """All numbers of a recipe over the images of `within`; those about truth over the reviewed ones among them."""
    verdict = truth.of(row.image, row.tag)
    counts = count(truth, row, verdict)
    judged = within & truth.reviewed & row.done
    found = Result(counts)
    values = found.values
    values["images"], values["judged_images"] = int((within & row.done).sum()), int(judged.sum())
    values |= _agreement(counts, judged)
    here = judged[row.image]
    values |= _tags(truth, row, verdict, judged, found)
    values |= _ranked(truth, row, verdict, here, judged, found)
    values |= _behaviour(truth, row, within)
    return found


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def f1(right: float, wrong: float, missed: float) -> float | None:
    return _share(2 * right, 2 * right + wrong + missed)


def _agreement(counts: Counts, judged: Flags) -> dict[str, Any]:
    n = int(judged.sum())
    right, wrong, missed, unjudged = (float(values[judged].sum()) for values in counts[:4])
    edits = (counts.wrong + counts.missed)[judged]
    return {
        "f1": f1(right, wrong, missed),
        "precision": _share(right, right + wrong),
        "recall": _share(right, right + missed),
        "f1_low": f1(right, wrong + unjudged, missed),
        "f1_high": f1(right + unjudged, wrong, missed),
        "coverage": _share(right + wrong, right + wrong + unjudged),
        "unjudged": unjudged,
        "jaccard": _share(float(counts.jaccard[judged].sum()), n),
        "edits": _share(float(edits.sum()), n),
        "zero_edit": _share(float((edits == 0).sum()), n),
        "acceptance": _share(right, right + wrong + unjudged),
    }


def _tags(
    truth: Truth, row: Said, verdict: npt.NDArray[np.int8], judged: Flags, found: Result
) -> dict[str, float | None]:
    """Per tag and per category, and the macro average. Samples of an image count as parts of one."""
    size = len(truth.tags)
    here = judged[row.image]
    weight = 1.0 / np.maximum(row.seen.sum(axis=0), 1)[row.image]

    def total(value: int) -> Floats:
        which = here & (verdict == value)
        return np.asarray(np.bincount(row.tag[which], weight[which], size))

    right, wrong, unjudged = total(1), total(0), total(-1)
    positive = truth.pairs[truth.right]
    image, tag = positive // max(1, size), positive % max(1, size)
    support = np.bincount(tag[judged[image]], minlength=size)
    missed = np.maximum(support - right, 0.0)
    spoken = np.flatnonzero((right + wrong + unjudged + support) > 0)
    found.by_tag = {
        truth.tags[t]: [int(support[t]), *(round(float(v[t]), 3) for v in (right, wrong, missed, unjudged))]
        for t in spoken
    }
    enough = support >= SUPPORT
    each = 2 * right[enough] / np.maximum((2 * right + wrong + missed)[enough], 1e-12)
    categories = np.array(truth.categories, dtype=object)
    for name in sorted({truth.categories[t] for t in spoken}):
        r, w, m, u, n = (float(v[categories == name].sum()) for v in (right, wrong, missed, unjudged, support))
        found.by_category[name] = {
            "f1": f1(r, w, m),
            "precision": _share(r, r + w),
            "recall": _share(r, r + m),
            "support": int(n),
            "unjudged": round(u, 3),
        }
    return {"macro_f1": float(each.mean()) if enough.any() else None, "macro_tags": int(enough.sum())}


def _ranked(
    truth: Truth, row: Said, verdict: npt.NDArray[np.int8], here: Flags, judged: Flags, found: Result
) -> dict[str, Any]:
    """What order and scores are worth: precision among the first, mean average precision, calibration."""
    values: dict[str, Any] = {}
    known = here & (verdict >= 0)
    for k in FIRST:
        first = known & (row.rank < k)
        values[f"p_at_{k}"] = _share(float(verdict[first].sum()), float(first.sum()))
    scored = known & ~np.isnan(row.score)
    values["map"] = _average_precision(truth, row, verdict, scored, judged) if scored.any() else None
    values["ece"] = None
    if scored.any():
        score, hit = row.score[scored], verdict[scored].astype(float)
        bins = np.minimum((score * BINS).astype(int), BINS - 1)
        n = np.bincount(bins, minlength=BINS)
        mean = np.bincount(bins, score, BINS) / np.maximum(n, 1)
        share = np.bincount(bins, hit, BINS) / np.maximum(n, 1)
        values["ece"] = float((np.abs(mean - share) * n).sum() / n.sum())
        found.reliability = [
            [round(float(mean[b]), 4), round(float(share[b]), 4), int(n[b])] for b in range(BINS) if n[b]
        ]
    return values


def _average_precision(
    truth: Truth, row: Said, verdict: npt.NDArray[np.int8], scored: Flags, judged: Flags
) -> float | None:
    """Mean over (sample, image) of the average precision of the judged tags, highest score first."""
    n = truth.n
    place = (row.sample * n + row.image)[scored]
    hit = verdict[scored].astype(float)
    order = np.lexsort((row.rank[scored], -row.score[scored], place))
    place, hit = place[order], hit[order]
    starts = np.flatnonzero(np.r_[True, place[1:] != place[:-1]])
    lengths = np.diff(np.r_[starts, len(place)])
    position = np.arange(len(place)) - np.repeat(starts, lengths) + 1
    running = np.cumsum(hit)
    before = np.repeat(running[starts] - hit[starts], lengths)
    gain = hit * (running - before) / position
    each = np.bincount(place, gain, len(row.seen) * n)
    positives = np.tile(truth.positives, len(row.seen))
    counted = (row.seen & judged[None, :]).ravel() & (positives > 0)
    return float((each[counted] / positives[counted]).mean()) if counted.any() else None


def _behaviour(truth: Truth, row: Said, within: Flags) -> dict[str, Any]:
    """What needs no truth: pace, cost, failures, stability."""
    seen = row.seen & within[None, :]
    here = within[row.image]
    n = int(seen.sum())

    def mean(values: Floats) -> float | None:
        held = values[seen]
        held = held[~np.isnan(held)]
        return float(held.mean()) if len(held) else None

    seconds = row.seconds[seen]
    seconds = seconds[~np.isnan(seconds)]
    cost = mean(row.cost)
    return {
        "tags_per_image": _share(float(here.sum()), n),
        "empty": _share(float(_empty(row, seen)), n),
        "errors": row.errors,
        "out_of_vocabulary": _share(float((~truth.known[row.tag[here]]).sum()), float(here.sum())),
        "banned": mean(row.banned),
        "parse_failures": mean(row.parse_failed),
        "truncated": mean(row.truncated),
        "seconds_p50": float(np.percentile(seconds, 50)) if len(seconds) else None,
        "seconds_p95": float(np.percentile(seconds, 95)) if len(seconds) else None,
        "tokens_in": mean(row.tokens_in),
        "tokens_out": mean(row.tokens_out),
        "cost_per_1000": None if cost is None else 1000 * cost,
        "currency": row.currency if cost is not None else "",
        "stability": stability(row, within),
        "caption_distance": mean(row.caption),
        "denied_objects": mean(row.denied),
    }


def _empty(row: Said, seen: Flags) -> int:
    spoken = np.zeros(row.seen.shape, bool)
    spoken[row.sample, row.image] = True
    return int((seen & ~spoken).sum())


def stability(row: Said, within: Flags) -> float | None:
    """Mean Jaccard over pairs of samples of the same image; two empty lists are the same. None with one sample."""
    samples, n = row.seen.shape
    if samples < 2:
        return None
    size = int(row.tag.max()) + 1 if len(row.tag) else 1
    sets = [np.unique((row.image * size + row.tag)[row.sample == s]) for s in range(samples)]
    lengths = [np.bincount(found // size, minlength=n) for found in sets]
    total, pairs = 0.0, 0
    for a in range(samples):
        for b in range(a + 1, samples):
            both = within & row.seen[a] & row.seen[b]
            shared = np.bincount(np.intersect1d(sets[a], sets[b], assume_unique=True) // size, minlength=n)
            union = lengths[a] + lengths[b] - shared
            each = np.where(union > 0, shared / np.maximum(union, 1), 1.0)
            total, pairs = total + float(each[both].sum()), pairs + int(both.sum())
    return total / pairs if pairs else None


#: metric → is more better?
METRICS = {"f1": True, "precision": True, "recall": True, "jaccard": True, "edits": False, "caption": True}
#: from 0 to 1, so that two of them differ by 1 at most
SHARES = frozenset(METRICS) - {"edits"}


def ratio(metric: str, counts: Counts, row: Said) -> tuple[Floats, Floats]:
    """(numerator, denominator) of each image: the metric of any set of images is the ratio of their sums, so that a
    bootstrap over images is two matrix products. Raises KeyError."""
    right, wrong, missed = counts.right, counts.wrong, counts.missed
    one = np.ones(len(right))
    if metric == "caption":
        told = ~np.isnan(row.caption)
        n = told.sum(axis=0)
        distance = np.where(told, row.caption, 0.0).sum(axis=0) / np.maximum(n, 1)
        return np.where(n > 0, 1.0 - distance, 0.0), (n > 0).astype(float)
    return {
        "f1": (2 * right, 2 * right + wrong + missed),
        "precision": (right, right + wrong),
        "recall": (right, right + missed),
        "jaccard": (counts.jaccard, one),
        "edits": (wrong + missed, one),
    }[metric]
