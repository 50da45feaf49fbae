"""The parts of a worker, each by itself: loaded models, owners, signs of life, sweeps, the doorbell, progress."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from tagging import queue
from tagging.actions.recipes import ChannelSpec, get_recipe
from tagging.actions.runs import start_run
from tagging.adapters.base import AdapterConfig, ModelUnavailable
from tagging.engine import heartbeat, leases, residency, stage, vocabulary, worker
from tagging.engine.owners import host, owner_alive, owner_id
from tagging.engine.progress import progress
from tagging.models import Chunk, Collection, ImageAsset, ModelAdapter, Proposal, Run, Worker
from tests.fakes.adapter import Fake


@pytest.fixture(autouse=True)
def _clean():
    for forget in (stage.forget, vocabulary.forget, residency.MODELS.evict):
        forget()
    yield
    residency.MODELS.evict()


@pytest.fixture
def rung(monkeypatch) -> list[tuple[str, str]]:
    """What was put into the queue: (path, cluster)."""
    calls: list[tuple[str, str]] = []

    def push(path: str, *args: object, cluster: str, **options: object) -> None:
        calls.append((path, cluster))

    monkeypatch.setattr("django_q.tasks.async_task", push)
    monkeypatch.setattr(queue, "waiting", lambda name: 0)
    return calls


@pytest.fixture
def run(db, fake, rung) -> Run:
    """40 images in 3 chunks."""
    collection = Collection.objects.create(name="C", slug="c", kind="upload")
    ImageAsset.objects.bulk_create(
        ImageAsset(collection=collection, path=f"{i:03}.jpg", sha256=f"{i:064x}") for i in range(40)
    )
    adapter = ModelAdapter.objects.create(slug="fake", kind="fake", label="Fake")
    return start_run(get_recipe([ChannelSpec(adapter)]), collection=collection)


# -- loaded models -----------------------------------------------------------------------------------------------------
def load(models: residency.Residency, key: str, **options: object) -> residency.Resident:
    return models.get(key, key, lambda: Fake(AdapterConfig(options=options)))


def test_the_least_recently_used_model_goes_when_room_is_needed(fake):
    models = residency.Residency(capacity=2)
    a, b = load(models, "a"), load(models, "b")
    assert load(models, "a") is a  # used again: b is the older now
    c = load(models, "c")
    assert fake.loaded == [a.adapter, c.adapter]
    assert ("a" in models, "b" in models, "c" in models) == (True, False, True)
    assert [m["slug"] for m in models.summary()] == ["a", "c"]
    assert models.summary()[0]["provider"] == "FakeProvider"
    models.evict()
    assert fake.loaded == []
    assert b.load_seconds >= 0


def test_a_model_that_cannot_be_loaded_leaves_nothing_behind(fake):
    models = residency.Residency()
    load(models, "a")
    with pytest.raises(ModelUnavailable, match="no weights"):
        load(models, "b", unavailable="no weights")
    assert "b" not in models
    assert fake.loaded == []  # room had been made


def test_the_loaded_model_is_preferred_for_its_share_of_time_only(fake, monkeypatch):
    models = residency.Residency()
    load(models, "a")
    assert models.preferred() == ["a"]
    later = time.monotonic() + residency.AFFINITY + 1
    monkeypatch.setattr(residency.time, "monotonic", lambda: later)
    assert models.preferred() == []
    models.rest()  # nobody else waited
    assert models.preferred() == ["a"]


# -- owners ------------------------------------------------------------------------------------------------------------
def test_an_owner_is_one_process_of_one_host():
    me = owner_id()
    assert owner_alive(me)
    where, pid, start = me.rsplit("|", 2)
    assert owner_alive(f"elsewhere|{pid}|{start}") is None
    assert owner_alive(f"{where}|{pid}|1") is False  # the number was given again
    assert owner_alive("nonsense") is False


def test_a_process_that_ended_is_not_alive_even_before_it_is_reaped():
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    owner = owner_id(child.pid)
    assert owner_alive(owner)
    assert child.stdin is not None
    child.stdin.close()
    end = time.monotonic() + 20
    while owner_alive(owner) and time.monotonic() < end:
        time.sleep(0.02)
    assert owner_alive(owner) is False
    child.wait()


# -- signs of life -----------------------------------------------------------------------------------------------------
def test_a_worker_writes_who_it_is_and_what_it_has_loaded(db, fake, monkeypatch):
    models = residency.Residency()
    load(models, "fake")
    monkeypatch.setattr(heartbeat, "MODELS", models)
    heart = heartbeat.Heart()
    heart._queue, heart.doing = "gpu", "loading x"
    heart._write(timezone.now())
    heart._write(timezone.now())
    row = Worker.objects.get()
    assert (row.owner, row.queue, row.host, row.pid) == (owner_id(), "gpu", host(), os.getpid())
    assert (row.doing, row.resident[0]["slug"]) == ("loading x", "fake")
    assert Worker.objects.alive().count() == 1


def test_rows_of_the_dead_and_of_the_long_silent_are_removed(db):
    now = timezone.now()
    old = now - timedelta(hours=1)
    for owner, beat in ((owner_id(), now), (f"{host()}|1|0", now), ("far|1|0", now), ("farther|1|0", old)):
        Worker.objects.create(owner=owner, queue="gpu", host="h", pid=1, started_at=old, beat_at=beat)
    assert heartbeat.remove_dead() == 2
    assert set(Worker.objects.values_list("owner", flat=True)) == {owner_id(), "far|1|0"}


def test_the_heart_renews_the_lease_and_notices_its_loss(run):
    chunk = leases.claim("gpu", "me")
    assert chunk
    heart = heartbeat.Heart()
    with heart.holding(chunk, "x"):
        Chunk.objects.filter(pk=chunk.pk).update(lease_until=timezone.now())
        heart._renew()
        assert Chunk.objects.get(pk=chunk.pk).lease_until > timezone.now() + timedelta(seconds=leases.LEASE / 2)
        assert not heart.lost
        Chunk.objects.filter(pk=chunk.pk).update(token=99)
        heart._renew()
        assert heart.lost


def test_a_process_that_hangs_with_a_chunk_in_hand_is_ended(run, monkeypatch):
    killed = []
    monkeypatch.setattr(heartbeat.os, "kill", lambda pid, number: killed.append((pid, number)))
    heart, chunk = heartbeat.Heart(), Chunk.objects.first()
    assert chunk
    late = time.monotonic() + heartbeat.STALL + 1
    heart._check_stall(late)
    assert not killed  # idle is not hanging
    with heart.holding(chunk, "x"):
        heart._check_stall(time.monotonic())
        assert not killed
        heart._check_stall(late)
    assert killed == [(os.getpid(), 9)]


# -- the doorbell and the sweeper --------------------------------------------------------------------------------------
def test_a_task_is_rung_after_the_commit_only(db, rung, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        queue.defer("tagging.tasks.x", 1)
        assert rung == []
    assert rung == [("tagging.tasks.x", "iwtag")]  # the default cluster, whoever calls
    with django_capture_on_commit_callbacks(execute=True), transaction.atomic():
        queue.defer("tagging.tasks.y", 1)
        transaction.set_rollback(True)
    assert len(rung) == 1


def test_a_broker_out_of_reach_does_not_break_the_page(db, monkeypatch, caplog, django_capture_on_commit_callbacks):
    def refuse(*args: object, **options: object) -> None:
        raise ConnectionError("refused")

    monkeypatch.setattr("django_q.tasks.async_task", refuse)
    monkeypatch.setattr("django_q.brokers.get_broker", refuse)
    with django_capture_on_commit_callbacks(execute=True):
        queue.defer("tagging.tasks.x")
        queue.kick("gpu", 3)
    assert "could not be reached" in caplog.text


def test_the_sweeper_rings_where_work_waits_and_nobody_has_rung(run, rung, monkeypatch):
    rung.clear()
    queue.sweep_runs()
    assert rung == [(queue.DRAIN, "gpu")]
    monkeypatch.setattr(queue, "waiting", lambda name: 1)
    queue.sweep_runs()
    assert len(rung) == 1


def test_the_sweeper_frees_what_the_dead_held_and_closes_runs_that_are_done(run, rung):
    Chunk.objects.update(state=Chunk.State.LEASED, owner=f"{host()}|1|0", lease_until=timezone.now() + timedelta(1))
    queue.sweep_runs()
    assert set(Chunk.objects.values_list("state", "owner")) == {(Chunk.State.PENDING, "")}
    Chunk.objects.update(state=Chunk.State.DONE)
    queue.sweep_runs()
    run.refresh_from_db()
    assert (run.state, run.finished_at is not None) == ("done", True)


def test_a_sweep_that_fails_does_not_stop_the_others(monkeypatch, caplog):
    done = []
    monkeypatch.setattr(queue, "_sweeps", [lambda: 1 / 0, lambda: done.append(True)])
    queue.run_sweeps()
    assert done == [True]
    assert "ZeroDivisionError" in caplog.text


# -- progress ----------------------------------------------------------------------------------------------------------
def test_progress_of_many_runs_is_one_query_with_rate_and_time_left(run, django_assert_num_queries):
    other = start_run(run.recipe, collection=run.collection)
    Run.objects.update(started_at=timezone.now())
    first, second, third = Chunk.objects.filter(run=run).order_by("lo")
    now = timezone.now()
    Chunk.objects.filter(pk=first.pk).update(n_ok=14, n_empty=1, n_error=1, n_cached=2, seconds=4, touched_at=now)
    Chunk.objects.filter(pk=second.pk).update(n_ok=4, seconds=1, touched_at=now, state=Chunk.State.LEASED)
    Chunk.objects.filter(pk=third.pk).update(state=Chunk.State.LEASED)
    with django_assert_num_queries(1):
        found = progress([run, other])
    at = found[run.pk]
    assert (at.total, at.ok, at.empty, at.error, at.cached, at.done, at.left) == (40, 18, 1, 1, 2, 20, 20)
    assert at.rate == pytest.approx(8)  # 20 images in 5 s of one worker's time, and two are at it
    assert at.eta_seconds == pytest.approx(2.5)
    assert at.percent == 50
    assert (found[other.pk].done, found[other.pk].rate, found[other.pk].eta_seconds) == (0, None, None)


# -- what is deleted under way -----------------------------------------------------------------------------------------
def test_a_collection_deleted_in_mid_run_ends_the_work_quietly(run, monkeypatch, caplog):
    real = Fake.infer

    def infer(self, batch, request):
        Collection.objects.all().delete()
        return real(self, batch, request)

    monkeypatch.setattr(Fake, "infer", infer)
    assert worker.drain("gpu") is False
    assert not Run.objects.exists()
    assert not Proposal.objects.exists()
    assert "Traceback" not in caplog.text
