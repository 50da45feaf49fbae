"""Sidecars as jobs: planned, looked at, written as shown, interrupted, undone."""

from __future__ import annotations

import os
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from exports import actions, in_place, ledger, safe_write, undoing
from exports.exporters.base import ExportError
from exports.models import ExportEntry, ExportJob
from exports.xmp import fields
from exports.xmp.packet import Packet
from tagging import queue
from tagging.engine.owners import owner_id
from tagging.models import Collection

from .folders import SIDECARS, add_tag, applied, folder, hashes, planned, rewrite, run, take_tag, undone, words, written
from .truth import run_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "trip"
    path.mkdir()
    return path


def states(job):
    return {Path(e.target).name: (e.state, e.error) for e in job.entries.all()}


# -- plan and apply ---------------------------------------------------------------------------------------------------
def test_a_plan_waits_and_writes_nothing(root):
    c = folder(root, ["a.jpg", "b.jpg"])
    shutil.copy(SIDECARS / "lightroom.xmp", root / "a.xmp")
    (root / "b.xmp").write_bytes(b"<broken")
    before = hashes(root)
    job = planned(c, profile="lightroom")
    assert hashes(root) == before
    assert (job.state, job.step, job.owner) == ("planned", "plan", "")
    s = job.summary
    assert (s["images"], s["create"], s["update"], s["refused"], s["ticked"]) == (2, 0, 1, 1, 1)
    assert (s["words_added"], s["words_kept"], s["words_removed"]) == (2, 2, 0)
    assert states(job)["b.xmp"][0] == "refused"


def test_it_writes_what_was_shown_and_nothing_twice(root):
    c = folder(root, ["a.jpg", "b/c.jpg"])
    job = applied(planned(c))
    assert (job.state, job.summary["done"], job.summary["ticked"]) == ("done", 4, 0)
    assert words(root / "a.xmp") == words(root / "b/c.jpg.xmp") == ["dog", "beach"]
    assert Packet((root / "a.xmp").read_bytes()).values(fields.HIERARCHY) == ["animal|dog", "beach"]
    times = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    again = planned(c)
    assert (again.summary["files"], again.summary["unchanged"]) == (0, 4)
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == times
    with pytest.raises(in_place.NotNow, match="Nothing is left"):
        in_place.apply(again)


def test_what_changed_since_the_look_is_skipped_and_said(root):
    c = folder(root, ["a.jpg", "b.jpg", "c.jpg"])
    job = planned(c, profile="darktable")
    shutil.copy(SIDECARS / "darktable.xmp", root / "a.jpg.xmp")
    (root / "b.jpg.xmp").symlink_to(root / "b.jpg")
    job = applied(job)
    found = states(job)
    assert found["a.jpg.xmp"] == ("skipped", "changed by another program since the plan was made")
    assert found["b.jpg.xmp"] == ("skipped", "b.jpg.xmp is a symbolic link")
    assert found["c.jpg.xmp"] == ("done", "")
    assert (root / "a.jpg.xmp").read_bytes() == (SIDECARS / "darktable.xmp").read_bytes()


def test_unticked_files_stay_as_they_are(root):
    c = folder(root, ["a.jpg", "b.jpg", "c.jpg"])
    job = planned(c, profile="immich")
    assert in_place.select(job, False, kind="create") == 3
    first = job.entries.order_by("id")[0]
    assert in_place.select(job, True, ids=[first.pk]) == 1
    assert (job.summary["ticked"], job.summary["unticked"]) == (1, 2)
    applied(job)
    assert [p.name for p in sorted(root.glob("*.xmp"))] == ["a.jpg.xmp"]
    with pytest.raises(in_place.NotNow, match="no longer be chosen"):
        in_place.select(ExportJob.objects.get(pk=job.pk), True)


def test_words_taken_out_elsewhere_stay_out_of_every_field(root):
    """Lightroom knows nothing of digiKam's list; and a new prefix must not bring the word back."""
    c = folder(root, ["a.jpg"])
    written(c, profile="lightroom")
    rewrite(root / "a.xmp", drop=["dog"], add=["evening"], only=(fields.SUBJECT, fields.HIERARCHY))
    job = written(c, profile="lightroom", prefix="iw")
    packet = Packet((root / "a.xmp").read_bytes())
    assert packet.values(fields.SUBJECT) == ["beach", "evening"]
    assert packet.values(fields.HIERARCHY) == ["evening", "iw|beach"]
    assert packet.values(fields.TAGS_LIST) == ["iw/beach"]
    assert job.summary["words_withheld"] == 1
    assert planned(c, profile="lightroom", prefix="iw").summary["files"] == 0


