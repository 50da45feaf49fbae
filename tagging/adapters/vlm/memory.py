"""How much memory a model needs, estimated from its files before anything is loaded.

weights = parameters x bytes of their format; per image = key/value cache of all tokens + activations of the picture
and of the logits. Formulas: a decoder keeps 2 x layers x key/value heads x head size numbers for each token; the
largest activation of a forward pass is tokens x (2 x hidden + 2 x intermediate) of one layer. On top 10 % and 300 MB
for the runtime. It is an estimate: attention without flash or sdpa, and pictures cut into many tiles, need more.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from .source import Folder, parameter_count

BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0}
#: Bytes for each weight of a quantised layer, scales included; what is not quantised is in `EXTRA`.
QUANTIZED = {"8bit": 1.06, "4bit": 0.56}
#: Share of the weights that stays as it is (embeddings, norms, heads).
EXTRA = 0.12
RUNTIME = 300 << 20
#: Tokens that one picture takes where the configuration does not say.
IMAGE_TOKENS = 1500


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes. `per_image` is what each further picture of a batch adds."""

    parameters: int
    weights: int
    per_image: int

    def total(self, batch: int = 1) -> int:
        return int(1.1 * (self.weights + batch * self.per_image)) + RUNTIME

    def text(self, batch: int = 1) -> str:
        """For people: "about 17.0 GB (8.0 billion weights 16.0 GB, 0.3 GB for each image)"."""
        return (
            f"about {gigabytes(self.total(batch))} ({self.parameters / 1e9:.1f} billion weights: "
            f"{gigabytes(self.weights)}; {gigabytes(self.per_image)} for each image of a batch)"
        )

    def batch_within(self, free: int, largest: int = 64) -> int:
        """How many images fit into `free` bytes beside weights that are loaded already; at least 1."""
        return max(1, min(largest, int(0.8 * free / (1.1 * max(1, self.per_image)))))


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 5e7 else f"{count / 1e6:.1f} MB"


def estimate(
    folder: Folder, *, dtype: str = "bf16", quantization: str = "none", new_tokens: int = 300, beams: int = 1
) -> Estimate:
    """The memory that a model on this machine needs. `dtype`: bf16, fp16 or fp32. ModelUnavailable (broken files)."""
    count = parameter_count(folder)
    size = BYTES.get(dtype, 2.0)
    per_weight = size if quantization not in QUANTIZED else EXTRA * size + (1 - EXTRA) * QUANTIZED[quantization]
    return Estimate(count, int(count * per_weight), per_image(folder.config, size, new_tokens=new_tokens, beams=beams))


def per_image(config: dict[str, Any], size: float, *, new_tokens: int, beams: int = 1) -> int:
    """Bytes that one picture and its answer take, `size` bytes a number."""
    text = config.get("text_config") or config.get("llm_config") or config
    hidden = _number(text, 1024, "hidden_size", "d_model", "n_embd")
    layers = _number(text, 24, "num_hidden_layers", "n_layer", "decoder_layers", "num_layers")
    heads = _number(text, 16, "num_attention_heads", "n_head", "decoder_attention_heads", "num_heads")
    groups = _number(text, heads, "num_key_value_heads")
    head = _number(text, max(1, hidden // heads), "head_dim")
    inner = _number(text, 4 * hidden, "intermediate_size", "decoder_ffn_dim", "d_ff")
    words = _number(text, 32000, "vocab_size")
    tokens = image_tokens(config) + 200
    cache = 2 * layers * groups * head * (tokens + new_tokens) * beams
    activations = tokens * (2 * hidden + 2 * inner) * min(beams, 2)
    return int(size * (cache + activations) + 4 * words * 3 * beams)


def image_tokens(config: dict[str, Any]) -> int:
    """Tokens that a picture takes, as far as the configuration says."""
    for name in ("image_seq_length", "image_seq_len", "mm_tokens_per_image", "num_query_tokens"):
        if isinstance(config.get(name), int):
            return int(config[name])
    vision = config.get("vision_config") or {}
    side, patch = vision.get("image_size"), vision.get("patch_size")
    if isinstance(side, int) and isinstance(patch, int) and patch:
        return (side // patch) ** 2
    return IMAGE_TOKENS


def _number(config: dict[str, Any], default: int, *names: str) -> int:
    return next((int(config[n]) for n in names if isinstance(config.get(n), int) and config[n] > 0), default)


def free_ram() -> int | None:
    """Bytes of memory that this process could get now, a container's limit regarded; None where nothing says so."""
    known = [value for value in (_of_machine(), _of_container()) if value is not None]
    return min(known, default=None)


def _of_machine() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _of_container() -> int | None:
    """What is left below the limit of a control group (version 2)."""
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            limit = int(file.read())
        with open("/sys/fs/cgroup/memory.current", encoding="ascii") as file:
            return max(0, limit - int(file.read()))
    except (OSError, ValueError):  # "max": no limit
        return None
