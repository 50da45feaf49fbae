"""Choosing among stored scores: numpy first, so that labels below their threshold never become Python objects."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..adapters.base import SCORE_SCALE, LabelCuts, LabelSet, PackedScores
from .spec import Candidate
from .text import tag_key

#: a packed score above every threshold
NEVER = SCORE_SCALE + 1
#: how many labels below their threshold are offered per missing tag: some will be banned or duplicates
RESERVE = 3


class _Index(NamedTuple):
    """What is asked of a label set again and again."""

    categories: tuple[str, ...]
    codes: npt.NDArray[np.intp]  # per label: index into categories
    keys: dict[str, tuple[int, ...]]  # tag_key → labels
    parents: tuple[str | None, ...]
    ancestors: tuple[tuple[str, ...], ...]


_indices: dict[str, _Index] = {}


def _index(labels: LabelSet) -> _Index:
    """Made once per label set (by digest) and process."""
    found = _indices.get(labels.digest)
    if found is None:
        if len(_indices) >= 16:
            _indices.clear()
        found = _indices[labels.digest] = _build(labels)
    return found


def _build(labels: LabelSet) -> _Index:
    categories = tuple(dict.fromkeys(labels.categories))
    number = {c: i for i, c in enumerate(categories)}
    keys: dict[str, tuple[int, ...]] = {}
    for i, name in enumerate(labels.names):
        key = tag_key(name)
        keys[key] = (*keys.get(key, ()), i)
    ancestors: list[tuple[str, ...]] = []
    for i in range(len(labels.names)):
        chain: list[int] = []
        up = labels.parents[i] if labels.parents else -1
        while up >= 0 and up != i and up not in chain:
            chain.append(up)
            up = labels.parents[up]
        ancestors.append(tuple(labels.names[j] for j in chain))
    return _Index(
        categories,
        np.array([number[c] for c in labels.categories], dtype=np.intp),
        keys,
        tuple(a[0] if a else None for a in ancestors),
        tuple(ancestors),
    )


def _packed(threshold: float) -> int:
    return round(threshold * SCORE_SCALE)


@lru_cache(maxsize=64)
def _floors(
    digest: str,
    thresholds: tuple[tuple[str, float], ...],
    tag_thresholds: tuple[tuple[str, float], ...],
    hidden: tuple[str, ...],
    cuts: LabelCuts | None,
    overridden: frozenset[str],
) -> npt.NDArray[np.int32]:
    index = _indices[digest]
    by_category = np.zeros(len(index.categories), dtype=np.int32)
    given = dict(thresholds)
    for i, category in enumerate(index.categories):
        by_category[i] = NEVER if category in hidden else _packed(given.get(category, 0.0))
    floors = by_category[index.codes]
    if cuts is not None:
        free = np.array([c in overridden for c in index.categories], dtype=bool)[index.codes]
        own = np.isfinite(cuts.values) & ~free & (floors != NEVER)
        floors[own] = np.rint(cuts.values[own] * SCORE_SCALE).astype(np.int32)
    for name, threshold in tag_thresholds:
        for label in index.keys.get(tag_key(name), ()):
            if floors[label] != NEVER:
                floors[label] = _packed(threshold)
    return floors


def label_floors(
    labels: LabelSet,
    thresholds: Mapping[str, float],
    tag_thresholds: Mapping[str, float] | None = None,
    hidden: Collection[str] = (),
) -> npt.NDArray[np.int32]:
    """Lowest packed score that counts, per label: shape (labels,), int32, read-only by agreement.

    A tag's own threshold goes before its category's, lower or higher, and so do the model's own cuts of single labels
    (`Thresholds.cuts`). Categories in `hidden` never count; those without a threshold always do. Cached per (label set
    digest, thresholds).
    """
    _index(labels)
    return _floors(
        labels.digest,
        tuple(sorted(thresholds.items())),
        tuple(sorted((tag_thresholds or {}).items())),
        tuple(sorted(hidden)),
        getattr(thresholds, "cuts", None),
        getattr(thresholds, "overridden", frozenset()),
    )


def candidates(
    labels: LabelSet,
    packed: PackedScores,
    thresholds: Mapping[str, float],
    tag_thresholds: Mapping[str, float] | None = None,
    *,
    hidden: Collection[str] = ("rating",),
    min_tags: int = 0,
    source: str = "",
) -> list[Candidate]:
    """What of one image's scores counts as a tag, highest score first.

    With `min_tags`, where fewer are above their thresholds, the best below follow; `CompiledPolicy.apply` decides.
    """
    floors = label_floors(labels, thresholds, tag_thresholds, hidden)
    own = floors[packed.labels]
    above = packed.scores >= own
    if min_tags and np.count_nonzero(above) < min_tags * RESERVE:
        possible = np.flatnonzero(~above & (own != NEVER))
        above = above.copy()
        above[possible[: min_tags * RESERVE]] = True
    return make(labels, packed.labels[above].tolist(), packed.scores[above].tolist(), source)


def make(labels: LabelSet, numbers: Sequence[int], scores: Sequence[int], source: str = "") -> list[Candidate]:
    """Candidates for label numbers and packed scores (0..65535)."""
    index = _index(labels)
    names, categories, parents, ancestors = labels.names, labels.categories, index.parents, index.ancestors
    return [
        Candidate(names[i], categories[i], score / SCORE_SCALE, source, parents[i], ancestors[i])
        for i, score in zip(numbers, scores, strict=True)
    ]


def ancestors(labels: LabelSet) -> tuple[tuple[str, ...], ...]:
    """Per label, the names above it, nearest first."""
    return _index(labels).ancestors


class Selection(NamedTuple):
    """What counts in many images: image k owns `labels[offsets[k]:offsets[k + 1]]`."""

    labels: npt.NDArray[np.uint16]
    scores: npt.NDArray[np.uint16]
    offsets: npt.NDArray[np.intp]


def select_many(blobs: Sequence[bytes | memoryview], floors: npt.NDArray[np.int32]) -> Selection:
    """Re-threshold many packed blobs (`PackedScores.to_bytes`) of one label set at once.

    `floors` as from `label_floors`. The order within an image stays (highest first). Raises ValueError for a blob that
    cannot be one, IndexError for a label that the set does not have.
    """
    views = [memoryview(blob) for blob in blobs]
    sizes = np.fromiter((len(v) for v in views), dtype=np.intp, count=len(views))
    if (sizes % 4).any():
        raise ValueError("a packed score blob has a multiple of 4 bytes")
    counts = sizes // 4
    labels = np.frombuffer(b"".join([v[: len(v) // 2] for v in views]), dtype="<u2")
    scores = np.frombuffer(b"".join([v[len(v) // 2 :] for v in views]), dtype="<u2")
    keep = scores >= floors[labels]
    ends = np.concatenate(([0], np.cumsum(counts)))
    running = np.concatenate(([0], np.cumsum(keep)))
    return Selection(labels[keep], scores[keep], running[ends].astype(np.intp))
