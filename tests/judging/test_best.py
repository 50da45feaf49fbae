"""Back to the best, and better together: promotion with evidence, the watch after it, ensembles from stored answers."""

from __future__ import annotations

import json

import pytest
from django.core.exceptions import ValidationError

from judging import board, ensembles
from judging.actions.experiments import compare_runs, start
from judging.actions.promote import evidence, promote, roll_back, watch
from tagging.actions import review
from tagging.actions.labels import find_recipe, move_label
from tagging.models import ImageAsset, Label, ModelAdapter, Prediction, Proposal
from tests.tagging.world import keyed, person

from . import lab

pytestmark = pytest.mark.django_db


def images(trip):
    return ImageAsset.objects.filter(collection=trip).order_by("pk")


@pytest.fixture
def compared(fake):
    """Row 0 finds three of five right tags, row 1 all, row 2 none."""
    trip = lab.collection(40)
    lab.decide(images(trip), {"variant": "a"}, wrong={"variant": "b"})
    options = ({"variant": "a", "kept": 3}, {"variant": "a"}, {"variant": "b"})
    return compare_runs([lab.run(lab.recipe(fake, **o), trip, shown=False) for o in options])


def rows(experiment):
    return list(experiment.rows.order_by("position"))


# -- promotion ---------------------------------------------------------------------------------------------------------
def test_a_better_recipe_is_promoted_with_its_evidence(compared):
    found = evidence(compared, rows(compared)[1])
    assert (found.standing["word"], found.unsure, found.n_regressed) == ("better", False, 0)
    assert found.n_improved == 40
    event = promote(compared, rows(compared)[1])
    assert event.to_recipe == rows(compared)[1].recipe
    kept = event.metrics
    assert (kept["experiment"], kept["verdict"], kept["images"]) == (compared.pk, "better", 40)
    assert kept["delta_low"] > 0
    assert kept["edits"][0] == 0


def test_a_worse_recipe_needs_a_reason_and_lists_what_it_spoils(compared):
    found = evidence(compared, rows(compared)[2])
    assert found.unsure
    assert found.n_regressed == 40
    assert [one.delta for one in found.regressed] == sorted(one.delta for one in found.regressed)
    with pytest.raises(ValidationError) as e:
        promote(compared, rows(compared)[2])
    assert "why" in e.value.message_dict
    assert not Label.objects.exists()
    assert promote(compared, rows(compared)[2], why="to see what happens").metrics["verdict"] == "worse"


def test_promote_and_roll_back_restores_the_same_predictions(compared, fake):
    trip = compared.collection
    first, second = rows(compared)[0].recipe, rows(compared)[1].recipe
    move_label("champion", first, why="so far", collection=trip)
    before = lab.run(find_recipe("champion", collection=trip), trip)
    keys = sorted(Proposal.objects.filter(run=before).values_list("prediction__key", flat=True))
    known = Prediction.objects.count()
    promote(compared, rows(compared)[1], collection=trip)
    assert find_recipe("champion", collection=trip) == second
    roll_back(watch(Label.objects.get()))
    again = lab.run(find_recipe("champion", collection=trip), trip)
    assert again.recipe == first
    assert sorted(Proposal.objects.filter(run=again).values_list("prediction__key", flat=True)) == keys
    assert Prediction.objects.count() == known


def test_after_a_promotion_the_edits_are_watched(compared, fake):
    """Promised: no edits. Then people correct every image of what it proposes in a new folder."""
    move_label("champion", rows(compared)[0].recipe, why="so far")
    promote(compared, rows(compared)[1])
    label = Label.objects.get()
    assert watch(label).now is None
    later = lab.collection(15, "Later")
    lab.run(label.recipe, later)
    for image in images(later):
        tags = [row.tag_id for row in image.image_tags.all()]
        review.decide(image.pk, by=None, door="review", accept=tags[:2], reject=tags[2:], review="reviewed")
    found = watch(label)
    assert (found.images, found.now[0], found.alarm) == (15, 3, True)
    assert found.back.to_recipe == rows(compared)[0].recipe
    assert "Edits per image 3.00" in roll_back(found).why
    assert Label.objects.get().recipe == rows(compared)[0].recipe


