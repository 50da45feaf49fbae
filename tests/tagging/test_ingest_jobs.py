from __future__ import annotations

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from tagging.actions import ingest
from tagging.ingest import reading, scan
from tagging.models import Collection, ImageAsset, IngestJob
from tests.imaging import files

from .ingesting import counts, folder_fixture, last, paths, run, rung_fixture, write  # noqa: F401

pytestmark = pytest.mark.django_db


# -- wrong input -----------------------------------------------------------------------------------------------------
def test_wrong_input_is_one_line(folder, tmp_path):
    with pytest.raises(CommandError, match=r"There is no folder .*nowhere"):
        run(tmp_path / "nowhere")
    with pytest.raises(CommandError, match="is a file; name the folder"):
        run(folder / "a.jpg")
    with pytest.raises(CommandError, match="--collection: Ensure this value has at most 120 characters"):
        run(folder, name="x" * 121)
    with pytest.raises(CommandError, match="Give the collection a name"):
        run(folder, name="  ")
    assert not Collection.objects.exists()
    run(folder)
    (tmp_path / "other").mkdir()
    with pytest.raises(CommandError, match=r"Collection 'Trip' is the folder .*photos\. Choose another name"):
        run(tmp_path / "other", name="trip")
    ingest.create_collection(name="Box", kind="upload")
    with pytest.raises(CommandError, match="holds uploads"):
        run(folder, name="Box")


def test_create_collection_names_the_field(folder):
    from django.core.exceptions import ValidationError

    ingest.create_collection(name="Trip", root=str(folder))
    for field, given in (
        ("name", {"name": ""}),
        ("name", {"name": "TRIP"}),
        ("name", {"name": "x" * 200}),
        ("kind", {"kind": "cloud"}),
        ("root", {"root": "relative/path"}),
        ("root", {"root": ""}),
        ("root", {"root": "/nul\0"}),
        ("root", {"kind": "upload", "root": "/tmp"}),
        ("excludes", {"excludes": "*.tif"}),
        ("excludes", {"excludes": ["x" * 400]}),
    ):
        with pytest.raises(ValidationError) as error:
            ingest.create_collection(**{"name": "New", "root": str(folder), **given})
        assert field in error.value.message_dict, given
    assert Collection.objects.count() == 1


def test_slugs_are_made_unique(folder):
    slugs = [ingest.create_collection(name=n, root=str(folder)).slug for n in ("Trip!", "Trip?", "図")]
    assert slugs == ["trip", "trip-2", "collection"]


# -- jobs ------------------------------------------------------------------------------------------------------------
def test_a_collection_has_one_open_job(folder, rung):
    collection = ingest.create_collection(name="Trip", root=str(folder))
    job = ingest.start_ingest(collection)
    assert ingest.start_ingest(collection) == job
    assert rung == [("tagging.tasks.ingest", job.pk)] * 2
    assert ingest.run_ingest(job.pk).state == "done"
    assert ingest.start_ingest(collection) != job


def test_the_command_says_who_is_at_work(folder):
    collection = ingest.create_collection(name="Trip", root=str(folder))
    job = ingest.start_ingest(collection)
    hold = {"state": "running", "lease_until": timezone.now() + timedelta(minutes=1)}
    IngestJob.objects.filter(pk=job.pk).update(owner="elsewhere|1|1", **hold)
    with pytest.raises(CommandError, match=r"being indexed already \(job .*elsewhere"):
        run(folder)
    assert ingest.run_ingest(job.pk).seen == 0


def test_a_job_whose_owner_died_is_taken_up_again(folder, rung):
    from tagging.engine.owners import host

    collection = ingest.create_collection(name="Trip", root=str(folder))
    job = ingest.start_ingest(collection)
    hold = {"state": "running", "lease_until": timezone.now() + timedelta(minutes=1)}
    IngestJob.objects.filter(pk=job.pk).update(owner=f"{host()}|999999|1", **hold)
    rung.clear()
    ingest.sweep()
    assert rung == [("tagging.tasks.ingest", job.pk)]
    assert ingest.run_ingest(job.pk).state == "done"
    assert len(paths()) == 3


@pytest.mark.parametrize("seconds", [None, 0.0])
def test_a_kill_in_the_middle_neither_loses_nor_doubles_anything(folder, monkeypatch, seconds):
    for i in range(20):
        write(folder / f"{i}.jpg", files.jpeg(seed=i))
    monkeypatch.setattr(scan, "STORE", 2)
    monkeypatch.setattr(scan, "READING_BATCH", 4)
    job = ingest.start_ingest(ingest.create_collection(name="Trip", root=str(folder)))

    def die(running):
        if ImageAsset.objects.count() >= deaths[0]:
            deaths.pop(0)
            raise KeyboardInterrupt  # as abrupt for the job's row as SIGKILL: nothing more is written

    deaths, died = [3, 9, 9, 13, 99], 0
    while (job := IngestJob.objects.get()).state in IngestJob.OPEN:
        try:
            ingest.run_ingest(job.pk, report=die, seconds=seconds)
        except KeyboardInterrupt:
            died += 1
            IngestJob.objects.update(owner="gone|1|1", lease_until=timezone.now() - timedelta(seconds=1))
    assert (job.state, died) == ("done", 4)
    assert job.seen == 23
    assert len(paths(missing_since=None)) == ImageAsset.objects.count() == 23


