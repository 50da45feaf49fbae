"""Pictures for the adapters, and the plain way to prepare them that the fast way is measured against."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from tagging.adapters.base import ImageInput


def image_input(source: Path | bytes, name: str = "") -> ImageInput:
    if isinstance(source, bytes):
        return ImageInput(name or "picture", "0" * 64, lambda: io.BytesIO(source))
    return ImageInput(name or source.name, "0" * 64, lambda: source.open("rb"))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def reference_picture(source: Path | bytes) -> Image.Image:
    """Decoded in full, upright, on white."""
    opened = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    picture = ImageOps.exif_transpose(opened).convert("RGBA")
    canvas = Image.new("RGBA", picture.size, "white")
    canvas.alpha_composite(picture)
    return canvas.convert("RGB")


def reference_square(source: Path | bytes, side: int) -> np.ndarray:
    """Full decode, RGBA, white, pad to a square at full size, bicubic: (side, side, 3) RGB."""
    picture = reference_picture(source)
    longest = max(picture.size)
    canvas = Image.new("RGB", (longest, longest), "white")
    canvas.paste(picture, ((longest - picture.width) // 2, (longest - picture.height) // 2))
    return np.asarray(canvas.resize((side, side), Image.Resampling.BICUBIC))


def reference_crop(source: Path | bytes, side: int, padding: int) -> np.ndarray:
    """Full decode, the centre square of the short side x side / (side + padding), bicubic: (side, side, 3) RGB."""
    picture = reference_picture(source)
    crop = min(picture.size) * side / (side + padding)
    left, top = (picture.width - crop) / 2, (picture.height - crop) / 2
    box = (left, top, left + crop, top + crop)
    return np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC, box=box))


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Peak signal to noise ratio of two uint8 pictures in dB."""
    error = float(np.mean((first.astype(np.float64) - second.astype(np.float64)) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)
