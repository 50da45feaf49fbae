"""Downloads from a hub on the loopback: progress, cancel, going on, and what goes wrong; nothing else is reachable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.utils import timezone

from tagging import queue
from tagging.actions import downloads
from tagging.actions.runs import NotNow
from tagging.adapters import scan
from tagging.models import ModelAdapter, ModelDownload
from tests.engine.installation import Installation, until
from tests.fakes.hub import Hub

TAGS = b"tag_id,name,category,count\n1,cat,0,5\n"
WD = {"model.onnx": os.urandom(40 << 20), "selected_tags.csv": TAGS, "README.md": b"not needed", "model.msgpack": b"x"}
VLM = {
    "config.json": b'{"architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl"}',
    "model-00001-of-00002.safetensors": os.urandom(20 << 20),
    "model-00002-of-00002.safetensors": os.urandom(20 << 20),
    "tokenizer.json": b"{}",
    "pytorch_model.bin": b"b" * 2000,
    "modeling_x.py": b"print('no')",
}


@pytest.fixture
def hub() -> Iterator[Hub]:
    found = Hub({"owner/wd": WD, "owner/vlm": VLM, "owner/empty": {"README.md": b"nothing"}, "owner/gated": WD})
    found.gated.add("owner/gated")
    yield found
    found.close()


@pytest.fixture
def site(tmp_path, migrated_once, hub) -> Iterator[Installation]:
    """An installation whose hub is the fake one, and which reaches nothing else."""
    found = Installation(tmp_path, migrated=migrated_once)
    (tmp_path / "models").mkdir()
    found.environment |= {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_ETAG_TIMEOUT": "5",
        "IWTAG_MODELS_DIRS": str(tmp_path / "models"),
        "HTTP_PROXY": "http://127.0.0.1:9",  # whatever is not the loopback goes nowhere
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1",
    }
    yield found
    found.close()


@pytest.fixture(scope="module")
def migrated_once(tmp_path_factory) -> Path:
    site = Installation(tmp_path_factory.mktemp("sqlite"))
    site.python("manage.py", "migrate", "-v0")
    site.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    return site.folder / "data" / "db.sqlite3"


def command(site: Installation, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", "download_model", *args],
        cwd=settings.BASE_DIR,
        env={**site.environment, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def job(site: Installation) -> dict[str, object]:
    names = ("state", "bytes_done", "bytes_total", "files", "error", "path", "phase", "commit")
    columns = ", ".join(f'"{name}"' for name in names)
    rows = site.rows(f"SELECT {columns} FROM tagging_modeldownload ORDER BY id DESC")
    return dict(zip(names, rows[0], strict=True))


def amount(found: dict[str, object]) -> int:
    return int(str(found["bytes_done"]))


START = """
import sys, django
django.setup()
from tagging.actions.downloads import start_download
print(start_download(sys.argv[1], kind=sys.argv[2]).pk)
"""


# -- the whole way -----------------------------------------------------------------------------------------------------
def test_only_the_files_of_the_kind_come_and_a_model_is_made(site, hub):
    done = command(site, "owner/wd", "--kind", "wd")
    assert done.returncode == 0, done.stderr
    found = job(site)
    size = len(WD["model.onnx"]) + len(TAGS)
    assert (found["state"], found["bytes_done"], found["bytes_total"], found["files"]) == ("done", size, size, 2)
    assert found["commit"] == Hub.COMMIT
    folder = Path(str(found["path"]))
    assert sorted(p.name for p in folder.iterdir()) == ["model.onnx", "selected_tags.csv"]
    assert (folder / "model.onnx").read_bytes() == WD["model.onnx"]
    assert site.rows("SELECT slug, kind, source FROM tagging_modeladapter") == [("wd", "wd", "owner/wd")]
    assert not list(Path(site.environment["HF_HOME"]).rglob("*.part"))
    # it is listed as on disk, with the revision, and a second time nothing is fetched
    cached = scan.hub_cache(Path(site.environment["HF_HOME"]) / "hub")
    assert [(c.source, c.revision, c.refs, c.bytes, c.partial) for c in cached] == [
        ("owner/wd", Hub.COMMIT, ("main",), size, False)
    ]
    assert cached[0].found.best is not None
    assert cached[0].found.best.kind == "wd"
    before = len(hub.fetched("model.onnx"))
    assert command(site, "owner/wd", "--kind", "wd").returncode == 0
    assert len(hub.fetched("model.onnx")) == before
    assert site.value("SELECT COUNT(*) FROM tagging_modeladapter") == 1


def test_a_transformers_model_comes_without_old_weights_and_code(site):
    done = command(site, "owner/vlm", "--kind", "vlm", "--no-add")
    assert done.returncode == 0, done.stderr
    names = {p.name for p in Path(str(job(site)["path"])).iterdir()}
    assert names == {n for n in VLM if n.endswith((".json", ".safetensors"))}
    assert site.value("SELECT COUNT(*) FROM tagging_modeladapter") == 0


def test_into_a_models_folder_where_adapters_and_the_scan_find_it(site, tmp_path):
    done = command(site, "owner/wd", "--kind", "wd", "--into", str(tmp_path / "models"))
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "models" / "owner--wd"
    assert (folder / "model.onnx").read_bytes() == WD["model.onnx"]
    assert site.value("SELECT source FROM tagging_modeladapter") == str(folder)
    found = scan.scan([tmp_path / "models"]).found
    assert [(f.name, f.best.kind if f.best else "") for f in found] == [("owner/wd", "wd")]


# -- breaking off and going on -----------------------------------------------------------------------------------------
def test_a_worker_downloads_with_progress_cancel_keeps_what_came_and_it_goes_on(site, hub):
    hub.slow = 2 << 20  # slower than a Python process starts on a machine under load
    site.worker("default")
    number = site.python("-c", START, "owner/wd", "wd").strip()
    moving = until(
        lambda: (j := job(site))["state"] == "running" and int(str(j["bytes_done"])) > 1 << 20 and j, "it moves"
    )
    assert moving["bytes_total"] == len(WD["model.onnx"]) + len(TAGS)
    assert moving["phase"] == "downloading"
    cancel = "import django; django.setup(); from tagging.actions.downloads import *; from tagging.models import *; {}"
    site.python("-c", cancel.format(f"cancel_download(ModelDownload.objects.get(pk={number}))"))
    assert job(site)["state"] == "cancelled"
    part = until(lambda: list(Path(site.environment["HF_HOME"]).rglob("*.part")), "the part file is there")[0]
    until(lambda: still(hub), "the transfer ends")
    kept = part.stat().st_size
    assert kept > 0
    hub.slow = 0
    before = len(hub.asked)
    site.python("-c", cancel.format(f"resume_download(ModelDownload.objects.get(pk={number}))"))
    until(lambda: job(site)["state"] == "done", "it goes on to the end")
    ranges = [line for line in hub.asked[before:] if line.startswith("GET") and "model.onnx" in line]
    assert [line.split("bytes=")[1] for line in ranges] == [f"{kept}-"]
    assert (Path(str(job(site)["path"])) / "model.onnx").read_bytes() == WD["model.onnx"]


def still(hub: Hub, seconds: float = 1.0) -> bool:
    import time

    before = len(hub.asked)
    time.sleep(seconds)
    return len(hub.asked) == before


def test_a_killed_process_is_replaced_by_the_sweep_and_goes_on(site, hub, tmp_path):
    hub.slow = 8 << 20
    child = site.start("download_model", "owner/wd", "--kind", "wd")
    until(lambda: job_or_none(site) and amount(job(site)) > 1 << 20, "it moves")
    child.kill()
    child.wait()
    assert job(site)["state"] == "running"
    hub.slow = 0
    site.worker("default")
    site.rows("UPDATE tagging_modeldownload SET created_at = '2020-01-01 00:00:00'")
    site.python("-c", "import django; django.setup(); from tagging.actions.downloads import sweep; sweep()")
    until(lambda: job(site)["state"] == "done", "another process goes on")
    assert any("bytes=" in line for line in hub.fetched("model.onnx")[1:])


def job_or_none(site: Installation) -> bool:
    return bool(site.value("SELECT COUNT(*) FROM tagging_modeldownload"))


def test_a_connection_that_breaks_again_and_again_is_taken_up_where_it_broke(site, hub):
    hub.cut = 15 << 20
    done = command(site, "owner/wd", "--kind", "wd")
    assert done.returncode == 0, done.stderr
    starts = [int(line.split("bytes=")[1].rstrip("-") or 0) for line in hub.fetched("model.onnx")[1:]]
    assert starts == sorted(set(starts))  # each took up where the one before broke off
    assert starts[0] > 0
    assert (Path(str(job(site)["path"])) / "model.onnx").read_bytes() == WD["model.onnx"]


def test_a_damaged_file_is_not_taken(site, hub):
    hub.corrupt = "model.onnx"
    done = command(site, "owner/wd", "--kind", "wd")
    assert done.returncode == 1
    assert "arrived damaged" in str(job(site)["error"])
    hub.corrupt = ""
    assert command(site, "owner/wd", "--kind", "wd").returncode == 0


# -- refusals ----------------------------------------------------------------------------------------------------------
REFUSED = """
import json, sys
import django
django.setup()
from huggingface_hub import constants
from tagging.actions.downloads import start_download
from tagging.hub import run_download
for source, revision in json.loads(sys.argv[1]):
    print(run_download(start_download(source, kind="wd", revision=revision).pk).error)
