"""Sidecars through the ledger: written as planned, provable, undone exactly or without harm to others' work."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from exports import ledger, undoing
from exports.models import ExportEntry, ExportJob
from exports.xmp import fields
from exports.xmp.packet import Packet
from tagging.models import Collection

pytestmark = pytest.mark.django_db
SIDECARS = Path(__file__).parent / "sidecars"
STYLE = fields.Style(prefix="iw")


@pytest.fixture
def job():
    collection = Collection.objects.create(name="Trip", slug="trip", kind="upload")
    return ExportJob.objects.create(collection=collection, format="xmp")


def wanted(*names, caption=None):
    return fields.Wanted(tuple(fields.Keyword(("animal", n)) for n in names), caption=caption)


def plan(job, target, *names, style=STYLE, **more):
    last = ledger.last_written([str(target)]).get(str(target), {})
    entry = ledger.plan_sidecar(target, wanted(*names, **more), last, style)
    if entry:
        entry.job = job
        entry.save()
    return entry


def write(job, target, *names, **more):
    entry = plan(job, target, *names, **more)
    ledger.apply([entry], fsync=False)
    entry.refresh_from_db()
    return entry


def words(path):
    return Packet(path.read_bytes()).values(fields.SUBJECT)


def test_a_plan_touches_nothing_and_says_why(job, tmp_path):
    target = tmp_path / "a.xmp"
    target.write_bytes((SIDECARS / "lightroom.xmp").read_bytes())
    before = target.read_bytes()
    entry = plan(job, target, "dog")
    assert target.read_bytes() == before
    assert entry.action == "update"
    assert ["dog", "added", "wanted"] in entry.fields["dc:subject"]["changes"]
    assert ["Oslo", "kept", "not written by iwtag"] in entry.fields["dc:subject"]["changes"]


def test_it_writes_once_and_not_again(job, tmp_path):
    target = tmp_path / "a.xmp"
    entry = write(job, target, "dog", "cat")
    assert entry.state == "done"
    assert hashlib.sha256(target.read_bytes()).hexdigest() == entry.sha_after
    assert words(target) == ["dog", "cat"]
    assert plan(job, target, "dog", "cat") is None


def test_truth_that_changed_takes_our_words_out_and_leaves_theirs(job, tmp_path):
    target = tmp_path / "a.xmp"
    target.write_bytes((SIDECARS / "lightroom.xmp").read_bytes())
    write(job, target, "dog", "cat")
    write(job, target, "cat", "boat")
    assert words(target) == ["Oslo", "Ærlig & blå", "cat", "boat"]


def test_undo_restores_every_byte(job, tmp_path):
    target, made = tmp_path / "a.xmp", tmp_path / "b.xmp"
    target.write_bytes((SIDECARS / "darktable.xmp").read_bytes())
    before = target.read_bytes()
    entries = [write(job, target, "dog", caption="A dog"), write(job, target, "cat"), write(job, made, "dog")]
    assert undoing.undo(entries, fsync=False) == (3, [])
    assert target.read_bytes() == before
    assert not made.exists()
    assert set(ExportEntry.objects.values_list("state", flat=True)) == {"undone"}


def test_undo_after_someone_wrote_takes_only_ours(job, tmp_path):
    target = tmp_path / "a.xmp"
    target.write_bytes((SIDECARS / "lightroom.xmp").read_bytes())
    entry = write(job, target, "dog")
    packet = Packet(target.read_bytes())
    packet.set_array(fields.SUBJECT, [*packet.values(fields.SUBJECT), "evening"])
    target.write_bytes(packet.to_bytes())
    assert undoing.undo([entry], fsync=False) == (1, [])
    assert words(target) == ["Oslo", "Ærlig & blå", "evening"]


def test_what_changed_since_the_preview_is_skipped(job, tmp_path):
    target = tmp_path / "a.xmp"
    entry = plan(job, target, "dog")
    target.write_bytes((SIDECARS / "lightroom.xmp").read_bytes())
    ledger.apply([entry], fsync=False)
    entry.refresh_from_db()
    assert (entry.state, entry.error) == ("skipped", "changed by another program since the plan was made")
    assert target.read_bytes() == (SIDECARS / "lightroom.xmp").read_bytes()


def test_an_unticked_file_is_not_written(job, tmp_path):
    entry = plan(job, tmp_path / "a.xmp", "dog")
    entry.selected = False
    ledger.apply([entry], fsync=False)
    assert not (tmp_path / "a.xmp").exists()


@pytest.mark.parametrize(
    ("data", "why"), [(b"<a>\xff</a>", "UTF-8"), (b"<!DOCTYPE a><a></a>", "document type"), (b"junk", "no XML")]
)
def test_a_sidecar_we_could_damage_is_left_alone(job, tmp_path, data, why):
    target = tmp_path / "a.xmp"
    target.write_bytes(data)
    entry = plan(job, target, "dog")
    assert (entry.action, entry.state) == ("refuse", "refused")
    assert why in entry.error
    ledger.apply([entry], fsync=False)
    assert target.read_bytes() == data


@pytest.mark.parametrize(("there", "state"), [("new", "done"), ("old", "planned"), ("other", "failed")])
def test_a_crash_in_the_middle_is_settled_by_what_is_there(job, tmp_path, there, state):
    target = tmp_path / "a.xmp"
    target.write_bytes((SIDECARS / "lightroom.xmp").read_bytes())
    old = target.read_bytes()
    entry = write(job, target, "dog")
    target.write_bytes({"new": target.read_bytes(), "old": old, "other": b"<x></x>"}[there])
    (tmp_path / f".iwtag-{job.pk}-left.tmp").write_bytes(b"half")
    ExportEntry.objects.filter(pk=entry.pk).update(state="writing")
    assert ledger.settle(job) == 1
    entry.refresh_from_db()
    assert entry.state == state
    assert not list(tmp_path.glob(".iwtag-*"))
