"""`preprocess.json`: the stages that turn a picture into a model's input, as exports of timm models describe them.

Read are the stages of an ordinary classifier: convert_rgb, resize, center_crop, pad_to_size, to_tensor, rescale,
normalize; what cannot be followed to the pixel is refused by name, never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageColor

from .base import ModelUnavailable
from .preparation import Colour, Framing, Norm, resample

#: torchvision's numbers for filters are Pillow's.
_FILTERS = {int(r): r.name.lower() for r in Image.Resampling}


def read(path: Path) -> tuple[Framing, Norm]:
    """The framing and the normalisation (channels first, RGB). ModelUnavailable names the file and the stage."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"{path} cannot be read ({error}). Download the file again.") from error
    if isinstance(content, dict):
        content = content.get("stages") or content.get("test")
    if not isinstance(content, list) or not content or not all(isinstance(s, dict) for s in content):
        raise ModelUnavailable(f'{path} lists no stages (expected {{"stages": [{{"type": …}}, …]}}).')
    try:
        return follow(content)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelUnavailable(f"{path} cannot be followed: {error}.") from error


def follow(stages: Sequence[Mapping[str, Any]]) -> tuple[Framing, Norm]:
    """ValueError, KeyError or TypeError names what cannot be followed."""
    framing: Framing | None = None
    norm, floats = Norm(scale=1.0), False
    for stage in stages:
        kind = str(stage["type"])
        if kind == "convert_rgb":
            if str(stage.get("force_background", "white")) not in ("white", "None"):
                raise ValueError(f"a background of {stage['force_background']!r}; only white is known")
        elif kind in ("resize", "pad_to_size", "center_crop"):
            framing = _frame(kind, stage, framing)
        elif kind in ("to_tensor", "maybe_to_tensor"):
            norm, floats = replace(norm, scale=1 / 255), True
        elif kind == "rescale":
            norm, floats = replace(norm, scale=norm.scale * float(stage.get("rescale_factor", 1 / 255))), True
        elif kind == "normalize":
            if not floats:
                raise ValueError("normalize comes before to_tensor")
            norm = replace(norm, mean=_three(stage["mean"], "mean"), std=_three(stage["std"], "std"))
        else:
            raise ValueError(f"the stage {kind!r} is unknown")
    if framing is None:
        raise ValueError("no stage says the size")
    if framing.how == "cover" and not framing.width:
        raise ValueError("a resize to the shorter side needs a center_crop after it")
    return framing, norm


def _frame(kind: str, stage: Mapping[str, Any], before: Framing | None) -> Framing:
    if kind == "pad_to_size":
        if before is not None:
            raise ValueError("pad_to_size is not the first")
        width, height = _two(stage["size"])
        colour = _colour(stage.get("background_color", "white"))
        return Framing("fit", width, height, _filter(stage, "bilinear"), colour)
    if kind == "center_crop":
        height, width = _two(stage["size"])
        if before is None:
            raise ValueError("center_crop comes before resize")
        if before.how == "cover":
            if max(width, height) > before.short:
                raise ValueError("center_crop is larger than the resized picture")
            return replace(before, width=width, height=height)
        if (width, height) != (before.width, before.height):
            raise ValueError("center_crop cuts what was resized to a fixed size")
        return before
    size = stage["size"]
    if isinstance(size, list) and len(size) == 1:
        size = size[0]
    if before is not None:
        if not isinstance(size, int) and _two(size) == (before.height, before.width):
            return before
        if isinstance(size, int) and size == min(before.width, before.height) == max(before.width, before.height):
            return before
        raise ValueError("two stages change the size")
    if stage.get("max_size") is not None:
        raise ValueError("resize with max_size")
    if isinstance(size, int):
        return Framing("cover", 0, 0, _filter(stage, "bilinear"), short=size)
    height, width = _two(size)
    return Framing("squash", width, height, _filter(stage, "bilinear"))


def _filter(stage: Mapping[str, Any], default: str) -> int:
    given = stage.get("interpolation", default)
    return resample(_FILTERS.get(given, str(given)) if isinstance(given, int) else given)


def _two(size: Any) -> tuple[int, int]:
    first, second = (size, size) if isinstance(size, int) else size
    if not (isinstance(first, int) and isinstance(second, int) and 0 < first <= 4096 and 0 < second <= 4096):
        raise ValueError(f"a size of {size!r}")
    return first, second


def _three(values: Any, name: str) -> tuple[float, float, float]:
    values = [values] * 3 if isinstance(values, int | float) else list(values) * (3 if len(values) == 1 else 1)
    if len(values) != 3:
        raise ValueError(f"{name} has {len(values)} values, not three")
    red, green, blue = (float(v) for v in values)
    if name == "std" and not all((red, green, blue)):
        raise ValueError("std holds a zero")
    return red, green, blue


def _colour(given: Any) -> Colour:
    if isinstance(given, str):
        rgb = ImageColor.getrgb(given)
        return rgb[0], rgb[1], rgb[2]
    red, green, blue = [given] * 3 if isinstance(given, int) else list(given)[:3]
    return int(red), int(green), int(blue)