def test_as_good_as_promised_is_no_alarm(compared, fake):
    promote(compared, rows(compared)[1])
    later = lab.collection(15, "Later")
    lab.run(Label.objects.get().recipe, later)
    for image in images(later):
        review.accept_image(image.pk, by=None, door="review")
    found = watch(Label.objects.get())
    assert (found.now[0], found.alarm, found.back) == (0, False, None)
    with pytest.raises(ValidationError):
        roll_back(found)


def test_promotion_by_api_and_who_may(compared):
    pk = compared.pk
    row = rows(compared)[1].pk
    viewer, curator = keyed(person("v", "viewer"), ["read"]), keyed(person("c", "curator"))
    found = viewer.get(f"/api/experiments/{pk}/rows/{row}/evidence").json()
    assert (found["unsure"], found["standing"]["word"]) == (False, "better")
    address = f"/api/experiments/{pk}/rows/{row}/promote"
    body = json.dumps({"collection": compared.collection.slug})
    assert viewer.post(address, body, content_type="application/json").status_code == 403
    answer = curator.post(address, body, content_type="application/json")
    assert answer.status_code == 201, answer.content
    assert answer.json()["label"]["collection"] == compared.collection.slug
    other = rows(compared)[2].pk
    refused = curator.post(f"/api/experiments/{pk}/rows/{other}/promote", "{}", content_type="application/json")
    assert (refused.status_code, refused.json()["field"]) == (422, "why")
    watched = viewer.get("/api/experiments/watch").json()["items"]
    assert [(one["name"], one["alarm"]) for one in watched] == [("champion", False)]
    assert viewer.get(f"/api/experiments/{pk}/rows/999/evidence").status_code == 404


# -- ensembles ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def three(fake):
    """Three models that each find other tags of what is right."""
    trip = lab.collection(20)
    for variant in "abc":
        ModelAdapter.objects.create(
            slug=f"fake-{variant}", label=variant, kind="fake", options={"variant": variant, "labels": 12, "kept": 4}
        )
    for image in images(trip):
        said = [lab.said(image, variant=v, labels=12, kept=4) for v in "abc"]
        agreed = [name for name in said[0] if name in said[1] or name in said[2]]
        review.decide(image.pk, by=None, door="review", add=agreed, review="reviewed")
        lab.reject(image, sorted({n for s in said for n in s} - set(agreed)))
    made = lab.experiment(trip, {"mode": "product", "adapters": ["fake-a", "fake-b", "fake-c"]})
    start(made)
    lab.finish(made)
    return made


@pytest.mark.parametrize(
    "rule",
    [
        {"rule": "union"},
        {"rule": "intersection"},
        {"rule": "votes", "votes": 2},
        {"rule": "weighted", "at_least": 0.4},
        {"rule": "union", "order": "cascade", "cascade": {"by": "score", "below": 0.995}},
        {"rule": "union", "order": "cascade", "cascade": {"by": "count", "fewer": 3}},
    ],
)
def test_what_is_computed_from_stored_answers_is_what_a_run_gives(three, rule):
    pks = [row.pk for row in rows(three)]
    known = Prediction.objects.count()
    found = ensembles.together(three, pks, [("it", rule)])
    outcome = found.outcomes[0]
    assert outcome.problem == ""
    made = ensembles.save_recipe(three, pks, outcome.rule)
    run = lab.run(made, three.collection, shown=False)
    real = board.board(compare_runs([run, lab.run(rows(three)[0].recipe, three.collection, shown=False)]))["rows"][0]
    for name in ("f1", "precision", "recall", "edits", "tags_per_image"):
        assert outcome.values[name] == pytest.approx(real["metrics"][name], abs=1e-6), name
    assert Prediction.objects.count() == known


