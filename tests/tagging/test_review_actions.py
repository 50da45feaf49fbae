from __future__ import annotations

import uuid

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


def test_accept_image_takes_what_was_seen(image, ann, tags):
    seen = [tags["dog"].pk, tags["cat"].pk]  # sky came after the page was drawn
    done = review.accept_image(image.pk, by=ann, door="review", seen=seen)
    assert states(image) == {"dog": A, "cat": A, "sky": P}
    assert done.changed_by_others == [tags["sky"].pk]
    image.refresh_from_db()
    assert (image.review_state, image.reviewed_by, image.caption_state) == ("reviewed", ann, "accepted")


def test_accept_image_leaves_what_another_rejected(image, ann, bob, tags):
    seen = [tag.pk for name, tag in tags.items() if name != "car"]
    review.decide(image.pk, by=bob, door="review", reject=[tags["cat"].pk])
    done = review.accept_image(image.pk, by=ann, door="review", seen=seen)
    assert states(image) == {"dog": A, "cat": R, "sky": A}
    assert done.changed_by_others == [tags["cat"].pk]


def test_reject_image_keeps_what_a_person_said(image, ann, tags):
    review.decide(image.pk, by=ann, door="review", accept=[tags["dog"].pk], add=["car"])
    review.reject_image(image.pk, by=ann, door="review")
    assert states(image) == {"dog": A, "cat": R, "sky": R, "car": ADDED}
    image.refresh_from_db()
    assert (image.review_state, image.caption, image.caption_state) == ("reviewed", "", "edited")


def test_skip_and_a_second_skip(image, ann):
    assert review.skip_image(image.pk, by=ann, door="review").edits == 1
    again = review.skip_image(image.pk, by=ann, door="review")
    assert (again.edits, again.batch) == (0, None)
    assert again.image.review_state == "skipped"


def test_clear_takes_a_decision_back(image, ann, tags):
    review.decide(image.pk, by=ann, door="review", accept=[tags["dog"].pk], reject=[tags["cat"].pk], add=["car"])
    review.decide(image.pk, by=ann, door="review", clear=[tags[n].pk for n in ("dog", "cat", "car")])
    assert states(image) == {"dog": P, "cat": P, "sky": P}


def test_an_explicit_decision_goes_over_a_later_one(image, ann, bob, tags):
    seen = [tags[n].pk for n in ("dog", "cat", "sky")]
    review.decide(image.pk, by=bob, door="review", reject=[tags["dog"].pk])
    done = review.decide(image.pk, by=ann, door="review", seen=seen, accept=[tags["dog"].pk])
    assert states(image)["dog"] == A
    assert done.changed_by_others == []


def test_a_seen_tag_that_is_gone_can_still_be_decided(image, ann, tags):
    ImageTag.objects.filter(image=image, tag=tags["cat"]).delete()  # a new run replaced the proposals
    seen = [tags[n].pk for n in ("dog", "cat", "sky")]
    done = review.decide(image.pk, by=ann, door="review", seen=seen, accept=[tags["cat"].pk])
    assert states(image)["cat"] == ADDED
    assert done.edits == 1


def test_aliases_and_spelling_lead_to_one_tag(image, ann, tags):
    TagAlias.objects.create(tag=tags["car"], name="automobile")
    review.decide(image.pk, by=ann, door="review", add=["Automobile", " CAR ", "c\u200bar"])
    assert states(image)["car"] == ADDED
    assert Tag.objects.count() == 4


def test_the_same_caption_confirms_another_one_edits(image, ann):
    review.decide(image.pk, by=ann, door="review", caption="A dog.\r\n")
    image.refresh_from_db()
    assert (image.caption, image.caption_state) == ("A dog.", "accepted")
    assert review.decide(image.pk, by=ann, door="review", caption="A dog.").edits == 0
    review.decide(image.pk, by=ann, door="review", caption="A \x00cat.\nAsleep.")
    image.refresh_from_db()
    assert (image.caption, image.caption_state) == ("A cat.\nAsleep.", "edited")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"accept": [10**6]}, "accept"),
        ({"accept": [10**6], "seen": [10**6]}, "accept"),
        ({"reject": ["x"]}, "reject"),
        ({"clear": [-1]}, "clear"),
        ({"clear": [2**70]}, "clear"),
        ({"add": [""]}, "add"),
        ({"add": ["\u200b _ "]}, "add"),
        ({"add": ["a" * 201]}, "add"),
        ({"add": [7]}, "add"),
        ({"add": ["x"] * 501}, "add"),
        ({"caption": "a" * 10_001}, "caption"),
        ({"rating": "a" * 33}, "rating"),
        ({"review": "maybe"}, "review"),
        ({"seen": ["y"]}, "seen"),
    ],
)
def test_wrong_input_changes_nothing_and_names_the_field(image, ann, tags, given, field):
    given = {"review": "reviewed", "caption": "New.", **given}
    with pytest.raises(ValidationError) as e:
        review.decide(image.pk, by=ann, door="api", **given)
    assert list(e.value.message_dict) == [field]
    assert states(image) == {"dog": P, "cat": P, "sky": P}
    assert not TagEdit.objects.exists()
    image.refresh_from_db()
    assert (image.caption, image.review_state) == ("A dog.", "unreviewed")


