"""Labels: pointers to recipes with a history, the nearest first, never a silent fallback."""

from __future__ import annotations

import io

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import DatabaseError, transaction
from django.utils import timezone

from tagging.actions import labels
from tagging.actions.label_metrics import wilson
from tagging.actions.labels import UnknownLabel, back_to, find_recipe, move_label, resolve
from tagging.actions.recipes import ChannelSpec, get_recipe
from tagging.models import Chunk, Collection, ImageAsset, ImageTag, Label, LabelEvent, ModelAdapter, Proposal, Run, Tag

from .world import collection, image, keyed, person

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr("tagging.queue.kick", lambda queue, n=1: None)


@pytest.fixture
def lite():
    return ModelAdapter.objects.create(slug="lite", label="Lite", kind="photo-lite")


@pytest.fixture
def recipes(lite):
    return [get_recipe([ChannelSpec(lite, options={"general_threshold": t})], name=f"at {t}") for t in (0.3, 0.4, 0.5)]


@pytest.fixture
def trip():
    made = collection()
    for i in range(3):
        image(made, f"{i}.jpg", sha256=f"{i:064x}")
    return made


def post(client, url, **body):
    return client.post(url, body, content_type="application/json")


def test_a_label_moves_and_each_move_is_kept(recipes):
    ann = person("ann", "curator")
    first = move_label("champion", recipes[0], why="the first", by=ann)
    second = move_label("champion", recipes[1], why="fewer  wrong\nwords", by=ann)
    assert (first.from_recipe, first.to_recipe) == (None, recipes[0])
    assert (second.from_recipe, second.to_recipe, second.why, second.by) == (*recipes[:2], "fewer wrong words", ann)
    assert resolve("champion").recipe == recipes[1]
    assert Label.objects.count() == 1


def test_back_restores_the_recipe_with_all_it_holds(recipes):
    first = move_label("champion", recipes[0], why="a")
    move_label("champion", recipes[1], why="b")
    move_label("champion", recipes[2], why="c")
    back = back_to(first)
    assert (back.from_recipe, back.to_recipe, back.back_to) == (recipes[2], recipes[0], first)
    assert back.why.startswith("Back to at 0.3")
    assert resolve("champion").recipe.channels.get().options["general_threshold"] == 0.3
    assert LabelEvent.objects.count() == 4
    with pytest.raises(ValidationError, match="already"):
        back_to(first)


def test_the_nearest_label_goes_first(lite, recipes, trip):
    other = collection("Other")
    everywhere, here, mine = recipes
    move_label("champion", everywhere, why="x")
    move_label("champion", mine, why="x", adapter=lite)
    move_label("champion", here, why="x", task="tags", collection=trip)
    assert resolve("champion").recipe == everywhere
    assert resolve("champion", collection=other).recipe == everywhere
    assert resolve("champion", adapter=lite).recipe == mine
    assert resolve("champion", collection=trip).recipe == here
    assert resolve("champion", "tags", lite, trip).recipe == here
    assert resolve("champion", "caption", lite, trip).recipe == mine
    assert find_recipe("champion@lite") == mine
    assert find_recipe("tags/champion", collection=trip) == here


def test_what_is_not_there_is_an_error_that_lists_what_is(recipes, trip):
    with pytest.raises(UnknownLabel, match="none yet"):
        resolve("champion")
    move_label("candidate", recipes[0], why="x", collection=trip)
    with pytest.raises(UnknownLabel, match=r"no label 'champion'; there is candidate \(in Trip\)"):
        resolve("champion")
    with pytest.raises(UnknownLabel, match="no label 'candidate'"):
        resolve("candidate")  # it is for one collection only
    for text, why in (
        ("tog/candidate", "no task"),
        ("candidate@gpt", "no model 'gpt'"),
        ("a@", "neither"),
        ("999", "no recipe"),
    ):
        with pytest.raises(UnknownLabel, match=why):
            find_recipe(text, collection=trip)


def test_recipes_are_found_by_number_and_key_too(recipes):
    assert find_recipe(f" {recipes[1].pk} ") == recipes[1]
    assert find_recipe(recipes[1].key[:12]) == recipes[1]
    with pytest.raises(UnknownLabel):
        find_recipe("ffffffffffff")


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"name": "Champion"}, "name"),
        ({"name": "7"}, "name"),
        ({"name": "a/b"}, "name"),
        ({"task": "judge"}, "task"),
        ({"task": "caption"}, "recipe"),  # photo-lite writes none
        ({"why": " "}, "why"),
        ({"why": "x" * 401}, "why"),
    ],
)
def test_a_wrong_move_names_the_field_and_moves_nothing(recipes, changed, field):
    given = {"name": "champion", "why": "x", **changed}
    with pytest.raises(ValidationError) as e:
        move_label(given.pop("name"), recipes[0], **given)
    assert list(e.value.message_dict) == [field]
    assert not Label.objects.exists()