def test_the_sweeper_rings_for_a_lost_bell_but_not_each_minute(folder, rung):
    job = ingest.start_ingest(ingest.create_collection(name="Trip", root=str(folder)))
    rung.clear()
    ingest.sweep()
    assert rung == [], "it was rung for just now"
    IngestJob.objects.update(created_at=timezone.now() - timedelta(minutes=3))
    ingest.sweep()
    ingest.sweep()
    assert rung == [("tagging.tasks.ingest", job.pk)]


def test_cancel_is_obeyed_and_keeps_what_was_stored(folder, monkeypatch):
    for i in range(30):
        write(folder / f"{i}.jpg", files.jpeg(seed=i))
    monkeypatch.setattr(scan, "STORE", 4)
    job = ingest.start_ingest(ingest.create_collection(name="Trip", root=str(folder)))

    def report(running):
        if running.added >= 4:
            assert ingest.cancel_ingest(running)

    done = ingest.run_ingest(job.pk, report=report)
    assert done.state == "cancelled"
    assert 4 <= len(paths()) < 33
    assert paths(missing_since__isnull=False) == []
    assert not ingest.cancel_ingest(done)
    assert ingest.run_ingest(ingest.start_ingest(done.collection).pk).state == "done"
    assert len(paths()) == 33


def test_a_worker_that_lost_its_lease_writes_nothing_more(folder):
    job = ingest.start_ingest(ingest.create_collection(name="Trip", root=str(folder)))

    def steal(running):
        IngestJob.objects.filter(pk=running.pk).update(token=99, owner="thief|1|1")

    ingest.run_ingest(job.pk, report=steal)
    job.refresh_from_db()
    assert (job.state, job.owner) == ("running", "thief|1|1")


@pytest.mark.parametrize("batch", [2, 3, 5, 7])
def test_slices_add_up_to_the_whole(folder, monkeypatch, rung, batch):
    """A long ingest is done a token at a time, and counts as if it had been one."""
    monkeypatch.setattr(scan, "BATCH", batch)
    monkeypatch.setattr(scan, "READING_BATCH", batch)
    for i in range(10):
        write(folder / f"{i}.jpg", files.jpeg(seed=i))
        write(folder / "trip" / f"{i}.jpg", files.jpeg(seed=20 + i))
        write(folder / "trip" / f"{i}.txt", b"x")
    job = ingest.start_ingest(ingest.create_collection(name="Trip", root=str(folder)))
    monkeypatch.setattr(ingest, "SLICE", 0.0)
    from tagging import tasks

    slices = 0
    while True:
        rung.clear()
        tasks.ingest(job.pk)
        slices += 1
        if not rung:
            break
        assert slices < 60
    job.refresh_from_db()
    assert slices > 1
    assert job.state == "done"
    assert counts(job) == {"added": 23, "skipped": 10}
    assert job.seen == 23
    assert len(paths(missing_since=None)) == 23


def test_a_failing_storage_fails_the_job_with_its_reason(folder, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device", "/somewhere")

    monkeypatch.setattr(reading.storing, "put", full)
    with pytest.raises(CommandError, match=r"No space left on device \(/somewhere\)"):
        run(folder)
    assert last().state == "failed"
    assert not ImageAsset.objects.exists()


def test_progress_tells_rate_and_time_left():
    from tagging.management.commands.ingest import progress_text

    job = IngestJob(seen=1200, total=5000, rate=50.0, failed=3)
    assert progress_text(job) == "1,200 of 5,000 files, 50 a second, about 76 s left, 3 unreadable"
    assert progress_text(IngestJob(seen=7)) == "7 files"


def test_a_terminal_gets_one_line_rewritten(folder):
    class Terminal(StringIO):
        def isatty(self):
            return True

    out = Terminal()
    call_command("ingest", str(folder), "--collection", "Trip", stdout=out)
    assert "\r\x1b[K" in out.getvalue()
    assert out.getvalue().splitlines()[-1].count("3 added") == 1


def test_a_worker_that_is_asked_to_end_leaves_the_job_at_once(folder, monkeypatch):
    """Ctrl-C must not wait for the slice; the next worker goes on, and nothing is counted twice."""
    monkeypatch.setattr(scan, "READING_BATCH", 2)
    for i in range(12):
        write(folder / f"{i}.jpg", files.jpeg(seed=i))
    job = ingest.start_ingest(ingest.create_collection(name="Trip", root=str(folder)))
    monkeypatch.setattr("tagging.engine.process.stopping", lambda: True)
    for _ in range(3):
        job = ingest.run_ingest(job.pk, seconds=20)
        assert (job.state, job.owner, job.seen) == ("running", "", 2)
    monkeypatch.undo()
    job = ingest.run_ingest(job.pk, seconds=20)
    assert (job.state, job.seen, counts(job)) == ("done", 15, {"added": 15})
