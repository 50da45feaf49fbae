from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError

from tagging.actions import review
from tagging.models import Collection, ImageAsset, ImageTag, Recipe, Run, Tag, TagAlias, TagCount, TagEdit
from tagging.models.recipes import Policy, PolicyVersion

pytestmark = pytest.mark.django_db
P, A, R, ADDED = ImageTag.State.PROPOSED, ImageTag.State.ACCEPTED, ImageTag.State.REJECTED, ImageTag.State.ADDED


@pytest.fixture
def ann():
    return User.objects.create(username="ann")


@pytest.fixture
def bob():
    return User.objects.create(username="bob")


@pytest.fixture
def collection():
    return Collection.objects.create(name="Trip", slug="trip", kind="upload")


@pytest.fixture
def run(collection):
    version = PolicyVersion.objects.create(policy=Policy.objects.create(slug="p", name="p"), number=1, digest="d")
    recipe = Recipe.objects.create(key="k" * 64, policy_version=version)
    return Run.objects.create(recipe=recipe, collection=collection)


@pytest.fixture
def tags():
    return {name: Tag.objects.create(name=name) for name in ("dog", "cat", "sky", "car")}


def propose(image, run, **scores):
    """What the engine does: rows and counters."""
    for name, score in scores.items():
        tag = Tag.objects.get(key=name)
        ImageTag.objects.create(image=image, tag=tag, state=P, run=run, score=score)
        count, _ = TagCount.objects.get_or_create(collection=image.collection, tag=tag)
        TagCount.objects.filter(pk=count.pk).update(proposed=count.proposed + 1)


@pytest.fixture
def image(collection, run, tags):
    image = ImageAsset.objects.create(
        collection=collection,
        path="a.jpg",
        caption="A dog.",
        caption_state="proposed",
        rating="general",
        rating_score=0.9,
        proposed_by=run,
    )
    propose(image, run, dog=0.9, cat=0.4, sky=0.7)
    return image


def states(image):
    return {row.tag.name: ImageTag.State(row.state) for row in image.image_tags.select_related("tag")}


def counts(collection):
    rows = TagCount.objects.filter(collection=collection).select_related("tag")
    return {c.tag.name: (c.proposed, c.accepted, c.rejected, c.added) for c in rows}


def test_it_accepts_rejects_and_adds(image, ann, tags, collection):
    done = review.decide(
        image.pk, by=ann, door="review", accept=[tags["dog"].pk], reject=[tags["cat"].pk], add=["Red_Car", "SKY"]
    )
    assert states(image) == {"dog": A, "cat": R, "sky": A, "Red Car": ADDED}
    assert done.edits == 4
    assert {e.batch for e in TagEdit.objects.all()} == {done.batch}
    assert {(e.before, e.after) for e in TagEdit.objects.all()} == {(P, A), (P, R), (None, ADDED)}
    assert {e.by for e in TagEdit.objects.all()} == {ann}
    assert counts(collection) == {
        "dog": (0, 1, 0, 0),
        "cat": (0, 0, 1, 0),
        "sky": (0, 1, 0, 0),
        "Red Car": (0, 0, 0, 1),
    }
    image.refresh_from_db()
    assert image.review_state == "unreviewed"


def test_undo_restores_all_exactly(image, ann, tags, collection):
    before, counted = ImageAsset.objects.filter(pk=image.pk).values().get(), counts(collection)
    rows = list(image.image_tags.order_by("tag_id").values())
    done = review.decide(
        image.pk,
        by=ann,
        door="review",
        accept=[tags["dog"].pk],
        reject=[tags["cat"].pk],
        add=["car"],
        caption="Two dogs.",
        rating="explicit",
        review="reviewed",
    )
    assert done.edits == 6
    undone = review.undo(done.batch, by=ann)
    assert undone.image_ids == [image.pk]
    assert undone.skipped == []
    assert ImageAsset.objects.filter(pk=image.pk).values().get() == before
    assert list(image.image_tags.order_by("tag_id").values()) == rows
    assert {k: v for k, v in counts(collection).items() if any(v)} == counted
    assert TagEdit.objects.count() == 12
