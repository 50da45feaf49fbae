"""Tiny taggers in the layouts of PixAI and Camie, written to disk: a few pooled means of the input through a matrix.

The input is pooled to 4 x 4 per channel, so that where things lie in the picture matters to the answer.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def graph(
    path: Path, side: int, count: int, outputs: dict[str, str], *, layout: str = "NCHW", seed: int = 3, batch: Any = "n"
) -> None:
    """Write a graph. `outputs`: name → "logits" or "sigmoid"; each has weights of its own."""
    random = np.random.default_rng(seed)
    shape = [batch, 3, side, side] if layout == "NCHW" else [batch, side, side, 3]
    nodes, constants, told = [], [], []
    first = "input"
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", ["input"], ["first"], perm=[0, 3, 1, 2]))
        first = "first"
    pool = side // 4
    nodes.append(helper.make_node("AveragePool", [first], ["pooled"], kernel_shape=[pool, pool], strides=[pool, pool]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"], axis=1))
    width = 3 * (side // pool) ** 2
    for name, kind in outputs.items():
        key = name.replace("/", "_")
        scale = 1 / 60 if layout == "NHWC" else 1.0
        constants.append(
            numpy_helper.from_array(random.normal(0, scale, (width, count)).astype(np.float32), f"w_{key}")
        )
        constants.append(numpy_helper.from_array(random.normal(-0.5, 1, count).astype(np.float32), f"b_{key}"))
        last = name if kind == "logits" else f"l_{key}"
        nodes.append(helper.make_node("Gemm", ["flat", f"w_{key}", f"b_{key}"], [last]))
        if kind == "sigmoid":
            nodes.append(helper.make_node("Sigmoid", [last], [name]))
        told.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, count]))
    built = helper.make_graph(
        nodes, "tiny", [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)], told, constants
    )
    model = helper.make_model(built, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def write_rows(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)


ROWS = [("1girl", 0), ("long_hair", 0), ("outdoors", 0), ("hatsune_miku", 4), ("^_^", 0), ("reimu_(touhou)", 4)]


def pixai(folder: Path, *, outputs: dict[str, str] | None = None, side: int = 128, stages: Any = None) -> Path:
    """A PixAI folder: `prediction` and `logits` as its export has, 13 stages of preparation short."""
    folder.mkdir(parents=True, exist_ok=True)
    graph(folder / "model.onnx", side, len(ROWS), outputs or {"embedding": "logits", "prediction": "sigmoid"})
    write_rows(
        folder / "selected_tags.csv",
        ["id", "tag_id", "name", "category", "count", "best_threshold"],
        [[i, i, name, category, 9, 0.2 + i / 10] for i, (name, category) in enumerate(ROWS)],
    )
    stages = stages or [
        {"type": "convert_rgb", "force_background": "white"},
        {"type": "resize", "size": [side, side], "interpolation": "bicubic", "antialias": True, "max_size": None},
        {"type": "maybe_to_tensor"},
        {"type": "normalize", "mean": IMAGENET_MEAN, "std": IMAGENET_STD},
    ]
    (folder / "preprocess.json").write_text(json.dumps({"stages": stages}))
    write_rows(folder / "thresholds.csv", ["category", "name", "threshold"], [[0, "general", 0.3], [4, "x", 0.85]])
    return folder


CAMIE = {
    "1girl": "general",
    "hatsune_miku": "character",
    "touhou": "copyright",
    "some_artist": "artist",
    "highres": "meta",
    "year_2024": "year",
    "rating_general": "rating",
    "rating_explicit": "rating",
    "smile": "general",
}
MODES = {
    "overall": {"balanced": {"threshold": 0.4, "micro_f1": 0.6}, "high_precision": {"threshold": 0.7}},
    "general": {"balanced": {"threshold": 0.3}, "high_recall": {"threshold": 0.1}, "micro_opt": {"threshold": 0.33}},
    "character": {"balanced": {"threshold": 0.5}, "macro_opt": {"threshold": 0.45}},
}


def camie_mapping(tags: dict[str, str] | None = None) -> dict[str, Any]:
    tags = tags or CAMIE
    return {"idx_to_tag": {str(i): name for i, name in enumerate(tags)}, "tag_to_category": tags}


def camie(folder: Path, layout: str, *, side: int = 128, tags: dict[str, str] | None = None) -> Path:
    """A Camie folder in the layout "v1", "v2" or "export"."""
    folder.mkdir(parents=True, exist_ok=True)
    tags = tags or CAMIE
    if layout == "v2":
        graph(
            folder / "camie-tagger-v2.onnx",
            side,
            len(tags),
            {"initial_predictions": "logits", "refined_predictions": "logits"},
        )
        content = {
            "model_info": {"img_size": side},
            "dataset_info": {"total_tags": len(tags), "tag_mapping": camie_mapping(tags)},
        }
        (folder / "camie-tagger-v2-metadata.json").write_text(json.dumps(content))
    elif layout == "v1":
        graph(folder / "model_initial.onnx", side, len(tags), {"initial_predictions": "logits"})
        (folder / "model_initial_metadata.json").write_text(json.dumps(camie_mapping(tags)))
        (folder / "thresholds.json").write_text(json.dumps({"initial": MODES, "refined": MODES}))
    else:
        graph(
            folder / "model.onnx",
            side,
            len(tags),
            {"initial/logits": "logits", "initial/output": "sigmoid", "logits": "logits", "output": "sigmoid"},
        )
        numbers = {"general": 0, "artist": 1, "copyright": 3, "character": 4, "meta": 5, "rating": 9, "year": 10}
        rows = [[i, name, numbers[c], 5] for i, (name, c) in enumerate(tags.items())]
        write_rows(folder / "selected_tags.csv", ["tag_id", "name", "category", "count"], rows)
        stages = [
            {"type": "pad_to_size", "size": [side, side], "interpolation": "lanczos", "background_color": [0, 0, 0]},
            {"type": "to_tensor"},
        ]
        (folder / "preprocess.json").write_text(json.dumps({"stages": stages}))
        (folder / "threshold.json").write_text(json.dumps(MODES))
    return folder