def test_truth_that_changes_takes_only_ours_away(root):
    c = folder(root, ["a.jpg"])
    shutil.copy(SIDECARS / "digikam.xmp", root / "a.jpg.xmp")
    theirs = words(root / "a.jpg.xmp")
    written(c)
    take_tag(c, "beach")
    add_tag(c, "boat")
    written(c)
    assert words(root / "a.jpg.xmp") == [*theirs, "dog", "boat"]


# -- which files ------------------------------------------------------------------------------------------------------
def test_twins_that_share_a_sidecar_share_their_words(root):
    c = folder(root, ["a.nef"], ["dog", "raw"])
    other = folder(root.parent / "x", ["a.jpg"], ["dog", "jpeg"])
    (root / "a.jpg").write_bytes(b"x")
    other.images.update(collection=c)
    job = written(c, profile="lightroom", twins="shared")
    assert job.summary["done"] == 1
    assert sorted(words(root / "a.xmp")) == ["dog", "jpeg", "raw"]


def test_the_jpeg_alone_and_each_its_own(root):
    c = folder(root, ["a.nef", "a.jpg"])
    job = written(c, profile="lightroom", twins="jpeg_only")
    assert [p.name for p in root.glob("*.xmp")] == ["a.jpg.xmp"]
    assert (job.summary["left_out"], job.summary["refused"]) == (1, 0)
    written(c, profile="lightroom", twins="exact")
    assert sorted(p.name for p in root.glob("*.xmp")) == ["a.jpg.xmp", "a.nef.xmp"]


def test_a_folder_that_leads_elsewhere_is_left_alone(root, tmp_path):
    c = folder(root, ["a.jpg", "out/b.jpg"])
    shutil.move(root / "out", tmp_path / "elsewhere")
    (root / "out").symlink_to(tmp_path / "elsewhere")
    job = written(c)
    assert not list((tmp_path / "elsewhere").glob("*.xmp"))
    assert "leads out" in job.entries.get(state="refused").error


def test_an_image_and_a_folder_that_vanished(root):
    c = folder(root, ["a.jpg", "b/c.jpg", "d.jpg"])
    (root / "a.jpg").unlink()
    shutil.rmtree(root / "b")
    job = written(c, profile="immich")
    errors = sorted(job.entries.filter(state="refused").values_list("error", flat=True))
    assert errors == ["its folder cannot be read: No such file or directory", "the image is no longer there"]
    assert words(root / "d.jpg.xmp")


def test_a_folder_that_vanishes_after_the_look(root):
    c = folder(root, ["a.jpg", "b/c.jpg"])
    job = planned(c, profile="immich")
    shutil.rmtree(root / "b")
    job = applied(job)
    assert (job.state, job.summary["done"], job.summary["failed"]) == ("done", 1, 1)
    assert "No such file" in job.entries.get(state="failed").error
    (root / "b").mkdir()
    assert applied(job).summary["failed"] == 0  # mended: the rest is written
    assert words(root / "b/c.jpg.xmp")


def test_a_read_only_folder_is_a_readable_failure(root, monkeypatch):
    c = folder(root, [f"{i}.jpg" for i in range(40)])
    job = planned(c, profile="immich")

    def denied(**_):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as m:  # the tests may run as root, who may write anywhere
        m.setattr(safe_write.tempfile, "mkstemp", denied)
        job = applied(job)
    assert job.state == "failed"
    assert "32 files one after the other failed" in job.error
    assert "Permission denied" in job.error
    assert job.summary["ticked"] == 8  # the rest was not tried
    job = applied(job)
    assert (job.state, job.summary["done"]) == ("done", 40)


def test_uploads_have_no_folder(db):
    c = Collection.objects.create(name="Up", slug="up", kind="upload")
    with pytest.raises(ValidationError) as e:
        in_place.create(c, "xmp")
    assert "uploads" in e.value.message_dict["collection"][0]
    with pytest.raises(ValidationError) as e:
        in_place.create(c, "xmp", {"profile": "paint"})
    assert "profile" in e.value.message_dict
    with pytest.raises(ValidationError):
        in_place.create(c, "csv")


# -- interruptions ----------------------------------------------------------------------------------------------------
def test_cancelling_stops_between_batches_and_it_can_go_on(root, monkeypatch):
    c = folder(root, [f"{i:03}.jpg" for i in range(100)])
    job = planned(c, profile="immich")
    apply = ledger.apply

    def cancelled_meanwhile(batch, **more):
        apply(batch, **more)
        actions.cancel_export(ExportJob.objects.get(pk=job.pk))

    with monkeypatch.context() as m:
        m.setattr(ledger, "apply", cancelled_meanwhile)
        job = applied(job)
    assert (job.state, job.summary["done"], job.summary["ticked"]) == ("cancelled", 32, 68)
    assert len(list(root.glob("*.xmp"))) == 32
    job = applied(job)
    assert (job.state, job.summary["done"]) == ("done", 100)


