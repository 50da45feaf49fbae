"""Two recipes side by side: on which images one is better, and which tags it gains and loses, with places to look."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .matrix import Index, edits_of, truth_of

#: thumbnails shown of each kind
SHOWN = 12
TAGS = 40
EXAMPLES = 6


@dataclass(slots=True)
class Moved:
    """A tag that one says more often than the other. `right` and `wrong` count images where people decided."""

    name: str
    images: int
    right: int
    wrong: int
    examples: list[int] = field(default_factory=list)  # primary keys


@dataclass(slots=True)
class Outcome:
    """`b` against `a`. Images are (primary key, difference in edits), the largest first."""

    better: list[tuple[int, float]]
    worse: list[tuple[int, float]]
    n_better: int
    n_worse: int
    n_same: int
    judged: int
    gained: list[Moved]
    lost: list[Moved]


def outcome(index: Index, a: int, b: int) -> Outcome:
    """`a` and `b` are primary keys of rows. ValueError where one is no row of the experiment."""
    first, second = index.rows.index(a), index.rows.index(b)
    truth = truth_of(index)
    n = len(index.images)
    both = (index.samples[first] > 0) & (index.samples[second] > 0)
    edits = edits_of(index, truth, [first, second])
    judged = both & truth.decided
    change = np.where(judged, edits[second] - edits[first], 0.0)
    better = sorted(np.flatnonzero(change < -1e-9), key=lambda i: (change[i], i))
    worse = sorted(np.flatnonzero(change > 1e-9), key=lambda i: (-change[i], i))
    width = max(1, len(index.tags))
    of = {
        place: np.unique((index.image * width + index.tag)[(index.row == place) & both[index.image]])
        for place in (first, second)
    }
    right = set(truth.codes[truth.right].tolist())
    wrong = set(truth.codes[~truth.right].tolist())

    def moved(codes: np.ndarray) -> list[Moved]:
        found: dict[int, Moved] = {}
        for code in codes.tolist():
            tag = code % width
            one = found.setdefault(tag, Moved(index.tags[tag], 0, 0, 0))
            one.images += 1
            one.right += code in right
            one.wrong += code in wrong
            if len(one.examples) < EXAMPLES:
                one.examples.append(int(index.images[code // width]))
        return sorted(found.values(), key=lambda m: (-m.images, m.name))[:TAGS]

    return Outcome(
        [(int(index.images[i]), float(change[i])) for i in better[:SHOWN]],
        [(int(index.images[i]), float(change[i])) for i in worse[:SHOWN]],
        len(better),
        len(worse),
        int(judged.sum()) - len(better) - len(worse),
        int(judged.sum()) if n else 0,
        moved(np.setdiff1d(of[second], of[first], assume_unique=True)),
        moved(np.setdiff1d(of[first], of[second], assume_unique=True)),
    )
