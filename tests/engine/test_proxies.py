"""A run that reads the proxies made at indexing: its own answers, near the originals', and what happens without one."""

from __future__ import annotations

import shutil

import pytest
from django.core.exceptions import ValidationError
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command
from django.urls import reverse

from tagging.actions.ingest import create_collection, run_ingest, start_ingest
from tagging.actions.recipes import ChannelSpec, get_recipe
from tagging.actions.runs import start_run
from tagging.engine import residency, worker
from tagging.engine.stage import forget
from tagging.imaging.thumbnails import PROXY
from tagging.models import ImageAsset, ModelAdapter, Prediction, Proposal, Run

pytestmark = pytest.mark.django_db
NAMES = ("cat-face.jpg", "spaniels-at-the-window.jpg", "coffee-cutout.png", "honey-bee.jpg")


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr("tagging.queue.kick", lambda queue, n=1: None)
    yield
    residency.MODELS.evict()
    forget()


@pytest.fixture
def lite():
    return ModelAdapter.objects.create(slug="lite", label="Lite", kind="photo-lite")


@pytest.fixture
def collection(tmp_path, samples):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name in NAMES:
        shutil.copy(samples / name, folder)
    made = create_collection(name="Trip", root=str(folder))
    run_ingest(start_ingest(made, ring=False).pk)
    assert made.images.count() == len(NAMES)
    return made


def run(lite, collection, read):
    made = start_run(get_recipe([ChannelSpec(lite, read=read)]), collection=collection)
    while worker.drain("gpu"):
        pass
    made.refresh_from_db()
    assert made.state == Run.State.DONE
    return made


def kept(run, name) -> dict[str, float]:
    proposal = Proposal.objects.get(run=run, image__path=name)
    return {tag[0]: tag[2] for tag in proposal.tags if tag[3] == "kept"}


def test_proxies_give_nearly_the_same_answers_of_their_own(lite, collection):
    first, second = run(lite, collection, "original"), run(lite, collection, "proxy")
    assert first.recipe != second.recipe
    assert set(Prediction.objects.filter(run=first).values_list("source", flat=True)) == {"original"}
    assert set(Prediction.objects.filter(run=second).values_list("source", flat=True)) == {"proxy"}
    for name in NAMES:
        originals, proxies = kept(first, name), kept(second, name)
        for tag in originals.keys() & proxies.keys():
            assert proxies[tag] == pytest.approx(originals[tag], abs=0.2 if "cutout" in name else 0.1)
        sure = {tag for tag, score in originals.items() if score > 0.45}
        assert sure <= proxies.keys()
    assert not Proposal.objects.filter(run=second).exclude(flags=[]).exists()


def test_the_original_is_not_opened(lite, collection, tmp_path):
    shutil.rmtree(tmp_path / "photographs")
    made = run(lite, collection, "proxy")
    assert Proposal.objects.filter(run=made, state="ok").count() == len(NAMES)


def test_without_a_proxy_the_original_is_read_and_told(lite, collection):
    image = ImageAsset.objects.get(path="cat-face.jpg")
    default_storage.delete(image.thumbnail_name(PROXY))
    made = run(lite, collection, "proxy")
    assert Prediction.objects.get(run=made, image_sha256=image.sha256).source == "original"
    assert Proposal.objects.get(run=made, image=image).flags == ["original_read"]
    assert Proposal.objects.filter(run=made, flags=[]).count() == len(NAMES) - 1
    # what was read from the original is the original's answer: nothing runs twice, and the flag is told again
    before = Prediction.objects.count()
    run(lite, collection, "original")
    assert Prediction.objects.count() == before + len(NAMES) - 1
    again = start_run(get_recipe([ChannelSpec(lite, options={"general_threshold": 0.31}, read="proxy")]),
                      collection=collection)  # fmt: skip
    while worker.drain("gpu"):
        pass
    assert Proposal.objects.get(run=again, image=image).flags == ["original_read"]


def test_the_model_is_loaded_once_for_both(lite, collection, monkeypatch):
    from tagging.adapters.photo_lite import PhotoLite

    loaded, load = [], PhotoLite.load
    monkeypatch.setattr(PhotoLite, "load", lambda self: (loaded.append(self._model is None), load(self)))
    run(lite, collection, "original")
    run(lite, collection, "proxy")
    assert loaded.count(True) == 1


def test_other_pixels_are_refused(lite):
    with pytest.raises(ValidationError, match="thumbnail"):
        get_recipe([ChannelSpec(lite, read="thumbnail")])


def test_reading_originals_is_the_recipe_that_was_there_before(lite):
    recipe = get_recipe([ChannelSpec(lite)])
    assert get_recipe([ChannelSpec(lite, read="original")]) == recipe
    assert "read" not in recipe.channels.get().adapter_config


def test_the_command(lite, collection, capsys):
    call_command("tag", collection="Trip", adapter="lite", read="proxy")
    assert Run.objects.get().recipe.channels.get().read == "proxy"
    with pytest.raises(CommandError, match="--read goes with --adapter"):
        call_command("tag", collection="Trip", recipe="1", read="proxy")


def test_the_api_and_the_form(client, collection, lite):
    from tests.tagging.world import keyed, person

    curator = person("cy", "curator")
    body = {"collection": "trip", "adapter": "lite", "read": "proxy"}
    made = keyed(curator).post("/api/runs", body, content_type="application/json")
    assert made.status_code == 201, made.content
    assert Run.objects.get().recipe.channels.get().read == "proxy"
    wrong = keyed(curator).post("/api/runs", {**body, "read": "thumb"}, content_type="application/json")
    assert wrong.status_code == 422
    client.force_login(curator)
    page = client.get(reverse("tagging:run_new") + "?collection=trip&adapter=lite&read=proxy").content.decode()
    assert 'name="read"' in page
    assert '<option value="proxy" selected>' in page
