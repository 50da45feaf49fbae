"""How far the review of a collection is: counted from indexes, kept for some seconds, moved with each decision."""

from __future__ import annotations

from dataclasses import dataclass

from django.core.cache import cache

from .. import queries
from ..models import Collection, ImageAsset

KEEP_SECONDS = 20  # counting a million index entries takes tens of milliseconds


@dataclass(frozen=True, slots=True)
class ReviewProgress:
    reviewed: int
    skipped: int
    unreviewed: int
    judged: int = 0  # accepted by a judge, without a person

    @property
    def total(self) -> int:
        return self.reviewed + self.skipped + self.unreviewed + self.judged

    @property
    def settled(self) -> int:
        return self.reviewed + self.judged


def _key(collection_id: int) -> str:
    return f"review-progress:{collection_id}"


def progress_of(collection: Collection) -> ReviewProgress:
    """Exact when it is counted, then followed by `moved` for at most KEEP_SECONDS. No query while it is kept."""
    counts = cache.get(_key(collection.pk))
    if counts is None:
        counts = queries.review_counts(collection)
        cache.set(_key(collection.pk), counts, KEEP_SECONDS)
    states = ImageAsset.Review
    numbers = (counts[s] for s in (states.REVIEWED, states.SKIPPED, states.UNREVIEWED, states.AUTO))
    return ReviewProgress(*numbers)


def moved(collection_id: int, before: str, after: str) -> None:
    """An image went from one review state to another."""
    counts = cache.get(_key(collection_id))
    if counts is None or before == after or before not in counts or after not in counts:
        return
    counts[before] = max(0, counts[before] - 1)
    counts[after] += 1
    cache.set(_key(collection_id), counts, KEEP_SECONDS)


def forget(collection_id: int) -> None:
    """Something else changed: count again when asked."""
    cache.delete(_key(collection_id))
