from __future__ import annotations

import pytest
from django.db import transaction

from tagging.actions import counts
from tagging.models import Collection, ImageAsset, ImageTag, Tag, TagCount

pytestmark = pytest.mark.django_db


@pytest.fixture
def collection():
    return Collection.objects.create(name="Trip", slug="trip", kind="upload")


def numbers(collection):
    return {
        c.tag.name: (c.proposed, c.accepted, c.rejected, c.added)
        for c in TagCount.objects.filter(collection=collection).select_related("tag")
    }


def test_it_adds_and_moves(collection):
    dog, cat = Tag.objects.create(name="dog"), Tag.objects.create(name="cat")
    deltas = counts.Deltas()
    deltas.move(collection.pk, dog.pk, None, ImageTag.State.PROPOSED, n=3)
    deltas.move(collection.pk, cat.pk, None, ImageTag.State.ADDED)
    with transaction.atomic():
        deltas.apply()
    deltas.move(collection.pk, dog.pk, ImageTag.State.PROPOSED, ImageTag.State.ACCEPTED)
    deltas.move(collection.pk, dog.pk, ImageTag.State.PROPOSED, ImageTag.State.REJECTED)
    deltas.move(collection.pk, cat.pk, ImageTag.State.ADDED, None)
    with transaction.atomic():
        deltas.apply()
    assert numbers(collection) == {"dog": (1, 1, 1, 0), "cat": (0, 0, 0, 0)}


def test_it_applies_once(collection):
    dog = Tag.objects.create(name="dog")
    deltas = counts.Deltas()
    deltas.move(collection.pk, dog.pk, None, ImageTag.State.PROPOSED)
    deltas.apply()
    deltas.apply()
    assert numbers(collection) == {"dog": (1, 0, 0, 0)}


def test_rebuild_counts_from_the_rows(collection):
    dog = Tag.objects.create(name="dog")
    for i, state in enumerate((1, 2, 2, 3, 4)):
        image = ImageAsset.objects.create(collection=collection, path=f"{i}.jpg")
        ImageTag.objects.create(image=image, tag=dog, state=state)
    TagCount.objects.create(collection=collection, tag=dog, proposed=99)
    assert counts.rebuild(collection) == 1
    assert numbers(collection) == {"dog": (1, 2, 1, 1)}
