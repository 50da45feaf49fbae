"""The pages of recipes: the list, one of them, and the builder."""

from __future__ import annotations

import json

import pytest
from django.test import Client

from prompts.actions import create_prompt, create_version
from tagging.actions.recipe_presets import PRESETS
from tagging.actions.recipes import ChannelSpec, get_recipe
from tagging.models import Recipe
from tests.engine.test_channels import _clean, collection, log, tagger, talker  # noqa: F401

from .pages import signed_in

# ruff: noqa: F811 (fixtures of another module)
pytestmark = pytest.mark.django_db


@pytest.fixture
def client() -> Client:
    return signed_in("curator")


@pytest.fixture
def version():
    return create_version(create_prompt(slug="q"), template="Say it", message="x")


def both(version, **fields) -> dict[str, object]:
    found = {
        "slot": ["1", "2"],
        "c1-name": "wd",
        "c1-adapter": "tagger",
        "c2-name": "qwen",
        "c2-adapter": "talker",
        "c2-prompt": version.pk,
        "rule": "union",
        "order": "parallel",
    }
    return {**found, **fields}


def check(client, data) -> tuple[str, list[dict[str, str]]]:
    found = client.post("/recipes/check/", data, headers={"HX-Request": "true"})
    assert found.status_code == 200
    return found.content.decode(), json.loads(found.headers["HX-Trigger"])["recipe-problems"]["problems"]


def test_built_checked_saved_and_found_again(client, tagger, talker, version):
    data = both(version, rule="votes", votes="2", name="Both agree")
    said, problems = check(client, data)
    assert problems == []
    assert not Recipe.objects.exists()
    saved = client.post("/recipes/new/", data)
    made = Recipe.objects.get()
    assert saved.headers["Location"] == f"/recipes/{made.pk}/"
    assert made.key in said
    assert (made.name, made.combine) == ("Both agree", {"rule": "votes", "order": "parallel"})
    again, _ = check(client, data)
    assert "There already" in again
    client.post("/recipes/new/", data)
    assert Recipe.objects.count() == 1
    page = client.get(f"/recipes/{made.pk}/").content.decode()
    for word in ("Both agree", "wd", "q v1", "votes: what enough channels say", made.key, "Use as a start"):
        assert word in page
    assert "Both agree" in client.get("/recipes/").content.decode()


@pytest.mark.parametrize(
    ("fields", "combine"),
    [
        (
            {
                "rule": "weighted",
                "trust-1": "0.5",
                "trust-2-by": "character = 2, artist = 0",
                "at_least": "0.3",
                "unscored": "0.8",
            },
            {
                "rule": "weighted",
                "order": "parallel",
                "trust": {"wd": {"*": 0.5}, "qwen": {"character": 2, "artist": 0}},
                "at_least": 0.3,
                "unscored": 0.8,
            },
        ),
        (
            {"rule": "priority", "category-1": "character", "from-1": "wd, qwen", "from-0": "qwen", "caption": "qwen"},
            {
                "rule": "priority",
                "order": "parallel",
                "priority": {"character": ["wd", "qwen"], "*": ["qwen"]},
                "caption": ["qwen"],
            },
        ),
        (
            {"order": "cascade", "cascade-by": "count", "cascade-fewer": "5", "cascade-more": "60"},
            {"rule": "union", "order": "cascade", "cascade": {"by": "count", "fewer": 5, "more": 60}},
        ),
        (
            {"rule": "llm_merge", "order": "sequential", "m-adapter": "talker"},
            {"rule": "llm_merge", "order": "sequential"},
        ),
    ],
)
def test_every_rule_with_its_own_fields_and_back_as_a_start(client, tagger, talker, version, fields, combine):
    client.post("/recipes/new/", both(version, **fields))
    made = Recipe.objects.get()
    assert made.combine == combine
    if combine["rule"] == "llm_merge":
        assert made.channels.get(role="merge").prompt_version.prompt.slug == "merge"
    page = client.get(f"/recipes/new/?from={made.pk}")
    form = page.context["form"]
    assert form.draft.key == made.key
    assert client.get(f"/recipes/{made.pk}/").status_code == 200


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"c2-prompt": ""}, "id_c2-prompt"),
        ({"c2-adapter": ""}, "id_c2-adapter"),
        ({"c1-options-labels": "3"}, "id_c1-options-labels"),
        ({"c1-name": "a b"}, "id_c1-name"),
        ({"c2-name": "wd"}, "id_rule"),
        ({"rule": "votes", "votes": "4"}, "id_votes"),
        ({"rule": "weighted", "at_least": "7"}, "id_at_least"),
        ({"rule": "weighted", "trust-1": "-1"}, "id_trust-1"),
        ({"rule": "weighted", "trust-2-by": "character"}, "id_trust-2-by"),
        ({"rule": "priority"}, "id_from-0"),
        ({"rule": "priority", "from-0": "nobody"}, "id_from-0"),
        ({"rule": "priority", "from-1": "wd"}, "id_category-1"),
        ({"caption": "nobody"}, "id_caption"),
        ({"order": "cascade", "cascade-by": "disagreement"}, "id_cascade-by"),
        ({"rule": "llm_merge", "m-adapter": "nobody"}, "id_m-adapter"),
    ],
)
def test_a_mistake_goes_to_its_field_and_nothing_is_saved(client, tagger, talker, version, fields, where):
    data = both(version, **fields)
    _, problems = check(client, data)
    assert where in [p["id"] for p in problems], problems
    assert client.post("/recipes/new/", data).status_code == 422
    assert not Recipe.objects.exists()


def test_channels_come_go_and_move_and_what_was_typed_stays(client, tagger, talker, version):
    data = both(version, rule="weighted", **{"trust-2": "0.25", "c2-options-says": "sea"})

    def after(do: str):
        return client.post("/recipes/form/", {**data, "do": do}, headers={"HX-Request": "true"}).context["form"]

    added = after("add")
    assert [c.slot for c in added.channels] == ["1", "2", "3"]
    assert added.channels[1].options["says"].value == "sea"
    assert added.drawn[1]["trust"] == "0.25"
    assert [c.slot for c in after("up-2").channels] == ["2", "1"]
    alone = after("drop-1")
    assert ([c.slot for c in alone.channels], alone.rule) == (["2"], "single")


@pytest.mark.parametrize("preset", PRESETS, ids=lambda p: p.slug)
def test_presets_fill_the_form_in(client, tagger, talker, preset):
    filled = client.post("/recipes/form/", {"do": "preset", "preset": preset.slug}).context["form"]
    assert len(filled.channels) == len(preset.channels)
    assert filled.problems == []


def test_who_may_build(tagger):
    viewer = signed_in("viewer")
    for address in ("new", "form", "check"):
        assert viewer.post(f"/recipes/{address}/", {}).status_code == 403
    tried = get_recipe([ChannelSpec(tagger)])
    assert f"/recipes/{tried.pk}/" not in viewer.get("/recipes/").content.decode()
    page = viewer.get("/recipes/?all=1").content.decode()
    assert f"/recipes/{tried.pk}/" in page
    assert "New recipe" not in page
    assert "Use as a start" not in viewer.get(f"/recipes/{tried.pk}/").content.decode()


def test_the_list_asks_as_much_for_many_as_for_one(client, tagger, django_assert_max_num_queries):
    for n in range(60):
        get_recipe([ChannelSpec(tagger, options={"variant": str(n)})], name=f"R{n}")
    with django_assert_max_num_queries(12):
        page = client.get("/recipes/").content.decode()
    assert "R59" in page
    assert "Older recipes" in page
