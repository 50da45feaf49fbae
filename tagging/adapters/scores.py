"""Labels of a tagger, thresholds, scores as they are stored. Adapters import them from `base`, which they belong to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

#: Scores are kept as uint16: 65535 stands for 1.0, so one step is 1.5e-5.
SCORE_SCALE = 65535
#: Scores below this are not stored unless an adapter's `score_floor` option says otherwise.
DEFAULT_SCORE_FLOOR = 0.05


@dataclass(frozen=True)
class LabelSet:
    """The fixed outputs of a tagger, in the order of the model's output vector.

    `parents[i]` is the index of the label above label i, or -1. Named by `digest`: scores are stored against it.
    At most 65,535 labels (scores are packed with uint16 labels). `published` holds the thresholds that come with the
    model, JSON-ready, in a form that its adapter's `thresholds` reads (RAM: one a label; Camie: by mode and category).
    """

    names: tuple[str, ...]
    categories: tuple[str, ...]
    parents: tuple[int, ...] = ()
    published: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if len(self.names) != len(self.categories) or (self.parents and len(self.parents) != len(self.names)):
            raise ValueError("a label set needs one category (and one parent) for each name")
        if len(self.names) > 65535:
            raise ValueError(f"a label set holds at most 65,535 labels, got {len(self.names)}")

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) of the canonical JSON of names, categories, parents and, where there are any, thresholds."""
        content = [self.names, self.categories, self.parents, *([self.published] if self.published else [])]
        return hashlib.sha256(
            json.dumps(content, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
        ).hexdigest()

    @cached_property
    def category_index(self) -> dict[str, npt.NDArray[np.intp]]:
        """Category → indices of its labels."""
        values = np.array(self.categories, dtype=object)
        return {c: np.flatnonzero(values == c) for c in dict.fromkeys(self.categories)}


@dataclass(frozen=True, eq=False)
class LabelCuts:
    """Lowest probabilities of single labels. Made once per label set and options (compared by identity, cached so)."""

    by_name: Mapping[str, float]  # where two labels have one name, the lower
    values: npt.NDArray[np.float32]  # per label; NaN where the category's holds

    @classmethod
    def of(cls, labels: LabelSet, values: Sequence[float] | npt.NDArray[np.float32]) -> LabelCuts:
        """From one value per label."""
        array = np.asarray(values, np.float32)
        if array.shape != (len(labels.names),):
            raise ValueError(f"{len(labels.names)} labels need as many thresholds, got {array.shape}")
        by_name: dict[str, float] = {}
        for name, value in zip(labels.names, array.tolist(), strict=True):
            if value == value:
                by_name[name] = min(value, by_name.get(name, value))
        return cls(by_name, array)

    @classmethod
    def cached(cls, labels: LabelSet, key: Hashable, values: Callable[[], Sequence[float]]) -> LabelCuts:
        """The same object for the same labels and `key` (the options it depends on); the last few are kept."""
        found = _CUTS.get((labels.digest, key))
        if found is None:
            while len(_CUTS) >= 32:
                _CUTS.pop(next(iter(_CUTS)), None)
            found = _CUTS[labels.digest, key] = cls.of(labels, values())
        return found


_CUTS: dict[tuple[str, Hashable], LabelCuts] = {}


class Thresholds(dict[str, float]):
    """Category → lowest probability. With `cuts`, single labels have one of their own, which goes before it except in
    the categories of `overridden`, which somebody set by hand."""

    def __init__(
        self,
        by_category: Mapping[str, float] | None = None,
        cuts: LabelCuts | None = None,
        overridden: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(by_category or {})
        self.cuts = cuts
        self.overridden = overridden

    @classmethod
    def from_mapping(cls, given: Mapping[str, float], own: Mapping[str, float] | None = None) -> Thresholds:
        """A copy in which `own`, somebody's choice by category, goes before everything."""
        own = own or {}
        cuts = getattr(given, "cuts", None)
        return cls({**given, **own}, cuts, getattr(given, "overridden", frozenset()) | frozenset(own))

    def lowest(self, name: str, category: str) -> float:
        """The probability that a label needs."""
        if self.cuts is not None and category not in self.overridden:
            own = self.cuts.by_name.get(name)
            if own is not None:
                return own
        return self.get(category, 0.0)


@dataclass(frozen=True, slots=True)
class PackedScores:
    """All scores of one image above the stored floor: `labels` uint16 indices into a LabelSet, `scores` uint16.

    Sorted by score, highest first. Probability = score / 65535.
    """

    labels: npt.NDArray[np.uint16]
    scores: npt.NDArray[np.uint16]

    @classmethod
    def pack(cls, probabilities: npt.NDArray[np.floating[Any]], floor: float = DEFAULT_SCORE_FLOOR) -> PackedScores:
        """Keep what is at or above `floor`. NaN counts as 0. Shape: (labels,) → two arrays of the kept length."""
        probabilities = np.nan_to_num(np.asarray(probabilities, dtype=np.float32), nan=0.0)
        kept = np.flatnonzero(probabilities >= floor)
        order = np.argsort(-probabilities[kept], kind="stable")
        labels = kept[order]
        scores = np.rint(np.clip(probabilities[labels], 0.0, 1.0) * SCORE_SCALE)
        return cls(labels.astype(np.uint16), scores.astype(np.uint16))

    def to_bytes(self) -> bytes:
        """Little-endian: n labels, then n scores, two bytes each."""
        return self.labels.astype("<u2").tobytes() + self.scores.astype("<u2").tobytes()

    @classmethod
    def from_bytes(cls, blob: bytes | memoryview) -> PackedScores:
        """The inverse of `to_bytes`. ValueError when the blob cannot be one."""
        data = np.frombuffer(blob, dtype="<u2")
        if len(blob) % 4:
            raise ValueError(f"a packed score blob has a multiple of 4 bytes, got {len(blob)}")
        half = len(data) // 2
        return cls(data[:half], data[half:])

    @property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """float32 in 0..1, same order as `labels`."""
        return np.divide(self.scores, SCORE_SCALE, dtype=np.float32)
