"""Where a model's files are found: other names, patterns, the hub's cache, the hub, weights beside a graph."""

from __future__ import annotations

import pytest
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from tagging.adapters import model_files
from tagging.adapters.base import AdapterConfig, ModelUnavailable
from tagging.adapters.model_files import Wanted
from tagging.adapters.wd import WdTagger
from tests.fakes import wd_model

WANTED = Wanted("A thing", (("new.onnx", "old.onnx", "thing*.onnx"), ("labels.csv",)), (("extra.json",),))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with some files; what was asked of it."""
    there = tmp_path / "hub"
    there.mkdir()
    asked = []

    def download(repo, name, revision=None):
        asked.append(name)
        if not (there / name).exists():
            raise EntryNotFoundError(f"404: {name}")
        return str(there / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    return there, asked


@pytest.mark.parametrize("name", ["new.onnx", "old.onnx", "thing-v7.onnx"])
def test_a_file_under_any_of_its_names(tmp_path, name):
    for file in (name, "labels.csv"):
        (tmp_path / file).write_text("x")
    found = model_files.in_folder(tmp_path, WANTED)
    assert found == {"new.onnx": tmp_path / name, "labels.csv": tmp_path / "labels.csv"}


def test_the_usual_name_goes_before_the_others(tmp_path):
    for file in ("old.onnx", "new.onnx", "labels.csv", "extra.json"):
        (tmp_path / file).write_text("x")
    found = model_files.in_folder(tmp_path, WANTED)
    assert found["new.onnx"].name == "new.onnx"
    assert found["extra.json"].name == "extra.json"


def test_what_is_missing_is_named(tmp_path):
    (tmp_path / "old.onnx").write_text("x")
    with pytest.raises(ModelUnavailable, match=r"labels\.csv is missing\. A thing needs new\.onnx or"):
        model_files.in_folder(tmp_path, WANTED)


def test_the_hub_is_asked_for_the_next_name_and_not_for_patterns(hub):
    there, asked = hub
    for file in ("old.onnx", "labels.csv"):
        (there / file).write_text("x")
    found = model_files.find(AdapterConfig(source="some/thing"), WANTED, download=True)
    assert found["new.onnx"].name == "old.onnx"
    assert asked == ["new.onnx", "old.onnx", "labels.csv", "extra.json"]


def test_a_repository_of_another_family(hub):
    there, _ = hub
    (there / "old.onnx").write_text("x")
    with pytest.raises(ModelUnavailable, match=r"some/thing cannot be fetched.*labels\.csv.*Download new\.onnx or"):
        model_files.find(AdapterConfig(source="some/thing"), WANTED, download=True)


def test_without_a_connection_nothing_else_is_tried(monkeypatch):
    asked = []

    def download(repo, name, revision=None):
        asked.append(name)
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    with pytest.raises(ModelUnavailable, match="no connection"):
        model_files.find(AdapterConfig(source="some/thing"), WANTED, download=True)
    assert asked == ["new.onnx"]


def test_nothing_is_downloaded_where_it_must_not(hub):
    assert model_files.find(AdapterConfig(source="some/thing"), WANTED, download=False) is None
    assert hub[1] == []


class TestWeightsBesideTheGraph:
    @pytest.fixture
    def folder(self, tmp_path):
        """A graph whose weights lie in model.onnx_data, as exporters of large models write it."""
        import onnx

        folder = wd_model.tiny(tmp_path / "wd", outputs=9)
        model = onnx.load(folder / "model.onnx")
        onnx.save(
            model,
            folder / "model.onnx",
            save_as_external_data=True,
            location="model.onnx_data",
            size_threshold=0,
        )
        assert (folder / "model.onnx_data").is_file()
        return folder

    def test_it_loads_and_its_weights_are_part_of_its_identity(self, folder):
        adapter = WdTagger(AdapterConfig(source=str(folder)))
        with adapter:
            first = adapter.identity()
        data = bytearray((folder / "model.onnx_data").read_bytes())
        data[0] ^= 255
        (folder / "model.onnx_data").write_bytes(data)
        second = WdTagger(AdapterConfig(source=str(folder))).identity()
        assert first["file_sha256"] == second["file_sha256"]
        assert first["data_sha256"] != second["data_sha256"]

    def test_the_hub_is_asked_for_them_too(self, folder, hub):
        there, asked = hub
        for name in ("model.onnx", "model.onnx_data", "selected_tags.csv"):
            (there / name).write_bytes((folder / name).read_bytes())
        model_files.find(AdapterConfig(source="some/wd"), WdTagger.wanted, download=True)
        assert asked == ["model.onnx", "model.onnx_data", "selected_tags.csv"]

    def test_their_bytes_count(self, folder):
        size = sum((folder / name).stat().st_size for name in ("model.onnx", "model.onnx_data"))
        assert model_files.bytes_of(folder / "model.onnx") == size
        assert WdTagger(AdapterConfig(source=str(folder))).memory_needed() > size
