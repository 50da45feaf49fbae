"""A policy on thousands of images at once, where all its rules concern single words: thresholds, lists, limit, order.

The result is, image by image, the very text that `json.dumps` makes of the ordinary pipeline's fates (a test holds
this), so that an image which a new policy leaves as it was is recognised without looking inside.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..adapters.base import SCORE_SCALE, LabelSet
from . import select
from .pipeline import CompiledPolicy

#: images that are looked at together; the sort key has 12 bits for them
MAX_IMAGES = 4096
_MAX_CATEGORIES = 200


class Bulk(NamedTuple):
    """One image's outcome: the JSON of its fates; names, label numbers and scores (0 to 1) of what stays, in order.

    None instead of a Bulk: this image needs the ordinary pipeline.
    """

    tags: str
    names: list[str]
    labels: list[int]
    scores: list[float]


@cache
def _score_texts() -> list[str]:
    """Packed score → how it is written: four digits."""
    return [json.dumps(round(score / SCORE_SCALE, 4)) for score in range(SCORE_SCALE + 1)]


def fits(policy: CompiledPolicy) -> bool:
    """Do the rules of this policy concern single words only?"""
    spec, words = policy.spec, policy.words
    return (
        not words.forced
        and not words.triggers
        and spec.parents == "keep"
        and not spec.exclusive
        and not spec.min_tags
        and spec.order == "score"
        and spec.caption.blend == "caption"
        and len(spec.category_order) < _MAX_CATEGORIES
    )


class BulkPolicy:
    """A policy that `fits`, prepared for one label set and one source."""

    def __init__(self, policy: CompiledPolicy, labels: LabelSet, source: str) -> None:
        self._policy, self._labels = policy, labels
        words = [policy.words.of(n, c) for n, c in zip(labels.names, labels.categories, strict=True)]
        n = len(words)
        category_rank = {category: i for i, category in enumerate(policy.spec.category_order)}
        last = len(category_rank)
        self._names = [w.name for w in words]
        self.categories = [w.category for w in words]
        self.ancestors = select.ancestors(labels)
        self._dropped = np.array([w.dropped for w in words], dtype=bool)
        self._category = np.array([category_rank.get(w.category, last) for w in words], dtype=np.int64)
        by_rank = sorted(range(n), key=lambda i: (words[i].key, words[i].name, words[i].category, labels.names[i]))
        by_name = sorted(range(n), key=lambda i: (words[i].name, labels.names[i]))
        self._tie, self._tie_dropped = _ranks(by_rank), _ranks(by_name)
        numbers: dict[str, int] = {}
        self._key = np.array([numbers.setdefault(w.key, len(numbers)) for w in words], dtype=np.int64)
        shared = np.bincount(self._key[~self._dropped], minlength=len(numbers)) > 1
        self._shared = shared[self._key] & ~self._dropped
        self._heads, self._tails, self._cut_tails = [], [], []
        for word, original in zip(words, labels.names, strict=True):
            self._heads.append(json.dumps([word.name, word.category], ensure_ascii=False)[:-1] + ", ")
            state = "dropped" if word.dropped else word.state
            self._tails.append(_tail(state, word.reason, source, original))
            self._cut_tails.append(_tail("dropped", f"over the limit of {policy.spec.max_tags}", source, original))

    def apply(self, blobs: Sequence[bytes | memoryview], thresholds: Mapping[str, float]) -> list[Bulk | None]:
        """What becomes of each packed blob, in order; `thresholds` as the adapter says. At most MAX_IMAGES."""
        if len(blobs) > MAX_IMAGES:
            raise ValueError(f"at most {MAX_IMAGES} images at once")
        policy = self._policy
        floors = select.label_floors(
            self._labels,
            policy.thresholds_for(thresholds),
            policy.tag_thresholds_for(self._labels),
            policy.spec.hidden_categories,
        )
        labels, scores, offsets = select.select_many(blobs, floors)
        image = np.repeat(np.arange(len(blobs), dtype=np.int64), np.diff(offsets))
        slow = self._with_duplicates(image, labels, len(blobs))
        dropped = self._dropped[labels]
        falling = SCORE_SCALE - scores.astype(np.int64)
        cut = np.zeros(len(labels), dtype=bool)
        if policy.spec.max_tags is not None:
            cut = self._over_limit(image, labels, falling, dropped, policy.spec.max_tags)
        noted = dropped | cut
        rank = np.where(noted, self._tie_dropped[labels], self._tie[labels])
        category = np.where(noted, 0, self._category[labels])
        order = np.argsort(_sort_key(image, noted, category, falling, rank))
        return self._texts(labels[order].tolist(), scores[order].tolist(), cut[order], noted[order], offsets, slow)

    def _texts(
        self,
        labels: list[int],
        scores: list[int],
        cut: npt.NDArray[np.bool_],
        noted: npt.NDArray[np.bool_],
        offsets: npt.NDArray[np.intp],
        slow: npt.NDArray[np.bool_],
    ) -> list[Bulk | None]:
        texts, heads, tails, cut_tails, names = _score_texts(), self._heads, self._tails, self._cut_tails, self._names
        pieces = [heads[i] + texts[s] + tails[i] for i, s in zip(labels, scores, strict=True)]
        for at in np.flatnonzero(cut).tolist():
            pieces[at] = heads[labels[at]] + texts[scores[at]] + cut_tails[labels[at]]
        kept = np.concatenate(([0], np.cumsum(~noted)))[offsets].tolist()
        bounds = offsets.tolist()
        found: list[Bulk | None] = []
        for i, skip in enumerate(slow.tolist()):
            lo, hi = bounds[i], bounds[i + 1]
            stay = lo + kept[i + 1] - kept[i]
            # those that stay come first
            text = "[" + ", ".join(pieces[lo:hi]) + "]"
            there = labels[lo:stay]
            bulk = Bulk(text, [names[j] for j in there], there, [p / SCORE_SCALE for p in scores[lo:stay]])
            found.append(None if skip else bulk)
        return found

    def _with_duplicates(
        self, image: npt.NDArray[np.int64], labels: npt.NDArray[np.uint16], n: int
    ) -> npt.NDArray[np.bool_]:
        """Images in which two labels become one word: the pipeline decides which."""
        slow = np.zeros(n, dtype=bool)
        shared = self._shared[labels]
        if shared.any():
            pairs = (image[shared] << 32) | self._key[labels[shared]]
            values, counts = np.unique(pairs, return_counts=True)
            slow[(values[counts > 1] >> 32)] = True
        return slow

    def _over_limit(
        self,
        image: npt.NDArray[np.int64],
        labels: npt.NDArray[np.uint16],
        falling: npt.NDArray[np.int64],
        dropped: npt.NDArray[np.bool_],
        limit: int,
    ) -> npt.NDArray[np.bool_]:
        """Which of the tags that stand are beyond the best `limit` of their image."""
        order = np.argsort(_sort_key(image, dropped, np.zeros_like(image), falling, self._tie[labels]))
        starts = np.searchsorted(image, image[order])  # items come image by image
        place = np.arange(len(order)) - starts
        cut = np.zeros(len(order), dtype=bool)
        cut[order] = place >= limit
        return cut & ~dropped


def _tail(state: str, reason: str, source: str, original: str) -> str:
    return ", " + json.dumps([state, reason, source, original], ensure_ascii=False)[1:]


def _ranks(order: list[int]) -> npt.NDArray[np.int64]:
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    return ranks


def _sort_key(
    image: npt.NDArray[np.int64],
    last: npt.NDArray[np.bool_],
    category: npt.NDArray[np.int64],
    falling: npt.NDArray[np.int64],
    rank: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """One number per tag: 12 bits image, 1 dropped, 8 category, 17 score, 16 tie."""
    return ((((image << 1 | last) << 8 | category) << 17 | falling) << 16) | rank
