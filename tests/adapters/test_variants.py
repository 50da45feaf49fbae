"""Quantised variants: made by the command, measured, with an identity of their own, never of another file."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from django.core.management import CommandError, call_command

from tagging.adapters import quantize, variants
from tagging.adapters.base import AdapterConfig, AdapterError, ModelUnavailable, Request
from tagging.adapters.pixai import PixaiTagger
from tagging.adapters.wd import WdTagger
from tagging.models import ModelAdapter
from tests.fakes import tagger_model, wd_model

from .helpers import image_input

pytestmark = pytest.mark.django_db


@pytest.fixture
def folder(tmp_path):
    return tagger_model.pixai(tmp_path / "models" / "pixai")


@pytest.fixture
def row(folder):
    return ModelAdapter.objects.create(slug="pix", label="Pix", kind="pixai", source=str(folder), device="cpu")


def tagger(folder, quantization="none", **config):
    return PixaiTagger(AdapterConfig(source=str(folder), device="cpu", quantization=quantization, **config))


def scores(adapter, samples):
    with adapter:
        request = Request(adapter.options())
        return adapter.scores([adapter.prepare(image_input(samples / "cat-face.jpg"), request)])[0]


@pytest.mark.parametrize("kind", ["int8", "fp16"])
def test_the_command_makes_it_and_tells_its_error(row, folder, samples, kind, capsys):
    call_command("quantize_model", "pix", to=kind, count=4)
    said = capsys.readouterr().out
    told = json.loads((folder / f"model.{kind}.json").read_text())
    assert f"model.{kind}.onnx" in said
    assert f"{told['measured']['max_error']:.4f}" in said
    assert told["measured"]["images"] == 4
    assert sorted(p.name for p in folder.iterdir() if "part" in p.name) == []

    original, variant = scores(tagger(folder), samples), scores(tagger(folder, kind), samples)
    assert (original != variant).any()
    assert np.abs(original - variant).max() < 0.1
    assert tagger(folder).identity() != tagger(folder, kind).identity()
    assert tagger(folder, kind).identity()["quantization"] == kind
    assert tagger(folder, kind).check() == []


def test_the_measured_error_is_the_real_one(row, folder, samples):
    call_command("quantize_model", "pix", count=3)
    measured = json.loads((folder / "model.int8.json").read_text())["measured"]
    pictures = sorted(p for p in samples.iterdir() if p.suffix in {".jpg", ".png"})[:3]
    worst = 0.0
    with tagger(folder) as first, tagger(folder, "int8") as second:
        for path in pictures:
            prepared = first.prepare(image_input(path), Request(first.options()))
            worst = max(worst, float(np.abs(first.scores([prepared]) - second.scores([prepared])).max()))
    assert measured["max_error"] == pytest.approx(worst, abs=1e-5)
    assert 0 < measured["mean_error"] <= measured["max_error"]


def test_add_makes_a_model_that_uses_it(row, folder):
    call_command("quantize_model", "pix", add=True, count=2)
    made = ModelAdapter.objects.get(slug="pix-int8")
    assert (made.quantization, made.source) == ("int8", str(folder))
    assert made.build().check() == []


def test_before_it_is_made_the_mend_is_told(folder):
    (problem,) = tagger(folder, "int8").check()
    assert "quantize_model" in problem.message
    with pytest.raises(ModelUnavailable, match="quantize_model"):
        tagger(folder, "int8").load()


def test_a_variant_of_another_file_is_refused(row, folder, tmp_path):
    call_command("quantize_model", "pix", count=2)
    other = tagger_model.pixai(tmp_path / "other", outputs={"prediction": "sigmoid"})
    shutil.copy(other / "model.onnx", folder / "model.onnx")
    with pytest.raises(ModelUnavailable, match=r"made of another model\.onnx"):
        tagger(folder, "int8").load()


def test_a_lost_manifest_is_told(row, folder):
    call_command("quantize_model", "pix", count=2)
    (folder / "model.int8.json").unlink()
    with pytest.raises(ModelUnavailable, match=r"model\.int8\.json cannot be read"):
        tagger(folder, "int8").load()


def test_a_folder_that_cannot_be_written_goes_on_the_shelf(folder, tmp_path, monkeypatch, samples):
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    monkeypatch.setattr("os.access", lambda path, mode: str(path) == str(shelf))
    adapter = tagger(folder, models_dirs=(shelf,))
    path, _ = quantize.make(adapter, "int8", [image_input(samples / "cat-face.jpg")])
    assert path.parent == shelf / variants.SHELF
    assert tagger(folder, "int8", models_dirs=(shelf,)).check() == []
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ModelUnavailable, match="IWTAG_MODELS_DIRS"):
        quantize.place(adapter, "int8")


def test_nothing_is_left_when_it_cannot_be_measured(folder):
    before = sorted(folder.iterdir())
    with pytest.raises(AdapterError, match="None of the pictures"):
        quantize.make(tagger(folder), "int8", [image_input(b"nothing", "bad.jpg")])
    assert sorted(folder.iterdir()) == before


def test_nothing_is_left_when_it_cannot_be_made(folder):
    (folder / "model.onnx").write_bytes(b"<html>")
    before = sorted(folder.iterdir())
    with pytest.raises(ModelUnavailable, match="cannot be turned into int8"):
        quantize.make(tagger(folder), "int8", [image_input(b"nothing", "bad.jpg")])
    assert sorted(folder.iterdir()) == before


def test_a_real_graph_in_int8_keeps_its_answers(tmp_path, samples):
    """photo-lite's convolutions stay as they are, the matrix of sums becomes 8 bits."""
    folder = wd_model.build(tmp_path / "wd")
    adapter = WdTagger(AdapterConfig(source=str(folder), device="cpu"))
    _, measured = quantize.make(adapter, "int8", [image_input(samples / n) for n in ("cat-face.jpg", "honey-bee.jpg")])
    assert measured.max_error < 0.1
    assert measured.same_tags > 0.9


@pytest.mark.parametrize(
    ("given", "pattern"),
    [
        ({"adapter": "nobody"}, "no model 'nobody'"),
        ({"adapter": "lite"}, "no ONNX tagger"),
        ({"adapter": "pix", "images": "nowhere"}, "is no folder"),
    ],
)
def test_what_the_command_refuses(row, given, pattern, tmp_path):
    ModelAdapter.objects.create(slug="lite", label="Lite", kind="photo-lite")
    if "images" in given:
        given = {**given, "images": tmp_path / "nowhere"}
    given = dict(given)
    adapter = given.pop("adapter")
    with pytest.raises(CommandError, match=pattern):
        call_command("quantize_model", adapter, **given)
