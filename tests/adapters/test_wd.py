"""The WD adapter on a WD-layout model with real weights, against a plain implementation; and all that can be wrong."""

from __future__ import annotations

import shutil

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from pydantic import ValidationError

from tagging.adapters import registry, wd_files
from tagging.adapters.base import AdapterConfig, AdapterError, ModelUnavailable, OutOfMemory, Request
from tagging.adapters.wd import WdTagger, mcut
from tests.fakes import wd_model

from .helpers import encoded, image_input, reference_square

FLOOR = 0.001


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return wd_model.build(tmp_path_factory.mktemp("wd"))


@pytest.fixture(scope="module")
def adapter(folder):
    with WdTagger(AdapterConfig(source=str(folder))) as adapter:
        yield adapter


@pytest.fixture
def request_(adapter):
    return Request(adapter.options({"score_floor": FLOOR}))


def plain_answer(folder, source) -> np.ndarray:
    """Reference preparation, plain session, one image: a probability for each label."""
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    pixels = reference_square(source, wd_model.SIDE)[:, :, ::-1].astype(np.float32)[None]
    return session.run(None, {session.get_inputs()[0].name: pixels})[0][0]


def by_name(adapter, reply) -> dict[str, float]:
    names = adapter.label_set.names
    pairs = zip(reply.scores.labels, reply.scores.probabilities, strict=True)
    return {names[label]: float(probability) for label, probability in pairs}


def answer(adapter, source, request):
    (reply,) = adapter.infer([adapter.prepare(image_input(source), request)], request)
    return reply


def test_it_is_registered_and_ready(adapter):
    assert registry.adapter_class("wd") is WdTagger
    assert adapter.check() == []
    assert adapter.provider == "CPUExecutionProvider"


@pytest.mark.parametrize("name", ["coffee-cutout.png", "cat-face.jpg", "pagoda.jpg", "astronaut.jpg"])
def test_probabilities_equal_the_plain_implementation(adapter, folder, request_, samples, name):
    png = encoded(Image.open(samples / name))
    expected, reply = plain_answer(folder, png), answer(adapter, png, request_)
    found = by_name(adapter, reply)
    for label, category, probability in zip(
        adapter.label_set.names, adapter.label_set.categories, expected, strict=True
    ):
        if category == "rating":
            assert label not in found
        elif probability >= FLOOR + 1e-4:
            assert found[label] == pytest.approx(probability, abs=1e-4)
        elif probability < FLOOR - 1e-4:
            assert label not in found
    rating = int(np.argmax(expected[:4]))
    assert reply.rating[0] == adapter.label_set.names[rating]
    assert reply.rating[1] == pytest.approx(expected[rating], abs=1e-4)


def test_drafted_jpegs_answer_nearly_the_same(adapter, folder, request_, samples):
    for name in ("mountain-path.jpg", "honey-bee.jpg", "spaniels-at-the-window.jpg"):
        expected = plain_answer(folder, samples / name)
        found = by_name(adapter, answer(adapter, samples / name, request_))
        for index in np.flatnonzero(expected[4:] > 0.05) + 4:
            assert found[adapter.label_set.names[index]] == pytest.approx(expected[index], abs=0.12)


def test_labels_come_from_the_file(adapter):
    labels = adapter.label_set
    assert set(labels.categories) == {"rating", "general", "character"}
    assert list(labels.category_index["rating"]) == [0, 1, 2, 3]
    assert "egyptian_mau" in labels.names  # underscores are the policy's business
    assert "^_^" in labels.names


def test_characters_general_tags_and_rating_are_apart(adapter, samples):
    request = Request(adapter.options())
    reply = answer(adapter, samples / "cat-face.jpg", request)
    found = by_name(adapter, reply)
    assert reply.rating[0] == "general"
    assert reply.rating[1] > 0.8
    assert found["cat_(character)"] == pytest.approx(found["^_^"])
    assert found["cat_(character)"] > 0.5


def test_batches_of_any_size_answer_in_order(adapter, request_, samples):
    names = ["cat-face.jpg", "coffee-cutout.png", "honey-bee.jpg", "drum-and-wine.jpg", "cameraman.jpg"]
    prepared = [adapter.prepare(image_input(samples / name), request_) for name in names]
    assert len({p.shape for p in prepared}) == 1
    together = list(adapter.infer(prepared, request_))
    apart = [next(iter(adapter.infer([p], request_))) for p in prepared]
    assert [r.scores.to_bytes() for r in together] == [r.scores.to_bytes() for r in apart]


def test_load_and_unload_are_idempotent(folder, samples):
    adapter = WdTagger(AdapterConfig(source=str(folder)))
    request = Request(adapter.options())
    with pytest.raises(AdapterError, match="load"):
        adapter.prepare(image_input(samples / "cat-face.jpg"), request)
    adapter.load()
    adapter.load()
    adapter.unload()
    adapter.unload()
    assert adapter.provider == ""
    with pytest.raises(AdapterError, match="load"):
        list(adapter.infer([np.zeros((260, 260, 3), np.uint8)], request))


