"""A generic classifier by its manifest: photo-lite's real weights described by hand answer as photo-lite does."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnxruntime
import pytest
import yaml
from PIL import Image

from tagging.adapters.base import AdapterConfig, ModelUnavailable, Request
from tagging.adapters.folders import ModelFolder
from tagging.adapters.onnx_classifier import OnnxClassifier
from tagging.adapters.onnx_manifest import Manifest
from tagging.adapters.photo_lite import EMBEDDED, PhotoLite
from tests.fakes import tagger_model

from .contract import AdapterContract, Case, no_room_in_onnx
from .helpers import encoded, image_input, reference_picture

SIDE = 64
LABELS = ["cat", "dog", "safe", "unsafe", "tree"]
MANIFEST = {
    "licence": "MIT",
    "input": {"width": SIDE, "height": SIDE, "resize": "squash", "mean": [0.5] * 3, "std": [0.25] * 3},
    "output": {"name": "logits", "activation": "sigmoid"},
    "labels": "labels.txt",
    "categories": {"safe": "rating", "unsafe": "rating", "tree": "plant"},
    "thresholds": {"general": 0.3},
}


def write(folder, *, layout="NCHW", name="iwtag-model.yaml", outputs=None, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    graph = outputs or {"embedding": "logits", "logits": "logits"}
    tagger_model.graph(folder / "model.onnx", SIDE, len(LABELS), graph, layout=layout)
    content = {**MANIFEST, **changes}
    content["input"] = {**MANIFEST["input"], "layout": layout, **changes.get("input", {})}
    dump = json.dumps(content) if name.endswith("json") else yaml.safe_dump(content)
    (folder / name).write_text(dump)
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n")
    return folder


def adapter(folder, **config):
    return OnnxClassifier(AdapterConfig(source=str(folder), device="cpu", **config))


def ask(loaded, source, **options):
    request = Request(loaded.options({"score_floor": 0.001, **options}))
    (reply,) = loaded.infer([loaded.prepare(image_input(source), request)], request)
    return reply


def named(loaded, reply):
    names = loaded.label_set.names
    return {names[i]: float(p) for i, p in zip(reply.scores.labels, reply.scores.probabilities, strict=True)}


class TestContract(AdapterContract):
    key = "onnx"

    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, tmp_path_factory):
        folder = write(tmp_path_factory.mktemp("models") / "onnx-of-the-test")
        return Case(
            lambda: adapter(folder),
            no_room_in_onnx,
            folder=folder,
            elsewhere=lambda copy: adapter(shutil.copytree(folder, copy)),
        )


def test_photo_lites_weights_by_a_manifest_answer_as_photo_lite_does(tmp_path, samples):
    told = json.loads((EMBEDDED / "manifest.json").read_text())
    labels = json.loads((EMBEDDED / "labels.json").read_text())
    shutil.copy(EMBEDDED / "model.onnx", tmp_path / "lite2.onnx")
    (tmp_path / "names.json").write_text(json.dumps([c["name"] for c in labels["classes"]]))
    side, padding = told["input"]["size"], told["crop"]["padding"]
    manifest = {
        "model": "lite2.onnx",
        "input": {
            "width": side,
            "height": side,
            "resize": "crop",
            "shorter_side": side + padding,
            "scale": 1,
            "mean": [told["input"]["mean"]] * 3,
            "std": [told["input"]["std"]] * 3,
        },
        "output": {"activation": "softmax"},
        "labels": "names.json",
    }
    (tmp_path / "iwtag-model.json").write_text(json.dumps(manifest))
    with adapter(tmp_path) as generic, PhotoLite(AdapterConfig(device="cpu")) as own:
        for name in ("cat-face.jpg", "honey-bee.jpg", "citrus-slices.jpg"):
            found, expected = (named(a, ask(a, samples / name)) for a in (generic, own))
            for label, probability in found.items():
                assert expected.get(label, 0) == pytest.approx(probability, abs=0.03)
            assert max(found, key=found.get) in list(expected)[:4]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("colour", ["RGB", "BGR"])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_probabilities_equal_the_plain_way(tmp_path, samples, layout, colour, activation):
    folder = write(
        tmp_path / "model",
        layout=layout,
        input={"colour": colour},
        output={"name": "logits", "activation": activation},
        categories={},
    )
    picture = Image.open(samples / "coffee-cutout.png")
    picture.thumbnail((400, 400))
    source = encoded(picture)
    pixels = np.asarray(reference_picture(source).resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32) / 255
    pixels = ((pixels[:, :, ::-1] if colour == "BGR" else pixels) - 0.5) / 0.25
    pixels = pixels.transpose(2, 0, 1) if layout == "NCHW" else pixels
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], {"input": np.ascontiguousarray(pixels[None])})[0][0]
    expected = 1 / (1 + np.exp(-logits)) if activation == "sigmoid" else np.exp(logits) / np.exp(logits).sum()
    with adapter(folder) as loaded:
        found = named(loaded, ask(loaded, source))
    for label, probability in zip(LABELS, expected, strict=True):
        assert found.get(label, 0) == pytest.approx(probability, abs=2e-3)


def test_ratings_and_categories(tmp_path, samples):
    with adapter(write(tmp_path / "model")) as loaded:
        reply = ask(loaded, samples / "cat-face.jpg")
        assert reply.rating[0] in ("safe", "unsafe")
        assert loaded.label_set.names == ("cat", "dog", "tree")
        assert loaded.label_set.categories == ("general", "general", "plant")


def test_thresholds_come_from_the_manifest_or_the_option(tmp_path):
    made = adapter(write(tmp_path / "model"))
    scores = np.zeros(3, np.float32)
    cuts = OnnxClassifier.thresholds(made.label_set, scores, made.options())
    assert cuts == {"general": 0.3, "plant": 0.5}
    assert set(OnnxClassifier.thresholds(made.label_set, scores, made.options({"threshold": 0.7})).values()) == {0.7}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", "name,category\ncat,\ndog,animal\nsafe,\nunsafe,\ntree,\n"),
        ("labels.json", json.dumps(LABELS)),
        ("numbers.json", json.dumps({str(i): n for i, n in enumerate(LABELS)})),
    ],
)
def test_labels_in_other_files(tmp_path, name, text):
    folder = write(tmp_path / "model", labels=name)
    (folder / name).write_text(text)
    labels = adapter(folder).label_set
    assert labels.names == ("cat", "dog", "tree")
    assert labels.categories[1] == ("animal" if name.endswith("csv") else "general")


def test_labels_in_the_manifest(tmp_path):
    assert adapter(write(tmp_path / "model", labels=LABELS)).label_set.names == ("cat", "dog", "tree")


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"input": {"width": 4}}, r"input\.width"),
        ({"input": {"resize": "zoom"}}, r"input\.resize"),
        ({"input": {"interpolation": "magic"}}, "unknown interpolation 'magic'"),
        ({"input": {"std": [1, 0, 1]}}, "holds a zero"),
        ({"input": {"shorter_side": 80}}, "goes with resize: crop"),
        ({"input": {"resize": "crop", "shorter_side": 32}}, "smaller than the input"),
        ({"input": {"border": [300, 0, 0]}}, "0 to 255"),
        ({"output": {"activation": "relu"}}, r"output\.activation"),
        ({"output": {"name": "probs"}}, r"no output 'probs'; it has embedding, logits"),
        ({"thresholds": {"general": 2}}, r"thresholds\.general"),
        ({"labels": "../labels.txt"}, "a file in the same folder"),
        ({"labels": "gone.txt"}, r"gone\.txt is missing"),
        ({"model": "gone.onnx"}, r"gone\.onnx is missing"),
        ({"labels": ["a", "", "c"]}, "label 2: a name is missing"),
        ({"labels": ["a", "b"], "categories": {}}, "2 tags but"),
        ({"categories": {"horse": "animal"}}, "no label 'horse'"),
        ({"categories": dict.fromkeys(LABELS, "rating")}, "all labels are ratings"),
        ({"sigmoid": True}, "sigmoid: Extra inputs"),
        ({"input": {"layout": "NHWC"}}, "another family"),
    ],
)
def test_every_fault_is_named(tmp_path, changes, pattern):
    with pytest.raises(ModelUnavailable, match=pattern):
        adapter(write(tmp_path / "model", layout="NCHW", **changes)).load()


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "input: [", "{"])
def test_a_manifest_that_is_none(tmp_path, text):
    folder = write(tmp_path / "model")
    (folder / "iwtag-model.yaml").write_text(text)
    made = adapter(folder)
    assert "iwtag-model.yaml" in made.check()[0].message
    with pytest.raises(ModelUnavailable, match=r"iwtag-model\.yaml"):
        made.load()


def test_the_wrong_activation_is_told_for_each_image(tmp_path, samples):
    with adapter(write(tmp_path / "model", output={"name": "logits"})) as loaded:
        reply = ask(loaded, samples / "cat-face.jpg")
    assert "activation" in reply.message


def test_another_manifest_is_another_identity(tmp_path):
    first, second = write(tmp_path / "a"), write(tmp_path / "b", input={"mean": [0.4] * 3})
    assert adapter(first).identity() != adapter(second).identity()


def test_a_scan_offers_it(tmp_path):
    folder = write(tmp_path / "model", name="iwtag-model.json")
    seen = ModelFolder(folder, {p.name: p.stat().st_size for p in folder.iterdir()})
    assert "iwtag-model.json" in OnnxClassifier.recognises(seen).reason


def test_the_example_in_the_documentation_is_valid():
    from tagging.adapters import onnx_manifest

    example = onnx_manifest.__doc__.partition("\n\n")[2]
    content = yaml.safe_load(example)
    assert Manifest.model_validate(content).input.shorter_side == 256
