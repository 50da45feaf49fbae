"""Which images an experiment looks at, and in which order: drawn by content and seed, so that any beginning of the list
is a fair sample of all, and another database with the same files draws the same."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator

from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import QueryDict

from tagging.filters import ImageFilter
from tagging.models import Collection, ImageAsset
from tagging.queries import filtered

MAX_IMAGES = 20_000
#: Runs are started for slices of the list that end here; then every 200, and from 1,000 on a quarter more.
STEPS = (5, 30, 100, 200, 400, 600, 800, 1000)


def choose(
    collection: Collection, query: str = "", *, sample: int | None = None, seed: int = 0
) -> list[tuple[int, str]]:
    """(primary key, sha256) of the images, in the order in which they are shown. ValidationError under "filter" or
    "sample". Reads the whole filter once, keeps only the sample in memory."""
    images = usable(collection, query)
    wanted = MAX_IMAGES + 1 if sample is None else sample
    rows = images.order_by().values_list("sha256", "pk").iterator(chunk_size=5000)
    drawn = heapq.nsmallest(wanted, ((place(sha, seed), sha, pk) for sha, pk in rows))
    if sample is None and len(drawn) > MAX_IMAGES:
        raise ValidationError(
            {"sample": f"An experiment looks at {MAX_IMAGES:,} images at most and the filter has more: draw a sample."}
        )
    if not drawn:
        raise ValidationError({"filter": "There is no image to compare on. Index the collection, or widen the filter."})
    return [(pk, sha) for _, sha, pk in drawn]


def usable(collection: Collection, query: str) -> QuerySet[ImageAsset]:
    """The images of the filter that a model can be shown. ValidationError under "filter"."""
    try:
        found = filtered(collection, ImageFilter.parse(QueryDict(query)))
    except ValidationError as e:
        raise ValidationError({"filter": [text for texts in e.message_dict.values() for text in texts]}) from None
    return found.filter(state=ImageAsset.State.READY, missing_since=None)


def place(sha256: str, seed: int) -> bytes:
    """Where in the order an image stands: a hash, as good as a number drawn for it."""
    return hashlib.blake2b(f"{seed} {sha256}".encode(), digest_size=12).digest()


def held_out(images: list[tuple[int, str]], share: float) -> list[int]:
    """Places of those kept for the last check, by content: an image is in it in every experiment or in none."""
    limit = int(share * 2**32)
    return [
        at
        for at, (_, sha) in enumerate(images)
        if int.from_bytes(hashlib.blake2b(f"holdout {sha}".encode(), digest_size=4).digest()) < limit
    ]


def boundaries(n: int) -> list[int]:
    """Ends of the slices of a list of n images, the last is n."""
    return list(_ends(n))


def _ends(n: int) -> Iterator[int]:
    for step in STEPS:
        if step >= n:
            break
        yield step
    else:
        step = STEPS[-1]
        while (step := max(step + 50, step * 5 // 4 // 50 * 50)) < n:
            yield step
    yield n


def slices(upto: int, n: int) -> list[tuple[int, int]]:
    """[lo, hi) of the slices of a list of n images that begin before `upto`."""
    found, lo = [], 0
    for hi in boundaries(n):
        if lo >= upto:
            break
        found.append((lo, hi))
        lo = hi
    return found


def waves(target: int, n: int, *, racing: bool) -> list[int]:
    """How many images are done before the race is judged again; without a race all of the target at once."""
    ends = [end for end in boundaries(n) if end <= target] or [target]
    if not racing:
        return [ends[-1]]
    chosen = [end for end in ends if end in (30, 100, 200)]
    after = 400
    for end in ends:
        if end >= after:
            chosen.append(end)
            after = 2 * end
    if ends[-1] not in chosen:
        chosen.append(ends[-1])
    return chosen
