"""The Camie adapter in its three layouts, against a plain session and plain Pillow."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from tagging.adapters.base import AdapterConfig, ModelUnavailable, Request
from tagging.adapters.camie import CamieTagger
from tests.fakes import tagger_model

from .contract import AdapterContract, Case, no_room_in_onnx
from .helpers import encoded, image_input, reference_picture

SIDE = 128
FILES = {"v1": "model_initial.onnx", "v2": "camie-tagger-v2.onnx", "export": "model.onnx"}


class TestContract(AdapterContract):
    key = "camie"

    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, tmp_path_factory):
        folder = tagger_model.camie(tmp_path_factory.mktemp("models") / "camie-of-the-test", "v2")
        return Case(
            lambda: CamieTagger(AdapterConfig(source=str(folder))),
            no_room_in_onnx,
            folder=folder,
            elsewhere=lambda copy: CamieTagger(AdapterConfig(source=str(shutil.copytree(folder, copy)))),
        )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("camie")
    return {layout: tagger_model.camie(place / layout, layout) for layout in FILES}


def plain(folder, layout, source, output) -> np.ndarray:
    """Fit into a square with Lanczos, a border of the layout's colour, its normalisation; probabilities."""
    picture = reference_picture(source)
    ratio = SIDE / max(picture.size)
    whole = round if layout == "export" else int
    size = tuple(max(1, whole(v * ratio + 1e-9)) for v in picture.size)
    canvas = Image.new("RGB", (SIDE, SIDE), (124, 116, 104) if layout == "v2" else (0, 0, 0))
    canvas.paste(picture.resize(size, Image.Resampling.LANCZOS), ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    pixels = np.asarray(canvas, np.float32).transpose(2, 0, 1)[None] / 255
    if layout == "v2":
        mean, std = (np.reshape(v, (1, 3, 1, 1)) for v in (tagger_model.IMAGENET_MEAN, tagger_model.IMAGENET_STD))
        pixels = (pixels - mean) / std
    session = onnxruntime.InferenceSession(folder / FILES[layout], providers=["CPUExecutionProvider"])
    found = session.run([output], {"input": pixels.astype(np.float32)})[0][0]
    return found if output.endswith("output") else 1 / (1 + np.exp(-found))


def answer(adapter, source):
    request = Request(adapter.options({"score_floor": 0.001}))
    (reply,) = adapter.infer([adapter.prepare(image_input(source), request)], request)
    return reply


@pytest.mark.parametrize(
    ("layout", "predictions", "used"),
    [
        ("v1", "best", "initial_predictions"),
        ("v2", "best", "refined_predictions"),
        ("v2", "initial", "initial_predictions"),
        ("export", "refined", "output"),
        ("export", "initial", "initial/output"),
    ],
)
def test_probabilities_equal_the_plain_way(folders, samples, layout, predictions, used):
    config = AdapterConfig(source=str(folders[layout]), options={"predictions": predictions})
    with CamieTagger(config) as adapter:
        for name in ("mountain-path.jpg", "coffee-cutout.png"):
            picture = Image.open(samples / name)
            picture.thumbnail((900, 900))  # larger ones are reduced before they are resized
            source = encoded(picture)
            expected, reply = plain(folders[layout], layout, source, used), answer(adapter, source)
            by_name = dict(zip(tagger_model.CAMIE, expected, strict=True))
            names = adapter.label_set.names
            found = {names[i]: p for i, p in zip(reply.scores.labels, reply.scores.probabilities, strict=True)}
            for tag, category in tagger_model.CAMIE.items():
                if category != "rating":
                    assert found.get(tag, 0) == pytest.approx(by_name[tag], abs=1e-3)
            best = max(("general", "explicit"), key=lambda r: by_name[f"rating_{r}"])
            assert reply.rating == (best, pytest.approx(by_name[f"rating_{best}"], abs=1e-3))


def test_the_rating_is_no_tag(folders):
    labels = CamieTagger(AdapterConfig(source=str(folders["v2"]))).label_set
    assert "rating_general" not in labels.names
    assert set(labels.categories) == {"general", "character", "copyright", "artist", "meta", "year"}


def test_what_a_model_does_not_predict_is_told(folders):
    config = AdapterConfig(source=str(folders["v1"]), options={"predictions": "refined"})
    with pytest.raises(ModelUnavailable, match=r"no refined predictions.*initial_predictions.*'best'"):
        CamieTagger(config).load()


def test_before_and_after_refinement_are_two_answers(folders):
    adapters = [
        CamieTagger(AdapterConfig(source=str(folders["v2"]), options={"predictions": p})) for p in ("best", "initial")
    ]
    assert len({str(a.options().inference_dict()) for a in adapters}) == 2


class TestThresholds:
    def cuts(self, folder, **options):
        adapter = CamieTagger(AdapterConfig(source=str(folder)))
        labels = adapter.label_set
        return CamieTagger.thresholds(labels, np.zeros(len(labels.names), np.float32), adapter.options(options))

    @pytest.mark.parametrize("layout", ["v1", "export"])
    def test_each_mode_has_one_for_each_category(self, folders, layout):
        cuts = self.cuts(folders[layout])
        assert (cuts["general"], cuts["character"]) == (0.3, 0.5)
        assert cuts["meta"] == 0.4  # the overall one
        assert self.cuts(folders[layout], mode="high_recall")["general"] == 0.1
        assert self.cuts(folders[layout], mode="micro_opt")["general"] == 0.33
        assert self.cuts(folders[layout], mode="macro_opt")["character"] == 0.45
        assert self.cuts(folders[layout], mode="high_precision")["general"] == 0.7

    def test_one_for_all(self, folders):
        assert set(self.cuts(folders["v1"], scope="overall").values()) == {0.4}

    def test_by_hand_and_where_there_is_no_file(self, folders):
        assert set(self.cuts(folders["v1"], mode="options", threshold=0.61).values()) == {0.61}
        assert set(self.cuts(folders["v2"], threshold=0.61).values()) == {0.61}

    def test_changing_the_mode_needs_no_inference(self, folders):
        adapter = CamieTagger(AdapterConfig(source=str(folders["v1"])))
        moved = adapter.options({"mode": "high_recall", "scope": "overall", "threshold": 0.1})
        assert moved.inference_dict() == adapter.options().inference_dict()

    @pytest.mark.parametrize("text", ["{}", '{"general": {"balanced": {"threshold": 7}}}', "["])
    def test_a_broken_file_is_named(self, tmp_path, text):
        folder = tagger_model.camie(tmp_path / "camie", "export")
        (folder / "threshold.json").write_text(text)
        with pytest.raises(ModelUnavailable, match=r"threshold\.json"):
            CamieTagger(AdapterConfig(source=str(folder))).load()


class TestSeventyThousandLabels:
    """More than a stored reply can name: a category is left out, and the option says which."""

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory):
        tags = {f"general_{i}": "general" for i in range(58_000)}
        tags |= {f"artist_{i}": "artist" for i in range(7_000)} | {f"work_{i}": "copyright" for i in range(5_000)}
        tags |= {"rating_general": "rating"}
        return tagger_model.camie(tmp_path_factory.mktemp("large") / "camie", "v2", tags=tags, side=8)

    @pytest.mark.parametrize(
        ("categories", "there", "missing"),
        [("without_artists", "copyright", "artist"), ("without_copyrights", "artist", "copyright")],
    )
    def test_one_category_goes(self, folder, samples, categories, there, missing):
        config = AdapterConfig(source=str(folder), options={"categories": categories})
        with CamieTagger(config) as adapter:
            assert len(adapter.label_set.names) < 65_536
            assert there in adapter.label_set.categories
            assert missing not in adapter.label_set.categories
            reply = answer(adapter, samples / "cat-face.jpg")
            assert reply.scores.labels.max() < len(adapter.label_set.names)


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        (lambda c: c["dataset_info"]["tag_mapping"].pop("idx_to_tag"), "no idx_to_tag"),
        (lambda c: c["dataset_info"]["tag_mapping"]["idx_to_tag"].pop("3"), "no tag for output 3"),
    ],
)
def test_broken_metadata_is_named(tmp_path, change, pattern):
    folder = tagger_model.camie(tmp_path / "camie", "v2")
    path = folder / "camie-tagger-v2-metadata.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    adapter = CamieTagger(AdapterConfig(source=str(folder)))
    assert "metadata.json" in adapter.check()[0].message
    with pytest.raises(ModelUnavailable, match=pattern):
        adapter.load()


def test_labels_of_another_model(tmp_path):
    folder = tagger_model.camie(tmp_path / "camie", "v2")
    mapping = tagger_model.camie_mapping({"a": "general", "b": "general"})
    (folder / "camie-tagger-v2-metadata.json").write_text(json.dumps({"dataset_info": {"tag_mapping": mapping}}))
    with pytest.raises(ModelUnavailable, match=r"2 tags but .* 9 outputs"):
        CamieTagger(AdapterConfig(source=str(folder))).load()
