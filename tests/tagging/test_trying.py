"""Trying a recipe or a model on a few images, by API and command; and what is known without asking anew."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.utils import timezone

from prompts.actions import create_wordlist, save_wordlist
from tagging.actions import policies
from tagging.actions.answers import answers, same_calls, waiting
from tagging.actions.recipes import ChannelSpec, default_policy_version, draft_recipe, get_recipe, with_policy
from tagging.actions.runs import cancel, start_run
from tagging.actions.trials import start_trial
from tagging.models import ImageAsset, Policy, Recipe, Run, TagEdit
from tests.engine.test_channels import (  # noqa: F401
    _clean,
    collection,
    drain,
    log,
    prompt,
    tagger,
    talker,
    two,
)

from .world import keyed, person

# ruff: noqa: F811 (fixtures of another module)
pytestmark = pytest.mark.django_db


def post(client, body):
    return client.post("/api/try", json.dumps(body), content_type="application/json")


def stricter() -> object:
    banned = create_wordlist(slug="no", kind="banned", entries=[{"text": "red", "match": "word"}]).current
    row = policies.create_policy(slug="strict")
    return policies.create_policy_version(row, {"max_tags": 3}, [banned], message="x")


# -- API --------------------------------------------------------------------------------------------------------------
def test_a_model_and_a_prompt_on_two_images(collection, talker):
    client = keyed(person("carl", "curator"))
    ids = list(collection.images.values_list("pk", flat=True)[:2])
    asked = {"adapter": "talker", "prompt_version": prompt().pk, "options": {"says": "red dog, sky"}, "images": ids}
    sent = post(client, asked)
    assert sent.status_code == 202, sent.content
    run = Run.objects.get(pk=sent.json()["run"])
    assert (run.purpose, run.shown, run.priority, run.n_total) == ("trial", False, 500, 2)
    drain()
    items = client.get(f"/api/runs/{run.pk}/proposals").json()["items"]
    assert [[t["name"] for t in item["tags"]] for item in items] == [["red dog", "sky"]] * 2
    stricter()
    again = post(client, {"recipe": sent.json()["recipe"], "policy": "strict", "images": ids[:1]})
    drain()
    items = client.get(f"/api/runs/{again.json()['run']}/proposals").json()["items"]
    assert [t["state"] for t in items[0]["tags"]] == ["kept", "dropped"]
    assert client.get(f"/api/runs/{again.json()['run']}").json()["counts"]["cached"] == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "recipe"),
        ({"adapter": "nobody"}, "adapter"),
        ({"adapter": "talker"}, "prompt_version"),
        ({"adapter": "tagger", "prompt_version": 999}, "prompt_version"),
        ({"adapter": "tagger", "options": {"nonsense": 1}}, "options"),
        ({"adapter": "tagger", "policy": "none"}, "policy"),
        ({"adapter": "tagger", "policy": "default@77"}, "policy"),
        ({"recipe": "champion"}, "recipe"),
        ({"adapter": "tagger", "images": [999999]}, "images"),
        ({"adapter": "tagger", "images": list(range(1, 7))}, "images"),
        ({"adapter": "tagger", "images": []}, "images"),
    ],
)
def test_what_is_refused_names_its_field(collection, tagger, talker, body, field):
    default_policy_version()
    first = collection.images.first().pk
    refused = post(keyed(person("carl", "curator")), {"images": [first], **body})
    assert refused.status_code == 422
    assert field in refused.content.decode()
    assert not Run.objects.exists()


def test_who_may_try(collection, tagger):
    body = {"adapter": "nobody", "images": [999999]}
    assert post(keyed(person("rosa", "reviewer"), ["read", "write"]), body).status_code == 403
    assert post(keyed(person("carl", "curator"), ["read"]), body).status_code == 403


def test_an_unreadable_image_is_refused(collection, tagger):
    image = collection.images.first()
    ImageAsset.objects.filter(pk=image.pk).update(missing_since=timezone.now())
    refused = post(keyed(person("carl", "curator")), {"adapter": "tagger", "images": [image.pk]})
    assert "cannot be read" in refused.json()["detail"]


# -- command ----------------------------------------------------------------------------------------------------------
def test_the_command_prints_what_was_said(collection, talker, monkeypatch):
    prompt()
    monkeypatch.setattr("tagging.management.commands.tag.Command.wait", lambda self, run: drain())
    image = collection.images.first()
    out = StringIO()
    asked = {"adapter": "talker", "prompt": "p", "option": ["says=red dog, sky"], "wait": True, "stdout": out}
    call_command("try", image=[image.path], **asked)
    assert f"{image.path}:\n  red dog, sky" in out.getvalue()
    stricter()
    lines = StringIO()
    call_command("try", image=[str(image.pk)], policy="strict", json=True, **{**asked, "stdout": lines})
    said = json.loads(lines.getvalue())
    assert [t["name"] for t in said["tags"]] == ["sky"]
    assert said["dropped"][0]["name"] == "red dog"


def test_what_the_command_refuses(collection, tagger):
    path = collection.images.first().path
    for more, said in (
        ({"image": ["/no/where.jpg"], "adapter": "tagger"}, "not indexed"),
        ({"image": [path], "adapter": "nobody"}, "There is no model"),
        ({"image": [path], "recipe": "1", "option": ["a=1"]}, "go with --adapter"),
        ({"image": [path], "adapter": "tagger", "json": True}, "goes with --wait"),
    ):
        with pytest.raises(CommandError, match=said):
            call_command("try", stdout=StringIO(), **more)
    six = [f"--image={i.pk}" for i in collection.images.all()[:6]]
    with pytest.raises(CommandError, match="At most 5"):
        call_command("try", *six, "--adapter=tagger")


# -- what is known ----------------------------------------------------------------------------------------------------
def tried(recipe: Recipe, images) -> None:
    start_trial(recipe, images)
    drain()


def words(answer) -> list[str]:
    return [fate.name for fate in answer.proposed.kept]


def test_another_policy_and_what_only_selects_need_no_new_answer(collection, tagger):
    images = list(collection.images.all()[:2])
    recipe = get_recipe([ChannelSpec(tagger)])
    assert answers(recipe, images) == {}
    tried(recipe, images)
    assert len(words(answers(recipe, images)[images[0].pk])) == 5
    strict = get_recipe([ChannelSpec(tagger)], policy_version=stricter())
    assert len(words(answers(strict, images)[images[0].pk])) == 3
    higher = get_recipe([ChannelSpec(tagger, options={"threshold": 0.9})])
    assert 0 < len(words(answers(higher, images)[images[0].pk])) < 5
    assert answers(get_recipe([ChannelSpec(tagger, options={"variant": "b"})]), images) == {}
    assert answers(recipe, images, sample=1) == {}
    assert same_calls(strict) != [strict.pk]
    draft = policies.compile_checked({"max_tags": 1}, [])
    assert len(words(answers(recipe, images, policy=draft)[images[0].pk])) == 1


def test_other_bytes_new_words_and_decisions_ask_anew(collection, talker):
    image = collection.images.first()
    told = get_recipe([ChannelSpec(talker, prompt("Known: {{ tags }}", "told"))])
    listed_words = create_wordlist(slug="list", kind="vocabulary", entries=["dog"])
    listed = get_recipe([ChannelSpec(talker, prompt("{{ wordlist('list') }}", "listed"))])
    for recipe in (told, listed):
        tried(recipe, [image])
        assert answers(recipe, [image])
    TagEdit.objects.create(image=image, kind="caption", before="", after="x")
    assert answers(told, [image]) == {}
    assert answers(listed, [image])
    save_wordlist(listed_words, ["dog", "cat"], message="more")
    assert answers(listed, [image]) == {}
    tried(listed, [image])
    assert answers(listed, [image])
    image.sha256 = "f" * 64
    assert answers(listed, [image]) == {}


def test_several_channels_under_another_rule(collection, tagger, talker):
    images = list(collection.images.all()[:2])
    recipe = two(tagger, talker, other={"says": "label 1, sky"})
    tried(recipe, images)
    found = answers(recipe, images)[images[0].pk]
    assert (found.calls, found.tokens_out) == (2, len("label 1, sky"))
    assert "sky" in words(found)
    channels = list(recipe.channels.order_by("position"))
    specs = [ChannelSpec(c.adapter, c.prompt_version, c.options, c.name) for c in channels]
    both = get_recipe(specs, combine={"rule": "intersection"})
    assert "sky" not in words(answers(both, images)[images[0].pk])
    assert answers(get_recipe(specs, combine={"rule": "union", "order": "sequential"}), images) == {}


def test_errors_and_trials_that_came_to_nothing_are_told(collection, tagger):
    images = list(collection.images.all()[:2])
    bad = get_recipe([ChannelSpec(tagger, options={"bad": [images[0].path]})])
    run = start_trial(bad, images)
    assert waiting([bad.pk], images)[images[0].pk].run == run
    drain()
    found = answers(bad, images)
    assert "cannot be decoded" in found[images[0].pk].error
    assert found[images[1].pk].proposed
    assert waiting([bad.pk], images) == {}
    good = get_recipe([ChannelSpec(tagger)])
    assert answers(good, images)[images[0].pk].error  # `bad` changes how it is asked, not what comes out
    other = get_recipe([ChannelSpec(tagger, options={"variant": "other"})])
    cancel(start_trial(other, images))
    assert "cancelled" in waiting([other.pk], images)[images[0].pk].error


def test_a_run_counts_as_much_as_a_trial(collection, tagger):
    recipe = get_recipe([ChannelSpec(tagger)])
    start_run(recipe, collection=collection)
    drain()
    found = answers(recipe, list(collection.images.all()[:5]))
    assert len(found) == 5
    assert all(a.at > timezone.now() - timedelta(minutes=5) for a in found.values())


# -- recipes that are not saved ---------------------------------------------------------------------------------------
def test_a_draft_has_the_key_of_what_is_saved_later(collection, tagger, talker):
    specs = [ChannelSpec(tagger, name="a"), ChannelSpec(talker, prompt(), name="b")]
    draft = draft_recipe(specs, combine={"rule": "votes", "votes": 2})
    assert not Recipe.objects.exists()
    made = get_recipe(specs, combine={"rule": "votes", "votes": 2}, name="Both")
    assert made.key == draft.key
    strict = with_policy(made, stricter())
    assert (strict.name, strict.channels.count(), strict.policy_version.policy.slug) == ("Both", 2, "strict")
    assert with_policy(strict, Policy.objects.get(slug="default").current) == made
    with pytest.raises(ValidationError):
        draft_recipe([])
