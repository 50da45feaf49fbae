"""How many images a device takes at once, found while working: doubled while that pays, never above what fitted.

Nothing is tried on purpose: real batches are timed. What was learned is kept for as long as the process lives, also
when the model is unloaded and comes back.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache

FIRST, LARGEST = 16, 256
#: A size must beat the smaller one by this much per image, else the smaller one stays: less memory, sooner results.
WORTH = 0.95
#: Full batches that a size is timed with; the first of a size is a warm-up and is left out.
TIMES = 3


class BatchFinder:
    """One model on one device. `size` is what to send next."""

    def __init__(self, first: int = FIRST, largest: int = LARGEST) -> None:
        self.size = first
        self._limit = largest
        self._best: dict[int, float] = {}  # size → best seconds an image
        self._seen: dict[int, int] = {}
        self._settled = False

    @property
    def settled(self) -> bool:
        """No larger size is tried any more."""
        return self._settled

    def took(self, count: int, seconds: float) -> None:
        """A batch of `count` images took so long. Only full batches count: the last of a run is smaller."""
        if self._settled or count != self.size or count < 1:
            return
        self._seen[count] = self._seen.get(count, 0) + 1
        if self._seen[count] == 1:
            return
        each = seconds / count
        self._best[count] = min(each, self._best.get(count, each))
        if self._seen[count] <= TIMES:
            return
        smaller = self._best.get(count // 2)
        if smaller is not None and self._best[count] > smaller * WORTH:
            self.size, self._settled = count // 2, True
        elif count * 2 > self._limit:
            self._settled = True
        else:
            self.size = count * 2

    def full(self, count: int) -> None:
        """A batch of `count` images did not fit: half of it is the most from now on."""
        self._limit = max(1, min(self._limit, count // 2))
        if self.size > self._limit:
            self.size, self._settled = self._limit, True


@lru_cache(maxsize=64)
def finder(key: Hashable) -> BatchFinder:
    """The finder of one model on one device, the same as long as the process lives."""
    return BatchFinder()
