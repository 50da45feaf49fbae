"""Random checkpoints of RAM and RAM++ in small: the names of the published files' tensors, written out one by one.

Two or three stages instead of four, narrow, windows of 4; else what `ram_swin_large_14m.pth` and
`ram_plus_swin_large_14m.pth` hold, with the buffers and the caption decoder's tensors that inference does not need.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

WIDTH, DEPTHS, HEADS, WINDOW = 8, (2, 2, 2), (2, 4, 4), 4
EMBED, HIDDEN, DECODER = 12, 16, 2
SIDE = 4 * 2 ** (len(DEPTHS) - 1) * WINDOW  # 64
TAGS = ["cat", "dog", "red", "run", "tree", "sky", "switched off"]
CHINESE = ["猫", "狗", "红色", "跑", "树", "天空", "关"]
CUTS = [0.5, 0.6, 0.7, 0.45, 0.8, 0.65, 1.0]


def tensors(*, plus: bool, labels: int = len(TAGS), descriptions: int = 5, seed: int = 0) -> dict[str, torch.Tensor]:
    """The state dict."""
    random = np.random.default_rng(seed)
    state: dict[str, torch.Tensor] = {}

    def put(name: str, *shape: int, scale: float = 0.2, at: float = 0.0) -> None:
        state[name] = torch.from_numpy(np.asarray(random.normal(at, scale, shape), dtype=np.float32))

    def linear(name: str, inside: int, out: int, *, bias: bool = True) -> None:
        put(f"{name}.weight", out, inside)
        if bias:
            put(f"{name}.bias", out)

    def norm(name: str, width: int) -> None:
        put(f"{name}.weight", width, at=1.0)
        put(f"{name}.bias", width)

    eye = "visual_encoder"
    put(f"{eye}.patch_embed.proj.weight", WIDTH, 3, 4, 4)
    put(f"{eye}.patch_embed.proj.bias", WIDTH)
    norm(f"{eye}.patch_embed.norm", WIDTH)
    for i, (depth, heads) in enumerate(zip(DEPTHS, HEADS, strict=True)):
        width = WIDTH * 2**i
        for j in range(depth):
            block = f"{eye}.layers.{i}.blocks.{j}"
            norm(f"{block}.norm1", width)
            put(f"{block}.attn.relative_position_bias_table", (2 * WINDOW - 1) ** 2, heads, scale=1.0)
            state[f"{block}.attn.relative_position_index"] = torch.zeros(WINDOW**2, WINDOW**2, dtype=torch.long)
            linear(f"{block}.attn.qkv", width, 3 * width)
            linear(f"{block}.attn.proj", width, width)
            norm(f"{block}.norm2", width)
            linear(f"{block}.mlp.fc1", width, 4 * width)
            linear(f"{block}.mlp.fc2", 4 * width, width)
            if j % 2 and i < len(DEPTHS) - 1:
                state[f"{block}.attn_mask"] = torch.zeros(4, WINDOW**2, WINDOW**2)
        if i < len(DEPTHS) - 1:
            norm(f"{eye}.layers.{i}.downsample.norm", 4 * width)
            linear(f"{eye}.layers.{i}.downsample.reduction", 4 * width, 2 * width, bias=False)
    last = WIDTH * 2 ** (len(DEPTHS) - 1)
    norm(f"{eye}.norm", last)
    linear("image_proj", last, EMBED)
    linear("wordvec_proj", EMBED, HIDDEN)
    linear("fc", HIDDEN, 1)
    put("label_embed", labels * (descriptions if plus else 1), EMBED, scale=1.0)
    if plus:
        state["reweight_scale"] = torch.tensor(float(np.log(1 / 0.07)))
    for k in range(DECODER):
        layer = f"tagging_head.encoder.layer.{k}"
        linear(f"{layer}.crossattention.self.query", HIDDEN, HIDDEN)
        linear(f"{layer}.crossattention.self.key", EMBED, HIDDEN)
        linear(f"{layer}.crossattention.self.value", EMBED, HIDDEN)
        linear(f"{layer}.crossattention.output.dense", HIDDEN, HIDDEN)
        norm(f"{layer}.crossattention.output.LayerNorm", HIDDEN)
        linear(f"{layer}.intermediate.dense", HIDDEN, 4 * HIDDEN)
        linear(f"{layer}.output.dense", 4 * HIDDEN, HIDDEN)
        norm(f"{layer}.output.LayerNorm", HIDDEN)
    if not plus:  # of the caption decoder, which tagging does not need
        linear("tag_encoder.encoder.layer.0.attention.self.query", HIDDEN, HIDDEN)
        linear("text_decoder.cls.predictions.transform.dense", HIDDEN, HIDDEN)
    return state


def write_lists(folder: Path, tags: list[str] | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ram_tag_list.txt").write_text("\n".join(tags or TAGS), encoding="utf-8")
    (folder / "ram_tag_list_chinese.txt").write_text("\n".join(CHINESE) + "\n", encoding="utf-8")
    (folder / "ram_tag_list_threshold.txt").write_text("\n".join(map(str, CUTS)) + "\n")


def build(folder: Path, *, plus: bool = True, form: str = "pth", **more: Any) -> Path:
    """A folder with a checkpoint and its three lists."""
    write_lists(folder)
    state = tensors(plus=plus, **more)
    name = "ram_plus_swin_large_14m" if plus else "ram_swin_large_14m"
    if form == "pth":
        torch.save({"model": state}, folder / f"{name}.pth")
    elif form == "safetensors":
        from safetensors.torch import save_file

        save_file(state, folder / f"{name}.safetensors")
    else:
        from tagging.adapters import ram_model

        module = ram_model.build({"model": state}, len(TAGS))
        torch.onnx.export(
            module if form == "logits" else _Ended(module, form),
            (torch.zeros(1, 3, SIDE, SIDE),),
            folder / f"{name}.onnx",
            input_names=["image"],
            output_names=["logits" if form == "logits" else "tag"],
            dynamic_axes={"image": {0: "n"}},
            opset_version=17,
            dynamo=False,
        )
    return folder


class _Ended(torch.nn.Module):
    """With what other exports have at the end: "sigmoid", or "cut" to 0 and 1."""

    def __init__(self, inside: torch.nn.Module, form: str) -> None:
        super().__init__()
        self.inside, self.form = inside, form

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = torch.sigmoid(self.inside(x))
        return found if self.form == "sigmoid" else (found > 0.5).float()
