"""Models for benchmarks/tagging.py in the WD layout, built on disk: one that costs nothing, and a ViT-B/16 at 448."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
LABELS, SIDE = 10_861, 448


def bias() -> np.ndarray:
    """Of the last layer: about 120 labels come out above 0.05, as of a real tagger."""
    return np.where(np.random.default_rng(1).random(LABELS) < 0.011, -1.5, -6.0).astype(np.float32)


def write_tags(folder: Path) -> None:
    """Ratings, general tags and characters."""
    rows = [f"{i},tag_{i},{9 if i < 4 else 4 if i > 8000 else 0},1" for i in range(LABELS)]
    (folder / "selected_tags.csv").write_text("tag_id,name,category,count\n" + "\n".join(rows) + "\n")


def make_free(folder: Path) -> None:
    """A mean per channel → probabilities: the cost of everything around a model, as on a fast GPU."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(1).normal(0, 0.002, (3, LABELS)).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["output"]),
    ]
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", SIDE, SIDE, 3])]
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", LABELS])]
    constants = [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias(), "bias")]
    graph = helper.make_graph(nodes, "free", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    write_tags(folder)


def make_vit(folder: Path) -> None:
    """ViT-B/16 at 448 (86 million random weights): the graph of a WD v3 ViT tagger. Made in a process of its own."""
    subprocess.run([sys.executable, __file__, str(folder)], check=True, stdout=subprocess.DEVNULL)
    write_tags(folder)


def _export(folder: Path) -> None:
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.heads = heads
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            n, tokens, width = x.shape
            q, k, v = self.qkv(self.norm1(x)).view(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
            seen = (q @ k.transpose(-1, -2) * (width // self.heads) ** -0.5).softmax(-1) @ v
            x = x + self.proj(seen.transpose(1, 2).reshape(n, tokens, width))
            return x + self.fc2(nn.functional.gelu(self.fc1(self.norm2(x))))

    class Vit(nn.Module):
        def __init__(self, width: int = 768, depth: int = 12, heads: int = 12) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, width, 16, 16)
            self.places = nn.Parameter(torch.randn(1, (SIDE // 16) ** 2, width) * 0.02)
            self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, LABELS)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = (x.permute(0, 3, 1, 2) - 127.5) / 127.5
            x = self.patches(x).flatten(2).transpose(1, 2) + self.places
            return torch.sigmoid(self.head(self.norm(self.blocks(x)).mean(1)))

    torch.manual_seed(0)
    model = Vit().eval()
    with torch.no_grad():
        model.head.weight.mul_(2)
        model.head.bias.copy_(torch.from_numpy(bias()))
    torch.onnx.export(
        model,
        (torch.zeros(1, SIDE, SIDE, 3),),
        folder / "model.onnx",
        input_names=["input"],
        output_names=["output"],
        dynamic_axes={"input": {0: "n"}, "output": {0: "n"}},
        opset_version=17,
        dynamo=False,
    )


if __name__ == "__main__":
    _export(Path(sys.argv[1]))
