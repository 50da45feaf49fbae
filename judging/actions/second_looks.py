"""A second person looks at tags that were decided, blind: the only honest measure of how far people agree.

Ordinary review leaves no trace of agreement (who reviews after another sees what that one decided), so a share of the
reviewed images is asked about tag by tag. Nothing here changes truth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from django.contrib.auth.models import AbstractBaseUser, User
from django.core.exceptions import ValidationError
from django.db.models import Exists, OuterRef, QuerySet
from django.db.models.functions import Right

from tagging.actions.settle import DOOR
from tagging.models import Collection, ImageAsset, ImageTag, TagEdit

from ..judges.content import seeded
from ..models import SecondLook, SecondLookShare
from ..models.second_looks import SHARE

#: images that are looked through for one with a question left
AHEAD = 200
#: the draw: the end of the hash, because its beginning tells which images are kept to measure with
DIGITS = 4


@dataclass(frozen=True, slots=True)
class Question:
    """A decided tag; nothing in it tells how it was decided."""

    image: ImageAsset
    tag_id: int
    name: str


def share_of(collection: Collection) -> float:
    """The part of the reviewed images that is asked about; 0: none."""
    found = SecondLookShare.objects.filter(collection=collection).values_list("share", flat=True).first()
    return SHARE if found is None else found


def set_share(collection: Collection, share: float, *, by: User | None) -> None:
    """ValidationError under `share`."""
    if not 0 <= share <= 1:
        raise ValidationError({"share": "The part lies between 0 and 100 %."})
    SecondLookShare.objects.update_or_create(collection=collection, defaults={"share": share, "changed_by": by})


def images_for(collection: Collection, person: AbstractBaseUser) -> QuerySet[ImageAsset]:
    """Drawn images that somebody reviewed and this person never touched, with a decided tag that nobody looked at a
    second time. By content: always the same images."""
    share = share_of(collection)
    drawn = collection.images.usable().decided_by_people()
    if share < 1:
        limit = f"{int(share * 16**DIGITS):0{DIGITS}x}"
        drawn = drawn.annotate(end=Right("sha256", DIGITS)).filter(end__lt=limit)
    looked = SecondLook.objects.filter(image=OuterRef("image"), tag=OuterRef("tag"))
    open_tags = ImageTag.objects.filter(image=OuterRef("pk"), state__in=ImageTag.TRUTH).exclude(Exists(looked))
    own = TagEdit.objects.filter(image=OuterRef("pk"), by=person.pk)
    return drawn.filter(Exists(open_tags)).exclude(Exists(own)).order_by("pk")


def questions(collection: Collection, person: AbstractBaseUser) -> Iterator[Question]:
    """What this person can be asked, image by image, the tags of each in an order that says nothing."""
    for image in images_for(collection, person)[:AHEAD]:
        looked = set(SecondLook.objects.filter(image=image).values_list("tag_id", flat=True))
        people = {tag for tag, (door, _) in _last(image).items() if door != DOOR}
        rows = ImageTag.objects.filter(image=image, state__in=ImageTag.TRUTH).values_list("tag_id", "tag__name")
        tags = [(tag, name) for tag, name in rows if tag in people and tag not in looked]
        tags.sort(key=lambda row: seeded("second", image.sha256, row[0]).random())
        yield from (Question(image, tag, name) for tag, name in tags)


def _last(image: ImageAsset) -> dict[int, tuple[str, int | None]]:
    """Tag → where and by whom it was last decided on."""
    edits = TagEdit.objects.filter(image=image, kind=TagEdit.Kind.TAG, tag__isnull=False).order_by("pk")
    return {tag: (door, by) for tag, door, by in edits.values_list("tag_id", "door", "by_id") if tag is not None}


def last_of(collection: Collection, person: AbstractBaseUser) -> Question | None:
    """The question this person answered last: to be answered again."""
    rows = SecondLook.objects.filter(by=person.pk, image__collection=collection).select_related("image", "tag")
    found = rows.order_by("-pk").first()
    return Question(found.image, found.tag_id, found.tag.name) if found else None


def answer(
    collection: Collection, image_id: int, tag_id: int, right: bool | None, *, by: AbstractBaseUser
) -> SecondLook:
    """Note what a second person says; None: it cannot be told. ValidationError under `image` for one of another
    collection or one that this person decided on; under `tag` where no person's decision stands any more."""
    image = collection.images.decided_by_people().filter(pk=image_id).first()
    if image is None:
        raise ValidationError({"image": "This image is not reviewed any more."})
    if TagEdit.objects.filter(image=image, by=by.pk).exists():
        raise ValidationError({"image": "You decided on this image yourself: the second look is somebody else's."})
    row = ImageTag.objects.filter(image=image, tag=tag_id, state__in=ImageTag.TRUTH).select_related("tag").first()
    door, first = _last(image).get(tag_id, (DOOR, None))
    if row is None or door == DOOR:
        raise ValidationError({"tag": "No person's decision on this tag stands any more."})
    return SecondLook.objects.create(
        image=image,
        tag_id=tag_id,
        category=row.tag.category,
        first_right=row.state in ImageTag.POSITIVE,
        right=right,
        first_by_id=first,
        by=by,  # type: ignore[misc]
    )
