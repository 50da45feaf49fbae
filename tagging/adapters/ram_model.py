"""The inference graph of RAM and RAM++ in torch, under the names of the published checkpoints. Imported in `load` only.

A Swin transformer (Liu et al., ICCV 2021) sees the picture; the mean of its tokens goes before them, all projected.
Two layers of cross-attention (Zhang et al., "Recognize Anything", and Huang et al., "Open-Set Image Tagging with
Multi-Grained Text Supervision", 2023) let each label's embedding look at them; one linear unit gives a logit per label.
RAM has one embedding a label; RAM++ has several (51), mixed for each picture by how well they fit its mean token.
Everything that differs between checkpoints (width, depth, window, labels) is read from the shapes of their tensors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Attention heads of the decoder: in no tensor's shape, 4 in the published configuration.
DECODER_HEADS = 4
PATCH = 4
_NORM_EPS, _DECODER_EPS = 1e-5, 1e-12


class WrongCheckpoint(ValueError):
    """The tensors are not those of RAM or RAM++; the text names what is missing or has another shape."""


@dataclass(frozen=True)
class Shape:
    """What a checkpoint's tensors say of the model. `side` is the picture's side in pixels."""

    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int
    mlp: int
    embed: int
    hidden: int
    decoder_layers: int
    decoder_mlp: int
    labels: int
    descriptions: int

    @property
    def side(self) -> int:
        """The last stage is one window: 384 for windows of 12, 224 for windows of 7."""
        return int(PATCH * 2 ** (len(self.depths) - 1) * self.window)


def cleaned(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors that inference needs, of whatever is stored around them."""
    state = checkpoint.get("model", checkpoint)
    wanted = (
        "visual_encoder.",
        "image_proj.",
        "wordvec_proj.",
        "fc.",
        "tagging_head.encoder.",
        "vision_multi.encoder.",
    )
    found = {}
    for name, tensor in state.items():
        name = name.removeprefix("module.")
        if name in ("label_embed", "reweight_scale") or name.startswith(wanted):
            if "relative_position_index" in name or name.endswith("attn_mask") or not isinstance(tensor, Tensor):
                continue
            found[name.replace("vision_multi.", "tagging_head.", 1)] = tensor
    return {name: tensor for name, tensor in found.items() if ".attention." not in name}


def shape_of(state: Mapping[str, Tensor], labels: int) -> Shape:
    """WrongCheckpoint when a tensor is missing or the label list does not fit."""
    try:
        width = state["visual_encoder.patch_embed.proj.weight"].shape[0]
        depths: dict[int, int] = {}
        for name in state:
            if match := re.match(r"visual_encoder\.layers\.(\d+)\.blocks\.(\d+)\.norm1\.weight", name):
                layer, block = map(int, match.groups())
                depths[layer] = max(depths.get(layer, 0), block + 1)
        tables = [
            state[f"visual_encoder.layers.{i}.blocks.0.attn.relative_position_bias_table"] for i in range(len(depths))
        ]
        decoder = len({n.split(".")[3] for n in state if n.startswith("tagging_head.encoder.layer.")})
        embed = state["image_proj.weight"].shape[0]
        rows = state["label_embed"].shape[0]
        head = "tagging_head.encoder.layer.0"
        found = Shape(
            width=width,
            depths=tuple(depths[i] for i in range(len(depths))),
            heads=tuple(table.shape[1] for table in tables),
            window=(math.isqrt(tables[0].shape[0]) + 1) // 2,
            mlp=state["visual_encoder.layers.0.blocks.0.mlp.fc1.weight"].shape[0] // width,
            embed=embed,
            hidden=state["fc.weight"].shape[1],
            decoder_layers=decoder,
            decoder_mlp=state[f"{head}.intermediate.dense.weight"].shape[0],
            labels=labels,
            descriptions=rows // labels if labels else 0,
        )
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise WrongCheckpoint(f"{error} is missing: these are not the weights of RAM or RAM++") from error
    if not labels or rows % labels:
        raise WrongCheckpoint(f"the weights have {rows} label embeddings, which is no multiple of {labels} tags")
    if found.descriptions > 1 and "reweight_scale" not in state:
        raise WrongCheckpoint(f"reweight_scale is missing, though each tag has {found.descriptions} embeddings")
    return found


