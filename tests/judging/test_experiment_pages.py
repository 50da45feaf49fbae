"""The pages of experiments, as a browser without scripts would use them."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from judging import board
from judging.actions.experiments import compare_runs
from judging.models import Experiment
from judging.ranking import Standing
from tagging.actions.labels import move_label
from tagging.models import ImageAsset, ImageTag, Label, Prediction, Recipe, TagEdit
from tests.tagging.truth import violations
from tests.tagging.world import person

from . import lab

pytestmark = pytest.mark.django_db


def client(role: str) -> Client:
    made = Client()
    made.force_login(person(role, role))
    return made


@pytest.fixture
def trip(fake):
    return lab.collection(12)


@pytest.fixture
def compared(fake, trip):
    """Two runs, of which only one was reviewed."""
    lab.decide(ImageAsset.objects.all(), {"variant": "a"})
    return compare_runs([lab.run(lab.recipe(fake, variant=v), trip) for v in "ab"])


FORM = {
    "collection": "trip", "mode": "product", "adapter": ["fake"], "option": ["kept", ""], "values": ["3:5:1", ""],
    "sample": "10", "samples": "1", "holdout": "0", "seed": "0", "margin": "0.02", "question": "How many?",
}  # fmt: skip


def test_the_form_plans_and_starts(fake, trip):
    curator = client("curator")
    page = curator.get(reverse("judging:experiment_new") + "?collection=trip").content.decode()
    assert 'name="mode" value="product" checked' in page  # no champion yet
    plan = curator.post(reverse("judging:experiment_plan"), FORM).content.decode()
    assert "30</strong> cells to run" in plan
    assert "kept 4" in plan
    assert "none of these images is reviewed" in plan
    assert not Experiment.objects.exists()
    answer = curator.post(reverse("judging:experiment_new"), {**FORM, "stage": "smoke"})
    made = Experiment.objects.get()
    assert answer.url == made.get_absolute_url()
    assert (made.state, made.stage, made.n_images, made.name) == ("running", "smoke", 10, "How many?")
    lab.finish(made)
    page = curator.get(made.get_absolute_url()).content.decode()
    assert "All 10 images" in page
    curator.post(reverse("judging:experiment_act", args=[made.pk, "start"]), {"stage": "full"})
    lab.finish(made)
    assert made.reached == 10


def test_the_champion_is_offered_as_the_base(fake, trip):
    move_label("champion", lab.recipe(fake, variant="a"), why="so far")
    page = client("curator").get(reverse("judging:experiment_new")).content.decode()
    assert 'name="mode" value="around" checked' in page
    assert 'value="champion" placeholder' in page


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"values": ["3:5", ""]}, "kept: Input should be"),
        ({"values": ["", ""]}, "give the option and its values"),
        ({"adapter": []}, "Choose at least one model"),
        ({"sample": "many"}, "not a whole number"),
        ({"exclude": "nonsense"}, "write name=value"),
        ({"prompt_map": "fake"}, "a colon"),
        ({"collection": "nowhere"}, "Choose a collection"),
    ],
)
def test_what_is_wrong_is_said_beside_the_plan_and_nothing_is_made(trip, change, text):
    curator = client("curator")
    assert text in curator.post(reverse("judging:experiment_plan"), {**FORM, **change}).content.decode()
    answer = curator.post(reverse("judging:experiment_new"), {**FORM, **change})
    assert answer.status_code == 422
    assert not Experiment.objects.exists()


def test_exclusions_leave_cells_out(fake, trip):
    plan = client("curator").post(reverse("judging:experiment_plan"), {**FORM, "exclude": "kept=4"}).content.decode()
    assert "20</strong> cells" in plan
    assert "left out by exclusions" in plan


def test_the_leaderboard_says_words_not_only_colours(fake, compared):
    viewer = client("viewer")
    page = viewer.get(reverse("judging:leaderboard", args=[compared.pk])).content.decode()
    assert "baseline" in page
    assert "unjudged" in page
    assert "Judge the" not in page  # a viewer may not
    other = viewer.get(reverse("judging:leaderboard", args=[compared.pk]) + "?metric=edits").content.decode()
    assert "Recipes by edits per image" in other


def test_a_price_has_a_column_where_there_is_one(compared):
    at = reverse("judging:leaderboard", args=[compared.pk])
    viewer = client("viewer")
    assert "per 1,000" not in viewer.get(at).content.decode()
    Prediction.objects.update(cost=0.002, currency="EUR")
    Experiment.objects.update(board=None, board_of="")
    page = viewer.get(at).content.decode()
    assert "per 1,000" in page
    assert "2.00 EUR" in page


def test_too_few_images_claim_to_show_nothing(compared, monkeypatch):
    wide = Standing(0.5, 0.1, 0.9, 0.1, -0.8, 1.0, 0.4, 0.4, 0.5, "not enough images")
    assert board._detectable({"f1": [wide]}, ["f1"], 6) is None  # F1 differs by 1 at most
    assert board._detectable({"edits": [wide]}, ["edits"], 6) == pytest.approx(2.8 * 0.9 / 1.96, rel=0.01)
    at, viewer = reverse("judging:leaderboard", args=[compared.pk]), client("viewer")
    assert "They show differences from" in viewer.get(at).content.decode()
    told = {**board.board(compared), "detectable": None}
    monkeypatch.setattr(board, "board", lambda experiment: told)
    assert "Too few to show any difference." in viewer.get(at).content.decode()


def test_who_may_do_what(compared):
    viewer = client("viewer")
    assert viewer.get(compared.get_absolute_url()).status_code == 200
    for name in ("experiment_new", "experiment_plan"):
        assert viewer.post(reverse(f"judging:{name}"), FORM).status_code == 403
    assert viewer.post(reverse("judging:experiment_act", args=[compared.pk, "delete"])).status_code == 403
    assert viewer.get(reverse("judging:rest", args=[compared.pk])).status_code == 403
    assert Client().get(compared.get_absolute_url()).status_code == 302


def test_delete_leaves_the_runs(compared):
    curator = client("curator")
    curator.post(reverse("judging:experiment_act", args=[compared.pk, "delete"]))
    assert not Experiment.objects.exists()


# -- judge the rest ----------------------------------------------------------------------------------------------------
def shown(page):
    """(image, tag) of the question."""
    text = page.content.decode()
    image = text.split('name="image" value="')[1].split('"')[0]
    return image, text.split('name="tag" value="')[1].split('"')[0]


def test_one_key_judges_one_tag_blind(compared):
    reviewer = client("reviewer")
    address = reverse("judging:rest", args=[compared.pk])
    left = board.board(compared)["unjudged"]
    page = reviewer.get(address)
    assert f"{left} left" in page.content.decode()
    assert "Fake" not in page.content.decode()  # which model said it would sway the answer
    image, tag = shown(page)
    page = reviewer.post(address, {"image": image, "tag": tag, "verb": "right"}, headers={"HX-Request": "true"})
    assert f"{left - 1} left" in page.content.decode()
    assert ImageTag.objects.get(image=image, tag__name=tag).state in ImageTag.POSITIVE
    image, tag = shown(page)
    page = reviewer.post(address, {"image": image, "tag": tag, "verb": "wrong"})
    assert ImageTag.objects.get(image=image, tag__name=tag).state == ImageTag.State.REJECTED
    assert TagEdit.objects.filter(door="rest").count() == 2
    reviewer.post(address, {"verb": "undo"})
    assert not ImageTag.objects.filter(image=image, tag__name=tag, state__in=ImageTag.TRUTH).exists()
    assert board.board(compared)["unjudged"] == left - 1
    assert violations() == []


def test_skipping_says_nothing_and_ends(compared):
    reviewer = client("reviewer")
    address = reverse("judging:rest", args=[compared.pk])
    edits = TagEdit.objects.count()
    page = reviewer.get(address)
    while 'name="tag"' in page.content.decode():
        image, tag = shown(page)
        page = reviewer.post(address, {"image": image, "tag": tag, "verb": "skip"})
    assert "All judged" in page.content.decode()
    assert TagEdit.objects.count() == edits


def test_what_another_judged_meanwhile_is_not_asked(compared):
    reviewer = client("reviewer")
    address = reverse("judging:rest", args=[compared.pk])
    first = shown(reviewer.get(address))
    lab.reject(ImageAsset.objects.get(pk=first[0]), [first[1]])
    page = reviewer.post(address, {"image": first[0], "tag": first[1], "verb": "right"})
    assert "judged on this image meanwhile" in page.content.decode()
    assert shown(page) != first
    assert ImageTag.objects.get(image=first[0], tag__name=first[1]).state == ImageTag.State.REJECTED


def test_an_image_of_another_experiment_is_refused(compared):
    other = lab.collection(1, "Other")
    page = client("reviewer").post(
        reverse("judging:rest", args=[compared.pk]),
        {"image": str(other.images.get().pk), "tag": "label 1", "verb": "right"},
    )
    assert "not one of this experiment" in page.content.decode()
    assert not ImageTag.objects.filter(image__collection=other).exists()


# -- promote, and together ---------------------------------------------------------------------------------------------
def test_promotion_shows_the_worst_images_first_and_asks_for_a_reason(fake, trip):
    lab.decide(ImageAsset.objects.all(), {"variant": "a"}, wrong={"variant": "b"})
    made = compare_runs([lab.run(lab.recipe(fake, variant=v), trip, shown=False) for v in "ab"])
    row = made.rows.get(position=1)
    address = reverse("judging:promote", args=[made.pk, row.pk])
    page = client("viewer").get(address).content.decode()
    assert "12 images where it does worse" in page
    assert "Move the label" not in page
    curator = client("curator")
    refused = curator.post(address, {"name": "champion", "scope": "everywhere", "why": ""})
    assert refused.status_code == 422
    assert "say why it is promoted all the same" in refused.content.decode()
    assert not Label.objects.exists()
    answer = curator.post(address, {"name": "champion", "scope": "collection", "why": "for a test"})
    assert answer.status_code == 302
    label = Label.objects.get()
    assert (label.recipe, label.collection) == (row.recipe, trip)
    assert label.events.get().metrics["verdict"] == "worse"
    other = Client()
    other.force_login(person("other", "viewer"))
    assert other.post(address, {"name": "champion", "why": "x"}).status_code == 403


def test_together_computes_and_saves(fake, compared):
    curator = client("curator")
    address = reverse("judging:together", args=[compared.pk])
    rows = [str(row.pk) for row in compared.rows.all()]
    page = curator.get(address, {"row": rows}).content.decode()
    assert "intersection" in page
    assert "Save as recipe" in page
    assert "Choose from 2" in curator.get(address, {"row": rows[:1]}).content.decode()
    answer = curator.post(address, {"row": rows, "rule": '{"rule": "union"}'})
    assert "mode=linked&recipe=" in answer.url
    assert Recipe.objects.filter(combine__rule="union").count() == 1
    assert curator.post(address, {"row": rows, "rule": "?"}).status_code == 422


def test_past_runs_are_put_beside_each_other_from_the_form(fake, trip):
    runs = [lab.run(lab.recipe(fake, variant=v), trip) for v in "ab"]
    curator = client("curator")
    page = curator.get(reverse("judging:experiment_new") + "?collection=trip").content.decode()
    assert page.count('name="run"') == 2
    answer = curator.post(reverse("judging:experiment_from_runs"), {"run": [str(run.pk) for run in runs]})
    assert answer.url == Experiment.objects.get().get_absolute_url()
    refused = curator.post(reverse("judging:experiment_from_runs"), {"run": [str(runs[0].pk)]}, follow=True)
    assert "Choose from 2 to 100 runs" in refused.content.decode()
    assert Experiment.objects.count() == 1
