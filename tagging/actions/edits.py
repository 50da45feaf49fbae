"""The one writer of human decisions: tags, caption, rating and review state of images that are locked.

Used by `actions.review`, `actions.many`, `actions.settle` and `actions.undo` only; everybody else calls those.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from django.contrib.auth.models import AbstractBaseUser
from django.db import connection
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from ..models import ImageAsset, ImageTag, TagEdit
from .counts import Deltas

State = ImageTag.State
IMAGES_PER_TRANSACTION = 256  # the knee of throughput against other writers' waiting time (measured)


@dataclass(slots=True)
class Row:
    """An ImageTag as it is now."""

    state: int
    run_id: int | None = None
    score: float | None = None

    @property
    def was_proposed(self) -> bool:
        """A model said it, so that taking a decision back leaves a proposal."""
        return self.run_id is not None or self.score is not None


class Change(NamedTuple):
    """A TagEdit to be: what all of them share stands in Edits."""

    image_id: int
    kind: str
    tag_id: int | None
    before: Any
    after: Any
    undoes_id: int | None
    door: str


def truth(kind: str, value: Any) -> Any:
    """The part of a value that a person decided; None where only models spoke. Two equal truths are the same decision,
    whatever a run has proposed in between."""
    if kind == TagEdit.Kind.TAG:
        return value if value in ImageTag.TRUTH else None
    if kind == TagEdit.Kind.CAPTION:
        decided = value["state"] in (ImageAsset.CaptionState.ACCEPTED, ImageAsset.CaptionState.EDITED)
        return value if decided else None
    if kind == TagEdit.Kind.RATING:
        return (value["rating"] or None) if value["score"] is None else None
    return value


def caption_of(image: ImageAsset) -> dict[str, Any]:
    return {"text": image.caption, "state": image.caption_state}


def rating_of(image: ImageAsset) -> dict[str, Any]:
    return {"rating": image.rating, "score": image.rating_score}


def review_of(image: ImageAsset) -> dict[str, Any]:
    at = image.reviewed_at.isoformat() if image.reviewed_at else None
    return {"state": image.review_state, "at": at, "by": image.reviewed_by_id}


@dataclass
class Edits:
    """Collects changes of some images and writes them at once, with their TagEdit rows and counters.

    Life: inside `transaction.atomic()`: `Edits.lock(…)` → set_… → `write()`. The images stay locked until the commit
    (SQLite: the whole database, IMMEDIATE), so that what was read is what is changed. Whoever else writes ImageTag rows
    of an image, the engine, takes the same lock.
    """

    by: AbstractBaseUser | None
    door: str
    batch: uuid.UUID
    images: dict[int, ImageAsset]
    rows: dict[int, dict[int, Row]]
    at: datetime = field(default_factory=timezone.now)
    log: list[Change] = field(default_factory=list)
    _tags: dict[tuple[int, int], int | None] = field(default_factory=dict)
    _before: dict[tuple[int, int], int | None] = field(default_factory=dict)
    _fields: dict[int, set[str]] = field(default_factory=dict)

    @classmethod
    def lock(
        cls, image_ids: Sequence[int], *, by: AbstractBaseUser | None, door: str, batch: uuid.UUID | None = None
    ) -> Edits:
        """Lock the images, in the order of their ids (two writers never wait in a circle), and read their tags.

        Ids that are gone are left out. Two queries.
        """
        locked = ImageAsset.objects.select_for_update(of=("self",), no_key=True).select_related("collection")
        images = {image.pk: image for image in locked.filter(pk__in=image_ids).order_by("pk")}
        rows: dict[int, dict[int, Row]] = {pk: {} for pk in images}
        values = ("image_id", "tag_id", "state", "run_id", "score")
        for image_id, tag_id, *row in ImageTag.objects.filter(image_id__in=list(images)).values_list(*values):
            rows[image_id][tag_id] = Row(*row)
        return cls(by, door, batch or uuid.uuid4(), images, rows)

    # -- changes ----------------------------------------------------------------------------------------------------
    def set_tag(self, image_id: int, tag_id: int, state: int | None, undoes: TagEdit | None = None) -> None:
        """Give a tag of an image the state; None takes the row away, or back to proposed where a model said it."""
        rows = self.rows[image_id]
        row = rows.get(tag_id)
        before = row.state if row else None
        if state is None and row and row.was_proposed:
            state = State.PROPOSED
        if state == before:
            return
        self._before.setdefault((image_id, tag_id), before)
        self._tags[(image_id, tag_id)] = state
        if state is None:
            del rows[tag_id]
        elif row:
            row.state = state
        else:
            rows[tag_id] = Row(state)
        self._note(image_id, TagEdit.Kind.TAG, before, state, undoes, tag_id)

    def accept(self, image_id: int, tag_id: int) -> None:
        """The tag is right: accepted where a model said it, else added by the person."""
        row = self.rows[image_id].get(tag_id)
        if row is None or row.state not in ImageTag.POSITIVE:
            self.set_tag(image_id, tag_id, State.ACCEPTED if row and row.was_proposed else State.ADDED)

    def set_caption(self, image_id: int, text: str, state: str, undoes: TagEdit | None = None) -> None:
        image = self.images[image_id]
        before = caption_of(image)
        image.caption, image.caption_state = text, state
        columns = ("caption_state",) if before["text"] == text else ("caption", "caption_state")
        self._field(image, TagEdit.Kind.CAPTION, before, caption_of(image), undoes, *columns)

    def set_rating(self, image_id: int, rating: str, score: float | None, undoes: TagEdit | None = None) -> None:
        image = self.images[image_id]
        before = rating_of(image)
        image.rating, image.rating_score = rating, score
        self._field(image, TagEdit.Kind.RATING, before, rating_of(image), undoes, "rating", "rating_score")

    def set_review(self, image_id: int, state: str) -> None:
        """The image is reviewed, skipped or waits again, by this person, now. Nothing happens when it already is."""
        image = self.images[image_id]
        if image.review_state != state:
            waits = state == ImageAsset.Review.UNREVIEWED
            at, by = (None, None) if waits else (self.at.isoformat(), self.by.pk if self.by else None)
            self.restore_review(image_id, {"state": state, "at": at, "by": by})

    def restore_review(self, image_id: int, value: dict[str, Any], undoes: TagEdit | None = None) -> None:
        image = self.images[image_id]
        before = review_of(image)
        image.review_state, image.reviewed_by_id = value["state"], value["by"]
        image.reviewed_at = parse_datetime(value["at"]) if value["at"] else None
        columns = ("review_state", "reviewed_at", "reviewed_by_id")
        self._field(image, TagEdit.Kind.REVIEW, before, review_of(image), undoes, *columns)

    def current(self, kind: str, image_id: int, tag_id: int | None) -> Any:
        """The value of that kind now, in the form TagEdit keeps it."""
        if kind == TagEdit.Kind.TAG:
            row = self.rows[image_id].get(tag_id) if tag_id else None
            return row.state if row else None
        of = {TagEdit.Kind.CAPTION: caption_of, TagEdit.Kind.RATING: rating_of, TagEdit.Kind.REVIEW: review_of}
        return of[TagEdit.Kind(kind)](self.images[image_id])

    def _field(
        self, image: ImageAsset, kind: TagEdit.Kind, before: Any, after: Any, undoes: TagEdit | None, *columns: str
    ) -> None:
        if before != after:
            self._fields.setdefault(image.pk, set()).update(columns)
            self._note(image.pk, kind, before, after, undoes)

    def _note(
        self, image_id: int, kind: str, before: Any, after: Any, undoes: TagEdit | None, tag_id: int | None = None
    ) -> None:
        undone = undoes.pk if undoes else None
        self.log.append(Change(image_id, str(kind), tag_id, before, after, undone, self.door))

    # -- the write --------------------------------------------------------------------------------------------------
    def write(self) -> int:
        """Everything that changed, in at most five statements for one image; the number of TagEdit rows."""
        if not self.log:
            return 0
        deltas = Deltas()
        for (image_id, tag_id), after in self._tags.items():
            deltas.move(self.images[image_id].collection_id, tag_id, self._before[(image_id, tag_id)], after)
        self._upsert([key for key, after in self._tags.items() if after is not None])
        self._delete([key for key, after in self._tags.items() if after is None])
        self._save_fields()
        self._append()
        deltas.apply()  # last: counters are shared, so their rows are held for as short as can be
        return len(self.log)

    def _append(self) -> None:
        """The TagEdit rows, in the order of the changes. Not by bulk_create: a bulk action has tens of thousands, and
        preparing every field of every row took most of its time."""
        fields = {f.attname: f for f in TagEdit._meta.concrete_fields if not f.primary_key}
        by_id = self.by.pk if self.by else None
        shared = {"batch": self.batch, "by_id": by_id, "at": self.at}
        ready = {name: fields[name].get_db_prep_save(value, connection) for name, value in shared.items()}
        json = fields["before"].get_db_prep_save
        rows = [
            (*c._replace(before=json(c.before, connection), after=json(c.after, connection)), *ready.values())
            for c in self.log
        ]
        columns = ", ".join(connection.ops.quote_name(name) for name in (*Change._fields, *ready))
        table = connection.ops.quote_name(TagEdit._meta.db_table)
        with connection.cursor() as cursor:
            marks = ", ".join(["%s"] * len(fields))
            cursor.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)

    def _upsert(self, keys: Iterable[tuple[int, int]]) -> None:
        rows = [(image_id, tag_id, self.rows[image_id][tag_id]) for image_id, tag_id in sorted(keys)]
        if not rows:
            return
        table = connection.ops.quote_name(ImageTag._meta.db_table)
        with connection.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO {table} (image_id, tag_id, state, run_id, score) VALUES (%s, %s, %s, %s, %s) "
                "ON CONFLICT (image_id, tag_id) DO UPDATE SET state = excluded.state",
                [(image_id, tag_id, row.state, row.run_id, row.score) for image_id, tag_id, row in rows],
            )

    def _delete(self, keys: Sequence[tuple[int, int]]) -> None:
        if not keys:
            return
        table = connection.ops.quote_name(ImageTag._meta.db_table)
        with connection.cursor() as cursor:
            cursor.executemany(f"DELETE FROM {table} WHERE image_id = %s AND tag_id = %s", keys)

    def _save_fields(self) -> None:
        """One UPDATE for all images that get the same values: one for a single image, and for a bulk review state."""
        same: dict[tuple[tuple[str, Any], ...], list[int]] = {}
        for image_id, columns in self._fields.items():
            values = tuple((name, getattr(self.images[image_id], name)) for name in sorted(columns))
            same.setdefault(values, []).append(image_id)
        for values, ids in same.items():
            ImageAsset.objects.filter(pk__in=ids).update(**dict(values))