def build(checkpoint: Mapping[str, Any], labels: int) -> Ram:
    """The model with these weights, ready to answer. WrongCheckpoint names every tensor that does not fit."""
    state = cleaned(checkpoint)
    model = Ram(shape_of(state, labels))
    own = model.state_dict()
    wrong = [f"{name} is missing" for name in own if name not in state]
    wrong += [f"{name} has no place" for name in state if name not in own]
    wrong += [
        f"{name} has the shape {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in state and own[name].shape != state[name].shape
    ]
    if wrong:
        raise WrongCheckpoint("; ".join(wrong[:4]) + (f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""))
    model.load_state_dict(state, assign=True)
    return model.float().eval().requires_grad_(False)


class WindowAttention(nn.Module):
    """Attention within windows, with a learned bias by relative place."""

    index: Tensor

    def __init__(self, width: int, window: int, heads: int) -> None:
        super().__init__()
        self.heads, self.area = heads, window * window
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        at = torch.arange(self.area)
        row, column = at // window, at % window
        apart = (row[:, None] - row[None] + window - 1) * (2 * window - 1) + column[:, None] - column[None] + window - 1
        self.register_buffer("index", apart, persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x: (windows, area, width). mask: (windows of one picture, area, area), -inf where two must not meet."""
        n, area, width = x.shape
        q, k, v = self.qkv(x).view(n, area, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.relative_position_bias_table[self.index].permute(2, 0, 1)[None]
        if mask is not None:
            bias = (bias + mask[:, None]).repeat(n // mask.shape[0], 1, 1, 1)
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return self.proj(found.transpose(1, 2).reshape(n, area, width))


class Mlp(nn.Module):
    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, ratio * width)
        self.fc2 = nn.Linear(ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention in windows, every second block's moved by half a window; then the two-layer perceptron."""

    mask: Tensor | None

    def __init__(self, width: int, side: int, window: int, heads: int, mlp: int, shifted: bool) -> None:
        super().__init__()
        self.side, self.window = side, min(window, side)
        self.shift = window // 2 if shifted and side > window else 0
        self.norm1 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.attn = WindowAttention(width, self.window, heads)
        self.norm2 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.mlp = Mlp(width, mlp)
        self.register_buffer("mask", self._mask() if self.shift else None, persistent=False)

    def _mask(self) -> Tensor:
        """After the turn, parts that were not neighbours share the windows at the end: they must not see each other."""
        at = torch.arange(self.side)
        band = (at >= self.side - self.window).long() + (at >= self.side - self.shift).long()
        region = self._windows((3 * band[:, None] + band[None])[None, :, :, None])[..., 0]
        apart = region[:, :, None] != region[:, None]
        return torch.zeros(apart.shape).masked_fill(apart, -100.0)

    def _windows(self, x: Tensor) -> Tensor:
        """(n, side, side, width) → (n x windows, area, width)."""
        n, _, _, width = x.shape
        per, w = self.side // self.window, self.window
        return x.view(n, per, w, per, w, width).transpose(2, 3).reshape(-1, w * w, width)

    def _together(self, x: Tensor, n: int) -> Tensor:
        """The inverse of `_windows`."""
        per, w = self.side // self.window, self.window
        return x.view(n, per, per, w, w, -1).transpose(2, 3).reshape(n, self.side, self.side, -1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, side x side, width) → the same shape."""
        n, area, width = x.shape
        seen = self.norm1(x).view(n, self.side, self.side, width)
        if self.shift:
            seen = torch.roll(seen, (-self.shift, -self.shift), (1, 2))
        seen = self._together(self.attn(self._windows(seen), self.mask), n)
        if self.shift:
            seen = torch.roll(seen, (self.shift, self.shift), (1, 2))
        x = x + seen.view(n, area, width)
        return x + self.mlp(self.norm2(x))


class Merging(nn.Module):
    """Four neighbours become one token of twice the width."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.norm = nn.LayerNorm(4 * width, eps=_NORM_EPS)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        n, _, width = x.shape
        half = self.side // 2
        # per token: row and column of the quarter; the checkpoints have them column by column
        x = x.view(n, half, 2, half, 2, width).permute(0, 1, 3, 4, 2, 5).reshape(n, half * half, 4 * width)
        return self.reduction(self.norm(x))


class Layer(nn.Module):
    def __init__(self, width: int, side: int, window: int, heads: int, mlp: int, depth: int, last: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, side, window, heads, mlp, bool(i % 2)) for i in range(depth))
        self.downsample = None if last else Merging(width, side)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.downsample(x) if self.downsample is not None else x


