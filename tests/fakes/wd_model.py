"""A tagger in the WD layout with real weights, built on disk: photo-lite's graph behind the WD input and output.

Nodes are put around it: BGR 0..255 NHWC → RGB → normalised NCHW → photo-lite → softmax → a matrix that sums classes.
So the WD adapter runs for real: its four ratings, general tags with underscores and a kaomoji, and characters.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PHOTO_LITE = Path(__file__).resolve().parents[2] / "weights" / "photo-lite"
SIDE = 260
RATINGS = {"general": (0, 400), "sensitive": (400, 700), "questionable": (700, 900), "explicit": (900, 1000)}
#: Parents that play the characters; the cat's is one, so that a real photograph shows one.
CHARACTERS = ("cat", "dog", "bear", "bridge")


def build(folder: Path) -> Path:
    """Write `model.onnx` and `selected_tags.csv` into `folder` and return it."""
    labels = json.loads((PHOTO_LITE / "labels.json").read_text(encoding="utf-8"))
    rows, columns = _rows_and_columns(labels)
    model = onnx.load(PHOTO_LITE / "model.onnx")
    constants = {
        "wd_rgb": np.array([2, 1, 0], np.int64),
        "wd_mean": np.array(127, np.float32),
        "wd_scale": np.array(1 / 128, np.float32),
        "wd_sums": np.stack(columns, axis=1),
        "wd_zero": np.array(0, np.float32),
        "wd_one": np.array(1, np.float32),
    }
    before = [
        helper.make_node("Gather", ["input", "wd_rgb"], ["wd_a"], axis=3),
        helper.make_node("Sub", ["wd_a", "wd_mean"], ["wd_b"]),
        helper.make_node("Mul", ["wd_b", "wd_scale"], ["wd_c"]),
        helper.make_node("Transpose", ["wd_c"], ["image"], perm=[0, 3, 1, 2]),
    ]
    after = [
        helper.make_node("Softmax", ["logits"], ["wd_p"], axis=1),
        helper.make_node("MatMul", ["wd_p", "wd_sums"], ["wd_q"]),
        helper.make_node("Clip", ["wd_q", "wd_zero", "wd_one"], ["output"]),
    ]
    inside = list(model.graph.node)
    del model.graph.node[:], model.graph.input[:], model.graph.output[:]
    model.graph.node.extend([*before, *inside, *after])
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    model.graph.input.append(helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", SIDE, SIDE, 3]))
    model.graph.output.append(helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", len(rows)]))
    onnx.checker.check_model(model)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "model.onnx")
    write_tags(folder, rows)
    return folder


def write_tags(folder: Path, rows: list[tuple[str, int]]) -> None:
    """The label file of (name, category) rows."""
    with (folder / "selected_tags.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["tag_id", "name", "category", "count"])
        writer.writerows([i, name, category, 1] for i, (name, category) in enumerate(rows))


def tiny(folder: Path, *, shape: list[object] | None = None, outputs: int = 3, scale: float = 1.0) -> Path:
    """A model of a few bytes: the channels' means / 255 x `scale`, repeated over `outputs`, with a label file."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = shape or ["n", 8, 8, 3]
    weights = np.tile(np.eye(3, dtype=np.float32), (1, -(-outputs // 3)))[:, :outputs] * (scale / 255)
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [shape[0], outputs])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    write_tags(folder, [(f"tag_{i}", 0) for i in range(outputs)])
    return folder


def _rows_and_columns(labels: dict) -> tuple[list[tuple[str, int]], list[np.ndarray]]:
    """Label rows, and for each the classes that it sums (1000 floats)."""
    classes = labels["classes"]
    above = {node["name"]: node["parent"] for node in labels["parents"]}

    def below(parent: str) -> np.ndarray:
        column = np.zeros(len(classes), np.float32)
        for i, entry in enumerate(classes):
            name = entry["parent"]
            while name and name != parent:
                name = above[name]
            column[i] = name == parent
        return column

    ranges = [np.zeros(len(classes), np.float32) for _ in RATINGS]
    for column, (start, end) in zip(ranges, RATINGS.values(), strict=True):
        column[start:end] = 1
    rows = [(name, 9) for name in RATINGS]
    rows += [(entry["name"].replace(" ", "_").lower(), 0) for entry in classes]
    rows += [("^_^", 0)] + [(f"{name}_(character)", 4) for name in CHARACTERS]
    columns = [*ranges, *np.eye(len(classes), dtype=np.float32), below("cat"), *map(below, CHARACTERS)]
    return rows, columns
