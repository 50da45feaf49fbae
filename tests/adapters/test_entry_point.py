"""An adapter of a package of its own, as docs/adapters.md shows it: installed by pip, found, and held to the suite."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tagging.adapters import registry

from .contract import AdapterContract, Case

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "iwtag-brightness"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The package in a folder of its own, as `pip install` puts it there."""
    place = tmp_path_factory.mktemp("site")
    source = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("source") / "package")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run([*command, "--target", place, source], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture(scope="module")
def brightness(installed):
    sys.path.insert(0, str(installed))
    importlib.invalidate_caches()
    registry.registered.cache_clear()
    yield registry.adapter_class("brightness")
    sys.path.remove(str(installed))
    sys.modules.pop("iwtag_brightness", None)
    registry.registered.cache_clear()


class TestContract(AdapterContract):
    key = "brightness"

    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, brightness):
        return Case(brightness, elsewhere=lambda folder: brightness())


def test_it_is_short():
    assert len((EXAMPLE / "iwtag_brightness.py").read_text().splitlines()) < 60


def test_another_process_finds_it(installed):
    code = "import json; from tagging.adapters import registry; print(json.dumps(registry.choices()))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")])}
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True)
    assert ["brightness", "brightness"] in json.loads(done.stdout)


@pytest.mark.django_db
def test_a_run_with_it_tags(brightness, samples, tmp_path, monkeypatch):
    from tagging.actions.ingest import create_collection, run_ingest, start_ingest
    from tagging.actions.recipes import ChannelSpec, get_recipe
    from tagging.actions.runs import start_run
    from tagging.engine import residency, worker
    from tagging.models import ModelAdapter, Proposal

    monkeypatch.setattr("tagging.queue.kick", lambda queue, n=1: None)
    shutil.copy(samples / "bridge-at-night.jpg", tmp_path)
    collection = create_collection(name="Nights", root=str(tmp_path))
    run_ingest(start_ingest(collection, ring=False).pk)
    row = ModelAdapter.objects.create(slug="light", label="Light", kind="brightness")
    run = start_run(get_recipe([ChannelSpec(row)]), collection=collection)
    try:
        while worker.drain("gpu"):
            pass
    finally:
        residency.MODELS.evict()
    assert [tag[0] for tag in Proposal.objects.get(run=run).tags] == ["dark"]


def test_a_key_that_is_taken_stays_the_built_in_one(installed, tmp_path, monkeypatch, caplog):
    info = tmp_path / "thief-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thief\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[iwtag.adapters]\nwd = os:path\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.registered.cache_clear()
    try:
        assert registry.registered()["wd"][1] == "tagging.adapters.wd:WdTagger"
        assert "the key is taken" in caplog.text
    finally:
        registry.registered.cache_clear()
