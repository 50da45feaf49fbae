"""What the tests of watches share: a watched folder, the fake model in this process, the passing of time."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from tagging import queue
from tagging.actions import ingest, labels, watch
from tagging.actions.recipes import ChannelSpec, get_recipe
from tagging.adapters import registry
from tagging.engine import residency, stage, vocabulary, worker
from tagging.models import IngestJob, ModelAdapter, Watch
from tests.imaging import files

from .ingesting import write


@pytest.fixture(name="rung", autouse=True)
def rung_fixture(monkeypatch):
    """What was put into the queue."""
    calls = []
    monkeypatch.setattr("tagging.queue.defer", lambda path, *args, **kwargs: calls.append((path, *args)))
    monkeypatch.setattr("tagging.queue.kick", lambda name, n=1: calls.append(("drain", name)))
    return calls


@pytest.fixture(name="fake")
def fake_fixture(db, monkeypatch):
    for forget in (stage.forget, vocabulary.forget, residency.MODELS.evict):
        forget()
    monkeypatch.setattr("tagging.engine.work.FLUSH", 0.0)
    monkeypatch.setitem(registry.BUILT_IN, "fake", ("Fake", "tests.fakes.adapter:Fake"))
    registry.registered.cache_clear()
    yield ModelAdapter.objects.create(slug="fake", label="Fake", kind="fake")
    residency.MODELS.evict()
    registry.registered.cache_clear()


@pytest.fixture(name="champion")
def champion_fixture(fake):
    recipe = get_recipe([ChannelSpec(fake)], name="Fake")
    labels.move_label("champion", recipe, why="the first")
    return recipe


@pytest.fixture(name="trip")
def trip_fixture(db, tmp_path):
    root = tmp_path / "photos"
    write(root / "a.jpg", files.jpeg(seed=1))
    return ingest.create_collection(name="Trip", root=str(root))


@pytest.fixture(name="later")
def later_fixture(monkeypatch):
    """Let seconds pass, for the settle time and for what is due."""
    real, passed = time.time_ns, [0.0]

    def go(seconds: float) -> None:
        passed[0] += seconds
        for one in Watch.objects.exclude(last_looked_at=None):
            Watch.objects.filter(pk=one.pk).update(last_looked_at=one.last_looked_at - timedelta(seconds=seconds))

    monkeypatch.setattr("tagging.ingest.scan.time.time_ns", lambda: real() + int(passed[0] * 1e9))
    return go


def minute() -> None:
    """What happens in a minute: the sweeper comes, and the workers do what waits."""
    queue.run_sweeps()
    work()


def work() -> None:
    for job in IngestJob.objects.filter(state__in=IngestJob.OPEN):
        ingest.run_ingest(job.pk)
    for _ in range(20):
        if not worker.drain("gpu"):
            return


def state(collection, step):
    return watch.watch_of(collection).result(step)
