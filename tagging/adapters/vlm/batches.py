"""Prepared items to the tensors of one call and back: padding, joining, cutting off the prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from ..base import Request

#: Tensors that have one column for each token of the prompt.
SEQUENCES = frozenset(
    {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "cross_attention_mask",
     "image_embeds_position_mask"}
)  # fmt: skip
#: How much longer than its content a padded batch may be before it is split by length.
WASTE = 1.5


@dataclass(slots=True)
class Prepared:
    """One image with its question, ready for the device. Tensors have a first axis of 1, or of its tiles or patches."""

    name: str
    sha256: str
    request: Request
    prompt: str  # the text that the processor was given
    inputs: dict[str, Any]
    start: str = ""  # words that the answer begins with
    prefilled: bool = False  # they are at the end of `prompt`
    image: Image.Image | None = None  # kept where it may be asked about again

    @property
    def length(self) -> int:
        """Tokens of the prompt, the image's counted."""
        ids = self.inputs.get("input_ids")
        return 0 if ids is None else int(ids.shape[1])


@dataclass(slots=True)
class Answer:
    """What was generated for one item: tokens without padding and end, and how it ended (stop or length)."""

    tokens: list[int]
    text: str
    tokens_in: int = 0
    tokens_out: int = 0
    finish_reason: str = "stop"
    flags: set[str] = field(default_factory=set)
    seconds: float = 0.0


def by_length(items: Sequence[Prepared], *, equal: bool) -> list[list[int]]:
    """Indices of `items` in groups that are generated together: of the same length where `equal`, else so that padding
    stays small. Longest first, so that want of memory shows at once."""
    order = sorted(range(len(items)), key=lambda i: -items[i].length)
    groups: list[list[int]] = []
    for i in order:
        length = items[i].length
        if groups:
            longest = items[groups[-1][0]].length
            if longest == length or (not equal and longest <= max(WASTE * length, length + 32)):
                groups[-1].append(i)
                continue
        groups.append([i])
    return groups


def collate(torch: Any, items: Sequence[Prepared], pad: dict[str, int]) -> dict[str, Any]:
    """Join the items' tensors on their first axis: sequences padded on the left (`pad`: name → value, else 0), pictures
    of unlike tiling with zeros at the end, as the processors of transformers do it themselves."""
    joined = {}
    for name in items[0].inputs:
        parts = [item.inputs[name] for item in items]
        joined[name] = _join(torch, parts, left=name in SEQUENCES, value=pad.get(name, 0))
    return joined


def _join(torch: Any, parts: list[Any], *, left: bool, value: int) -> Any:
    if not hasattr(parts[0], "shape"):
        return [entry for part in parts for entry in part]
    shapes = {tuple(part.shape[1:]) for part in parts}
    if len(shapes) == 1:
        return torch.cat(parts)
    largest = [max(sizes) for sizes in zip(*shapes, strict=True)]
    padded = []
    for part in parts:
        whole = torch.full((part.shape[0], *largest), value, dtype=part.dtype)
        place: list[slice] = [slice(0, part.shape[0])]
        for axis, size in enumerate(part.shape[1:]):
            at_end = left and axis == 0
            place.append(slice(largest[0] - size, None) if at_end else slice(0, size))
        whole[tuple(place)] = part
        padded.append(whole)
    return torch.cat(padded)


def new_tokens(row: Sequence[int], prompt: Sequence[int]) -> list[int]:
    """The generated tokens of a row of `generate`'s output, which some models begin with the prompt."""
    if prompt and list(row[: len(prompt)]) == list(prompt):
        return list(row[len(prompt) :])
    return list(row)


def until_end(tokens: Sequence[int], ends: Sequence[int], pad: int | None) -> tuple[list[int], bool]:
    """The tokens before the first end token, and whether there was one. Padding after the end is dropped."""
    for at, token in enumerate(tokens):
        if token in ends:
            return list(tokens[:at]), True
    kept = list(tokens)
    while kept and pad is not None and kept[-1] == pad:
        kept.pop()
    return kept, len(kept) < len(tokens)


def text_after(decode: Callable[[Sequence[int]], str], context: Sequence[int], tokens: Sequence[int]) -> str:
    """The text of `tokens` as it follows `context`: tokenizers drop or keep the space at a beginning."""
    before = decode(context)
    both = decode([*context, *tokens])
    return both[len(before) :] if both.startswith(before) else decode(tokens)
