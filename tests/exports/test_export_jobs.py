from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.exceptions import ValidationError
from django.core.files.storage import default_storage
from django.utils import timezone

from exports import actions, tasks
from exports.actions import cancel_export, create_export, delete_export, run_export, sweep
from exports.exporters import csv as csv_module
from exports.exporters.base import ExportError
from exports.models import ExportJob
from tagging import queue
from tagging.engine.owners import owner_id

from .truth import State, collection, exported, image, run_of, table

pytestmark = pytest.mark.django_db


@pytest.fixture
def rung(monkeypatch):
    """What the doorbell was rung for."""
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(queue, "defer", lambda path, *args, cluster=None: calls.append((path, *args)))
    return calls


@pytest.fixture
def holiday():
    c = collection()
    run = run_of(c)
    for i in range(3):
        image(c, f"{i}.jpg", [("cat", State.ACCEPTED, 0.9)], run=run)
    return c


def unfinished() -> list[Path]:
    folder = Path(default_storage.path("exports/unfinished"))
    return list(folder.iterdir()) if folder.exists() else []


def test_a_job_writes_its_file(holiday, rung, admin_user):
    job = create_export(holiday, "csv", {"layout": "long"}, {"tag": ["cat"]}, by=admin_user)
    assert rung == [("exports.tasks.export", job.pk)]
    assert (job.state, job.created_by, job.filter) == ("queued", admin_user, {"tag": ["cat"]})

    tasks.export(job.pk)

    job.refresh_from_db()
    assert (job.state, job.n_rows, job.n_total, job.owner) == ("done", 3, 3, "")
    assert job.finished_at
    data = default_storage.open(job.file).read()
    assert data == exported(holiday, layout="long")
    assert (job.size, job.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert job.file.endswith("/holiday.csv")
    assert unfinished() == []


def test_a_second_ring_does_nothing(holiday, rung):
    job = create_export(holiday, "csv")
    first = run_export(job.pk)
    again = run_export(job.pk)
    assert (again.file, again.token, again.finished_at) == (first.file, first.token, first.finished_at)


def test_nothing_is_made_for_wrong_input(holiday, rung):
    with pytest.raises(ValidationError):
        create_export(holiday, "csv", {"layout": "tall"})
    assert not ExportJob.objects.exists()
    assert rung == []


def test_a_job_that_cannot_be_written_says_why(holiday, rung, monkeypatch):
    def broken(self):
        yield b"half"
        raise ExportError("The disk of the moon is away.")

    monkeypatch.setattr(csv_module.CsvExporter, "stream", broken)
    job = run_export(create_export(holiday, "csv").pk)
    assert (job.state, job.error, job.file) == ("failed", "The disk of the moon is away.", "")
    assert unfinished() == []


def test_a_full_disk_is_a_readable_failure(holiday, rung, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(actions, "_publish", full)
    job = run_export(create_export(holiday, "csv").pk)
    assert job.state == "failed"
    assert "No space left on device" in job.error


def test_an_unexpected_error_is_stored_not_raised(holiday, rung, monkeypatch):
    monkeypatch.setattr(csv_module.CsvExporter, "stream", lambda self: iter([1 / 0]))
    job = run_export(create_export(holiday, "csv").pk)
    assert job.state == "failed"
    assert "ZeroDivisionError" in job.error


def test_a_cancelled_job_writes_nothing(holiday, rung):
    job = create_export(holiday, "csv")
    assert cancel_export(job)
    run_export(job.pk)
    job.refresh_from_db()
    assert (job.state, job.file) == ("cancelled", "")
    assert not cancel_export(job)


def test_cancelling_in_mid_stream_leaves_no_file(holiday, rung, monkeypatch):
    stream = csv_module.CsvExporter.stream

    def cancelled_meanwhile(self):
        yield from stream(self)
        cancel_export(ExportJob.objects.get())

    monkeypatch.setattr(csv_module.CsvExporter, "stream", cancelled_meanwhile)
    job = run_export(create_export(holiday, "csv").pk)
    assert (job.state, job.file) == ("cancelled", "")
    assert unfinished() == []
    assert not list(Path(default_storage.path("exports")).glob("*/*.csv"))


def test_who_lost_the_job_cannot_finish_it(holiday, rung, monkeypatch):
    """Taken over while the file was being published: the old owner's file goes away."""
    publish = actions._publish

    def overtaken(temporary, name):
        found = publish(temporary, name)
        ExportJob.objects.update(token=99)
        return found

    monkeypatch.setattr(actions, "_publish", overtaken)
    job = run_export(create_export(holiday, "csv").pk)
    assert (job.state, job.file, job.token) == ("running", "", 99)
    assert not list(Path(default_storage.path("exports")).glob("*/*.csv"))


def test_a_job_whose_owner_died_starts_anew(holiday, rung):
    job = create_export(holiday, "csv")
    rung.clear()
    dead = owner_id().rsplit("|", 2)[0] + "|999999|1"
    later = timezone.now() + timedelta(minutes=1)
    ExportJob.objects.update(state="running", owner=dead, token=5, lease_until=later, n_rows=2)
    left = Path(default_storage.path(f"exports/unfinished/iwtag-export-{job.pk}-x"))
    left.mkdir(parents=True)
    (left / "export").write_bytes(b"half")

    sweep()

    job.refresh_from_db()
    assert (job.state, job.owner, job.n_rows) == ("queued", "", 0)
    assert rung == [("exports.tasks.export", job.pk)]
    job = run_export(job.pk)
    assert job.state == "done"
    assert len(table(default_storage.open(job.file).read())) == 3
    assert unfinished() == []


def test_a_job_that_is_being_written_is_left_alone(holiday, rung):
    job = create_export(holiday, "csv")
    rung.clear()
    ExportJob.objects.update(
        state="running", owner=owner_id(), token=5, lease_until=timezone.now() + timedelta(minutes=1)
    )
    sweep()
    run_export(job.pk)
    job.refresh_from_db()
    assert (job.state, job.token) == ("running", 5)
    assert rung == []


def test_a_lost_doorbell_is_rung_again_but_not_each_minute(holiday, rung):
    job = create_export(holiday, "csv")
    rung.clear()
    sweep()
    assert rung == []
    ExportJob.objects.update(created_at=timezone.now() - timedelta(minutes=2))
    sweep()
    sweep()
    assert rung == [("exports.tasks.export", job.pk)]
    assert run_export(job.pk).state == "done"


def test_deleting_takes_the_file_along(holiday, rung):
    job = run_export(create_export(holiday, "csv").pk)
    name = job.file
    delete_export(job)
    assert not default_storage.exists(name)
    assert not ExportJob.objects.exists()


def test_a_task_for_a_deleted_job_is_harmless():
    tasks.export(4711)
