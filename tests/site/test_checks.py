from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.checks import run_checks

from iwtag_site import checks

ROOT = Path(__file__).resolve().parents[2]


def ids():
    return {m.id for m in run_checks() if str(m.id).startswith("iwtag.")}


def test_a_sound_installation_has_nothing_to_say(settings, tmp_path):
    settings.DATA_DIR = tmp_path
    assert ids() == set()


def test_a_data_folder_that_is_a_file(settings, tmp_path):
    settings.DATA_DIR = tmp_path / "file"
    settings.DATA_DIR.write_text("")
    (found,) = checks.check_data_folder(None)
    assert found.id == "iwtag.E001"
    assert str(settings.DATA_DIR) in found.msg
    assert "IWTAG_DATA_DIR" in found.hint


def test_a_short_secret_and_one_that_others_can_read(settings, tmp_path, monkeypatch):
    monkeypatch.delenv("IWTAG_SECRET_KEY", raising=False)
    settings.SECRET_KEY = "short"
    settings.DATA_DIR = tmp_path
    (tmp_path / "secret_key").write_text("x")
    (tmp_path / "secret_key").chmod(0o644)
    assert [m.id for m in checks.check_secret_key(None)] == ["iwtag.W001", "iwtag.W002"]


@pytest.mark.parametrize(
    ("backend", "options", "id"),
    [
        ("no.such.Storage", {}, "iwtag.E002"),
        ("django.core.files.storage.FileSystemStorage", {"colour": "red"}, "iwtag.E002"),
        ("django.core.files.storage.FileSystemStorage", {"location": "/proc/nothing"}, "iwtag.E003"),
    ],
)
def test_a_storage_that_cannot_be_used(settings, backend, options, id):
    settings.STORAGES = {**settings.STORAGES, "default": {"BACKEND": backend, "OPTIONS": options}}
    assert [m.id for m in checks.check_storage(None)] == [id]


def test_a_broker_that_cannot_be_spoken_to(settings, monkeypatch):
    settings.BROKER_URL = "http://localhost"
    assert [m.id for m in checks.check_packages(None)] == ["iwtag.E004"]
    settings.BROKER_URL = "redis://localhost:6379/0"
    assert checks.check_packages(None) == []
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    assert [m.id for m in checks.check_packages(None)] == ["iwtag.E005"]


def test_folders_that_are_not_there(settings, tmp_path):
    settings.IWTAG_MODELS_DIRS = [tmp_path, tmp_path / "gone"]
    assert [m.id for m in checks.check_folders(None)] == ["iwtag.W003"]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("DATABASE_URL", "nonsense:secret", "DATABASE_URL must be"),
        ("DATABASE_URL", "postgres://a:secret@h:port/x", "DATABASE_URL must be"),
        ("IWTAG_PORT", "abc", "IWTAG_PORT is 'abc'"),
        ("IWTAG_STORAGE_OPTIONS", "{", "IWTAG_STORAGE_OPTIONS is '{'"),
        ("IWTAG_DATA_DIR", "/proc/nothing", "/proc/nothing"),
    ],
)
def test_a_wrong_setting_is_one_line(tmp_path, name, value, said):
    environment = {**os.environ, "IWTAG_DATA_DIR": str(tmp_path), name: value}
    done = subprocess.run(
        [sys.executable, "manage.py", "check"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert said in done.stderr
    assert "secret" not in done.stderr