def test_a_tag_of_another_image_is_refused(image, ann, tags):
    with pytest.raises(ValidationError) as e:
        review.decide(image.pk, by=ann, door="api", reject=[tags["car"].pk])
    assert list(e.value.message_dict) == ["reject"]
    assert "not on this image" in e.value.message_dict["reject"][0]


def test_one_tag_has_one_decision(image, ann, tags):
    dog = tags["dog"].pk
    with pytest.raises(ValidationError) as e:
        review.decide(image.pk, by=ann, door="api", accept=[dog], reject=[dog])
    assert list(e.value.message_dict) == ["reject"]
    with pytest.raises(ValidationError) as e:
        review.decide(image.pk, by=ann, door="api", add=["Dog"], clear=[dog])
    assert list(e.value.message_dict) == ["add"]


def test_a_missing_image_is_said(ann, db):
    for verb in (review.accept_image, review.reject_image, review.skip_image, review.decide):
        with pytest.raises(ImageAsset.DoesNotExist):
            verb(12345, by=ann, door="api")


# -- undo -------------------------------------------------------------------------------------------------------------
def test_an_undo_is_undone_once_and_redone(image, ann, tags):
    done = review.decide(image.pk, by=ann, door="review", accept=[tags["dog"].pk])
    undone = review.undo(done.batch, by=ann)
    assert states(image)["dog"] == P
    with pytest.raises(review.NothingToUndo, match="already"):
        review.undo(done.batch, by=ann)
    redone = review.undo(undone.batch, by=ann)
    assert states(image)["dog"] == A
    assert list(TagEdit.objects.order_by("pk").values_list("door", flat=True)) == ["review", "undo", "redo"]
    review.undo(redone.batch, by=ann)
    assert states(image)["dog"] == P


def test_undo_does_not_touch_what_another_decided_since(image, ann, bob, tags):
    mine = review.decide(image.pk, by=ann, door="review", accept=[tags["dog"].pk, tags["sky"].pk])
    review.decide(image.pk, by=bob, door="review", reject=[tags["dog"].pk])
    undone = review.undo(mine.batch, by=ann)
    assert states(image) == {"dog": R, "cat": P, "sky": P}
    assert undone.skipped == [image.pk]
    assert undone.edits == 1


def test_undo_sees_a_change_and_its_change_back(image, ann, bob, tags):
    dog = tags["dog"].pk
    mine = review.decide(image.pk, by=ann, door="review", accept=[dog])
    review.decide(image.pk, by=bob, door="review", reject=[dog])
    review.decide(image.pk, by=bob, door="review", accept=[dog])  # bob's word now, the same as ann's was
    undone = review.undo(mine.batch, by=ann)
    assert states(image)["dog"] == A
    assert (undone.batch, undone.skipped) == (None, [image.pk])


def test_undo_looks_through_changes_that_were_undone(image, ann, bob, tags):
    dog = tags["dog"].pk
    mine = review.decide(image.pk, by=ann, door="review", accept=[dog])
    theirs = review.decide(image.pk, by=bob, door="review", reject=[dog])
    review.undo(theirs.batch, by=bob)
    review.undo(mine.batch, by=ann)
    assert states(image)["dog"] == P


def test_undo_last_walks_back_and_not_into_others(image, ann, bob, tags):
    review.decide(image.pk, by=ann, door="review", accept=[tags["dog"].pk])
    review.decide(image.pk, by=bob, door="review", accept=[tags["sky"].pk])
    review.decide(image.pk, by=ann, door="review", accept=[tags["cat"].pk])
    review.undo_last(ann)
    assert states(image) == {"dog": A, "cat": P, "sky": A}
    review.undo_last(ann)
    assert states(image) == {"dog": P, "cat": P, "sky": A}
    with pytest.raises(review.NothingToUndo):
        review.undo_last(ann)


def test_undo_last_passes_over_what_others_changed(image, ann, bob, tags):
    review.decide(image.pk, by=ann, door="review", accept=[tags["cat"].pk])
    review.decide(image.pk, by=ann, door="review", accept=[tags["dog"].pk])
    review.decide(image.pk, by=bob, door="review", reject=[tags["dog"].pk])
    undone = review.undo_last(ann)
    assert states(image) == {"dog": R, "cat": P, "sky": P}
    assert undone.skipped == [image.pk]


