"""Judge the rest: what recipes of an experiment proposed and nobody has judged, one tag at a time, blind."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError

from tagging.actions import review
from tagging.actions.review import Decision
from tagging.actions.tags import resolve_tags
from tagging.models import ImageTag, Tag

from .. import board as boards
from ..metrics_loading import load
from ..models import Experiment

DOOR = "rest"
#: pairs that are offered at once
QUEUE = 2000


@dataclass(frozen=True, slots=True)
class Pair:
    """A tag on an image. Nothing says which recipe, or how many, proposed it."""

    image: int
    tag: str


def unjudged(experiment: Experiment, limit: int = QUEUE) -> list[Pair]:
    """What is left to judge: in the order of the list of images, the tags of an image together, in an order that says
    nothing. Reads the whole comparison."""
    sheet = load(experiment)
    racing = [row.dropped_at is None for row in sheet.rows]
    within, ready = boards.compared(sheet, racing)
    pairs = boards.unjudged_pairs(sheet, ready, within)
    order = {pk: at for at, pk in enumerate(experiment.images)}
    names = names_of(sheet.truth.tags, sheet.tag_ids)

    def key(pair: tuple[int, int]) -> tuple[int, bytes]:
        shuffled = hashlib.blake2b(f"{experiment.seed} {pair[0]} {sheet.truth.tags[pair[1]]}".encode(), digest_size=8)
        return order[sheet.images[pair[0]]], shuffled.digest()

    return [Pair(sheet.images[image], names[tag]) for image, tag in sorted(pairs, key=key)[:limit]]


def names_of(keys: Sequence[str], ids: Sequence[int | None]) -> list[str]:
    """As the vocabulary writes them; words it does not have as their keys."""
    written: dict[int, str] = {}
    wanted = [pk for pk in ids if pk is not None]
    for at in range(0, len(wanted), 500):
        written |= dict(Tag.objects.filter(pk__in=wanted[at : at + 500]).values_list("pk", "name"))
    return [key if pk is None else written.get(pk, key) for key, pk in zip(keys, ids, strict=True)]


def judge(
    experiment: Experiment, pair: Pair, *, right: bool, by: AbstractBaseUser | None, again: bool = False
) -> Decision:
    """A person says whether the tag is on the image: ordinary truth. ValidationError under "image" for an image that is
    none of the experiment's; under "tag" where it was judged meanwhile (unless `again`)."""
    if pair.image not in set(experiment.images):
        raise ValidationError({"image": f"Image {pair.image} is not one of this experiment."})
    tag = resolve_tags([pair.tag], field="tag")[pair.tag]
    known = ImageTag.objects.filter(image=pair.image, tag=tag, state__in=ImageTag.TRUTH).first()
    if known is not None and not again:
        raise ValidationError({"tag": f"{tag.name!r} was judged on this image meanwhile."})
    if right:
        return review.decide(pair.image, by=by, door=DOOR, add=[tag.name])
    return review.decide(pair.image, by=by, door=DOOR, reject=[tag.pk], seen=[tag.pk])
