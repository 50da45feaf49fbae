"""Human truth: decisions on one image and on many. The only door to it for pages, API and admin.

Every call is one short transaction (bulk: one for each 256 images) that locks the images, compares, writes ImageTag and
ImageAsset, appends TagEdit rows and moves the counters. Nothing here asks for permissions: the doors do.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import QuerySet

from ..models import ImageAsset, ImageTag, Tag
from ..policy.text import clean
from ..queries import slices
from .edits import IMAGES_PER_TRANSACTION, Edits, State
from .tags import resolve_tags
from .undo import NothingToUndo, Undone, undo, undo_last

__all__ = [
    "BulkResult",
    "Decision",
    "NothingToUndo",
    "Undone",
    "accept_image",
    "bulk",
    "decide",
    "reject_image",
    "skip_image",
    "undo",
    "undo_last",
]

CAPTION_LENGTH = 10_000
RATING_LENGTH = 32
TAGS_PER_DECISION = 500
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")  # databases refuse NUL and half characters


@dataclass(frozen=True, slots=True)
class Decision:
    """What a decision did. `batch` is None when nothing changed. `changed_by_others`: ids of tags whose being in force
    is not what the page showed, and that this decision did not speak of."""

    batch: uuid.UUID | None
    image: ImageAsset
    edits: int
    changed_by_others: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class BulkResult:
    """What a bulk action did: `images` is the number changed, `edits` that of TagEdit rows."""

    batch: uuid.UUID | None
    images: int
    edits: int


def decide(
    image_id: int,
    *,
    by: AbstractBaseUser | None,
    door: str,
    seen: Iterable[int] | None = None,
    accept: Iterable[int] = (),
    reject: Iterable[int] = (),
    clear: Iterable[int] = (),
    add: Iterable[str] = (),
    caption: str | None = None,
    rating: str | None = None,
    review: str | None = None,
) -> Decision:
    """Decide on tags (ids; `add`: names), caption, rating and review state of one image.

    accept: the tag is right (a proposal is accepted, a rejected tag comes back). reject: it is wrong and stays away.
    clear: takes a person's decision back: an accepted or rejected proposal is proposed again, an added tag goes.
    add: by name, made when new; accepts what is proposed. caption "" and rating "" mean none.
    `seen` are the ids the page showed in force: see Decision.changed_by_others.

    Raises ImageAsset.DoesNotExist; ValidationError keyed by the argument: unknown tags, tags that are neither on the
    image nor in `seen`, one tag in two verbs, empty or overlong names, caption or rating, an unknown review state.
    """
    verbs = {"accept": _ids(accept, "accept"), "reject": _ids(reject, "reject"), "clear": _ids(clear, "clear")}
    _check_once(verbs)
    shown = None if seen is None else set(_ids(seen, "seen"))
    names = list(add)
    if len(names) > TAGS_PER_DECISION:
        raise ValidationError({"add": f"At most {TAGS_PER_DECISION} tags at once."})
    if caption is not None:
        caption = _check_caption(caption)
    if rating is not None:
        rating = _check_rating(rating)
    if review is not None and review not in ImageAsset.Review.values:
        raise ValidationError({"review": f"{review!r} is none of {', '.join(ImageAsset.Review.values)}."})
    # before the lock: a new tag is of use even if the decision fails, and the transaction stays short
    added = {tag.pk for tag in resolve_tags(names, field="add").values()} if names else set()
    if both := added & set(verbs["reject"] + verbs["clear"]):
        raise ValidationError({"add": f"{Tag.objects.get(pk=min(both))} is added and rejected or cleared at once."})

    with transaction.atomic():
        edits = _lock_one(image_id, by, door)
        _check_known(edits.rows[image_id], shown, verbs)
        for tag_id in sorted({*verbs["accept"], *added}):
            edits.accept(image_id, tag_id)
        for tag_id in verbs["reject"]:
            edits.set_tag(image_id, tag_id, State.REJECTED)
        for tag_id in verbs["clear"]:
            edits.set_tag(image_id, tag_id, None)
        if caption is not None:
            _set_caption(edits, image_id, caption)
        if rating is not None:
            edits.set_rating(image_id, rating, None)
        if review is not None:
            edits.set_review(image_id, review)
        changed = _changed(edits, image_id, shown, spoken={*added, *(i for ids in verbs.values() for i in ids)})
        return _finish(edits, image_id, changed)


def accept_image(
    image_id: int, *, by: AbstractBaseUser | None, door: str, seen: Iterable[int] | None = None
) -> Decision:
    """All proposed tags that were seen (without `seen`: all) and the caption are right; the image is reviewed.

    Raises ImageAsset.DoesNotExist.
    """
    return _whole_image(image_id, by, door, seen, accept=True)


def reject_image(
    image_id: int, *, by: AbstractBaseUser | None, door: str, seen: Iterable[int] | None = None
) -> Decision:
    """No proposed tag that was seen is right; the image is reviewed. What a person accepted or added stays.

    A proposed caption goes too. Raises ImageAsset.DoesNotExist.
    """
    return _whole_image(image_id, by, door, seen, accept=False)


def skip_image(image_id: int, *, by: AbstractBaseUser | None, door: str) -> Decision:
    """Leave the image for later: it goes to the skipped ones. Raises ImageAsset.DoesNotExist."""
    return decide(image_id, by=by, door=door, review=ImageAsset.Review.SKIPPED)


def bulk(
    images: QuerySet[ImageAsset],
    *,
    by: AbstractBaseUser | None,
    verb: Literal["accept", "reject", "add", "remove"],
    tag_names: Iterable[str] = (),
    min_score: float | None = None,
    max_score: float | None = None,
    door: str = "bulk",
    batch: uuid.UUID | None = None,
) -> BulkResult:
    """One decision on many images, undone as one batch.

    accept, reject: the proposed tags, those named or all, within the scores. Without names and scores it is a decision
    on the whole image, as accept_image and reject_image. add: the named tags are right. remove: the named tags go;
    those that a model proposed are rejected, so that they do not come back. add and remove leave the review state.

    `batch` names the decision beforehand, for callers that hand it to a worker and must know it now.
    Streams: at most 256 images in memory and in a transaction. ValidationError keyed by tag_names, verb or score.
    """
    if verb not in ("accept", "reject", "add", "remove"):
        raise ValidationError({"verb": f"{verb!r} is none of accept, reject, add, remove."})
    for name, score in (("min_score", min_score), ("max_score", max_score)):
        if score is not None and not 0 <= score <= 1:
            raise ValidationError({name: "A score lies between 0 and 1."})
    names = list(tag_names)
    if not names and verb in ("add", "remove"):
        raise ValidationError({"tag_names": f"Name the tags to {verb}."})
    if len(names) > TAGS_PER_DECISION:
        raise ValidationError({"tag_names": f"At most {TAGS_PER_DECISION} tags at once."})
    tags = {tag.pk for tag in resolve_tags(names, create=verb == "add", field="tag_names").values()}
    if names and not tags:
        return BulkResult(None, 0, 0)
    change = _Bulk(verb, tags, min_score, max_score)
    batch, n_images, n_edits = batch or uuid.uuid4(), 0, 0
    for ids in slices(images, IMAGES_PER_TRANSACTION):
        with transaction.atomic():
            edits = Edits.lock(ids, by=by, door=door, batch=batch)
            for image_id in edits.images:
                change.apply(edits, image_id)
            n_edits += edits.write()
            n_images += len({edit.image_id for edit in edits.log})
    return BulkResult(batch if n_edits else None, n_images, n_edits)


@dataclass(frozen=True, slots=True)
class _Bulk:
    verb: str
    tags: set[int]
    min_score: float | None
    max_score: float | None

    def apply(self, edits: Edits, image_id: int) -> None:
        if self.verb == "add":
            for tag_id in sorted(self.tags):
                edits.accept(image_id, tag_id)
            return
        rows = edits.rows[image_id]
        if self.verb == "remove":
            for tag_id in sorted(self.tags & rows.keys()):
                if rows[tag_id].state != State.REJECTED:
                    edits.set_tag(image_id, tag_id, State.REJECTED if rows[tag_id].was_proposed else None)
            return
        after = State.ACCEPTED if self.verb == "accept" else State.REJECTED
        for tag_id, row in sorted(rows.items()):
            if row.state == State.PROPOSED and (not self.tags or tag_id in self.tags) and self._within(row.score):
                edits.set_tag(image_id, tag_id, after)
        if not self.tags and self.min_score is None and self.max_score is None:
            _close_image(edits, image_id, accept=self.verb == "accept")

    def _within(self, score: float | None) -> bool:
        """A tag without a score is within no bounds but open ones."""
        if self.min_score is None and self.max_score is None:
            return True
        low = 0.0 if self.min_score is None else self.min_score
        high = 1.0 if self.max_score is None else self.max_score
        return score is not None and low <= score <= high


# -- one image --------------------------------------------------------------------------------------------------------
def _lock_one(image_id: int, by: AbstractBaseUser | None, door: str) -> Edits:
    edits = Edits.lock([image_id], by=by, door=door)
    if image_id not in edits.images:
        raise ImageAsset.DoesNotExist(f"There is no image {image_id}.")
    return edits


def _whole_image(
    image_id: int, by: AbstractBaseUser | None, door: str, seen: Iterable[int] | None, *, accept: bool
) -> Decision:
    shown = None if seen is None else set(_ids(seen, "seen"))
    with transaction.atomic():
        edits = _lock_one(image_id, by, door)
        changed = _changed(edits, image_id, shown, spoken=set())
        for tag_id, row in sorted(edits.rows[image_id].items()):
            if row.state == State.PROPOSED and (shown is None or tag_id in shown):
                edits.set_tag(image_id, tag_id, State.ACCEPTED if accept else State.REJECTED)
        _close_image(edits, image_id, accept=accept)
        return _finish(edits, image_id, changed)


def _close_image(edits: Edits, image_id: int, *, accept: bool) -> None:
    image = edits.images[image_id]
    if image.caption_state == ImageAsset.CaptionState.PROPOSED:
        if accept:
            edits.set_caption(image_id, image.caption, ImageAsset.CaptionState.ACCEPTED)
        else:
            edits.set_caption(image_id, "", ImageAsset.CaptionState.EDITED)
    edits.set_review(image_id, ImageAsset.Review.REVIEWED)


def _set_caption(edits: Edits, image_id: int, caption: str) -> None:
    """The same text confirms what is proposed; another one is an edit."""
    image = edits.images[image_id]
    states = ImageAsset.CaptionState
    if caption != image.caption:
        edits.set_caption(image_id, caption, states.EDITED)
    elif image.caption_state == states.PROPOSED:
        edits.set_caption(image_id, caption, states.ACCEPTED)


def _changed(edits: Edits, image_id: int, shown: set[int] | None, spoken: set[int]) -> list[int]:
    """Tags that are in force and were not shown, or were shown and no longer are."""
    if shown is None:
        return []
    now = {tag_id for tag_id, row in edits.rows[image_id].items() if row.state in ImageTag.IN_FORCE}
    return sorted((now ^ shown) - spoken)


def _finish(edits: Edits, image_id: int, changed: list[int]) -> Decision:
    n = edits.write()
    return Decision(edits.batch if n else None, edits.images[image_id], n, changed)


# -- input ------------------------------------------------------------------------------------------------------------
def _ids(values: Iterable[int], name: str) -> list[int]:
    ids: list[int] = []
    for value in values:
        try:
            number = int(value)
        except (TypeError, ValueError):
            raise ValidationError({name: f"{value!r} is not the number of a tag."}) from None
        if not 0 < number < 2**63:
            raise ValidationError({name: f"There is no tag {number}."})
        ids.append(number)
    ids = list(dict.fromkeys(ids))
    if len(ids) > 4 * TAGS_PER_DECISION:
        raise ValidationError({name: f"At most {4 * TAGS_PER_DECISION} tags at once."})
    return ids


def _check_once(verbs: dict[str, list[int]]) -> None:
    said: dict[int, str] = {}
    for verb, ids in verbs.items():
        for tag_id in ids:
            if said.setdefault(tag_id, verb) != verb:
                raise ValidationError({verb: f"Tag {tag_id} is also in {said[tag_id]}: a tag has one decision."})


def _check_known(on_image: Iterable[int], shown: set[int] | None, verbs: dict[str, list[int]]) -> None:
    """Tags decided on are on the image or were on the page. One query, only when one is not on the image (now)."""
    absent = {tag_id for ids in verbs.values() for tag_id in ids}.difference(on_image)
    if not absent:
        return
    there = set(Tag.objects.filter(pk__in=absent).values_list("pk", flat=True))
    for verb, ids in verbs.items():
        for tag_id in ids:
            if tag_id in absent and tag_id not in there:
                raise ValidationError({verb: f"There is no tag {tag_id}."})
            if tag_id in absent and tag_id not in (shown or ()):
                raise ValidationError({verb: f"Tag {tag_id} is not on this image; add it by its name."})


def _check_caption(caption: str) -> str:
    text = _CONTROLS.sub("", caption.replace("\r\n", "\n").replace("\r", "\n")).strip()
    if len(text) > CAPTION_LENGTH:
        raise ValidationError({"caption": f"A caption has at most {CAPTION_LENGTH:,} characters, not {len(text):,}."})
    return text


def _check_rating(rating: str) -> str:
    text = clean(_CONTROLS.sub("", rating))
    if len(text) > RATING_LENGTH:
        raise ValidationError({"rating": f"A rating has at most {RATING_LENGTH} characters."})
    return text