def test_a_label_for_a_model_wants_a_recipe_with_it(recipes):
    other = ModelAdapter.objects.create(slug="other", label="Other", kind="photo-lite")
    with pytest.raises(ValidationError, match="does not use Other"):
        move_label("champion", recipes[0], why="x", adapter=other)


def test_the_scope_is_unique_also_where_it_is_empty(recipes):
    move_label("champion", recipes[0], why="x")
    with pytest.raises(DatabaseError), transaction.atomic():
        Label.objects.create(name="champion", recipe=recipes[1], moved_at=timezone.now())


def test_history_is_only_added_to(recipes):
    event = move_label("champion", recipes[0], why="x")
    event.why = "y"
    with pytest.raises(ValidationError, match="only added to"):
        event.save()
    with pytest.raises(ValidationError, match="only added to"):
        event.delete()
    with pytest.raises(DatabaseError, match="only added to"), transaction.atomic():
        LabelEvent.objects.filter(pk=event.pk).update(why="y")


def test_the_move_keeps_what_was_known_of_the_recipe(recipes, trip):
    now = timezone.now()
    run = Run.objects.create(recipe=recipes[0], collection=trip, state="done", finished_at=now, n_total=3)
    Chunk.objects.create(run=run, model_key="m", lo=0, hi=3, image_ids=b"", n_ok=3)
    # two images are reviewed: "dog" and the alias "hound" were right, "car" wrong, "cat" missed; the third is not
    dog, car, cat = (Tag.objects.create(name=name) for name in ("dog", "car", "cat"))
    dog.aliases.create(name="hound")
    a, b, c = ImageAsset.objects.order_by("pk")
    for one, names in ((a, ["dog", "car"]), (b, ["hound"]), (c, ["car"])):
        tags = [[name, "general", 0.9, "kept", "", "", name] for name in names]
        Proposal.objects.create(
            run=run, image=one, state="ok", tags=[*tags, ["cat", "general", 0.1, "dropped", "", "", "cat"]]
        )
    ImageAsset.objects.filter(pk__in=[a.pk, b.pk]).update(review_state="reviewed")
    State = ImageTag.State
    for one, tag, state in (
        (a, dog, State.ACCEPTED),
        (a, car, State.REJECTED),
        (a, cat, State.ADDED),
        (b, dog, State.ACCEPTED),
    ):
        ImageTag.objects.create(image=one, tag=tag, state=state)
    event = move_label("champion", recipes[0], why="x", metrics={"judge": 0.8})
    assert event.metrics["judge"] == 0.8
    assert {k: event.metrics[k] for k in ("run", "images", "ok", "reviewed")} == {
        "run": run.pk,
        "images": 3,
        "ok": 3,
        "reviewed": 2,
    }
    assert event.metrics["precision"] == event.metrics["recall"] == wilson(2, 3)
    assert event.metrics["precision"][0] == 0.6667
    assert move_label("champion", recipes[1], why="never run").metrics == {}


def test_wilson_against_published_values():
    """E.g. 15 of 20: 0.531 to 0.888 (R: prop.test(15, 20, correct=FALSE))."""
    assert wilson(15, 20) == [0.75, pytest.approx(0.5313, abs=1e-4), pytest.approx(0.8881, abs=1e-4)]
    assert wilson(0, 5)[1] == 0.0
    assert wilson(5, 5)[2] == 1.0


# -- doors ------------------------------------------------------------------------------------------------------------
def test_the_api_moves_lists_and_goes_back(recipes, trip):
    client = keyed(person("cy", "curator"))
    made = post(client, "/api/labels", name="champion", recipe=recipes[0].pk, why="first", collection="trip")
    assert made.status_code == 201, made.content
    first = made.json()
    assert (first["label"]["reference"], first["label"]["collection"], first["by"]) == ("champion", "trip", "cy")
    assert (
        post(client, "/api/labels", name="champion", recipe=recipes[1].pk, why="b", collection="trip").status_code
        == 201
    )
    listed = client.get("/api/labels?name=champion&collection=trip").json()["items"]
    assert [item["recipe"] for item in listed] == [recipes[1].pk]
    back = post(client, f"/api/labels/events/{first['id']}/back")
    assert (back.status_code, back.json()["to_recipe"], back.json()["back_to"]) == (201, recipes[0].pk, first["id"])
    history = client.get(f"/api/labels/{listed[0]['id']}/history").json()["items"]
    assert [event["to_recipe"] for event in history] == [recipes[i].pk for i in (0, 1, 0)]


