"""Presets of options: saved, applied, renamed and deleted in the form, by the API and in the administration."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.http import QueryDict
from django.test import Client

from prompts.actions import create_prompt, create_version
from tagging.actions import presets
from tagging.adapters import registry
from tagging.models import Collection, ModelAdapter, OptionPreset, Run
from tagging.views.channelform import ChannelForm

from .pages import collection, images, person, photo_lite, signed_in
from .world import keyed

pytestmark = pytest.mark.django_db


@pytest.fixture
def model() -> ModelAdapter:
    return photo_lite()


@pytest.fixture
def wd() -> ModelAdapter:
    return ModelAdapter.objects.create(slug="wd", label="WD", kind="wd", source="/nowhere", options={})


@pytest.fixture
def holiday() -> Collection:
    found = collection()
    images(found, 3)
    return found


def field(html: str, name: str) -> str:
    found = re.search(rf'<div class="field[^>]*data-field="{name}".*?(?=<div class="field[ "]|\Z)', html, re.DOTALL)
    assert found, f"no field {name}"
    return found[0]


def value_of(html: str, name: str) -> str:
    found = re.search(rf'name="options-{name}" value="([^"]*)"', html)
    assert found, f"no input {name}"
    return found[1]


def sent(adapter: str = "photo-lite", **values: str) -> dict[str, str]:
    return {"adapter": adapter, "options_for": adapter, **values}


# -- in the form -------------------------------------------------------------------------------------------------------
def test_save_apply_rename_delete_in_the_form(model):
    client = signed_in("curator")
    html = client.post(
        "/channels/presets/save/", sent(**{"options-general_threshold": "0.55", "preset_name": "  strict   one "})
    ).content.decode()
    saved = OptionPreset.objects.get()
    assert (saved.name, saved.kind, saved.shared) == ("strict one", "photo-lite", False)
    assert saved.owner.username == "curator"
    assert saved.values["general_threshold"] == 0.55
    assert "Saved “strict one”" in html
    assert f'<option value="{saved.pk}" selected>strict one' in html
    assert value_of(html, "general_threshold") == "0.55"

    html = client.get("/channels/form/", sent(preset=str(saved.pk))).content.decode()
    assert value_of(html, "general_threshold") == "0.55"
    assert "instead of 0.3" in field(html, "general_threshold")
    assert "data-changed" in field(html, "general_threshold").split(">")[0]

    html = client.post(
        "/channels/presets/change/", sent(preset=str(saved.pk), preset_name="stricter", preset_shared="on")
    ).content.decode()
    saved.refresh_from_db()
    assert (saved.name, saved.shared) == ("stricter", True)
    assert "Now called “stricter”" in html

    html = client.post(
        "/channels/presets/delete/", sent(preset=str(saved.pk), **{"options-general_threshold": "0.7"})
    ).content.decode()
    assert not OptionPreset.objects.exists()
    assert value_of(html, "general_threshold") == "0.7"  # what is typed stays


def test_saving_again_replaces_ones_own_and_renaming_keeps_what_is_typed(model):
    client = signed_in("curator")
    for value in ("0.5", "0.6"):
        client.post("/channels/presets/save/", sent(**{"options-general_threshold": value, "preset_name": "a"}))
    saved = OptionPreset.objects.get()
    assert saved.values["general_threshold"] == 0.6
    html = client.post(
        "/channels/presets/change/", sent(preset=str(saved.pk), preset_name="b", **{"options-general_threshold": "0.9"})
    ).content.decode()
    assert value_of(html, "general_threshold") == "0.9"
    saved.refresh_from_db()
    assert saved.values["general_threshold"] == 0.6


def test_what_cannot_be_saved_is_said_beside_the_field(model):
    client = signed_in("curator")
    html = client.post("/channels/presets/save/", sent(preset_name=" ")).content.decode()
    assert "Give the preset a name" in html
    html = client.post(
        "/channels/presets/save/", sent(preset_name="x", **{"options-general_threshold": "7"})
    ).content.decode()
    assert "Not saved" in html
    assert "At most 1" in field(html, "general_threshold")
    assert not OptionPreset.objects.exists()


def test_a_preset_of_another_model_is_not_carried_over_but_typed_values_are(model, wd):
    by = person("curator", "c")
    preset = presets.save_preset("p", kind="photo-lite", values={"general_threshold": 0.55}, owner=by)
    data = QueryDict(mutable=True)
    data.update(sent("wd", preset=str(preset.pk), **{"options-score_floor": "0.11"}))
    data["options_for"] = "photo-lite"
    form = ChannelForm(data, swapped=True, by=by)
    assert form.preset is None
    assert form.options is not None
    assert form.options["score_floor"].value == "0.11"


def test_values_that_no_longer_apply_are_left_out_and_named(model):
    by = person("curator", "c")
    preset = OptionPreset.objects.create(
        name="old", kind="photo-lite", owner=by, values={"general_threshold": 0.5, "gone": 1, "score_floor": 9}
    )
    client = Client()
    client.force_login(by)
    html = client.get("/channels/form/", sent(preset=str(preset.pk))).content.decode()
    assert value_of(html, "general_threshold") == "0.5"
    assert "does not take it: gone, score_floor." in html


def test_options_that_differ_from_the_models_own_are_marked_and_can_be_told_apart(model):
    model.options = {"general_threshold": 0.4}
    model.save()
    html = signed_in("curator").get("/channels/form/", {"adapter": "photo-lite"}).content.decode()
    assert "data-changed" not in field(html, "general_threshold").split(">")[0]
    assert "default: 0.4, set for this model" in field(html, "general_threshold")


def test_other_people_see_shared_presets_only_and_change_none(model):
    mine = presets.save_preset("mine", kind="photo-lite", values={}, owner=person("curator", "a"))
    theirs = signed_in("curator", "b")
    assert "mine" not in theirs.get("/channels/form/", {"adapter": "photo-lite"}).content.decode()
    assert theirs.post("/channels/presets/delete/", sent(preset=str(mine.pk))).status_code == 404
    mine.shared = True
    mine.save()
    assert "mine (a)" in theirs.get("/channels/form/", {"adapter": "photo-lite"}).content.decode()
    assert theirs.post("/channels/presets/delete/", sent(preset=str(mine.pk))).status_code == 403
    assert signed_in("administrator").post("/channels/presets/delete/", sent(preset=str(mine.pk))).status_code == 200


@pytest.mark.parametrize("role", ["", "viewer", "reviewer"])
def test_only_curators(model, role):
    client = signed_in(role)
    assert client.post("/channels/presets/save/", sent(preset_name="x")).status_code == 403
    assert client.get("/channels/presets/save/").status_code == 403


def test_odd_requests(model):
    client = signed_in("curator")
    assert client.post("/channels/presets/explode/", sent()).status_code == 404
    assert client.post("/channels/presets/save/", sent("gone", preset_name="x")).status_code == 404
    assert client.get("/channels/form/?prefix=%22%3E&adapter=photo-lite").status_code == 404
    assert client.get("/channels/presets/save/").status_code == 405


def test_a_prefix_lets_several_channels_live_on_one_page(model, wd):
    data = QueryDict(mutable=True)
    data.update({"a-adapter": "photo-lite", "a-options-general_threshold": "0.5"})
    data.update({"b-adapter": "wd", "b-options-general_threshold": "0.25"})
    first, second = (ChannelForm(data, prefix=p, bound=True) for p in ("a-", "b-"))
    assert first.is_valid(), first.errors
    assert second.is_valid(), second.errors
    assert first.spec().options["general_threshold"] == 0.5
    assert second.spec().adapter == wd
    html = signed_in("curator").get("/channels/form/?prefix=b-&b-adapter=wd").content.decode()
    assert 'id="b-options"' in html
    assert 'name="b-options-general_threshold"' in html


@pytest.fixture
def talker(monkeypatch):
    monkeypatch.setitem(registry.BUILT_IN, "fake-talker", ("Fake talker", "tests.fakes.adapter:Talker"))
    registry.registered.cache_clear()
    yield ModelAdapter.objects.create(slug="talker", label="Talker", kind="fake-talker")
    registry.registered.cache_clear()


def test_a_preset_leaves_the_prompts_of_the_builder_as_they_were(talker):
    for task in ("tags", "judge"):
        create_version(create_prompt(slug=f"for-{task}", task=task), template="Say.", message="first")
    client = signed_in("curator")
    form = {"c0-adapter": "talker", "c0-options_for": "talker", "c0-preset_name": "mine"}

    def post(verb: str, address: str) -> tuple[str, str]:
        """The piece, and the address that its own button posts to next."""
        html = client.post(address, form).content.decode()
        assert "for-tags" in html
        assert "for-judge" not in html
        found = re.search(rf'hx-post="([^"]*/presets/{verb}/[^"]*)"', html)
        assert found
        return html, found[1].replace("&amp;", "&")

    html = client.get("/channels/form/?prefix=c0-&tasks=tags&c0-adapter=talker").content.decode()
    save = re.search(r'hx-post="([^"]*/presets/save/[^"]*)"', html)
    assert save
    html, change = post("change", save[1].replace("&amp;", "&"))
    form["c0-preset"] = str(OptionPreset.objects.get().pk)
    form["c0-preset_name"] = "ours"
    html, delete = post("delete", change)
    assert "Now called" in html
    post("save", delete)
    assert not OptionPreset.objects.exists()


def test_a_preset_never_changes_which_model_is_asked_or_how_it_is_loaded(model):
    by = person("curator", "c")
    values = {"model": "other", "temperature": 0.7, "price_in": 3.0}
    kept = presets.save_preset("warm", kind="openai", values=values, owner=by).values
    assert kept == {"temperature": 0.7}
    vlm = registry.adapter_class("vlm")
    everything = dict.fromkeys(vlm.Options.model_fields)
    assert "trust_remote_code" not in presets.kept_values(vlm, everything)
    assert not set(presets.kept_values(vlm, everything)) & vlm.load_options
    server = ModelAdapter.objects.create(
        slug="server", label="Server", kind="openai", source="http://127.0.0.1:9/v1", options={"model": "mine"}
    )
    old = OptionPreset.objects.create(name="old", kind="openai", owner=by, values={"model": "other", "seed": 4})
    assert presets.apply_preset(server, old) == {"seed": 4}


# -- by the API --------------------------------------------------------------------------------------------------------
def test_the_api_saves_lists_changes_deletes_and_uses(model, wd, holiday):
    curator = person("curator", "c")
    client = keyed(curator)
    made = client.post(
        "/api/presets",
        {"name": "strict", "adapter": "photo-lite", "values": {"general_threshold": 0.8}},
        content_type="application/json",
    )
    assert made.status_code == 201, made.content
    preset = made.json()
    assert preset["values"] == {"general_threshold": 0.8}
    assert (preset["kind"], preset["adapter"], preset["owner"]) == ("photo-lite", "photo-lite", "c")
    again = client.post(
        "/api/presets", {"name": "strict", "kind": "photo-lite", "values": {}}, content_type="application/json"
    )
    assert (again.status_code, again.json()["field"]) == (422, "name")
    wrong = client.post(
        "/api/presets",
        {"name": "w", "kind": "photo-lite", "values": {"general_threshold": 2}},
        content_type="application/json",
    )
    assert (wrong.status_code, wrong.json()["field"]) == (422, "values")
    assert "general_threshold" in wrong.json()["detail"]
    assert [p["name"] for p in client.get("/api/presets?adapter=photo-lite").json()["items"]] == ["strict"]
    assert client.get("/api/presets?kind=wd").json()["items"] == []

    run = client.post(
        "/api/runs",
        {"collection": "holiday", "adapter": "photo-lite", "preset": preset["id"], "options": {"score_floor": 0.1}},
        content_type="application/json",
    )
    assert run.status_code == 201, run.content
    options = Run.objects.get().recipe.channels.get().options
    assert (options["general_threshold"], options["score_floor"]) == (0.8, 0.1)
    wrong = client.post(
        "/api/runs",
        {"collection": "holiday", "adapter": "wd", "preset": preset["id"]},
        content_type="application/json",
    )
    assert (wrong.status_code, wrong.json()["field"]) == (422, "preset")

    url = f"/api/presets/{preset['id']}"
    other = keyed(person("curator", "d"))
    assert other.get(url).status_code == 404
    changed = client.patch(url, {"name": "s2", "shared": True}, content_type="application/json").json()
    assert (changed["name"], changed["shared"], changed["values"]) == ("s2", True, {"general_threshold": 0.8})
    assert other.get(url).status_code == 200
    assert other.delete(url).status_code == 403
    viewer = keyed(person("viewer", "v"), ("read",))
    wanted = {"name": "x", "kind": "photo-lite", "values": {}}
    assert viewer.post("/api/presets", wanted, content_type="application/json").status_code == 403
    assert client.delete(url).status_code == 204
    assert client.get(url).status_code == 404


def test_the_values_of_a_broken_preset_are_refused_by_name(model):
    preset = OptionPreset(name="old", kind="photo-lite", values={"gone": 1})
    with pytest.raises(ValidationError) as refused:
        presets.apply_preset(model, preset)
    assert "gone" in str(refused.value)


# -- in the administration ---------------------------------------------------------------------------------------------
def test_the_admin_lists_renames_and_deletes(model):
    owner = person("curator", "c")
    preset = presets.save_preset("a", kind="photo-lite", values={"general_threshold": 0.5}, owner=owner)
    client = signed_in("administrator")
    User.objects.filter(username="administrator").update(is_staff=True)
    url = f"/admin/tagging/optionpreset/{preset.pk}/change/"
    page = client.get(url).content.decode()
    assert "Threshold" in page
    done = client.post(url, {"name": "b", "owner": preset.owner_id, "shared": "on"})
    assert done.status_code == 302
    preset.refresh_from_db()
    assert (preset.name, preset.shared, preset.values) == ("b", True, {"general_threshold": 0.5})
    assert client.post(f"/admin/tagging/optionpreset/{preset.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not OptionPreset.objects.exists()
