"""The PixAI adapter against a plain session and plain Pillow, and what tells it from a WD tagger."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from tagging.adapters import registry, stages
from tagging.adapters.base import AdapterConfig, ModelUnavailable, Request, Thresholds
from tagging.adapters.camie import CamieTagger
from tagging.adapters.pixai import PixaiTagger, read_category_cuts
from tagging.adapters.wd import WdTagger
from tests.fakes import tagger_model, wd_model

from .contract import AdapterContract, Case, no_room_in_onnx
from .helpers import encoded, image_input, reference_picture

SIDE = 128


class TestContract(AdapterContract):
    key = "pixai"

    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, tmp_path_factory):
        folder = tagger_model.pixai(tmp_path_factory.mktemp("models") / "pixai-of-the-test")
        return Case(
            lambda: PixaiTagger(AdapterConfig(source=str(folder))),
            no_room_in_onnx,
            folder=folder,
            elsewhere=lambda copy: PixaiTagger(AdapterConfig(source=str(shutil.copytree(folder, copy)))),
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tagger_model.pixai(tmp_path_factory.mktemp("pixai"))


def plain(folder, source, output) -> np.ndarray:
    """Probabilities by Pillow and a session: squashed, ImageNet."""
    picture = reference_picture(source).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pixels = np.asarray(picture, np.float32).transpose(2, 0, 1)[None] / 255
    mean, std = (np.reshape(v, (1, 3, 1, 1)) for v in (tagger_model.IMAGENET_MEAN, tagger_model.IMAGENET_STD))
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    found = session.run([output], {"input": ((pixels - mean) / std).astype(np.float32)})[0][0]
    return 1 / (1 + np.exp(-found)) if output == "logits" else found


def dense(adapter, reply) -> np.ndarray:
    scores = np.zeros(len(adapter.label_set.names))
    scores[reply.scores.labels] = reply.scores.probabilities
    return scores


@pytest.mark.parametrize(
    ("outputs", "used"),
    [
        ({"embedding": "logits", "logits": "logits", "prediction": "sigmoid"}, "prediction"),
        ({"embedding": "logits", "logits": "logits"}, "logits"),
    ],
)
def test_probabilities_equal_the_plain_way(tmp_path, samples, outputs, used):
    folder = tagger_model.pixai(tmp_path / "model", outputs=outputs)
    with PixaiTagger(AdapterConfig(source=str(folder))) as adapter:
        request = Request(adapter.options({"score_floor": 0.001}))
        for name in ("cat-face.jpg", "coffee-cutout.png"):
            source = encoded(Image.open(samples / name))
            (reply,) = adapter.infer([adapter.prepare(image_input(source), request)], request)
            assert dense(adapter, reply) == pytest.approx(plain(folder, source, used), abs=1e-3)


class TestThresholds:
    def cuts(self, adapter, **options):
        chosen = adapter.options(options)
        return PixaiTagger.thresholds(adapter.label_set, np.zeros(len(tagger_model.ROWS), np.float32), chosen)

    def test_they_come_from_the_file(self, folder):
        adapter = PixaiTagger(AdapterConfig(source=str(folder)))
        assert self.cuts(adapter) == {"general": 0.3, "character": 0.85}

    def test_without_the_file_it_is_two_fifths(self, tmp_path):
        folder = tagger_model.pixai(tmp_path / "model")
        (folder / "thresholds.csv").unlink()
        assert self.cuts(PixaiTagger(AdapterConfig(source=str(folder)))) == {"general": 0.4, "character": 0.4}

    def test_by_hand(self, folder):
        adapter = PixaiTagger(AdapterConfig(source=str(folder)))
        assert self.cuts(adapter, thresholds_from="options", general_threshold=0.5)["general"] == 0.5

    def test_each_tags_best(self, folder):
        adapter = PixaiTagger(AdapterConfig(source=str(folder)))
        cuts = self.cuts(adapter, thresholds_from="tags")
        assert isinstance(cuts, Thresholds)
        assert cuts.lowest("1girl", "general") == pytest.approx(0.2)
        assert cuts.lowest("^_^", "general") == pytest.approx(0.6)
        assert cuts.cuts is self.cuts(adapter, thresholds_from="tags").cuts  # made once

    def test_moving_them_needs_no_inference(self, folder):
        adapter = PixaiTagger(AdapterConfig(source=str(folder)))
        moved = adapter.options({"thresholds_from": "tags", "general_threshold": 0.1})
        assert moved.inference_dict() == adapter.options().inference_dict()

    @pytest.mark.parametrize(
        ("text", "pattern"),
        [("a,b\n1,2\n", "no column category, threshold"), ("category,threshold\n0,high\n", "line 2")],
    )
    def test_a_broken_file_is_named(self, tmp_path, text, pattern):
        path = tmp_path / "thresholds.csv"
        path.write_text(text)
        with pytest.raises(ModelUnavailable, match=rf"thresholds\.csv.*{pattern}"):
            read_category_cuts(path)


class TestToldApart:
    def test_wd_refuses_a_pixai_folder_and_names_the_adapter(self, folder):
        adapter = WdTagger(AdapterConfig(source=str(folder)))
        (problem,) = adapter.check()
        assert problem.fatal
        assert "'pixai'" in problem.message
        with pytest.raises(ModelUnavailable, match="'pixai'"):
            adapter.load()

    def test_pixai_refuses_a_wd_folder(self, tmp_path):
        folder = wd_model.tiny(tmp_path / "wd")
        (problem,) = PixaiTagger(AdapterConfig(source=str(folder))).check()
        assert "preprocess.json is missing" in problem.message
        with pytest.raises(ModelUnavailable, match=r"preprocess\.json is missing"):
            PixaiTagger(AdapterConfig(source=str(folder))).load()

    def test_a_wd_graph_with_a_strangers_preprocess_is_refused_by_its_shape(self, tmp_path):
        folder = wd_model.tiny(tmp_path / "wd", shape=["n", 32, 32, 3])
        for name in ("preprocess.json", "thresholds.csv"):
            shutil.copy(tagger_model.pixai(tmp_path / "other") / name, folder)
        with pytest.raises(ModelUnavailable, match="another family"):
            PixaiTagger(AdapterConfig(source=str(folder))).load()

    def test_camie_and_pixai_refuse_each_other(self, tmp_path, folder):
        camie = tagger_model.camie(tmp_path / "camie", "export")
        with pytest.raises(ModelUnavailable, match="'camie'"):
            PixaiTagger(AdapterConfig(source=str(camie))).load()
        with pytest.raises(ModelUnavailable, match="'pixai'"):
            CamieTagger(AdapterConfig(source=str(folder))).load()

    def test_a_scan_offers_the_right_adapter(self, tmp_path, folder):
        from tagging.adapters.folders import ModelFolder

        cases = {
            "pixai": folder,
            "wd": wd_model.tiny(tmp_path / "wd"),
            "camie": tagger_model.camie(tmp_path / "v2", "v2"),
        }
        for key, path in {**cases, "camie ": tagger_model.camie(tmp_path / "export", "export")}.items():
            seen = ModelFolder(path, {p.name: p.stat().st_size for p in path.iterdir()})
            guesses = {k: registry.adapter_class(k).recognises(seen) for k in ("wd", "pixai", "camie")}
            assert [k for k, guess in guesses.items() if guess] == [key.strip()]


class TestStages:
    def follow(self, *given):
        return stages.follow(given)

    def test_timm_crops(self):
        framing, norm = self.follow(
            {"type": "resize", "size": 256, "interpolation": "bicubic"},
            {"type": "center_crop", "size": [224, 224]},
            {"type": "to_tensor"},
            {"type": "normalize", "mean": 0.5, "std": [0.25]},
        )
        assert (framing.how, framing.short, framing.width, framing.height) == ("cover", 256, 224, 224)
        assert (norm.mean, norm.std, norm.scale) == ((0.5,) * 3, (0.25,) * 3, 1 / 255)

    def test_padding_and_what_changes_nothing(self):
        framing, norm = self.follow(
            {"type": "pad_to_size", "size": [64, 48], "background_color": "black", "interpolation": 1},
            {"type": "resize", "size": [48, 64]},
            {"type": "center_crop", "size": [48, 64]},
            {"type": "rescale"},
        )
        assert (framing.how, framing.width, framing.height, framing.colour) == ("fit", 64, 48, (0, 0, 0))
        assert framing.resample == Image.Resampling.LANCZOS
        assert norm.scale == pytest.approx(1 / 255)

    @pytest.mark.parametrize(
        ("given", "pattern"),
        [
            ([{"type": "ten_crop"}], "'ten_crop' is unknown"),
            ([{"type": "to_tensor"}], "no stage says the size"),
            ([{"type": "resize", "size": 256}], "needs a center_crop"),
            ([{"type": "resize", "size": [8, 8]}, {"type": "resize", "size": [9, 9]}], "two stages change the size"),
            ([{"type": "resize", "size": 8, "max_size": 9}], "max_size"),
            ([{"type": "resize", "size": [8, 8]}, {"type": "normalize", "mean": 0, "std": 1}], "before to_tensor"),
            ([{"type": "resize", "size": [8, 8], "interpolation": "magic"}], "'magic'"),
            ([{"type": "convert_rgb", "force_background": "black"}], "only white"),
            ([{"type": "resize", "size": [0, 8]}], "a size of"),
            ([{"size": 3}], "type"),
        ],
    )
    def test_what_cannot_be_followed_is_named(self, tmp_path, given, pattern):
        path = tmp_path / "preprocess.json"
        path.write_text(json.dumps({"stages": given}))
        with pytest.raises(ModelUnavailable, match=rf"preprocess\.json cannot be followed.*{pattern}"):
            stages.read(path)

    @pytest.mark.parametrize("text", ["{", "[]", '{"stages": "resize"}', '{"stages": [1]}'])
    def test_what_is_no_list_of_stages(self, tmp_path, text):
        path = tmp_path / "preprocess.json"
        path.write_text(text)
        with pytest.raises(ModelUnavailable, match=r"preprocess\.json"):
            stages.read(path)

    def test_another_preparation_is_another_identity(self, tmp_path, folder):
        other = tagger_model.pixai(tmp_path / "other")
        content = json.loads((other / "preprocess.json").read_text())
        content["stages"][1]["interpolation"] = "bilinear"
        (other / "preprocess.json").write_text(json.dumps(content))
        first, second = (PixaiTagger(AdapterConfig(source=str(f))).identity() for f in (folder, other))
        assert first["file_sha256"] == second["file_sha256"]
        assert first != second