def test_the_api_refuses_with_the_fields_name(recipes, trip):
    client = keyed(person("cy", "curator"))
    good = {"name": "champion", "recipe": recipes[0].pk, "why": "x"}
    for body, field in (
        ({**good, "recipe": "nope"}, "recipe"),
        ({**good, "recipe": 999}, "recipe"),
        ({**good, "collection": "nope"}, "collection"),
        ({**good, "adapter": "nope"}, "adapter"),
        ({**good, "task": "judge"}, "task"),
        ({**good, "why": ""}, "why"),
        ({**good, "colour": 1}, "colour"),
    ):
        answer = post(client, "/api/labels", **body)
        assert (answer.status_code, answer.json()["field"]) == (422, field), answer.content
    assert client.get("/api/labels/999/history").status_code == 404
    assert post(client, "/api/labels/events/999/back").status_code == 404
    viewer = keyed(person("vi", "viewer"), ["read"])
    assert post(viewer, "/api/labels", **good).status_code == 403
    assert viewer.get("/api/labels").status_code == 200
    assert not Label.objects.exists()


def test_lists_cost_the_same_for_many(recipes, django_assert_num_queries):
    client = keyed(person("cy", "curator"))
    for name in "abc":
        move_label(name, recipes[0], why="x")
    for recipe in recipes[1:]:
        move_label("a", recipe, why="x")
    label = Label.objects.get(name="a")
    client.get("/api/labels")  # notes that the key is used
    with django_assert_num_queries(3):  # key, permissions, labels
        assert len(client.get("/api/labels").json()["items"]) == 3
    with django_assert_num_queries(4):
        assert len(client.get(f"/api/labels/{label.pk}/history").json()["items"]) == 3


def test_a_run_is_started_by_label(recipes, trip):
    client = keyed(person("cy", "curator"))
    missing = post(client, "/api/runs", collection="trip", recipe="champion")
    assert (missing.status_code, missing.json()["field"]) == (422, "recipe")
    move_label("champion", recipes[0], why="x")
    move_label("champion", recipes[1], why="x", collection=trip)
    assert post(client, "/api/runs", collection="trip", recipe="champion").json()["recipe"] == recipes[1].pk
    image(Collection.objects.create(name="Other", slug="other", kind="upload"), "a.jpg")
    assert post(client, "/api/runs", collection="other", recipe="champion").json()["recipe"] == recipes[0].pk


def command(name, *args):
    out = io.StringIO()
    call_command(name, *args, stdout=out)
    return out.getvalue()


def test_the_tag_command_takes_labels(recipes, trip):
    with pytest.raises(CommandError, match="no label 'champion'"):
        command("tag", "--collection", "Trip", "--recipe", "champion")
    assert not Run.objects.exists()
    move_label("champion", recipes[2], why="x", collection=trip)
    command("tag", "--collection", "Trip", "--recipe", "champion")
    assert Run.objects.get().recipe == recipes[2]


def test_the_label_command(recipes, trip):
    assert "→ recipe" in command("label", "set", "champion", "--recipe", str(recipes[0].pk), "--why", "first")
    command("label", "set", "champion", "--recipe", recipes[1].key[:10], "--why", "second")
    command("label", "set", "champion", "--recipe", "champion", "--why", "here too", "--collection", "Trip")
    assert command("label", "list").count("champion") == 2
    lines = command("label", "history", "champion").splitlines()
    assert [line.rsplit("\t")[-1] for line in lines] == ["second", "first"]
    move = lines[-1].split()[1]
    command("label", "back", move)
    assert labels.resolve("champion").recipe == recipes[0]
    for args, why in (
        (("history", "baseline"), "no label 'baseline'"),
        (("back", "999"), "no move 999"),
        (("set", "Best", "--recipe", "champion", "--why", "x"), "lower-case"),
        (("set", "best", "--recipe", "nope", "--why", "x"), "no label 'nope'"),
        (("set", "best", "--recipe", "champion", "--why", "x", "--adapter", "gpt"), "no model 'gpt'"),
    ):
        with pytest.raises(CommandError, match=why):
            command("label", *args)