def test_a_cancelled_plan_is_not_a_plan(root, monkeypatch):
    c = folder(root, ["a.jpg"])
    job = in_place.create(c, "xmp", ring=False)
    actions.cancel_export(job)
    with pytest.raises(in_place.NotNow, match="not finished"):
        in_place.apply(job)


def test_who_died_in_the_middle_is_followed_by_who_goes_on(root, monkeypatch):
    calls = []
    monkeypatch.setattr(queue, "defer", lambda path, *args, cluster=None: calls.append((path, *args)))
    c = folder(root, [f"{i:03}.jpg" for i in range(50)])
    job = planned(c, profile="immich")
    replace = safe_write.replace
    left = iter(range(10))

    class Killed(BaseException):
        pass

    def dying(*args, **more):
        if next(left, None) is None:
            raise Killed
        replace(*args, **more)

    with monkeypatch.context() as m:
        m.setattr(safe_write, "replace", dying)
        with pytest.raises(Killed):
            applied(job)
    assert job.entries.filter(state="writing").count() == 32
    dead = owner_id().rsplit("|", 2)[0] + "|999999|1"
    ExportJob.objects.filter(pk=job.pk).update(owner=dead, lease_until=timezone.now() + timedelta(minutes=1))
    actions.sweep()
    assert calls == [(actions.TASK, job.pk)]
    job = run(job)
    assert (job.state, job.summary["done"]) == ("done", 50)
    assert len(list(root.glob("*.xmp"))) == 50


def test_another_export_knows_what_the_dead_one_wrote(root, monkeypatch):
    """Its rows are settled first, or its words would count as a person's."""
    c = folder(root, ["a.jpg"])
    job = written(c, profile="immich")
    job.entries.update(state="writing")
    ExportJob.objects.filter(pk=job.pk).update(state="running", owner="gone|999999|1", lease_until=None)
    take_tag(c, "beach")
    written(c, profile="immich")
    assert words(root / "a.jpg.xmp") == ["dog"]


def test_a_job_that_was_taken_over_writes_no_more(root, monkeypatch):
    c = folder(root, [f"{i:03}.jpg" for i in range(100)])
    job = planned(c, profile="immich")
    apply = ledger.apply

    def overtaken(batch, **more):
        apply(batch, **more)
        ExportJob.objects.filter(pk=job.pk).update(token=999)

    monkeypatch.setattr(ledger, "apply", overtaken)
    job = applied(job)
    assert (job.state, job.token) == ("running", 999)
    assert len(list(root.glob("*.xmp"))) == 32


# -- undo -------------------------------------------------------------------------------------------------------------
def test_undo_restores_every_byte_of_many_files(root):
    names = [f"{i % 7}/{i:04}.jpg" for i in range(240)]
    c = folder(root, names)
    samples = [p.read_bytes() for p in sorted(SIDECARS.glob("*.xmp"))]
    for i, name in enumerate(names):
        if i % 4 < 3:
            (root / f"{name}.xmp").write_bytes(samples[i % 4])
    before = hashes(root)
    first = written(c, profile="darktable")
    add_tag(c, "boat")
    second = written(c, profile="darktable", prefix="iw")
    assert first.summary["done"] == second.summary["done"] == 240
    assert undone(second).state == "undone"
    job = undone(first)
    assert (job.state, job.summary["undone"], job.error) == ("undone", 240, "")
    assert hashes(root) == before


def test_undo_takes_only_ours_where_someone_wrote_since(root):
    c = folder(root, ["a.jpg", "b.jpg"])
    shutil.copy(SIDECARS / "lightroom.xmp", root / "a.xmp")
    theirs = words(root / "a.xmp")
    job = written(c, profile="lightroom")
    rewrite(root / "a.xmp", add=["evening"])
    undone(job)
    assert words(root / "a.xmp") == [*theirs, "evening"]
    assert not (root / "b.xmp").exists()


def test_undo_of_an_older_export_does_not_count_as_a_persons_wish(root):
    c = folder(root, ["a.jpg"])
    first = written(c, profile="immich")
    add_tag(c, "boat")
    written(c, profile="immich")
    undone(first)
    assert words(root / "a.jpg.xmp") == ["boat"]
    written(c, profile="immich")
    assert sorted(words(root / "a.jpg.xmp")) == ["beach", "boat", "dog"]


