"""Models that answer many images at once: results come as they are ready, in any order, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from tagging.actions.recipes import ChannelSpec, get_recipe
from tagging.actions.runs import pause, resume, start_run
from tagging.adapters import registry
from tagging.adapters.base import AdapterError, Capabilities, ModelUnavailable
from tagging.engine import process, residency, work, worker
from tagging.models import Collection, ImageAsset, ModelAdapter, Proposal, Run
from tests.fakes.adapter import Fake, answer

pytestmark = pytest.mark.django_db


class Streaming(Fake):
    """Answers four at a time, the last first; what each test sets up happens at the image it names."""

    key = "streaming"
    streams = True
    capabilities = Capabilities(outputs=frozenset({"tags"}), scores=True, queue="io")
    happenings: dict[str, Any] = {}

    @property
    def batch_size(self) -> int:
        return 4

    def infer_stream(self, items, request) -> Iterator[Any]:
        try:
            while True:
                held = [item for _, item in zip(range(4), items)]  # noqa: B905 - in this order no fifth is taken
                if not held:
                    return
                yield None
                for handle, name in reversed(held):
                    happening = self.happenings.get(name)
                    if isinstance(happening, Exception) and not isinstance(happening, AdapterError):
                        raise happening
                    if isinstance(happening, ModelUnavailable):
                        raise happening
                    if callable(happening):
                        happening()
                    yield handle, happening if isinstance(happening, AdapterError) else answer(name, request.options)
        finally:
            self.happenings["closed"] = True


@pytest.fixture
def happenings(monkeypatch):
    monkeypatch.setitem(registry.BUILT_IN, "streaming", ("Streaming", "tests.engine.test_stream:Streaming"))
    monkeypatch.setattr(work, "FLUSH", 0.0)
    monkeypatch.setattr(work, "LOOK", 0.0)
    registry.registered.cache_clear()
    Streaming.happenings = {}
    yield Streaming.happenings
    registry.registered.cache_clear()
    residency.MODELS.evict()
    process.take_back_stop()


@pytest.fixture
def run(happenings):
    made = Collection.objects.create(name="Trip", slug="trip", kind="upload")
    ImageAsset.objects.bulk_create(
        [ImageAsset(collection=made, path=f"{i:03}.jpg", sha256=f"{i:064x}") for i in range(30)]
    )
    for i in range(30):
        default_storage.save(f"{made.upload_prefix}/{i:03}.jpg", ContentFile(b""))
    row = ModelAdapter.objects.create(slug="streaming", label="Streaming", kind="streaming")
    return start_run(get_recipe([ChannelSpec(row, options={"bad": ["013.jpg"]})]), collection=made)


def states(run: Run) -> dict[str, str]:
    return dict(Proposal.objects.filter(run=run).values_list("image__path", "state"))


def test_every_image_gets_its_own_answer_though_they_come_in_another_order(run, happenings):
    happenings["007.jpg"] = AdapterError("007.jpg is refused")
    assert not worker.drain("io")
    run.refresh_from_db()
    assert run.state == "done"
    found = states(run)
    assert len(found) == 30
    assert {path for path, state in found.items() if state != "ok"} == {"007.jpg", "013.jpg"}
    refused = Proposal.objects.get(run=run, image__path="007.jpg")
    assert refused.error == "007.jpg is refused"
    for proposal in Proposal.objects.filter(run=run, state="ok").select_related("image"):
        kept = [name for name, _, _, state, *_ in proposal.tags if state == "kept"]
        expected = answer(proposal.image.path, Streaming.Options())
        assert kept == [f"label {i}" for i in expected.scores.labels[:5].tolist()]


def test_it_is_one_chunk_because_each_end_of_a_chunk_waits_for_the_slowest(run):
    assert run.chunks.count() == 1


def test_a_pause_stops_the_asking_and_keeps_what_was_asked(run, happenings):
    happenings["010.jpg"] = lambda: pause(run)
    worker.drain("io")
    run.refresh_from_db()
    assert run.state == "paused"
    done = len(states(run))
    assert 4 <= done <= 13
    assert happenings["closed"]
    happenings.clear()
    resume(run)
    worker.drain("io")
    run.refresh_from_db()
    assert (run.state, len(states(run))) == ("done", 30)


def test_a_stop_leaves_what_is_in_flight_to_the_next_worker(run, happenings):
    happenings["010.jpg"] = process.request_stop
    worker.drain("io")
    process.take_back_stop()
    done = len(states(run))
    assert 1 <= done < 13
    assert happenings["closed"]
    worker.drain("io")
    run.refresh_from_db()
    assert (run.state, len(states(run))) == ("done", 30)


def test_a_model_that_cannot_answer_at_all_fails_the_run_and_keeps_what_it_has(run, happenings):
    happenings["020.jpg"] = ModelUnavailable("The key was refused: set another.")
    worker.drain("io")
    run.refresh_from_db()
    assert (run.state, run.error) == ("failed", "The key was refused: set another.")
    assert len(states(run)) >= 17


def test_where_a_stream_breaks_the_rest_is_asked_one_by_one(run, happenings):
    happenings["005.jpg"] = RuntimeError("a bug")
    assert not worker.drain("io")
    run.refresh_from_db()
    found = states(run)
    assert (run.state, len(found), found["005.jpg"]) == ("done", 30, "ok")
