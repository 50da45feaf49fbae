"""Two hundred kills -9 of an export in the act, and an undo of ten thousand files: every byte is accounted for."""

from __future__ import annotations

import io
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import connections

from exports import actions, in_place
from exports.models import ExportEntry, ExportJob

from . import readers
from .folders import SAMPLES, folder, hashes, undone, words, written
from .test_sidecar_kill import changed_since, foreign

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and POSIX signals")
KILLS, FILES = 200, 48


def export_in_a_child(prefix: str) -> int:
    """The export command in a process of its own; its pid."""
    sys.stdout.flush()
    connections.close_all()
    child = os.fork()
    if child == 0:
        try:
            options = ("--profile", "darktable", "--prefix", prefix)
            call_command("export", "xmp", "--collection", "trip", *options, stdout=io.StringIO(), stderr=io.StringIO())
        finally:
            os._exit(0)
    return child


def undo_everything(c: object) -> None:
    for job in ExportJob.objects.filter(state__in=actions.OPEN):
        actions.cancel_export(job)
    in_place.settle_orphans(c)
    for job in ExportJob.objects.filter(entries__state="done").distinct().order_by("-id"):
        undone(job)


@pytest.fixture
def trip(tmp_path: Path):
    root = tmp_path / "trip"
    root.mkdir()
    names = [f"{i:04}.jpg" for i in range(FILES)]
    c = folder(root, names)
    for i, name in enumerate(names):
        if i % 4 < 3:
            shutil.copyfile(SAMPLES[i % 4], root / f"{name}.xmp")
    return c, root


@pytest.mark.django_db(transaction=True)
def test_two_hundred_kills_damage_nothing(trip):
    c, root = trip
    draw = random.Random(200)
    before = hashes(root)
    theirs = {p.name: foreign(p.read_bytes()) for p in root.glob("*.xmp")}
    killed = attempts = 0
    while killed < KILLS:
        attempts += 1
        assert attempts < 2 * KILLS, "most exports ended before they could be killed"
        start, wait = time.time_ns(), draw.randrange(0, FILES * 2 // 3)
        child = export_in_a_child(f"p{attempts}")
        ended = 0
        while not ended and changed_since(root, start) < wait:
            time.sleep(0.003)  # the child needs the processor more than we do
            ended = os.waitpid(child, os.WNOHANG)[0]
        if not wait:
            time.sleep(draw.random() * 0.04)  # before the first file, in the plan or the journal
        if not ended:
            os.kill(child, signal.SIGKILL)
            killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        for path in root.glob("*.xmp"):
            assert foreign(path.read_bytes()) == theirs.get(path.name, ()), path
        images = {name: digest for name, digest in hashes(root).items() if name.endswith(".jpg")}
        assert images == {name: digest for name, digest in before.items() if name.endswith(".jpg")}
    written(c, profile="darktable", prefix="last")  # settles what the dead left, and writes all
    for path in root.glob("*.xmp"):
        assert {"last/animal/dog", "last/beach"} <= set(readers.digikam(path)), path
        assert not [w for w in readers.digikam(path) if w.startswith("p")], path
    undo_everything(c)
    assert hashes(root) == before  # every byte, and no temp file left


@pytest.mark.django_db
def test_undo_of_ten_thousand_files_restores_every_byte(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # the disk's patience is not what is asked here
    root = tmp_path / "trip"
    root.mkdir()
    names = [f"{i // 500:02}/{i:05}.jpg" for i in range(10_000)]
    c = folder(root, names, tags=("dog",))
    for i, name in enumerate(names):
        if i % 2:
            shutil.copyfile(SAMPLES[i % 3], root / f"{name}.xmp")
    before = hashes(root)
    job = written(c, profile="darktable", prefix="iw")
    assert (job.state, job.summary["done"]) == ("done", 10_000)
    assert words(root / f"{names[0]}.xmp") == ["dog"]
    edited = root / f"{names[5000]}.xmp"
    edited.write_text(edited.read_text().replace("dog", "hound"))  # somebody else wrote since
    assert undone(job).state == "undone"
    after = hashes(root)
    assert words(edited) == ["hound"]  # theirs stays
    gone = str(edited.relative_to(root))
    assert {k: v for k, v in after.items() if k != gone} == {k: v for k, v in before.items() if k != gone}
    assert not ExportEntry.objects.exclude(state="undone").exists()
