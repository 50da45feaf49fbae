"""TagCount, kept right with every write of ImageTag."""

from __future__ import annotations

from collections import defaultdict

from django.db import connection, transaction
from django.db.models import Count

from ..models import Collection, ImageTag, TagCount

_COLUMNS = {
    ImageTag.State.PROPOSED: "proposed",
    ImageTag.State.ACCEPTED: "accepted",
    ImageTag.State.REJECTED: "rejected",
    ImageTag.State.ADDED: "added",
}


class Deltas:
    """Collects what a transaction changes in ImageTag; `apply` writes it once, in the same transaction.

    Rows are written in the order (collection, tag), so that two writers on PostgreSQL can never wait for each other in
    a circle.
    """

    def __init__(self) -> None:
        self._by_key: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0, 0, 0])

    def move(self, collection_id: int, tag_id: int, before: int | None, after: int | None, n: int = 1) -> None:
        """`n` images' tag went from state `before` to `after` (ImageTag.State; None: no row)."""
        if before == after:
            return
        cell = self._by_key[(collection_id, tag_id)]
        if before is not None:
            cell[before - 1] -= n
        if after is not None:
            cell[after - 1] += n

    def apply(self) -> None:
        """Add everything to the counters. Must run inside the transaction that wrote the ImageTag rows."""
        rows = [(c, t, *cell) for (c, t), cell in sorted(self._by_key.items()) if any(cell)]
        self._by_key.clear()
        if not rows:
            return
        names = list(_COLUMNS.values())
        table = connection.ops.quote_name(TagCount._meta.db_table)
        sql = (
            f"INSERT INTO {table} (collection_id, tag_id, {', '.join(names)}) VALUES (%s, %s, %s, %s, %s, %s) "
            f"ON CONFLICT (collection_id, tag_id) DO UPDATE SET "
            + ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in names)
        )
        with connection.cursor() as cursor:
            cursor.executemany(sql, rows)


def rebuild(collection: Collection) -> int:
    """Count again from ImageTag; the number of tags counted. For repairs: ordinary writes keep the counters right."""
    with transaction.atomic():
        TagCount.objects.filter(collection=collection).delete()
        found: dict[int, TagCount] = {}
        states = (
            ImageTag.objects.filter(image__collection=collection)
            .order_by()
            .values_list("tag_id", "state")
            .annotate(n=Count("image_id"))
        )
        for tag_id, state, n in states.iterator():
            row = found.setdefault(tag_id, TagCount(collection=collection, tag_id=tag_id))
            setattr(row, _COLUMNS[ImageTag.State(state)], n)
        TagCount.objects.bulk_create(found.values(), batch_size=1000)
    return len(found)
