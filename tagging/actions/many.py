"""Different decisions on many images, under one batch: what an import writes as truth.

A sibling of `review.bulk`, which decides the same on all. The caller says per image what it saw; where that is no
longer so, the image keeps what somebody decided since.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction

from ..models import ImageAsset
from .edits import IMAGES_PER_TRANSACTION, Edits, State


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted of one image. `accept` and `reject` are ids of tags. `caption` and `rating` are (seen, wanted):
    they are set where what was seen still stands. `overrule`: rejected tags in `accept` come back."""

    accept: Collection[int] = ()
    reject: Collection[int] = ()
    caption: tuple[str, str] | None = None
    rating: tuple[str, str] | None = None
    overrule: bool = False
    reviewed: bool = False


@dataclass(slots=True)
class Granted:
    """What became of a wish: `edits` TagEdit rows; what was left as it is: tags rejected meanwhile, "caption", …"""

    edits: int = 0
    left_tags: list[int] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def decide_many(
    wishes: Mapping[int, Wish], *, by: AbstractBaseUser | None, door: str, batch: uuid.UUID
) -> dict[int, Granted]:
    """Grant the wishes of at most 256 images in one transaction (or the caller's); image id → what came of it.

    Images that are gone are left out of the answer. Texts are taken as they are: check them before. Undone with all
    else of the batch by `review.undo`. ValueError for more images.
    """
    if len(wishes) > IMAGES_PER_TRANSACTION:
        raise ValueError(f"At most {IMAGES_PER_TRANSACTION} images at once.")
    with transaction.atomic():
        edits = Edits.lock(list(wishes), by=by, door=door, batch=batch)
        found = {image_id: _grant(edits, image_id, wishes[image_id]) for image_id in edits.images}
        edits.write()
    for change in edits.log:
        found[change.image_id].edits += 1
    return found


def _grant(edits: Edits, image_id: int, wish: Wish) -> Granted:
    granted, rows, image = Granted(), edits.rows[image_id], edits.images[image_id]
    for tag_id in sorted(wish.accept):
        row = rows.get(tag_id)
        if row is not None and row.state == State.REJECTED and not wish.overrule:
            granted.left_tags.append(tag_id)
        else:
            edits.accept(image_id, tag_id)
    for tag_id in sorted(wish.reject):
        edits.set_tag(image_id, tag_id, State.REJECTED)
    if wish.caption is not None:
        seen, wanted = wish.caption
        if image.caption not in (seen, wanted):
            granted.left.append("caption")
        elif image.caption != wanted:
            edits.set_caption(image_id, wanted, ImageAsset.CaptionState.EDITED)
        elif image.caption_state in ("", ImageAsset.CaptionState.PROPOSED):
            edits.set_caption(image_id, wanted, ImageAsset.CaptionState.ACCEPTED)
    if wish.rating is not None:
        seen, wanted = wish.rating
        if image.rating not in (seen, wanted):
            granted.left.append("rating")
        else:
            edits.set_rating(image_id, wanted, None)
    if wish.reviewed:
        edits.set_review(image_id, ImageAsset.Review.REVIEWED)
    return granted