def test_identity_is_the_content_of_the_files(adapter, folder, tmp_path):
    copied = wd_model.build(tmp_path / "elsewhere")
    assert WdTagger(AdapterConfig(source=str(copied))).identity() == adapter.identity()
    other = wd_model.tiny(tmp_path / "other")
    assert WdTagger(AdapterConfig(source=str(other))).identity() != adapter.identity()


class TestThresholds:
    labels = None

    @pytest.fixture(autouse=True)
    def _labels(self, tmp_path):
        rows = [("safe", 9), ("a", 0), ("b", 0), ("c", 0), ("hero", 4), ("villain", 4)]
        wd_model.write_tags(tmp_path, rows)
        self.labels = wd_files.read_labels(tmp_path / "selected_tags.csv")

    def cuts(self, probabilities, **options):
        values = np.array(probabilities, np.float32)
        return WdTagger.thresholds(self.labels, values, WdTagger.Options(**options))

    def test_each_category_has_its_own(self):
        cuts = self.cuts([0, 0.9, 0.5, 0.1, 0.9, 0.2], general_threshold=0.4, character_threshold=0.7)
        assert cuts == {"general": 0.4, "character": 0.7}

    def test_mcut_cuts_at_the_largest_gap(self):
        cuts = self.cuts([0.99, 0.9, 0.8, 0.2, 0.6, 0.5], general_mcut=True, character_threshold=0.7)
        assert cuts["general"] == pytest.approx(0.5)
        assert cuts["character"] == 0.7

    def test_mcut_for_characters_has_a_minimum(self):
        assert self.cuts([0, 0, 0, 0, 0.09, 0.07], character_mcut=True)["character"] == pytest.approx(0.15)
        assert self.cuts([0, 0, 0, 0, 0.9, 0.1], character_mcut=True)["character"] == pytest.approx(0.5)

    def test_mcut_of_nothing_lets_nothing_pass(self):
        assert mcut(np.zeros(5, np.float32), 0.05) == 1

    def test_mcut_does_not_depend_on_scores_that_were_not_stored(self):
        full = np.array([0.9, 0.85, 0.3, 0.28, 0.04, 0.01], np.float32)
        stored = np.where(full >= 0.05, full, 0).astype(np.float32)
        assert mcut(full, 0.05) == mcut(stored, 0.05) == pytest.approx(0.575)

    def test_thresholds_need_no_new_inference(self):
        plain = WdTagger.Options()
        moved = WdTagger.Options(general_threshold=0.1, character_threshold=0.2, general_mcut=True, character_mcut=True)
        assert plain.inference_dict() == moved.inference_dict()
        assert WdTagger.Options(score_floor=0.1).inference_dict() != plain.inference_dict()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"mcut": True}, "mcut"),
        ({"general_threshold": "0.5?"}, "general_threshold"),
        ({"score_floor": 0}, "score_floor"),
    ],
)
def test_wrong_options_are_named(given, named):
    with pytest.raises(ValidationError, match=named):
        WdTagger().options(given)


