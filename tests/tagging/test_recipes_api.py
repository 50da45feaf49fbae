"""Recipes of several channels, ready-made ones, and raw replies, through API, command and pages."""

from __future__ import annotations

import json

import pytest
from django.core.management import CommandError, call_command

from prompts.actions import create_prompt, create_version
from tagging.actions import recipe_presets
from tagging.actions.runs import start_run
from tagging.models import Recipe, Run
from tests.engine.test_channels import (  # noqa: F401
    N,
    _clean,
    answer,
    collection,
    drain,
    log,
    merge_recipe,
    tagger,
    talker,
    two,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def curator(admin_client):
    return admin_client


def post(client, path, body):
    return client.post(f"/api{path}", json.dumps(body), content_type="application/json")


def version(slug="p", task="tags", text="Say it"):
    return create_version(create_prompt(slug=slug, task=task), template=text, message="x")


def test_a_recipe_of_several_channels(curator, tagger, talker):  # noqa: F811
    body = {
        "channels": [
            {"adapter": "tagger", "name": "wd"},
            {"adapter": "talker", "prompt_version": version().pk, "options": {"says": "x"}},
        ],
        "combine": {"rule": "weighted", "trust": {"wd": {"*": 0.5}}},
        "name": "Both",
    }
    made = post(curator, "/recipes", body)
    assert made.status_code == 201, made.content
    shown = made.json()
    assert [c["name"] for c in shown["channels"]] == ["wd", "talker"]
    assert shown["combine"] == {"rule": "weighted", "order": "parallel", "trust": {"wd": {"*": 0.5}}}
    assert post(curator, "/recipes", body).json()["id"] == shown["id"]
    assert curator.get(f"/api/recipes/{shown['id']}").json()["name"] == "Both"
    merged = post(
        curator,
        "/recipes",
        {**body, "combine": {"rule": "llm_merge"}, "merge": {"adapter": "talker", "options": {"says": "y"}}},
    ).json()
    assert [(c["name"], c["role"]) for c in merged["channels"]][-1] == ("merge", "merge")
    assert Recipe.objects.get(pk=merged["id"]).channels.get(role="merge").prompt_version.prompt.slug == "merge"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "channels"),
        ({"adapter": "tagger", "channels": [{"adapter": "tagger"}]}, "channels"),
        ({"channels": [{"adapter": "nobody"}]}, "adapter"),
        ({"channels": [{"adapter": "tagger"}, {"adapter": "talker"}]}, "prompt"),
        ({"channels": [{"adapter": "tagger"}, {"adapter": "tagger"}], "combine": {"rule": "x"}}, "combine"),
        ({"channels": [{"adapter": "tagger"}, {"adapter": "tagger"}], "combine": {"rule": "llm_merge"}}, "merge"),
        ({"channels": [{"adapter": "tagger", "name": "a b"}]}, "name"),
    ],
)
def test_bad_recipes_name_the_field(curator, tagger, talker, body, field):  # noqa: F811
    refused = post(curator, "/recipes", body)
    assert refused.status_code == 422
    assert field in refused.content.decode()
    assert not Recipe.objects.exists()


def test_the_rules_and_the_presets_can_be_read(curator):
    schema = curator.get("/api/recipes/schema").json()
    assert schema["properties"]["rule"]["enum"][:2] == ["single", "union"]
    presets = {p["slug"]: p for p in curator.get("/api/recipes/presets").json()}
    assert {"hybrid-quick", "hybrid-standard", "hybrid-detailed", "taggui-caption", "stag-keywords"} <= presets.keys()
    assert presets["hybrid-quick"]["merge"]["name"] == "merge"


@pytest.mark.parametrize("preset", recipe_presets.PRESETS, ids=lambda p: p.slug)
def test_every_preset_makes_a_recipe_that_runs(preset, tagger, talker, collection):  # noqa: F811
    adapters = {slot.name: tagger if slot.name == "tagger" else talker for slot in preset.slots}
    recipe = recipe_presets.make_recipe(preset.slug, adapters)
    assert recipe == recipe_presets.make_recipe(preset.slug, adapters)
    run = start_run(recipe, collection=collection, images=collection.images.order_by("pk")[:3])
    drain()
    run.refresh_from_db()
    assert (run.state, run.error) == ("done", "")
    assert run.proposals.filter(state="ok").count() == 3
    if preset.policy.get("parse") == "caption":
        assert all(p.caption for p in run.proposals.all())