def test_what_each_model_adds_and_what_a_cascade_saves(three):
    pks = [row.pk for row in rows(three)]
    found = {o.name: o for o in ensembles.together(three, pks).outcomes}
    assert all(o.problem == "" for o in found.values())
    assert set(found["union"].adds) == set(pks)
    alone = {row.pk: values["f1"] for row, values in ensembles.together(three, pks[:2]).members}
    two = ensembles.together(three, pks[:2], [("votes", {"rule": "votes", "votes": 2})]).outcomes[0]
    assert two.adds[pks[0]] == pytest.approx(two.values["f1"] - alone[pks[1]], abs=1e-4)
    assert found["union"].asked == dict.fromkeys(pks, 1.0)
    assert found["cascade"].asked[pks[0]] == 1.0
    assert found["cascade"].asked[pks[1]] < 1.0


def test_what_cannot_be_joined_is_refused(three, fake):
    pks = [row.pk for row in rows(three)]
    for chosen in ([], pks[:1], [*pks, 999]):
        with pytest.raises(ValidationError):
            ensembles.together(three, chosen)
    bad = ensembles.together(three, pks, [("bad", {"rule": "votes", "votes": 5})]).outcomes[0]
    assert "votes" in bad.problem


def test_ensembles_by_api(three):
    curator = keyed(person("c", "curator"))
    pks = [row.pk for row in rows(three)]
    address = f"/api/experiments/{three.pk}/ensembles"
    found = curator.post(address, json.dumps({"rows": pks}), content_type="application/json").json()
    assert [line["name"] for line in found["lines"]][:3] == [row.name for row in rows(three)]
    rule = {"rule": "votes", "votes": 2}
    saved = curator.post(f"{address}/save", json.dumps({"rows": pks, "rule": rule}), content_type="application/json")
    assert saved.status_code == 201, saved.content
    assert saved.json()["name"] == "votes of fake-a + fake-b + fake-c"


# -- pairs and the rest ------------------------------------------------------------------------------------------------
def test_preference_pairs_come_only_where_all_is_judged(compared):
    viewer = keyed(person("v", "viewer"), ["read"])
    text = b"".join(viewer.get(f"/api/experiments/{compared.pk}/preferences").streaming_content).decode()
    pairs = [json.loads(line) for line in text.splitlines()]
    assert len(pairs) == 3 * 40
    best = rows(compared)[1].recipe_id
    assert all(p["chosen"]["recipe"] == best for p in pairs if best in (p["chosen"]["recipe"], p["rejected"]["recipe"]))
    image = images(compared.collection)[0]
    review.decide(image.pk, by=None, door="review", clear=[image.image_tags.filter(state=4).first().tag_id])
    text = b"".join(viewer.get(f"/api/experiments/{compared.pk}/preferences").streaming_content).decode()
    assert len(text.splitlines()) < 3 * 40


def test_the_rest_by_api(fake):
    trip = lab.collection(6)
    lab.decide(images(trip), {"variant": "a"})
    made = compare_runs([lab.run(lab.recipe(fake, variant=v), trip, shown=False) for v in "ab"])
    reviewer, viewer = keyed(person("r", "reviewer"), ["read", "write"]), keyed(person("v", "viewer"), ["read"])
    left = viewer.get(f"/api/experiments/{made.pk}/unjudged").json()["items"]
    assert len(left) == board.board(made)["unjudged"]
    body = json.dumps({**left[0], "right": False})
    address = f"/api/experiments/{made.pk}/unjudged"
    assert viewer.post(address, body, content_type="application/json").status_code == 403
    assert reviewer.post(address, body, content_type="application/json").status_code == 204
    assert reviewer.post(address, body, content_type="application/json").status_code == 422
    assert len(viewer.get(address).json()["items"]) == len(left) - 1
