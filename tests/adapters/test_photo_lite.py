"""photo-lite on the sample photographs, through the adapter contract."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from pydantic import ValidationError

from tagging.adapters import registry
from tagging.adapters.base import AdapterConfig, AdapterError, ModelUnavailable, Request
from tagging.adapters.photo_lite import EMBEDDED, PhotoLite

from .helpers import image_input

#: What a person sees, and what the model must name among its highest three (parents included) or at 0.3 or more.
EXPECTED = {
    "cat-face.jpg": "cat",
    "spaniels-at-the-window.jpg": "spaniel",
    "honey-bee.jpg": "bee",
    "bridge-at-night.jpg": "bridge",
    "coffee-cutout.png": "espresso",
    "citrus-slices.jpg": "citrus fruit",
    "mountain-path.jpg": "mountain",
    "paintbrushes.jpg": "paintbrush",
    "pagoda.jpg": "building",
    "autumn-hills.jpg": "landscape",
}


@pytest.fixture(scope="module")
def adapter():
    with PhotoLite() as adapter:
        yield adapter


@pytest.fixture
def request_(adapter):
    return Request(adapter.options())


def tags(adapter, reply) -> dict[str, float]:
    """Name → probability, highest first."""
    names = adapter.label_set.names
    pairs = zip(reply.scores.labels, reply.scores.probabilities, strict=True)
    return {names[label]: float(probability) for label, probability in pairs}


def test_it_is_registered_and_ready():
    assert registry.adapter_class("photo-lite") is PhotoLite
    assert PhotoLite().check() == []


def test_it_names_what_is_on_the_samples(adapter, request_, samples):
    batch = [adapter.prepare(image_input(samples / name), request_) for name in EXPECTED]
    for (name, expected), reply in zip(EXPECTED.items(), adapter.infer(batch, request_), strict=True):
        found = tags(adapter, reply)
        assert expected in list(found)[:3], (name, found)
        assert found[expected] > 0.3, (name, found)


def test_near_duplicates_get_the_same_tags(adapter, request_, samples):
    pair = [image_input(samples / name) for name in ("mountain-path.jpg", "mountain-path-2.jpg")]
    first, second = (tags(adapter, r) for r in adapter.infer([adapter.prepare(p, request_) for p in pair], request_))
    assert list(first)[:2] == list(second)[:2]


def test_probabilities_are_real_and_a_parent_holds_the_sum_of_its_children(adapter, samples):
    request = Request(adapter.options({"score_floor": 0.001}))
    (reply,) = adapter.infer([adapter.prepare(image_input(samples / "spaniels-at-the-window.jpg"), request)], request)
    scores = np.zeros(len(adapter.label_set.names))
    scores[reply.scores.labels] = reply.scores.probabilities
    classes = 1000
    assert scores[:classes].sum() == pytest.approx(1, abs=0.3)  # what lies below the floor is missing
    parents = np.array(adapter.label_set.parents)
    for parent in range(classes, len(parents)):
        below = scores[parents == parent].sum()
        missing = 0.001 * sum(_is_below(parents, i, parent) for i in range(classes))
        assert below - 1e-3 <= scores[parent] <= below + missing + 1e-3


def _is_below(parents, label, parent) -> bool:
    while label >= 0:
        label = parents[label]
        if label == parent:
            return True
    return False


def test_the_hierarchy_is_a_tree_of_unique_names(adapter):
    labels = adapter.label_set
    assert len({name.casefold() for name in labels.names}) == len(labels.names)
    assert set(labels.categories) == {"general"}

    def path(name: str) -> str:
        index, found = labels.names.index(name), [name]
        while labels.parents[index] >= 0:
            index = labels.parents[index]
            found.append(labels.names[index])
            assert len(found) <= 5
        return "|".join(reversed(found))

    assert path("Cocker Spaniel") == "animal|dog|spaniel|Cocker Spaniel"
    assert path("sports car") == "vehicle|car|sports car"
    assert path("lemon") == "food|fruit|citrus fruit|lemon"
    assert path("daisy") == "plant|flower|daisy"
    assert path("church") == "building|place of worship|church"
    for name in labels.names:
        path(name)


def test_turning_by_the_exif_flag_matters(adapter, request_, samples):
    """The sample lies on its side; read upright, it shows a dog."""
    (reply,) = adapter.infer([adapter.prepare(image_input(samples / "spaniels-at-the-window.jpg"), request_)], request_)
    assert tags(adapter, reply)["dog"] > 0.5


def test_batches_of_any_size_answer_in_order_as_single_images_do(adapter, request_, samples):
    names = ["cat-face.jpg", "honey-bee.jpg", "pagoda.jpg", "drum-and-wine.jpg", "cat-face.jpg"]
    prepared = [adapter.prepare(image_input(samples / name), request_) for name in names]
    together = list(adapter.infer(prepared, request_))
    apart = [next(iter(adapter.infer([p], request_))) for p in prepared]
    assert [r.scores.to_bytes() for r in together] == [r.scores.to_bytes() for r in apart]
    assert all(reply.seconds > 0 for reply in together)


def test_scores_come_above_the_floor_highest_first(adapter, samples):
    request = Request(adapter.options({"score_floor": 0.2}))
    (reply,) = adapter.infer([adapter.prepare(image_input(samples / "cat-face.jpg"), request)], request)
    values = reply.scores.probabilities
    assert len(values) >= 3
    assert (values >= 0.2 - 1e-4).all()
    assert (np.diff(values) <= 0).all()


def test_the_threshold_is_a_selection_and_the_floor_is_not(adapter):
    assert adapter.options({"general_threshold": 0.9}).inference_dict() == adapter.options().inference_dict()
    assert adapter.options({"score_floor": 0.1}).inference_dict() != adapter.options().inference_dict()
    chosen = adapter.options({"general_threshold": 0.6})
    assert PhotoLite.thresholds(adapter.label_set, np.zeros(3, np.float32), chosen) == {"general": 0.6}


@pytest.mark.parametrize(
    ("given", "named"),
    [({"treshold": 0.5}, "treshold"), ({"general_threshold": "high"}, "general_threshold"), ({"score_floor": 2}, "2")],
)
def test_wrong_options_are_named(given, named):
    with pytest.raises(ValidationError, match=named):
        PhotoLite().options(given)


def test_load_and_unload_are_idempotent(samples):
    adapter = PhotoLite()
    assert adapter.provider == ""
    adapter.load()
    adapter.load()
    assert adapter.provider == "CPUExecutionProvider"
    assert adapter.batch_size >= 1
    request = Request(adapter.options())
    prepared = adapter.prepare(image_input(samples / "cat-face.jpg"), request)
    adapter.unload()
    adapter.unload()
    with pytest.raises(AdapterError, match="load"):
        list(adapter.infer([prepared], request))
    with adapter:
        assert len(list(adapter.infer([prepared], request))) == 1


def test_a_bad_image_leaves_the_others_alone(adapter, request_, samples):
    good = adapter.prepare(image_input(samples / "cat-face.jpg"), request_)
    with pytest.raises(AdapterError, match="bad"):
        adapter.prepare(image_input(b"nothing", "bad.jpg"), request_)
    assert len(list(adapter.infer([good], request_))) == 1


def test_identity_is_content_and_not_place(adapter, tmp_path):
    copy = PhotoLite(AdapterConfig(source=str(shutil.copytree(EMBEDDED, tmp_path / "copy")), device="cpu"))
    assert copy.identity() == adapter.identity()
    assert adapter.identity()["file_sha256"] == adapter.manifest["files"]["model.onnx"]["sha256"]
    assert str(tmp_path) not in json.dumps(copy.identity())


class TestDamagedFolder:
    @pytest.fixture
    def folder(self, tmp_path):
        return shutil.copytree(EMBEDDED, tmp_path / "photo-lite")

    def adapter(self, folder, **config):
        return PhotoLite(AdapterConfig(source=str(folder), **config))

    def test_a_missing_file_is_a_problem_with_its_mend(self, folder):
        (folder / "labels.json").unlink()
        (problem,) = self.adapter(folder).check()
        assert "labels.json is missing" in problem.message
        assert "git checkout" in problem.mend

    def test_a_model_that_is_not_the_described_one_is_refused(self, folder):
        with (folder / "model.onnx").open("ab") as stream:
            stream.write(b"x")
        with pytest.raises(ModelUnavailable, match=r"model\.onnx.*sha256 differs"):
            self.adapter(folder).load()

    @pytest.mark.parametrize("content", ["{", "{}", '{"classes": [{"name": "a"}], "parents": []}'])
    def test_broken_labels_are_named(self, folder, content):
        (folder / "labels.json").write_text(content)
        with pytest.raises(ModelUnavailable, match=r"labels\.json"):
            self.adapter(folder).load()

    def test_a_device_that_is_not_there_is_refused_with_the_mend(self, folder):
        with pytest.raises(ModelUnavailable, match=r"DmlExecutionProvider.*onnxruntime-directml"):
            self.adapter(folder, device="directml").load()

    def test_an_unknown_device_is_a_problem(self, folder):
        (problem,) = self.adapter(folder, device="gpu").check()
        assert "'gpu'" in problem.message
        assert "cuda" in problem.mend