def test_raw_replies_of_every_channel(curator, tagger, talker, collection):  # noqa: F811
    says = answer(("crimson sky", ["qwen: red sky"], ""))
    run = start_run(merge_recipe(tagger, talker, says, stubborn=["004.jpg"]), collection=collection)
    drain()
    proposal = run.proposals.get(image__path="003.jpg")
    shown = curator.get(f"/api/proposals/{proposal.pk}").json()
    assert [(r["channel"], r["role"], r["state"]) for r in shown["replies"]] == [
        ("wd", "asked", "ok"),
        ("qwen", "asked", "ok"),
        ("merge", "merge", "ok"),
    ]
    assert len(shown["replies"][0]["scores"]) == 12
    assert shown["replies"][0]["scores"][0][2] == 0.99
    assert [r["text"] for r in shown["replies"][1:]] == ["red sky", says]
    assert shown["tags"][0]["sources"] == ["qwen"]
    assert shown["tags"][0]["votes"] == 1
    fallen = run.proposals.get(image__path="004.jpg")
    listed = curator.get(f"/api/runs/{run.pk}/proposals?limit=100").json()["items"]
    assert next(p for p in listed if p["id"] == fallen.pk)["flags"][0] == "merge_fallback"
    counts = curator.get(f"/api/runs/{run.pk}").json()
    assert counts["counts"]["fallback"] == 1
    assert [s["done"] for s in counts["stages"]] == [N, N, N]
    assert curator.get("/api/proposals/999999").status_code == 404
    page = curator.get(f"/proposals/{proposal.pk}/replies/")
    assert page.status_code == 200
    assert "red sky" in page.content.decode()
    part = curator.get(f"/proposals/{proposal.pk}/replies/", headers={"HX-Request": "true"}).content.decode()
    assert "<html" not in part
    assert "merges the others" in part
    more = curator.get(f"/images/{fallen.image_id}/more/").content.decode()
    assert "the weighted union stands" in more
    assert f"/proposals/{fallen.pk}/replies/" in more


def test_the_reply_of_a_single_channel(curator, talker, collection):  # noqa: F811
    from tagging.actions.recipes import ChannelSpec, get_recipe

    run = start_run(get_recipe([ChannelSpec(talker, version(), {"says": "red"})]), collection=collection)
    drain()
    (reply,) = curator.get(f"/api/proposals/{run.proposals.first().pk}").json()["replies"]
    assert (reply["channel"], reply["text"], reply["state"]) == ("talker", "red", "ok")


def test_the_tag_command_takes_prompt_options_and_sample(tagger, talker, collection, capsys):  # noqa: F811
    version(text="One")
    create_version(create_prompt(slug="q"), template="Two", message="x")
    arguments = {"collection": "trip", "adapter": "talker"}
    call_command("tag", **arguments, prompt="q", option=["says={prompt}", "variant=2", "batch=4"], sample=3)
    run = Run.objects.latest("pk")
    channel = run.recipe.channels.get()
    assert (run.sample, channel.prompt_version.template) == (3, "Two")
    assert (channel.options["says"], channel.options["variant"]) == ("{prompt}", "2")
    assert channel.options["batch"] == 4
    for bad, text in (
        ({"prompt": "nobody"}, "no prompt 'nobody'"),
        ({"prompt": "q@7"}, "no prompt 'q@7'"),
        ({"prompt": "q", "option": ["says"]}, "NAME=VALUE"),
        ({"prompt": "q", "option": ["speed=1"]}, "speed"),
        ({}, "needs a prompt"),
    ):
        with pytest.raises(CommandError, match=text):
            call_command("tag", **arguments, **bad)
    with pytest.raises(CommandError, match="go with --adapter"):
        call_command("tag", collection="trip", recipe=str(run.recipe_id), prompt="q")


def test_a_run_of_several_channels_has_its_stages_on_its_page(curator, tagger, talker, collection):  # noqa: F811
    run = start_run(two(tagger, talker), collection=collection)
    drain("gpu", times=1)
    page = curator.get(f"/runs/{run.pk}/").content.decode()
    assert "union: what any channel says" in page
    assert '<th scope="row">qwen</th><td class="num">100' in page
    assert '<th scope="row">combined</th><td class="num">0' in page
