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
    return [repr(round(score / SCORE_SCALE, 4)) for score in range(SCORE_SCALE + 1)]


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
        n = len(labels.names)
        self._source = source
        self._category_rank = {category: i for i, category in enumerate(policy.spec.category_order)}
        self.ancestors = select.ancestors(labels)
        # what follows is filled as labels are met: most of a large set are never said
        self._met = np.zeros(n, dtype=bool)
        self._names, self.categories = [""] * n, [""] * n
        self._heads, self._tails, self._cut_tails = [""] * n, [""] * n, [""] * n  # the JSON around a score
        self._dropped, self._shared = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        self._category, self._key = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self._numbers: dict[str, int] = {}  # of the keys of words
        self._by_rank: list[tuple[str, str, str, str, int]] = []
        self._by_name: list[tuple[str, str, int]] = []
        self._tie, self._tie_dropped = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)

    def _meet(self, new: Sequence[int]) -> None:
        """Ask the policy for these labels, and find every label's place among all that were met."""
        last, limit = len(self._category_rank), self._policy.spec.max_tags
        by_rank, by_name = [], []
        for i in new:
            original = self._labels.names[i]
            word = self._policy.words.of(original, self._labels.categories[i])
            self._names[i], self.categories[i], self._dropped[i] = word.name, word.category, word.dropped
            self._category[i] = self._category_rank.get(word.category, last)
            self._key[i] = self._numbers.setdefault(word.key, len(self._numbers))
            self._heads[i] = json.dumps([word.name, word.category], ensure_ascii=False)[:-1] + ", "
            state = "dropped" if word.dropped else word.state
            self._tails[i] = _tail(state, word.reason, self._source, original)
            if limit is not None:
                self._cut_tails[i] = _tail("dropped", f"over the limit of {limit}", self._source, original)
            by_rank.append((word.key, word.name, word.category, original, i))
            by_name.append((word.name, original, i))
        self._met[new] = True
        # sorted apart first: two sorted runs are merged in one pass
        self._by_rank = sorted(self._by_rank + sorted(by_rank))
        self._by_name = sorted(self._by_name + sorted(by_name))
        places = np.arange(len(self._by_rank))
        self._tie[[row[-1] for row in self._by_rank]] = places
        self._tie_dropped[[row[-1] for row in self._by_name]] = places
        stands = self._met & ~self._dropped
        self._shared = (np.bincount(self._key[stands], minlength=len(self._numbers)) > 1)[self._key] & stands

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
        said = np.bincount(labels, minlength=len(self._names)).astype(bool)
        if (new := np.flatnonzero(said & ~self._met)).size:
            self._meet(new.tolist())
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
        return self._texts(labels[order], scores[order], cut[order], noted[order], offsets, slow)

    def _texts(
        self,
        said: npt.NDArray[np.uint16],
        packed: npt.NDArray[np.uint16],
        cut: npt.NDArray[np.bool_],
        noted: npt.NDArray[np.bool_],
        offsets: npt.NDArray[np.intp],
        slow: npt.NDArray[np.bool_],
    ) -> list[Bulk | None]:
        texts, heads, tails, cut_tails, words = _score_texts(), self._heads, self._tails, self._cut_tails, self._names
        labels = said.tolist()
        pieces = [heads[i] + texts[s] + tails[i] for i, s in zip(labels, packed.tolist(), strict=True)]
        for at in np.flatnonzero(cut).tolist():
            pieces[at] = heads[labels[at]] + texts[packed[at]] + cut_tails[labels[at]]
        names = [words[i] for i in labels]
        scores = (packed / SCORE_SCALE).tolist()
        kept = np.concatenate(([0], np.cumsum(~noted)))[offsets]
        bounds = offsets.tolist()
        stays = (offsets[:-1] + np.diff(kept)).tolist()
        return [
            # those that stay come first
            None
            if skip
            else Bulk("[" + ", ".join(pieces[lo:hi]) + "]", names[lo:stay], labels[lo:stay], scores[lo:stay])
            for skip, lo, hi, stay in zip(slow.tolist(), bounds, bounds[1:], stays, strict=False)
        ]

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


def _sort_key(
    image: npt.NDArray[np.int64],
    last: npt.NDArray[np.bool_],
    category: npt.NDArray[np.int64],
    falling: npt.NDArray[np.int64],
    rank: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """One number per tag: 12 bits image, 1 dropped, 8 category, 17 score, 16 tie."""
    return ((((image << 1 | last) << 8 | category) << 17 | falling) << 16) | rank
