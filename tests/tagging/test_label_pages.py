"""The page of labels: timeline, move with a reason, back."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tagging.actions.labels import move_label, resolve
from tagging.actions.recipes import ChannelSpec, get_recipe
from tagging.models import Label, LabelEvent, Watch

from .pages import a_run, collection, images, photo_lite, signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr("tagging.queue.kick", lambda queue, n=1: None)


@pytest.fixture
def recipes():
    row = photo_lite()
    return [get_recipe([ChannelSpec(row, options={"general_threshold": t})], name=f"at {t}") for t in (0.3, 0.4)]


def test_a_label_is_moved_and_taken_back_in_one_click(recipes):
    client = signed_in("curator")
    assert b"No labels yet" in client.get("/labels/").content
    for recipe, why in zip(recipes, ("the beginning", "fewer <wrong> words"), strict=True):
        given = {"name": "champion", "recipe": str(recipe.pk), "why": why}
        assert client.post("/labels/", given).status_code == 302
    page = client.get("/labels/").content.decode()
    assert "fewer &lt;wrong&gt; words" in page
    assert page.index("fewer") < page.index("the beginning")  # newest first
    first = LabelEvent.objects.order_by("pk").first()
    assert f'id="back-{first.pk}"' in page
    assert page.count("Back to this") == 1  # not where it points now
    assert client.post(f"/labels/moves/{first.pk}/back/").status_code == 302
    assert resolve("champion").recipe == recipes[0]
    again = client.post(f"/labels/moves/{first.pk}/back/", follow=True).content.decode()
    assert "points to at 0.3 already" in again
    assert LabelEvent.objects.order_by("-pk").first().by.username == "curator"


def test_what_is_wrong_stands_beside_its_field(recipes):
    client = signed_in("curator")
    good = {"name": "champion", "recipe": str(recipes[0].pk), "why": "x"}
    for changed, text in (
        ({"name": "Best!"}, "lower-case letter"),
        ({"recipe": "baseline"}, "no label &#x27;baseline&#x27;"),
        ({"recipe": ""}, "is neither"),
        ({"why": ""}, "Say why"),
        ({"task": "caption"}, "gives captions"),
        ({"collection": "nope"}, "There is no collection"),
        ({"adapter": "nope"}, "There is no adapter"),
    ):
        answer = client.post("/labels/", {**good, **changed})
        assert answer.status_code == 422
        assert text in answer.content.decode(), changed
    assert not Label.objects.exists()


def test_viewers_read_and_only_curators_move(recipes):
    event = move_label("champion", recipes[0], why="x", metrics={"judge": 0.81234, "share": [0.5, 0.25, 0.75]})
    viewer = signed_in("viewer")
    page = viewer.get("/labels/").content.decode()
    assert "0.8123" in page
    assert "0.50 (0.25 to 0.75)" in page
    assert "move-label" not in page
    assert viewer.post("/labels/", {"name": "a", "recipe": "1", "why": "x"}).status_code == 403
    assert viewer.post(f"/labels/moves/{event.pk}/back/").status_code == 403
    assert LabelEvent.objects.count() == 1


def test_the_page_costs_the_same_for_many_labels(recipes, django_assert_max_num_queries):
    client = signed_in("viewer")
    for name in ("a", "b", "c", "d"):
        for recipe in recipes:
            move_label(name, recipe, why="x")
    client.get("/labels/")
    with django_assert_max_num_queries(6):  # session, person, permissions of both kinds, labels, moves
        client.get("/labels/")


def test_a_run_shows_the_labels_of_its_recipe(recipes):
    made = collection()
    run = a_run(made, images(made, 1))
    move_label("champion", run.recipe, why="x", collection=made)
    page = signed_in("curator").get(f"/runs/{run.pk}/").content.decode()
    assert "champion (in Holiday)" in page
    assert f"/labels/?recipe={run.recipe_id}&amp;collection=holiday#move-label" in page
    filled = signed_in("curator", "cy").get(f"/labels/?recipe={run.recipe_id}&collection=holiday").content.decode()
    assert f'value="{run.recipe_id}"' in filled
    assert '<option value="holiday" selected>' in filled


def test_the_admin_shows_labels_and_watches_read_only(recipes):
    event = move_label("champion", recipes[0], why="the <best>")
    made = collection()
    Watch.objects.create(collection=made, look=True, last_result={"look": {"error": "There is no folder <x>."}})
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    for model, pk, text in (
        ("label", event.label_id, "the &lt;best&gt;"),
        ("labelevent", event.pk, "the &lt;best&gt;"),
        ("watch", Watch.objects.get().pk, "There is no folder"),
    ):
        listed = client.get(f"/admin/tagging/{model}/")
        assert listed.status_code == 200
        page = client.get(f"/admin/tagging/{model}/{pk}/change/")
        assert text in page.content.decode()
        assert 'name="_save"' not in page.content.decode()
        assert client.get(f"/admin/tagging/{model}/add/").status_code == 403
        assert client.post(f"/admin/tagging/{model}/{pk}/delete/", {"post": "yes"}).status_code == 403
    assert "There is no folder &lt;x&gt;." in client.get("/admin/tagging/watch/").content.decode()