class TestWrongFiles:
    def adapter(self, folder, **config) -> WdTagger:
        return WdTagger(AdapterConfig(source=str(folder), **config))

    def fails(self, folder, pattern):
        with pytest.raises(ModelUnavailable, match=pattern):
            self.adapter(folder).load()

    def test_no_source(self):
        (problem,) = WdTagger().check()
        assert "source" in problem.message

    def test_a_folder_that_is_not_there(self, tmp_path):
        (problem,) = self.adapter(tmp_path / "nowhere").check()
        assert "nowhere" in problem.message
        assert problem.fatal

    @pytest.mark.parametrize("name", ["model.onnx", "selected_tags.csv"])
    def test_a_missing_file(self, tmp_path, name):
        folder = wd_model.tiny(tmp_path / "wd")
        (folder / name).unlink()
        (problem,) = self.adapter(folder).check()
        assert name in problem.message
        self.fails(folder, f"{name} is missing")

    def test_a_corrupt_model(self, tmp_path):
        folder = wd_model.tiny(tmp_path / "wd")
        (folder / "model.onnx").write_bytes(b"<html>not found</html>")
        self.fails(folder, r"model\.onnx is not an ONNX model.*Download")

    def test_labels_of_another_model(self, tmp_path):
        folder = wd_model.tiny(tmp_path / "wd")
        wd_model.write_tags(folder, [("a", 0), ("b", 0)])
        self.fails(folder, r"selected_tags\.csv has 2 tags but model\.onnx has 3 outputs")

    def test_labels_of_another_model_when_the_width_is_free(self, tmp_path, monkeypatch):
        folder = wd_model.tiny(tmp_path / "wd")
        wd_model.write_tags(folder, [("a", 0), ("b", 0)])
        monkeypatch.setattr("tagging.adapters.onnx_session.OnnxModel.output_shape", ["n", "labels"])
        self.fails(folder, "has 2 tags but model.onnx has 3 outputs")

    @pytest.mark.parametrize(
        ("text", "pattern"),
        [
            ("tag,kind\na,0\n", "no column category, name"),
            ("", "no column"),
            ("name,category\n", "no tags"),
            ("name,category\na,0\nb,general\n", "line 3"),
            ("name,category\na,0\n,0\n", "line 3"),
        ],
    )
    def test_a_label_file_that_is_none(self, tmp_path, text, pattern):
        folder = wd_model.tiny(tmp_path / "wd")
        (folder / "selected_tags.csv").write_text(text)
        (problem,) = self.adapter(folder).check()
        assert "selected_tags.csv" in problem.message
        self.fails(folder, pattern)

    def test_a_label_file_in_another_encoding(self, tmp_path):
        folder = wd_model.tiny(tmp_path / "wd")
        (folder / "selected_tags.csv").write_bytes("name,category\nñ_ñ,0\n".encode("latin-1"))
        self.fails(folder, "selected_tags.csv cannot be read")

    def test_unknown_categories_are_kept_apart(self, tmp_path):
        wd_model.write_tags(tmp_path, [("a", 0), ("b", 7)])
        assert wd_files.read_labels(tmp_path / "selected_tags.csv").categories == ("general", "category 7")

    @pytest.mark.parametrize("shape", [["n", 8, 6, 3], ["n", "h", "w", 3]])
    def test_a_model_of_another_layout(self, tmp_path, shape):
        self.fails(wd_model.tiny(tmp_path / "wd", shape=shape), r"another family")

    def test_a_model_with_channels_first(self, tmp_path):
        shutil.copy(wd_model.PHOTO_LITE / "model.onnx", tmp_path)
        wd_model.write_tags(tmp_path, [(f"tag_{i}", 0) for i in range(1000)])
        self.fails(tmp_path, r"3, 260, 260.*another family")

    def test_answers_that_are_no_probabilities(self, tmp_path, samples):
        folder = wd_model.tiny(tmp_path / "wd", scale=9.0)
        with self.adapter(folder) as adapter:
            reply = answer(adapter, samples / "cat-face.jpg", Request(adapter.options()))
        assert isinstance(reply, AdapterError)
        assert "outside 0 to 1" in reply.message

    def test_a_fixed_batch_of_one_takes_many_images(self, tmp_path, samples):
        folder = wd_model.tiny(tmp_path / "wd", shape=[1, 8, 8, 3])
        with self.adapter(folder) as adapter:
            request = Request(adapter.options())
            picture = adapter.prepare(image_input(samples / "cat-face.jpg"), request)
            assert len(list(adapter.infer([picture] * 5, request))) == 5

    def test_memory_errors_are_told_apart_from_others(self, tmp_path, monkeypatch):
        with self.adapter(wd_model.tiny(tmp_path / "wd")) as adapter:
            request, batch = Request(adapter.options()), [np.zeros((8, 8, 3), np.uint8)] * 2

            def fail(text):
                def call(self, images):
                    raise RuntimeError(text)

                monkeypatch.setattr("tagging.adapters.onnx_session.OnnxModel._call", call)
                list(adapter.infer(batch, request))

            with pytest.raises(OutOfMemory):
                fail("[ONNXRuntimeError] : 6 : BFCArena Failed to allocate memory for requested buffer")
            with pytest.raises(AdapterError, match="bad kernel") as caught:
                fail("bad kernel")
            assert not isinstance(caught.value, OutOfMemory)


class TestSources:
    def test_a_name_in_a_models_folder(self, tmp_path):
        wd_model.tiny(tmp_path / "wd-tiny")
        for source in ("wd-tiny", "someone/wd-tiny"):
            adapter = WdTagger(AdapterConfig(source=source, models_dirs=(tmp_path,)))
            assert adapter.check() == []
            assert len(adapter.label_set.names) == 3

    def test_a_hub_id_that_is_not_here_says_what_to_download(self, tmp_path, monkeypatch):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        adapter = WdTagger(AdapterConfig(source="nobody/no-such-tagger", models_dirs=(tmp_path,)))
        (problem,) = adapter.check()
        assert not problem.fatal
        assert adapter.label_set is None
        with pytest.raises(ModelUnavailable) as caught:
            adapter.load()
        for part in ("nobody/no-such-tagger", "model.onnx", "selected_tags.csv", str(tmp_path / "no-such-tagger")):
            assert part in caught.value.message

    def test_a_hub_download_is_used_and_remembered(self, tmp_path, monkeypatch):
        folder, asked = wd_model.tiny(tmp_path / "hub"), []

        def download(repo, name, revision=None):
            asked.append((repo, name, revision))
            return str(folder / name)

        monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
        monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
        with WdTagger(AdapterConfig(source="someone/wd", revision="v2")) as adapter:
            assert len(adapter.identity()["file_sha256"]) == 64
        assert asked == [("someone/wd", "model.onnx", "v2"), ("someone/wd", "selected_tags.csv", "v2")]
