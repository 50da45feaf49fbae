"""kill -9 on real processes that write sidecars: nothing lost, nothing half-written, all of it undoable.

Each start of the application costs a second, so these are few (SIDECAR_KILLS sets how many); `test_sidecar_chaos`
kills two hundred forked ones.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from exports.xmp import fields
from exports.xmp.packet import Packet

from . import readers
from .folders import SAMPLES, hashes

ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("SIDECAR_KILLS", "8"))
SECONDS = 60 if "SIDECAR_KILLS" not in os.environ else 3600
FILES = 64
SEED = """
from pathlib import Path
from tests.exports.folders import folder
folder(Path({root!r}), {names!r}, ["dog", "beach"])
"""
UNDO_ALL = """
from exports import actions
from exports.models import ExportJob
for job in ExportJob.objects.filter(state__in=actions.OPEN): actions.cancel_export(job)
from exports import in_place
from tagging.models import Collection
in_place.settle_orphans(Collection.objects.get())
from django.core.management import call_command
for pk in ExportJob.objects.filter(entries__state="done").distinct().order_by("-id").values_list("id", flat=True):
    call_command("export_undo", pk)
"""


class Site:
    """The application with a data folder of its own, in processes of its own."""

    def __init__(self, data: Path) -> None:
        self.env = {**os.environ, "IWTAG_DATA_DIR": str(data), "PYTHONPATH": str(ROOT)}
        self.env.pop("DATABASE_URL", None)

    def start(self, *args: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "manage.py", *args],
            cwd=ROOT,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def do(self, *args: str, code: int = 0) -> str:
        process = self.start(*args)
        out = process.communicate(timeout=180)[0].decode()
        assert process.returncode == code, out
        return out


def foreign(data: bytes) -> tuple[str, ...]:
    """All keywords, in any field, that iwtag did not write."""
    packet = Packet(data)
    ours = {"dog", "beach"}
    return tuple(
        w
        for prop in (fields.SUBJECT, fields.HIERARCHY, fields.TAGS_LIST)
        for w in packet.values(prop) or []
        if w.replace("|", "/").split("/")[-1] not in ours
    )


def changed_since(root: Path, start: int) -> int:
    n = 0
    with os.scandir(root) as found:
        for entry in found:
            try:
                n += entry.name.endswith(".xmp") and entry.stat().st_mtime_ns > start
            except FileNotFoundError:
                continue
    return n


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_killed_at_any_moment(tmp_path):
    site, root, draw = Site(tmp_path / "data"), tmp_path / "trip", random.Random(6)
    root.mkdir()
    names = [f"{i:04}.jpg" for i in range(FILES)]
    site.do("migrate", "-v0")
    site.do("shell", "-v0", "-c", SEED.format(root=str(root), names=names))
    for i, name in enumerate(names):
        if i % 4 < 3:
            shutil.copyfile(SAMPLES[i % 4], root / f"{name}.xmp")
    before = hashes(root)
    theirs = {p.name: foreign(p.read_bytes()) for p in root.glob("*.xmp")}
    killed = rounds = 0
    until = time.monotonic() + SECONDS
    for round_ in range(KILLS):
        if time.monotonic() > until:
            break
        rounds += 1
        start, wait = time.time_ns(), draw.randrange(1, FILES * 2 // 3)
        process = site.start(
            "export", "xmp", "--collection", "trip", "--profile", "darktable", "--prefix", f"p{round_}"
        )
        while process.poll() is None and changed_since(root, start) < wait:
            time.sleep(0.0005)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
        process.communicate()
        for path in root.glob("*.xmp"):
            data = path.read_bytes()
            assert foreign(data) == theirs.get(path.name, ()), path
    assert killed > rounds * 0.7
    site.do("export", "xmp", "--collection", "trip", "--profile", "darktable", "--prefix", "last")
    for path in root.glob("*.xmp"):
        assert {"last/animal/dog", "last/beach"} <= set(readers.digikam(path)), path
        assert not [w for w in readers.digikam(path) if w.startswith("p")], path
    site.do("shell", "-v0", "-c", UNDO_ALL)
    assert hashes(root) == before  # every byte, and no temp file left
