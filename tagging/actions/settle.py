"""What a judge may decide where a person opened a gate: whole images, of which it doubts no tag.

Written like a person's decision, by the same writer, so that it has its history and is taken back as one batch; the
review state is "auto", so that nobody takes it for a person's.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction

from ..models import ImageAsset
from .edits import IMAGES_PER_TRANSACTION, Edits, State

DOOR = "judge"


@dataclass(frozen=True, slots=True)
class Settled:
    """Ids of the proposed tags that are right, and of those that are wrong."""

    accept: Collection[int]
    reject: Collection[int] = ()


def settle_many(
    images: Mapping[int, Settled], *, run_id: int, by: AbstractBaseUser | None, batch: uuid.UUID
) -> dict[int, str]:
    """Settle at most 256 images in one transaction (or the caller's); image id → why it was left alone, empty where it
    was settled.

    An image is left alone when somebody decided on it meanwhile, when another run is shown, or when its proposed tags
    are not exactly those that were judged. A caption that is proposed stays proposed: tags were judged, not texts.
    Images that are gone are left out of the answer. Taken back by `review.undo`. ValueError for more images.
    """
    if len(images) > IMAGES_PER_TRANSACTION:
        raise ValueError(f"At most {IMAGES_PER_TRANSACTION} images at once.")
    with transaction.atomic():
        edits = Edits.lock(list(images), by=by, door=DOOR, batch=batch)
        found = {image_id: _settle(edits, image_id, images[image_id], run_id) for image_id in edits.images}
        edits.write()
    return found


def _settle(edits: Edits, image_id: int, wanted: Settled, run_id: int) -> str:
    image, rows = edits.images[image_id], edits.rows[image_id]
    if image.review_state != ImageAsset.Review.UNREVIEWED:
        return "was decided on meanwhile"
    if image.proposed_by_id != run_id:
        return "shows another run"
    proposed = {tag_id for tag_id, row in rows.items() if row.state == State.PROPOSED}
    if proposed != {*wanted.accept, *wanted.reject} or not proposed:
        return "has other tags than were judged"
    for tag_id in sorted(wanted.accept):
        edits.set_tag(image_id, tag_id, State.ACCEPTED)
    for tag_id in sorted(wanted.reject):
        edits.set_tag(image_id, tag_id, State.REJECTED)
    edits.set_review(image_id, ImageAsset.Review.AUTO)
    return ""