constants.HF_HUB_OFFLINE = True
print(run_download(start_download("owner/wd", kind="wd").pk).error)
"""


def test_what_the_hub_refuses_is_told_with_the_mend(site):
    asked = [["owner/none", ""], ["owner/wd", "v9"], ["owner/gated", ""], ["owner/empty", ""]]
    said = site.python("-c", REFUSED, json.dumps(asked)).splitlines()
    wanted = (
        "The hub has no model 'owner/none'",
        "owner/wd has no revision 'v9'",
        "accepted its licence",
        "has none of the files that an adapter of kind 'wd' needs (model.onnx, selected_tags.csv)",
        "HF_HUB_OFFLINE is set",
    )
    assert len(said) == len(wanted)
    for line, part in zip(said, wanted, strict=True):
        assert part in line


def test_a_hub_out_of_reach_is_said_plainly_and_ends_the_command_with_an_error(site):
    done = command(site, "owner/wd", "--kind", "wd", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 1
    assert "The hub (http://127.0.0.1:9) cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("owner/wd",), "Say which adapter"),
        (("not an id", "--kind", "wd"), "is no hub id"),
        (("owner/wd", "--kind", "nothing"), "No adapter 'nothing'"),
        (("owner/wd", "--kind", "wd", "--into", "/elsewhere"), "IWTAG_MODELS_DIRS"),
        ((), "Name a model"),
        (("--job", "99"), "no download 99"),
    ],
)
def test_what_is_asked_for_wrongly_is_refused_before_the_hub_is_asked(args, said):
    with pytest.raises(CommandError, match=said):
        call_command("download_model", *args)
    assert not ModelDownload.objects.exists()


SMALL_DISK = """
import django
django.setup()
from collections import namedtuple
from tagging import hub
from tagging.actions.downloads import start_download
hub.shutil.disk_usage = lambda path: namedtuple("Usage", "total used free")(1, 1, 2 << 20)
print(hub.run_download(start_download("owner/wd", kind="wd").pk).error)
"""


def test_a_disk_that_is_too_small_is_found_before_anything_comes(site, hub):
    said = site.python("-c", SMALL_DISK)
    assert "42 MB are to come, and 2 MB are free" in said
    assert not hub.fetched("model.onnx")


# -- jobs --------------------------------------------------------------------------------------------------------------
@pytest.fixture
def rung(monkeypatch) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    monkeypatch.setattr(queue, "defer", lambda *args, **kwargs: found.append(args))
    return found


@pytest.mark.django_db
def test_the_same_is_not_downloaded_twice_at_once(rung):
    first = downloads.start_download("owner/wd", kind="wd")
    assert downloads.start_download(" owner/wd ", kind="wd") == first
    assert downloads.start_download("owner/wd", kind="wd", revision="v2") != first
    assert rung[0] == (downloads.TASK, first.pk)
    with pytest.raises(NotNow, match="queued"):
        downloads.resume_download(first)
    downloads.cancel_download(first)
    with pytest.raises(NotNow, match="cancelled already"):
        downloads.cancel_download(first)
    downloads.resume_download(first)
    assert first.state == "queued"
    with pytest.raises(ValidationError):
        downloads.start_download("owner/wd", kind="wd", revision="a b")


@pytest.mark.django_db
def test_a_job_in_work_is_left_to_its_process_and_an_abandoned_one_is_rung_for(rung):
    job = downloads.start_download("owner/wd", kind="wd")
    assert downloads.claim(job.pk) is not None
    assert downloads.claim(job.pk) is None
    ModelDownload.objects.update(created_at=timezone.now() - downloads.LEASE * 2)
    rung.clear()
    downloads.sweep()
    assert rung == []
    ModelDownload.objects.update(owner="gone|1|1", lease_until=timezone.now() - downloads.LEASE)
    downloads.sweep()
    assert rung == [(downloads.TASK, job.pk)]
    assert ModelAdapter.objects.count() == 0
