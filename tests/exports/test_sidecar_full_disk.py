"""A small file system that fills up: every original stays whole, and it can go on when there is room."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .folders import SAMPLES, applied, folder, hashes, planned, undone, words

pytestmark = pytest.mark.django_db


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte; skipped where none can be mounted."""
    root = tmp_path / "small"
    root.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(root)], capture_output=True)
    if not made or made.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield root
    finally:
        subprocess.run(["umount", str(root)], check=True)


def test_a_full_disk_damages_nothing(small):
    names = [f"{i:02}.jpg" for i in range(60)]
    c = folder(small, names)
    for i, name in enumerate(names[:30]):
        shutil.copyfile(SAMPLES[i % 3], small / f"{name}.xmp")
    before = hashes(small)
    job = planned(c, profile="darktable")
    free = shutil.disk_usage(small).free
    (small / "filler").write_bytes(b"x" * (free - 8 * 4096))  # room for some, not for all
    job = applied(job)
    s = job.summary
    assert s["failed"] > 0
    assert s["done"] + s["failed"] + s["ticked"] == 60
    assert "No space left on device" in job.entries.filter(state="failed")[0].error
    for path in small.glob("*.xmp"):
        assert words(path)  # whole, old or new
    assert not list(small.glob(".iwtag-*"))
    (small / "filler").unlink()
    job = applied(job)
    assert (job.state, job.summary["done"]) == ("done", 60)
    undone(job)
    assert hashes(small) == before
