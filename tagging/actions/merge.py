"""Making one tag another spelling of a second one."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.db import connection, transaction

from ..models import ImageAsset, ImageTag, Tag, TagAlias, TagEdit
from .counts import Deltas
from .edits import IMAGES_PER_TRANSACTION

State = ImageTag.State
#: Which of two states of the same thing holds: what a person said goes before what a model said, and yes before no
#: (whoever refused one spelling and took the other meant the spelling).
_WEIGHT = {State.PROPOSED: 0, State.REJECTED: 1, State.ACCEPTED: 2, State.ADDED: 3}


@dataclass(frozen=True, slots=True)
class Merged:
    """`images` carried the source; on `both` of them the target stood too."""

    target: Tag
    images: int
    both: int


@dataclass(slots=True)
class _Row:
    state: int
    run_id: int | None
    score: float | None


def merge_tags(source: Tag, target: Tag, by: AbstractBaseUser | None = None) -> Merged:
    """Make `source` an alias of `target`: its images, aliases, children and history go there, the tag itself goes.

    Decisions stay: an image that a person decided on under either name is decided under the target's. Counters stay
    right. In transactions of some hundred images; cut off in the middle, the same call finishes the work.
    ValidationError where the two are one, or one is gone.
    """
    if source.pk == target.pk:
        raise ValidationError({"target": "A tag cannot be an alias of itself."})
    if len(Tag.objects.filter(pk__in=[source.pk, target.pk])) != 2:
        raise ValidationError({"target": "One of the two tags was removed meanwhile."})
    batch, images, both = uuid.uuid4(), 0, 0
    while True:
        with transaction.atomic():
            ids = _next(source)
            if len(ids) < IMAGES_PER_TRANSACTION:
                both += _move(ids, source, target, batch, by)
                _replace(source, target)
                return Merged(target, images + len(ids), both)
            both += _move(ids, source, target, batch, by)
        images += len(ids)


def _next(source: Tag) -> list[int]:
    rows = ImageTag.objects.filter(tag=source).order_by("image_id")
    return list(rows.values_list("image_id", flat=True)[:IMAGES_PER_TRANSACTION])


def _move(ids: Sequence[int], source: Tag, target: Tag, batch: uuid.UUID, by: AbstractBaseUser | None) -> int:
    """The images' rows of the source become the target's. Returns how many had both."""
    # the same lock, in the same order, as every other writer of these rows
    locked = ImageAsset.objects.select_for_update(of=("self",), no_key=True).filter(pk__in=ids).order_by("pk")
    collections = dict(locked.values_list("pk", "collection_id"))
    mine, theirs = _rows(source, ids), _rows(target, ids)
    deltas, log, upserts = Deltas(), [], []
    for image_id, row in sorted(mine.items()):
        other = theirs.get(image_id)
        merged = _merged(row, other) if other else row
        upserts.append((image_id, target.pk, merged.state, merged.run_id, merged.score))
        deltas.move(collections[image_id], source.pk, row.state, None)
        deltas.move(collections[image_id], target.pk, other.state if other else None, merged.state)
        if other and other.state != merged.state:
            log.append(
                TagEdit(
                    image_id=image_id,
                    kind=TagEdit.Kind.TAG,
                    tag=target,
                    before=other.state,
                    after=merged.state,
                    batch=batch,
                    by_id=by.pk if by else None,
                    door="admin",
                )
            )
    table = connection.ops.quote_name(ImageTag._meta.db_table)
    with connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO {table} (image_id, tag_id, state, run_id, score) VALUES (%s, %s, %s, %s, %s) "
            "ON CONFLICT (image_id, tag_id) DO UPDATE SET state = excluded.state, run_id = excluded.run_id, "
            "score = excluded.score",
            upserts,
        )
    ImageTag.objects.filter(tag=source, image_id__in=list(mine)).delete()
    TagEdit.objects.bulk_create(log)
    deltas.apply()
    return len(mine.keys() & theirs.keys())


def _rows(tag: Tag, ids: Sequence[int]) -> dict[int, _Row]:
    found = ImageTag.objects.filter(tag=tag, image_id__in=ids).values_list("image_id", "state", "run_id", "score")
    return {image_id: _Row(state, run_id, score) for image_id, state, run_id, score in found}


def _merged(a: _Row, b: _Row) -> _Row:
    """The weightier state; the run and score of whichever is surer."""
    surer = max(a, b, key=lambda row: -1.0 if row.score is None else row.score)
    return _Row(max(a.state, b.state, key=lambda s: _WEIGHT[State(s)]), surer.run_id, surer.score)


def _replace(source: Tag, target: Tag) -> None:
    """Everything that is not on an image; then the source is an alias."""
    TagEdit.objects.filter(tag=source).update(tag=target)
    TagAlias.objects.filter(tag=source).update(tag=target)
    above = Tag.objects.get(pk=target.pk)
    if above.parent_id == source.pk:
        above.parent_id = source.parent_id if source.parent_id != target.pk else None
        above.save(update_fields=["parent"])
    Tag.objects.filter(parent=source).exclude(pk=target.pk).update(parent=target)
    TagAlias.objects.filter(key=source.key).delete()
    Tag.objects.filter(pk=source.pk).delete()
    TagAlias.objects.create(tag=target, name=source.name)
