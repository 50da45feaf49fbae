"""A second person looks, blind: agreement that leaves a trace, beside the judge's."""

from __future__ import annotations

import json

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.urls import reverse

from judging.actions import people, second_looks
from judging.actions.calibrating import calibrate
from judging.actions.judge_jobs import run_job, start_job
from judging.models import SecondLook
from tagging.models import ImageAsset, ImageTag, Tag, TagEdit
from tests.tagging.pages import signed_in
from tests.tagging.world import collection, keyed, person

from .world import decide, judge, run

pytestmark = pytest.mark.django_db
N = 60
GOOD = ["dog", "grass", "tree"]
SAID = {f"{i}.jpg": [*GOOD, "cat"] for i in range(N)}


@pytest.fixture
def trip(db):
    """Every image has three right tags and a wrong one, decided by ann; all get a second look."""
    made = collection()
    run(made, SAID)
    Tag.objects.filter(key="cat").update(category="animal")
    decide(made, dict.fromkeys(SAID, GOOD), person("ann", "reviewer"))
    second_looks.set_share(made, 1.0, by=None)
    return made


def answer_all(trip, who, says) -> int:
    n = 0
    while ahead := list(second_looks.questions(trip, who)):
        for q in ahead:
            second_looks.answer(trip, q.image.pk, q.tag_id, says(q), by=who)
            n += 1
    return n


def test_a_tenth_of_the_reviewed_images_is_asked_about_always_the_same_and_never_the_reviewer(trip):
    ann, bob = person("ann2", "reviewer"), person("bob", "reviewer")
    second_looks.set_share(trip, 0.3, by=None)
    drawn = set(second_looks.images_for(trip, bob).values_list("pk", flat=True))
    assert 5 < len(drawn) < 35
    assert drawn == set(second_looks.images_for(trip, ann).values_list("pk", flat=True))
    first = TagEdit.objects.filter(by__isnull=False).first().by
    assert not second_looks.images_for(trip, first).exists(), "who decided is not asked again"
    with pytest.raises(ValidationError, match="yourself"):
        second_looks.answer(trip, min(drawn), ImageTag.objects.first().tag_id, True, by=first)
    second_looks.set_share(trip, 0, by=None)
    assert not second_looks.images_for(trip, bob).exists()
    assert second_looks.share_of(collection("Other")) == 0.10
    with pytest.raises(ValidationError):
        second_looks.set_share(trip, 1.5, by=None)


def test_full_agreement_leaves_a_trace_and_truth_is_untouched(trip):
    before = list(ImageTag.objects.order_by("image", "tag").values_list("image", "tag", "state"))
    edits = TagEdit.objects.count()
    assert answer_all(trip, person("bob", "reviewer"), lambda q: q.name != "cat") == 4 * N
    assert list(ImageTag.objects.order_by("image", "tag").values_list("image", "tag", "state")) == before
    assert TagEdit.objects.count() == edits
    told = people.people_agreement([], [trip.pk])
    assert (told["decisions"], told["images"], told["kappa"][0]) == (4 * N, N, 1.0)
    with pytest.raises(ValidationError):
        SecondLook.objects.first().save()


def test_agreement_is_told_by_category_with_an_interval_beside_the_judges(trip, scripted):
    profile = judge(truth=dict.fromkeys(SAID, GOOD))
    run_job(start_job(profile.current, reviewed=trip).pk)

    def bob_says(q):  # dogs: not on every third; cats: on every fourth
        n = int(q.image.path.removesuffix(".jpg"))
        return n % 3 != 0 if q.name == "dog" else n % 4 == 0 if q.name == "cat" else True

    answer_all(trip, person("bob", "reviewer"), bob_says)
    told = calibrate(profile.current).figures["people"]
    # 45 both wrong, 15 only ann, 20 only bob, 160 neither
    observed, first, second = 205 / 240, 60 / 240, 65 / 240
    chance = first * second + (1 - first) * (1 - second)
    assert told["second"] == told["decisions"] == 240
    assert told["kappa"][0] == pytest.approx((observed - chance) / (1 - chance), abs=1e-3)
    assert told["kappa"][1] < told["kappa"][0] < told["kappa"][2]
    assert told["categories"]["animal"]["decisions"] == N
    assert told["categories"]["general"]["decisions"] == 3 * N
    page = signed_in("viewer").get(profile.get_absolute_url()).content.decode()
    assert f"{told['kappa'][0]:.2f}" in page.split("people with each other")[1][:200]


