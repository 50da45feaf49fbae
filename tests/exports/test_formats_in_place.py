"""Texts beside the images: planned, never over another's text, written and undone through the ledger."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command

from exports import in_place, ledger, undoing
from exports.actions import run_export
from exports.exporters.base import ExportError
from exports.models import ExportEntry, ExportJob
from tagging import queue

from .formats import add_file, on_disk
from .truth import State, collection, image, tag

pytestmark = pytest.mark.django_db
CAT = ("cat", State.ACCEPTED, 0.9)


@pytest.fixture
def disk(tmp_path):
    return on_disk(tmp_path, a_jpg=[CAT], sub__b_png=[CAT])


def planner(c, format="txt_in_place", **options):
    return in_place.get_exporter(c, format, {"template": "{tags}"} | options if "txt" in format else options)


def planned(c, format="txt_in_place", **options) -> list[ExportEntry]:
    """The entries of a plan, saved with a job."""
    plan = planner(c, format, **options)
    entries = [entry for page in plan.entries() for entry in page]
    job = ExportJob.objects.create(collection=c, format=format)
    for entry in entries:
        entry.job = job
        entry.save()
    return entries


def said(entries: list[ExportEntry], c) -> dict[str, tuple[str, str]]:
    return {str(Path(e.target).relative_to(c.root)): (e.action, e.state) for e in entries}


def write(c, **options) -> list[ExportEntry]:
    entries = planned(c, **options)
    ledger.apply(entries, fsync=False)
    return entries


def test_a_plan_writes_nothing_and_shows_each_text(disk, tmp_path):
    entries = planned(disk)
    assert said(entries, disk) == {"a.txt": ("create", "planned"), "sub/b.txt": ("create", "planned")}
    assert entries[0].fields == {"text": {"before": "", "after": "cat"}}
    assert entries[0].image.path == "a.jpg"
    assert sorted(p.name for p in tmp_path.rglob("*.txt")) == []


def test_texts_are_written_and_a_second_time_nothing_is_left_to_do(disk, tmp_path):
    write(disk)
    assert (tmp_path / "a.txt").read_text() == "cat"
    assert (tmp_path / "sub" / "b.txt").read_text() == "cat"
    plan = planner(disk)
    assert [entry for page in plan.entries() for entry in page] == []
    assert plan.unchanged == 2


def test_anothers_text_is_left_alone_unless_told(disk, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"my own words\r\n")
    entries = write(disk)
    assert said(entries, disk)["a.txt"] == ("refuse", "refused")
    assert "did not write" in entries[0].error
    assert (tmp_path / "a.txt").read_bytes() == b"my own words\r\n"
    (told,) = write(disk, replace=True)
    assert (tmp_path / "a.txt").read_text() == "cat"
    assert undoing.undo([told], fsync=False) == (1, [])
    assert (tmp_path / "a.txt").read_bytes() == b"my own words\r\n"


def test_our_own_text_is_brought_up_to_date(disk, tmp_path):
    write(disk)
    image_tag = disk.images.get(path="a.jpg").image_tags
    image_tag.create(tag=tag("dog"), state=State.ADDED)
    (entry,) = write(disk)
    assert (entry.action, entry.state) == ("update", "done")
    assert (tmp_path / "a.txt").read_text() == "dog, cat"


def test_a_text_that_someone_edited_since_is_left_alone(disk, tmp_path):
    first = write(disk)
    (tmp_path / "a.txt").write_text("cat, and more")
    assert said(planned(disk, order="alphabet"), disk) == {"a.txt": ("refuse", "refused")}
    undone, problems = undoing.undo(first, fsync=False)
    assert undone == 1
    assert "edited by someone" in problems[0]
    assert (tmp_path / "a.txt").read_text() == "cat, and more"
    assert not (tmp_path / "sub" / "b.txt").exists()


def test_undo_takes_away_what_we_made_and_brings_back_what_we_changed(disk, tmp_path):
    first = write(disk)
    disk.images.get(path="a.jpg").image_tags.create(tag=tag("dog"), state=State.ADDED)
    second = write(disk)
    undoing.undo(second, fsync=False)
    assert (tmp_path / "a.txt").read_text() == "cat"
    undoing.undo(first, fsync=False)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["a.jpg", "b.png"]


def test_a_file_that_changed_between_plan_and_writing_is_skipped(disk, tmp_path):
    entries = planned(disk)
    (tmp_path / "a.txt").write_text("meanwhile")
    ledger.apply(entries, fsync=False)
    assert [e.state for e in entries] == ["skipped", "done"]
    assert (tmp_path / "a.txt").read_text() == "meanwhile"


def test_an_interrupted_write_is_settled(disk, tmp_path):
    entries = planned(disk)
    for entry in entries:
        entry.state, entry.sha_after = "writing", ledger.sha256(b"cat")
        entry.save()
    (tmp_path / "a.txt").write_bytes(b"cat")
    assert ledger.settle(entries[0].job) == 2
    assert [e.state for e in ExportEntry.objects.order_by("id")] == ["done", "planned"]


def test_links_and_long_files_are_left_alone(disk, tmp_path):
    (tmp_path / "elsewhere").write_text("x")
    (tmp_path / "a.txt").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "sub" / "b.txt").write_bytes(b"x" * (2 << 20))
    errors = [e.error for e in planned(disk, replace=True)]
    assert "symbolic link" in errors[0]
    assert "no caption" in errors[1]


def test_an_image_that_is_gone_gets_no_text(disk, tmp_path):
    (tmp_path / "a.jpg").unlink()
    entries = planned(disk)
    assert said(entries, disk)["a.txt"] == ("refuse", "refused")
    assert "no longer there" in entries[0].error


def test_names_that_clash_are_refused_before_anything_is_planned(disk):
    add_file(disk, "a.png", [CAT])
    with pytest.raises(ExportError, match="share a file"):
        planned(disk)
    entries = planned(disk, clashes="keep_extension")
    assert sorted(said(entries, disk)) == ["a.jpg.txt", "a.png.txt", "sub/b.txt"]


def test_hydrus_sidecars_in_place(disk, tmp_path):
    write(disk, format="hydrus_in_place")
    assert (tmp_path / "a.jpg.txt").read_text() == "cat\n"


def test_what_cannot_be_done_in_place_is_said(disk):
    uploads = collection()
    image(uploads, "x.jpg", [CAT])
    with pytest.raises(ValidationError, match="uploads"):
        planner(uploads)
    for options in ({"files": "copy"}, {"clashes": "rename"}, {"flat": True}):
        with pytest.raises(ValidationError) as e:
            planner(disk, **options)
        assert list(e.value.message_dict) == list(options)


def test_a_job_writes_them_and_takes_them_back(disk, tmp_path, monkeypatch):
    monkeypatch.setattr(queue, "defer", lambda *args, **kwargs: None)
    (tmp_path / "a.txt").write_text("mine")
    job = in_place.create(disk, "txt_in_place", {"template": "{tags}"})
    job = run_export(job.pk)
    assert (job.state, job.summary["create"], job.summary["refused"], job.summary["texts"]) == ("planned", 1, 1, 1)
    in_place.apply(job)
    job = run_export(job.pk)
    assert (job.state, job.summary["done"]) == ("done", 1)
    assert (tmp_path / "sub" / "b.txt").read_text() == "cat"
    in_place.undo(job)
    assert run_export(job.pk).state == "undone"
    assert not (tmp_path / "sub" / "b.txt").exists()
    assert (tmp_path / "a.txt").read_text() == "mine"


def test_by_command_with_a_dry_run(disk, tmp_path):
    arguments = ["export", "txt_in_place", "--collection", "Disk", "--option", "trigger=ohwx"]
    out = io.StringIO()
    with pytest.raises(SystemExit) as e:
        call_command(*arguments, "--dry-run", stdout=out)
    assert e.value.code == 1
    assert "A a.txt" in out.getvalue()
    assert "'ohwx, cat'" in out.getvalue()
    assert not (tmp_path / "a.txt").exists()
    call_command(*arguments, stdout=out, stderr=out)
    assert (tmp_path / "a.txt").read_text() == "ohwx, cat"
    call_command(*arguments, "--dry-run", stdout=out)
    assert "2 unchanged" in out.getvalue()
