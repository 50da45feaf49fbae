"""Whole or not at all: by others' edits, read-only folders, links, and kill -9."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from exports.safe_write import Seen, WriteRefused, remove, replace, sweep

ROOT = Path(__file__).resolve().parents[2]


def test_it_replaces_and_keeps_the_mode(tmp_path):
    path = tmp_path / "a.xmp"
    path.write_bytes(b"old")
    path.chmod(0o640)
    replace(path, b"new", seen=Seen.of(path))
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["a.xmp"]


def test_it_makes_a_new_file_only_where_none_is(tmp_path):
    path = tmp_path / "a.xmp"
    replace(path, b"new", seen=None)
    with pytest.raises(WriteRefused, match="changed by another program"):
        replace(path, b"newer", seen=None)
    assert path.read_bytes() == b"new"


def test_an_edit_since_the_plan_wins(tmp_path):
    path = tmp_path / "a.xmp"
    path.write_bytes(b"old")
    seen = Seen.of(path)
    path.write_bytes(b"someone's work")
    with pytest.raises(WriteRefused, match=r"a\.xmp was changed"):
        replace(path, b"new", seen=seen)
    assert path.read_bytes() == b"someone's work"
    assert os.listdir(tmp_path) == ["a.xmp"]


def test_a_failed_check_leaves_the_original(tmp_path):
    path = tmp_path / "a.xmp"
    path.write_bytes(b"old")

    def verify(data):
        raise WriteRefused("the other reader disagrees")

    with pytest.raises(WriteRefused, match="disagrees"):
        replace(path, b"new", seen=Seen.of(path), verify=verify)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.xmp"]


def test_links_and_read_only_files_are_refused(tmp_path):
    path = tmp_path / "a.xmp"
    path.write_bytes(b"old")
    (tmp_path / "soft.xmp").symlink_to(path)
    with pytest.raises(WriteRefused, match="symbolic link"):
        Seen.of(tmp_path / "soft.xmp")
    path.chmod(0o444)
    with pytest.raises(WriteRefused, match="read-only"):
        Seen.of(path)
    path.chmod(0o644)
    os.link(path, tmp_path / "hard.xmp")
    with pytest.raises(WriteRefused, match="hard links"):
        Seen.of(path)


def test_a_vanished_folder_is_a_reason_not_a_traceback(tmp_path):
    with pytest.raises(WriteRefused, match="not written"):
        replace(tmp_path / "gone" / "a.xmp", b"new", seen=None)


def test_remove_takes_only_what_it_saw(tmp_path):
    path = tmp_path / "a.xmp"
    path.write_bytes(b"ours")
    seen = Seen.of(path)
    path.write_bytes(b"theirs now")
    with pytest.raises(WriteRefused, match="changed"):
        remove(path, seen=seen)
    remove(path, seen=Seen.of(path))
    assert not path.exists()


WRITER = """
import sys
from pathlib import Path
from exports.safe_write import Seen, replace
path = Path(sys.argv[1])
print("go", flush=True)
i = 0
while True:
    i += 1
    replace(path, b"%08d" % i * 200_000, seen=Seen.of(path))
"""


def test_kill_9_never_leaves_half_a_file(tmp_path):
    path = tmp_path / "a.xmp"
    path.write_bytes(b"%08d" % 0 * 200_000)
    rng = random.Random(7)
    for _ in range(12):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE)
        assert writer.stdout
        writer.stdout.readline()
        time.sleep(rng.uniform(0.01, 0.08))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        data = path.read_bytes()
        assert len(data) == 1_600_000
        assert data == data[:8] * 200_000
    sweep(tmp_path)
    assert os.listdir(tmp_path) == ["a.xmp"]
