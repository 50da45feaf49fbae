"""Taking decisions back. An undo is new TagEdit rows that name the rows they undo; undoing an undo is a redo."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet

from ..models import TagEdit
from .edits import IMAGES_PER_TRANSACTION, Edits, State, truth

UNDO, REDO = "undo", "redo"
_LOOK_BACK = 20  # own batches tried by undo_last before it gives up


class NothingToUndo(Exception):
    """There is no such batch, or it was undone already. The text can be shown."""


@dataclass(frozen=True, slots=True)
class Undone:
    """What an undo did: `image_ids` are those that changed, `skipped` those on which something stayed because somebody
    decided on it again since. `batch` names the undo itself (undo it to redo); None when all was skipped."""

    batch: uuid.UUID | None
    image_ids: list[int]
    edits: int
    skipped: list[int] = field(default_factory=list)


def undo(batch: uuid.UUID | str, *, by: AbstractBaseUser | None) -> Undone:
    """Take back all changes of a batch that nobody changed since, exactly to what was before.

    One transaction for each 256 images; a call that was cut off can be repeated. Raises NothingToUndo.
    """
    try:
        batch = batch if isinstance(batch, uuid.UUID) else uuid.UUID(str(batch))
    except ValueError:
        raise NothingToUndo(f"{batch!r} names no decision.") from None
    new, done, skipped, n_edits, last = uuid.uuid4(), [], set(), 0, 0
    found = False
    while ids := _next_images(batch, last):
        found, last = True, ids[-1]
        with transaction.atomic():
            edits = Edits.lock(ids, by=by, door=UNDO, batch=new)
            skipped |= _reverse(edits, batch)
            n_edits += edits.write()
        done += sorted({edit.image_id for edit in edits.log})
    if not found:
        known = TagEdit.objects.filter(batch=batch).exists()
        raise NothingToUndo("This was undone already." if known else "There is no such decision.")
    return Undone(new if n_edits else None, done, n_edits, sorted(skipped))


def undo_last(by: AbstractBaseUser, *, image_id: int | None = None) -> Undone:
    """Take back this person's last decision (on this image, if one is named) that is still in force.

    A decision that others changed completely since is passed over and named in `skipped`. Raises NothingToUndo.
    """
    mine = _open_edits().filter(by_id=by.pk).exclude(door=UNDO).order_by("-pk")
    if image_id is not None:
        mine = mine.filter(image_id=image_id)
    skipped: set[int] = set()
    tried: list[uuid.UUID] = []
    while len(tried) < _LOOK_BACK and (batch := mine.exclude(batch__in=tried).values_list("batch", flat=True).first()):
        tried.append(batch)
        try:
            undone = undo(batch, by=by)
        except NothingToUndo:  # another tab was faster
            continue
        skipped.update(undone.skipped)
        if undone.edits:
            return Undone(undone.batch, undone.image_ids, undone.edits, sorted(skipped))
    if skipped:
        return Undone(None, [], 0, sorted(skipped))
    raise NothingToUndo("There is nothing of yours to undo.")


def _open_edits() -> QuerySet[TagEdit]:
    """Edits that no later row undoes."""
    return TagEdit.objects.filter(~Exists(TagEdit.objects.filter(undoes=OuterRef("pk"))))


def _next_images(batch: uuid.UUID, after: int) -> list[int]:
    """The next images of which something of the batch can be undone."""
    ids = _open_edits().filter(batch=batch, image_id__gt=after).order_by("image_id").values_list("image_id", flat=True)
    return list(ids.distinct()[:IMAGES_PER_TRANSACTION])


def _reverse(edits: Edits, batch: uuid.UUID) -> set[int]:
    """Set back what can be; the ids of images on which something could not."""
    history = _history(edits.images, batch)
    skipped: set[int] = set()
    for path in history.values():
        for edit in reversed([e for e in path if e.batch == batch]):
            if any(e.undoes_id == edit.pk for e in path):
                continue  # undone, by another tab a moment ago
            if _is_in_force(edit, path) and truth(edit.kind, _now(edits, edit)) == truth(edit.kind, edit.after):
                _set_back(edits, edit)
            else:
                skipped.add(edit.image_id)
    return skipped


def _history(image_ids: Iterable[int], batch: uuid.UUID) -> dict[tuple[int, str, int | None], list[TagEdit]]:
    """(image, kind, tag) → the batch's changes of it and every later one, oldest first. Two queries."""
    ids = list(image_ids)
    own = list(TagEdit.objects.filter(batch=batch, image_id__in=ids))
    first = min((e.pk for e in own), default=0)
    touched: dict[tuple[int, str, int | None], list[TagEdit]] = {(e.image_id, e.kind, e.tag_id): [] for e in own}
    for edit in TagEdit.objects.filter(image_id__in=ids, pk__gte=first).order_by("pk"):
        if (key := (edit.image_id, edit.kind, edit.tag_id)) in touched:
            touched[key].append(edit)
    return touched


def _is_in_force(edit: TagEdit, path: list[TagEdit]) -> bool:
    """Nothing after `edit` stands: later changes were each taken back, in whatever order of doing and undoing."""
    standing: list[int] = []
    for later in path:
        if later.pk > edit.pk:
            if standing and later.undoes_id == standing[-1]:
                standing.pop()
            else:
                standing.append(later.pk)
    return not standing


def _now(edits: Edits, edit: TagEdit) -> object:
    return edits.current(edit.kind, edit.image_id, edit.tag_id)


def _set_back(edits: Edits, edit: TagEdit) -> None:
    edits.door = REDO if edit.door == UNDO else UNDO
    image_id = edit.image_id
    before: Any = edit.before
    if edit.kind == TagEdit.Kind.TAG:
        if edit.tag_id is None:  # the tag itself was deleted since
            return
        gone = before == State.PROPOSED and edit.tag_id not in edits.rows[image_id]
        edits.set_tag(image_id, edit.tag_id, None if gone else before, undoes=edit)
    elif edit.kind == TagEdit.Kind.CAPTION:
        edits.set_caption(image_id, before["text"], before["state"], undoes=edit)
    elif edit.kind == TagEdit.Kind.RATING:
        edits.set_rating(image_id, before["rating"], before["score"], undoes=edit)
    else:
        edits.restore_review(image_id, before, undoes=edit)