def test_an_undo_that_was_interrupted_is_done_again(root):
    c = folder(root, ["a.jpg", "b.jpg"])
    shutil.copy(SIDECARS / "lightroom.xmp", root / "a.jpg.xmp")
    before = hashes(root)
    job = written(c, profile="immich")
    done = list(job.entries.all())
    undoing.undo(job.entries.all())
    for entry in done:  # the files are back, the rows were not committed
        entry.save()
    job = undone(ExportJob.objects.get(pk=job.pk))
    assert job.state == "undone"
    assert hashes(root) == before


def test_undo_of_one_file(root):
    c = folder(root, ["a.jpg", "b.jpg"])
    job = written(c, profile="immich")
    one = job.entries.order_by("id")[0]
    assert in_place.undo_entries(job, [one.pk]) == (1, [])
    assert [p.name for p in root.glob("*.xmp")] == ["b.jpg.xmp"]
    assert (job.state, job.summary["undone"], job.summary["done"]) == ("done", 1, 1)
    assert in_place.undo_entries(job, [e.pk for e in job.entries.all()]) == (1, [])
    assert job.state == "undone"


def test_undo_of_everything_by_a_recipe(root):
    c = folder(root, ["a.jpg", "b.jpg"])
    one, two = run_of(c, "one"), run_of(c, "two")
    c.images.filter(path="a.jpg").update(proposed_by=one)
    c.images.filter(path="b.jpg").update(proposed_by=two)
    job = written(c, profile="immich")
    assert [j.pk for j in in_place.undo_recipe(one.recipe_id, ring=False)] == [job.pk]
    job = run(job)
    assert [p.name for p in root.glob("*.xmp")] == ["b.jpg.xmp"]
    assert (job.state, job.error) == ("done", "")
    with pytest.raises(in_place.NotNow):
        in_place.undo_recipe(one.recipe_id)


def test_what_cannot_be_undone_says_why(root):
    c = folder(root, ["a.jpg"])
    shutil.copy(SIDECARS / "lightroom.xmp", root / "a.jpg.xmp")
    job = written(c, profile="immich")
    (root / "a.jpg.xmp").write_bytes(b"<broken")
    job = undone(job)
    assert (job.state, job.summary["stuck"]) == ("done", 1)
    assert "not undone" in job.entries.get().error
    assert (root / "a.jpg.xmp").read_bytes() == b"<broken"


def test_an_export_in_force_is_not_deleted(root):
    c = folder(root, ["a.jpg"])
    job = written(c)
    with pytest.raises(ExportError, match="undo it first"):
        actions.delete_export(job)
    job = undone(job)
    actions.delete_export(job)
    assert not ExportEntry.objects.exists()


# -- what keywords say of themselves ----------------------------------------------------------------------------------
def test_origins_are_written_updated_and_undone(root):
    c = folder(root, ["a.jpg"])
    c.images.first().image_tags.update(run=run_of(c, "photo-lite"))
    shutil.copy(SIDECARS / "lightroom.xmp", root / "a.jpg.xmp")
    before = hashes(root)
    job = written(c, profile="immich", details=True)
    said = Packet((root / "a.jpg.xmp").read_bytes()).structs(fields.DETAILS)
    assert [(d["name"], d["model"], d["score"]) for d in said] == [
        ("dog", "photo-lite", "0.9000"),
        ("beach", "photo-lite", "0.9000"),
    ]
    assert planned(c, profile="immich", details=True).summary["files"] == 0
    undone(job)
    assert hashes(root) == before


def test_a_label_only_on_request_and_never_over_anothers(root):
    c = folder(root, ["a.jpg", "b.jpg"], rating="sensitive")
    shutil.copy(SIDECARS / "lightroom.xmp", root / "a.jpg.xmp")
    theirs = Packet((root / "a.jpg.xmp").read_bytes()).text(fields.LABEL)
    written(c, profile="immich")
    assert Packet((root / "b.jpg.xmp").read_bytes()).text(fields.LABEL) == ""
    job = written(c, profile="immich", label=True)
    assert Packet((root / "b.jpg.xmp").read_bytes()).text(fields.LABEL) == "sensitive"
    assert Packet((root / "a.jpg.xmp").read_bytes()).text(fields.LABEL) == (theirs or "sensitive")
    assert job.state == "done"


@pytest.mark.skipif(os.name != "posix", reason="needs file modes")
def test_modes_of_files_are_kept(root):
    c = folder(root, ["a.jpg"])
    shutil.copy(SIDECARS / "lightroom.xmp", root / "a.jpg.xmp")
    os.chmod(root / "a.jpg.xmp", 0o640)
    written(c, profile="immich")
    assert (root / "a.jpg.xmp").stat().st_mode & 0o777 == 0o640