def test_what_cannot_be_told_is_neither_and_the_newest_answer_counts(trip):
    bob = person("bob", "reviewer")
    q = next(second_looks.questions(trip, bob))
    second_looks.answer(trip, q.image.pk, q.tag_id, None, by=bob)
    assert people.people_agreement([], [trip.pk])["decisions"] == 0
    assert next(second_looks.questions(trip, bob)) != q
    assert second_looks.last_of(trip, bob) == q
    second_looks.answer(trip, q.image.pk, q.tag_id, True, by=bob)
    assert SecondLook.objects.count() == 2
    assert people.people_agreement([], [trip.pk])["decisions"] == 1


def test_the_page_is_blind_and_goes_on_by_one_key(trip):
    client = signed_in("reviewer")
    at = reverse("judging:second_look", args=[trip.slug])
    page = client.get(at).content.decode()
    assert "accepted" not in page
    assert "rejected" not in page
    question = client.get(at).context["question"]
    form = {"image": question.image.pk, "tag": question.tag_id, "verb": "right"}
    piece = client.post(at, form, headers={"HX-Request": "true"})
    assert "<html" not in piece.content.decode()
    assert client.get(at).context["question"] != question
    assert SecondLook.objects.get().by.username == "reviewer"
    assert client.post(at, {"verb": "back"}).context["question"] == question
    assert "is none of" in client.post(at, {**form, "verb": "explode"}).content.decode()
    assert "which image" in client.post(at, {**form, "image": "x"}).content.decode()
    ImageAsset.objects.filter(pk=question.image.pk).update(review_state="unreviewed")
    assert "not reviewed any more" in client.post(at, form).content.decode()


def test_by_api(trip):
    ann, bob = (keyed(who, ("read", "write")) for who in (User.objects.get(username="ann"), person("bob", "reviewer")))
    at = f"/api/collections/{trip.slug}/second-looks"

    def post(client, **body):
        return client.post(at, json.dumps(body), content_type="application/json")

    before = bob.get(at).json()
    assert (before["share"], before["left"], before["agreement"]["decisions"]) == (1.0, N, 0)
    assert ann.get(at).json()["left"] == 0
    refused = ann.get(f"{at}/next")
    assert refused.status_code == 404
    assert "Nothing is left" in refused.json()["detail"]
    question = bob.get(f"{at}/next").json()
    assert set(question) == {"image", "tag", "name"}, "nothing tells how it was decided"
    asked = {"image": question["image"], "tag": question["tag"]}
    assert post(ann, **asked, right=True).status_code == 422
    assert post(bob, **asked, right="perhaps").status_code == 422
    assert post(bob, **asked, right=True, why="x").status_code == 422
    assert post(bob, **asked, right=None).status_code == 201
    assert bob.get(at).json()["agreement"]["decisions"] == 0
    made = post(bob, **asked, right=question["name"] != "cat")
    assert made.status_code == 201
    assert SecondLook.objects.get(pk=made.json()["id"]).by.username == "bob"
    assert bob.get(f"{at}/next").json() != question
    assert bob.get(at).json()["agreement"]["decisions"] == 1

    def share(client, value):
        return client.put(at, json.dumps({"share": value}), content_type="application/json")

    assert share(bob, 0.2).status_code == 403
    curator = keyed(person("cara", "curator"))
    assert share(curator, 2).status_code == 422
    assert share(curator, 0.2).json()["share"] == second_looks.share_of(trip) == 0.2
    assert bob.get("/api/collections/nowhere/second-looks").status_code == 404


def test_who_may_look_and_who_sets_the_part(trip):
    at = reverse("judging:second_look", args=[trip.slug])
    share = reverse("judging:second_look_share", args=[trip.slug])
    assert signed_in("viewer").get(at).status_code == 403
    assert signed_in("reviewer").post(share, {"share": "5"}).status_code == 403
    client = signed_in("curator")
    client.post(share, {"share": "2,5"})
    assert second_looks.share_of(trip) == 0.025
    client.post(share, {"share": "much"})
    assert second_looks.share_of(trip) == 0.025