def test_undo_last_of_an_image(image, ann, collection, run, tags):
    other = ImageAsset.objects.create(collection=collection, path="b.jpg")
    review.decide(image.pk, by=ann, door="review", accept=[tags["dog"].pk])
    review.decide(other.pk, by=ann, door="review", add=["dog"])
    assert review.undo_last(ann, image_id=image.pk).image_ids == [image.pk]
    assert states(image)["dog"] == P
    assert states(other)["dog"] == ADDED


def test_undo_of_nothing(ann):
    for batch in (uuid.uuid4(), "nonsense"):
        with pytest.raises(review.NothingToUndo):
            review.undo(batch, by=ann)


def test_undo_survives_the_death_of_a_tag(image, ann, tags):
    done = review.decide(image.pk, by=ann, door="review", add=["car"], accept=[tags["dog"].pk])
    tags["car"].delete()
    undone = review.undo(done.batch, by=ann)
    assert states(image)["dog"] == P
    assert undone.edits == 1


# -- bulk -------------------------------------------------------------------------------------------------------------
@pytest.fixture
def many(collection, run, tags):
    made = [ImageAsset.objects.create(collection=collection, path=f"m{i}.jpg") for i in range(5)]
    for i, image in enumerate(made):
        propose(image, run, dog=0.1 + i / 5, cat=0.5)
    return made


def test_bulk_accept_above_a_score_is_undone_as_one(many, ann, collection, monkeypatch):
    monkeypatch.setattr(review, "IMAGES_PER_TRANSACTION", 2)
    monkeypatch.setattr("tagging.actions.undo.IMAGES_PER_TRANSACTION", 2)
    before = counts(collection)
    done = review.bulk(ImageAsset.objects.all(), by=ann, verb="accept", tag_names=["dog"], min_score=0.5)
    assert (done.images, done.edits) == (3, 3)
    assert counts(collection) == {"dog": (2, 3, 0, 0), "cat": (5, 0, 0, 0)}
    assert ImageAsset.objects.unreviewed().count() == 5
    assert len(review.undo(done.batch, by=ann).image_ids) == 3
    assert counts(collection) == before


def test_bulk_accept_of_whole_images_reviews_them_and_streams_out_of_its_own_filter(many, ann, monkeypatch):
    monkeypatch.setattr(review, "IMAGES_PER_TRANSACTION", 2)
    done = review.bulk(ImageAsset.objects.unreviewed(), by=ann, verb="accept")
    assert (done.images, done.edits) == (5, 15)
    assert ImageAsset.objects.filter(review_state="reviewed", reviewed_by=ann).count() == 5
    review.undo(done.batch, by=ann)
    assert ImageAsset.objects.filter(review_state="unreviewed", reviewed_by=None, reviewed_at=None).count() == 5


def test_bulk_reject_below_a_score(many, ann, collection):
    review.bulk(ImageAsset.objects.all(), by=ann, verb="reject", max_score=0.4)
    assert counts(collection) == {"dog": (3, 0, 2, 0), "cat": (5, 0, 0, 0)}


def test_bulk_add_and_remove(many, ann, collection):
    assert review.bulk(ImageAsset.objects.all()[:2], by=ann, verb="add", tag_names=["holiday", "dog"]).images == 2
    assert counts(collection) == {"dog": (3, 2, 0, 0), "cat": (5, 0, 0, 0), "holiday": (0, 0, 0, 2)}
    review.bulk(ImageAsset.objects.all(), by=ann, verb="remove", tag_names=["holiday", "dog"])
    assert counts(collection) == {"dog": (0, 0, 5, 0), "cat": (5, 0, 0, 0), "holiday": (0, 0, 0, 0)}


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"verb": "add"}, "tag_names"),
        ({"verb": "remove"}, "tag_names"),
        ({"verb": "shuffle"}, "verb"),
        ({"verb": "accept", "min_score": 1.5}, "min_score"),
        ({"verb": "accept", "tag_names": [" "]}, "tag_names"),
    ],
)
def test_bulk_says_what_is_wrong(many, ann, given, field):
    with pytest.raises(ValidationError) as e:
        review.bulk(ImageAsset.objects.all(), by=ann, **given)
    assert list(e.value.message_dict) == [field]


def test_bulk_with_an_unknown_tag_does_nothing(many, ann):
    assert review.bulk(ImageAsset.objects.all(), by=ann, verb="accept", tag_names=["nope"]).edits == 0


def test_a_decision_takes_at_most_ten_queries(image, ann, tags, django_assert_max_num_queries):
    with django_assert_max_num_queries(10):
        review.decide(
            image.pk,
            by=ann,
            door="review",
            seen=[tags["dog"].pk],
            accept=[tags["dog"].pk],
            clear=[tags["sky"].pk],
            caption="x",
            rating="y",
            review="reviewed",
            add=["car"],
        )
    with django_assert_max_num_queries(8):
        review.accept_image(image.pk, by=ann, door="review")
    with django_assert_max_num_queries(14):
        review.undo_last(ann)