class Patches(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)
        self.norm = nn.LayerNorm(width, eps=_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).flatten(2).transpose(1, 2))


class Swin(nn.Module):
    """(n, 3, side, side) → (n, 1 + tokens, width of the last stage): the mean of the tokens, then the tokens."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.patch_embed = Patches(shape.width)
        side, last = shape.side // PATCH, len(shape.depths) - 1
        self.layers = nn.ModuleList(
            Layer(shape.width * 2**i, side // 2**i, shape.window, heads, shape.mlp, depth, i == last)
            for i, (depth, heads) in enumerate(zip(shape.depths, shape.heads, strict=True))
        )
        self.norm = nn.LayerNorm(shape.width * 2**last, eps=_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        return torch.cat([x.mean(1, keepdim=True), x], 1)


class _Inner(nn.Module):
    """Queries of the labels, keys and values of the picture."""

    def __init__(self, hidden: int, embed: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(embed, hidden)
        self.value = nn.Linear(embed, hidden)

    def forward(self, x: Tensor, picture: Tensor) -> Tensor:
        def heads(t: Tensor) -> Tensor:
            return t.view(*t.shape[:2], DECODER_HEADS, -1).transpose(1, 2)

        found = F.scaled_dot_product_attention(
            heads(self.query(x)), heads(self.key(picture)), heads(self.value(picture))
        )
        return found.transpose(1, 2).flatten(2)


class _Added(nn.Module):
    """A linear layer whose result is added to what went around it, and normalised."""

    def __init__(self, inside: int, hidden: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inside, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=_DECODER_EPS)

    def forward(self, x: Tensor, around: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + around)


class _Cross(nn.Module):
    def __init__(self, hidden: int, embed: int) -> None:
        super().__init__()
        self.self = _Inner(hidden, embed)
        self.output = _Added(hidden, hidden)

    def forward(self, x: Tensor, picture: Tensor) -> Tensor:
        return self.output(self.self(x, picture), x)


class _Dense(nn.Module):
    def __init__(self, hidden: int, inside: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, inside)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.dense(x))


class DecoderLayer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.crossattention = _Cross(shape.hidden, shape.embed)
        self.intermediate = _Dense(shape.hidden, shape.decoder_mlp)
        self.output = _Added(shape.decoder_mlp, shape.hidden)

    def forward(self, x: Tensor, picture: Tensor) -> Tensor:
        x = self.crossattention(x, picture)
        return self.output(self.intermediate(x), x)


class _Encoder(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.layer = nn.ModuleList(DecoderLayer(shape) for _ in range(shape.decoder_layers))


class _Head(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.encoder = _Encoder(shape)

    def forward(self, x: Tensor, picture: Tensor) -> Tensor:
        for layer in self.encoder.layer:
            x = layer(x, picture)
        return x


class Ram(nn.Module):
    """Normalised pictures (n, 3, side, side) → logits (n, labels)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.visual_encoder = Swin(shape)
        self.image_proj = nn.Linear(shape.width * 2 ** (len(shape.depths) - 1), shape.embed)
        self.label_embed = nn.Parameter(torch.zeros(shape.labels * shape.descriptions, shape.embed))
        self.wordvec_proj = nn.Identity() if shape.hidden == shape.embed else nn.Linear(shape.embed, shape.hidden)
        self.tagging_head = _Head(shape)
        self.fc = nn.Linear(shape.hidden, 1)
        if shape.descriptions > 1:
            self.reweight_scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        picture = self.image_proj(self.visual_encoder(x))
        queries = F.relu(self.wordvec_proj(self._labels(picture[:, 0])))
        return self.fc(self.tagging_head(queries.expand(x.shape[0], -1, -1), picture)).squeeze(-1)

    def _labels(self, mean: Tensor) -> Tensor:
        """Embeddings of the labels: (1 or n, labels, embed)."""
        each = self.label_embed.view(self.shape.labels, self.shape.descriptions, -1)
        if self.shape.descriptions == 1:
            return each[None, :, 0]
        fit = torch.einsum("ne,lde->nld", F.normalize(mean, dim=-1, eps=0.0), each) * self.reweight_scale.exp()
        return torch.einsum("nld,lde->nle", fit.softmax(-1), each)
