"""The workbench by HTTP: its address, what it shows at once, what it asks, and what it keeps."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from django.http import QueryDict
from django.test import Client

from prompts.actions import create_prompt, create_version, create_wordlist
from prompts.models import PromptVersion
from tagging.actions.recipes import ChannelSpec, default_policy_version, get_recipe
from tagging.models import Prediction, Recipe, Run
from tests.engine.test_channels import _clean, collection, drain, log, tagger, talker  # noqa: F401

from .pages import signed_in

# ruff: noqa: F811 (fixtures of another module)
pytestmark = pytest.mark.django_db
HTMX = {"headers": {"HX-Request": "true"}}


@pytest.fixture
def client() -> Client:
    return signed_in("curator")


@pytest.fixture
def two_images(collection):
    return list(collection.images.order_by("pk")[:2])


def bench(images, **fields) -> dict[str, object]:
    """Two panes of the talker that say different things."""
    found = {
        "i": [image.pk for image in images],
        "pane": ["a", "b"],
        "a-adapter": "talker",
        "a-options-says": "red dog, sky, tree",
        "b-adapter": "talker",
        "b-options-says": "red dog, cloud",
    }
    return {**found, **fields}


def asked(text="Say it") -> PromptVersion:
    return create_version(create_prompt(slug="p"), template=text, message="x")


def text(response) -> str:
    assert response.status_code == 200, response.content.decode()[:2000]
    return " ".join(response.content.decode().split())


def pushed(response) -> QueryDict:
    return QueryDict(urlsplit(response.headers["HX-Push-Url"]).query)


def run(client, data):
    return client.post("/workbench/run/", data, **HTMX)


def test_two_panes_from_nothing_to_side_by_side(client, two_images, talker):
    data = bench(two_images, **{"a-prompt": (v := asked()).pk, "b-prompt": v.pk})
    first = text(client.post("/workbench/show/", data, **HTMX))
    assert first.count("not asked yet") == 5  # four cells and the sum
    assert not Run.objects.exists()
    started = run(client, data)
    assert {(r.purpose, r.shown, r.n_total) for r in Run.objects.all()} == {("trial", False, 2)}
    assert 'hx-trigger="every 1s"' in text(started)
    run(client, data)
    assert Run.objects.count() == 2  # what is under way is not asked again
    drain()
    address = started.headers["HX-Push-Url"]
    page = text(client.get(address))
    assert "every 1s" not in page
    assert "1 shared, 3 different" in page
    assert 'data-in="all"' in page
    assert "only in pane 2" in page
    assert "tokens in" in page
    assert pushed(started)["b-options-says"] == "red dog, cloud"
    calls = Prediction.objects.count()
    run(client, data)
    assert (Run.objects.count(), Prediction.objects.count()) == (2, calls)
    token = page.split("token=")[1].split('"')[0] if "token=" in page else ""
    assert client.get(f"/workbench/poll/?{urlsplit(address).query}&token={token or 'x'}").status_code in (200, 204)


def test_a_poll_that_finds_the_same_sends_nothing(client, two_images, talker):
    data = bench(two_images, **{"a-prompt": (v := asked()).pk, "b-prompt": v.pk})
    started = text(run(client, data))
    address = started.split('hx-get="')[1].split('"')[0].replace("&amp;", "&")
    assert client.get(address).status_code == 204
    drain()
    assert "red dog" in text(client.get(address))


def test_only_the_policy_changes_and_no_model_is_asked(client, two_images, tagger):
    default_policy_version()
    create_wordlist(slug="no", kind="banned", entries=["label 1"])
    data = {"i": [two_images[0].pk], "pane": ["a"], "a-adapter": "tagger"}
    run(client, data)
    drain()
    shown = client.post("/workbench/show/", {**data, "a-rules": "1", "a-rule-max_tags": "2"}, **HTMX)
    assert text(shown).count('class="chip"') == 2
    assert "3 dropped" in text(shown)
    state = pushed(shown)
    assert (state["a-rules"], state["a-rule-max_tags"]) == ("1", "2")
    assert text(client.get(f"/workbench/?{state.urlencode()}")).count('class="chip"') == 2
    assert "edited rules" in text(shown)
    refused = text(client.post("/workbench/show/", {**data, "a-rules": "1", "a-rule-max_tags": "-2"}, **HTMX))
    assert "At least" in refused
    assert (Run.objects.count(), Prediction.objects.count()) == (1, 1)


def test_an_edited_text_is_asked_kept_and_named_in_the_address(client, two_images, talker):
    version = asked()
    data = bench(two_images[:1], pane=["a"], **{"a-prompt": version.pk, "a-options-says": "{prompt}"})
    edited = {**data, "a-template": "Say more", "a-system": ""}
    started = run(client, edited)
    drain()
    draft = pushed(started)["a-draft"]
    assert PromptVersion.objects.get(pk=draft).prompt.hidden
    page = text(client.get(started.headers["HX-Push-Url"]))
    assert "Say more" in page
    assert "own text" not in page
    assert "p v1, edited" in page
    broken = text(run(client, {**data, "a-template": "Say {{ nothing", "a-system": ""}))
    assert "template: Line 1" in broken

    keep = {**edited, "a-keep-name": "More", "then": ""}
    assert "Say in a line what changed" in client.post("/workbench/keep/a/", keep).content.decode()
    kept = client.post("/workbench/keep/a/", {**keep, "a-keep-message": "More of it"})
    made = Recipe.objects.get(name="More")
    saved = version.prompt.versions.get(number=2)
    assert (made.channels.get().prompt_version, saved.template, saved.message) == (saved, "Say more", "More of it")
    state = QueryDict(urlsplit(kept.headers["Location"]).query)
    assert (state["a-prompt"], state.get("a-draft")) == (str(saved.pk), None)
    assert "Say more" in text(client.get(kept.headers["Location"]))  # the answer of the trial is its answer


def test_edited_rules_become_a_version_when_they_are_kept(client, two_images, tagger):
    first = default_policy_version()
    data = {"i": [two_images[0].pk], "pane": ["a"], "a-adapter": "tagger", "a-rules": "1", "a-rule-max_tags": "2"}
    kept = client.post(
        "/workbench/keep/a/", {**data, "a-keep-name": "Short", "a-keep-message": "Two tags", "then": "promote"}
    )
    made = Recipe.objects.get(name="Short")
    assert made.policy_version.policy == first.policy
    assert made.policy_version.spec == {"max_tags": 2}
    assert kept.headers["Location"] == f"/labels/?recipe={made.pk}&name=candidate#move-label"
    to_run = client.post("/workbench/keep/a/", {**data, "a-keep-message": "Two tags", "then": "run"})
    assert f"recipe={made.pk}&collection=trip" in to_run.headers["Location"]


def test_panes_are_added_copied_unpacked_and_dropped(client, two_images, talker, tagger):
    version = asked()
    recipe = get_recipe([ChannelSpec(talker, version, {"says": "sea"})], name="Sea")
    data = bench(two_images, **{"a-prompt": version.pk, "b-kind": "recipe", "b-recipe": str(recipe.pk)})

    def to(do: str) -> QueryDict:
        answer = client.post("/workbench/change/", {**data, "do": do})
        assert client.get(answer.headers["Location"]).status_code == 200
        return QueryDict(urlsplit(answer.headers["Location"]).query)

    added = to("add")
    assert added.getlist("pane") == ["a", "b", "c"]
    assert added["c-recipe"] == str(recipe.pk)
    assert to("copy-a")["c-options-says"] == "red dog, sky, tree"
    assert to("drop-a").getlist("pane") == ["b"]
    unpacked = to("unpack-b")
    assert (unpacked["b-adapter"], unpacked["b-options-says"], unpacked["b-prompt"]) == (
        "talker",
        "sea",
        str(version.pk),
    )
    assert len(to("random").getlist("i")) == 2


def test_what_is_wrong_stands_over_its_pane(client, two_images, talker):
    data = bench(two_images, **{"b-kind": "recipe", "b-recipe": "champion"})
    page = text(run(client, data))
    assert "Choose what it is asked" in page
    assert "There is no label" in page
    assert not Run.objects.exists()
    assert "Choose an image first" in text(run(client, bench([])))


def test_who_may_look_and_who_may_ask(two_images, talker):
    viewer = signed_in("viewer")
    data = bench(two_images)
    for address in ("show", "run", "change", "keep/a"):
        assert viewer.post(f"/workbench/{address}/", data).status_code == 403
    page = text(viewer.get(f"/workbench/?i={two_images[0].pk}&pane=a&a-adapter=talker"))
    assert "Run all" not in page
    assert not Recipe.objects.exists()  # looking makes nothing


def test_pieces_of_a_pane(client, talker):
    version = asked("Say {{ image.name }}")
    piece = text(client.get(f"/workbench/text/a/?a-prompt={version.pk}", **HTMX))
    assert "Say {{ image.name }}" in piece
    assert "Edit the text" in text(client.get("/workbench/text/a/?drop=1", **HTMX))
    assert "a-rule-max_tags" in text(client.get("/workbench/rules/a/?a-adapter=talker", **HTMX))
    assert client.get("/workbench/text/zz/").status_code == 404
    assert client.get("/workbench/rules/zz/").status_code == 404
