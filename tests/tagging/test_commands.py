"""The commands `tag`, `web` and what `up` does before it starts anything."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from django.core.management import CommandError, call_command

from tagging.actions import runs
from tagging.adapters import registry
from tagging.engine import residency, stage, vocabulary, worker
from tagging.engine.progress import Progress
from tagging.management import static_files
from tagging.management.commands import tag, web
from tagging.models import Collection, ImageAsset, ModelAdapter, Proposal, Recipe, Run


@pytest.fixture
def fake(db, monkeypatch):
    for forget in (stage.forget, vocabulary.forget, residency.MODELS.evict):
        forget()
    monkeypatch.setitem(registry.BUILT_IN, "fake", ("Fake", "tests.fakes.adapter:Fake"))
    registry.registered.cache_clear()
    yield ModelAdapter.objects.create(slug="fake", label="Fake", kind="fake")
    residency.MODELS.evict()
    registry.registered.cache_clear()


@pytest.fixture
def trip(db) -> Collection:
    made = Collection.objects.create(name="My trip", slug="trip", kind="upload")
    ImageAsset.objects.bulk_create(
        ImageAsset(collection=made, path=f"{i:03}.jpg", sha256=f"{i:064x}", review_state=state)
        for i, state in enumerate(["unreviewed"] * 6 + ["reviewed"] * 4)
    )
    return made


def waiting(monkeypatch, meanwhile: Callable[[], object]) -> None:
    """Have something done whenever the command sleeps."""
    monkeypatch.setattr(tag, "time", SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: meanwhile()))


@pytest.fixture
def workers(monkeypatch):
    """A worker does its work whenever the command waits."""
    waiting(monkeypatch, lambda: worker.drain("gpu"))


def call(*args: str) -> str:
    out = io.StringIO()
    call_command("tag", *args, stdout=out, stderr=out)
    return out.getvalue()


def test_tag_starts_a_run_of_a_model_and_waits_for_it(fake, trip, workers):
    text = call("--collection", "my trip", "--adapter", "fake", "--wait")
    run = Run.objects.get()
    assert text.splitlines()[0] == f"Run {run.pk} (Fake on My trip): 10 images."
    assert "Done: 10 tagged, 0 without tags, 0 failed" in text
    assert (run.state, run.shown, Proposal.objects.count()) == ("done", True, 10)
    assert "10 known from before" in call("--collection", "trip", "--adapter", "fake", "--wait")


def test_tag_takes_a_recipe_by_number_or_key_and_only_what_nobody_reviewed(fake, trip):
    call("--collection", "trip", "--adapter", "fake")
    recipe = Recipe.objects.get()
    for word in (str(recipe.pk), recipe.key[:10]):
        call("--collection", "trip", "--recipe", word, "--unreviewed", "--hidden", "--priority", "3", "--name", "Again")
        run = Run.objects.latest("pk")
        assert (run.recipe, run.n_total, run.shown, run.priority, run.name) == (recipe, 6, False, 3, "Again")


def test_tag_ends_with_the_reason_when_the_run_fails(fake, trip, workers):
    fake.options = {"unavailable": "Weights are missing. Fetch them."}
    fake.save()
    with pytest.raises(CommandError, match=r"failed: Weights are missing\. Fetch them\."):
        call("--collection", "trip", "--adapter", "fake", "--wait")


def test_tag_says_when_it_was_cancelled(fake, trip, monkeypatch):
    waiting(monkeypatch, lambda: runs.cancel(Run.objects.get()))
    with pytest.raises(CommandError, match="was cancelled"):
        call("--collection", "trip", "--adapter", "fake", "--wait")


def test_tag_refuses_what_is_not_there_and_names_what_is(fake, trip):
    for args, text in (
        (("--collection", "x", "--adapter", "fake"), "There is no collection 'x'; there is 'My trip'."),
        (("--collection", "trip", "--adapter", "x"), "There is no model 'x'; there is fake."),
        (("--collection", "trip", "--recipe", "99"), "There is no recipe 99."),
        (("--collection", "trip", "--recipe", "abc"), "There is no label 'abc'"),
    ):
        with pytest.raises(CommandError) as caught:
            call(*args)
        assert str(caught.value).startswith(text)
    fake.enabled = False
    fake.save()
    with pytest.raises(CommandError, match="Fake is switched off"):
        call("--collection", "trip", "--adapter", "fake")
    trip.images.all().delete()
    fake.enabled = True
    fake.save()
    with pytest.raises(CommandError, match="priority is a number from -1000 to 1000"):
        call("--collection", "trip", "--adapter", "fake", "--priority", "99999999999")
    with pytest.raises(CommandError, match="There is no image to run on"):
        call("--collection", "trip", "--adapter", "fake")
    assert not Run.objects.exists()


def test_progress_is_said_in_a_line():
    run = Run(name="r", state="running")
    at = Progress(total=5000, ok=110, error=10, rate=41.23, eta_seconds=118.0)
    assert tag.progress_text(run, at) == "120 of 5,000 images (2 %), 41.2 a second, about 2 min left, 10 failed"
    run.phase = "loading photo-lite"
    assert tag.progress_text(run, Progress(total=5)) == "loading photo-lite"
    run.state = "paused"
    assert tag.progress_text(run, at) == "paused at 120 of 5,000 images"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (None, ("127.0.0.1", 8000)),
        ("", ("127.0.0.1", 8000)),
        ("81", ("127.0.0.1", 81)),
        ("0.0.0.0:9000", ("0.0.0.0", 9000)),
        ("[::1]:9000", ("::1", 9000)),
        ("photos.local:80", ("photos.local", 80)),
    ],
)
def test_addresses(text, address):
    assert web.parse_address(text) == address


@pytest.mark.parametrize("text", ["x", "1:2:3", "70000", "host:", ":80", "::1", "-1"])
def test_what_is_no_address(text):
    with pytest.raises(CommandError, match="is not an address"):
        web.parse_address(text)


def test_the_shown_address_can_be_opened_here():
    assert web.url("0.0.0.0", 80) == "http://127.0.0.1:80/"
    assert web.url("::", 80) == "http://[::1]:80/"
    assert web.url("photos.local", 80) == "http://photos.local:80/"


def test_static_files_are_collected_only_when_they_changed(settings, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.css").write_text("a")
    settings.STATICFILES_DIRS, settings.STATIC_ROOT = [source], tmp_path / "root"
    settings.STATICFILES_FINDERS = ["django.contrib.staticfiles.finders.FileSystemFinder"]
    assert static_files.collect()
    assert (tmp_path / "root" / "a.css").read_text() == "a"
    assert not static_files.collect()
    (source / "b.css").write_text("b")
    assert static_files.collect()
    assert (tmp_path / "root" / "b.css").exists()
