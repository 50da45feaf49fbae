"""Decode and shape a picture for a model: little work, close to the reference pixels.

A JPEG is decoded at a half, a quarter or an eighth of its size where at least `OVERSAMPLING` times the model's side
remains (libjpeg scales in the transform domain, so this saves most of the decoding); everything else (padding,
cropping, one bicubic resize) then happens in the reduced space. Against full decoding the model's input keeps at
least 50 dB PSNR; other pictures come out exactly equal, up to `AVERAGE_FROM` times the model's side.
Drafting must come before anything that loads the pixels, turning by the EXIF flag included.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from .base import AdapterError, ImageInput

#: How many times the model's side must remain after drafting.
OVERSAMPLING = 1.5
#: Pictures with no scaled decode are averaged down by a whole factor first when this many times too large.
AVERAGE_FROM = 8
#: What decoders raise for a broken file. A MemoryError is not among them.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, struct.error, zlib.error)
_ALPHA_MODES = {"RGBA", "LA", "PA", "RGBa", "La"}
_WHITE = (255, 255, 255)

Pixels = npt.NDArray[np.uint8]


def padded_square(image: ImageInput, side: int) -> Pixels:
    """The whole picture centred on a white square, bicubic to `side`: uint8 RGB of shape (side, side, 3).

    AdapterError (permanent) when it cannot be read.
    """
    with _opened(image) as opened:
        picture = _upright_rgb(opened, side / max(opened.size))
        longest = max(picture.size)
        if picture.width != picture.height:
            canvas = Image.new("RGB", (longest, longest), _WHITE)
            canvas.paste(picture, ((longest - picture.width) // 2, (longest - picture.height) // 2))
            picture = canvas
        if longest != side:
            picture = picture.resize((side, side), Image.Resampling.BICUBIC)
        return np.asarray(picture)


def centre_crop(image: ImageInput, side: int, padding: int) -> Pixels:
    """The centre square of short side x side / (side + padding), bicubic to `side`: uint8 RGB (side, side, 3).

    AdapterError (permanent) when it cannot be read.
    """
    with _opened(image) as opened:
        picture = _upright_rgb(opened, (side + padding) / min(opened.size))
        crop = min(picture.size) * side / (side + padding)
        left, top = (picture.width - crop) / 2, (picture.height - crop) / 2
        box = (left, top, left + crop, top + crop)
        return np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC, box=box))


@contextmanager
def _opened(image: ImageInput) -> Iterator[Image.Image]:
    """The picture with its pixels not yet decoded; what goes wrong inside becomes an AdapterError that names it."""
    try:
        with image.open() as stream, _identified(stream) as picture:
            yield picture
    except Image.DecompressionBombError as error:
        raise AdapterError(f"{image.name} is too large to decode safely: {error}", permanent=True) from error
    except UnidentifiedImageError as error:
        message = f"{image.name} is no picture that Pillow can read; tag its proxy, or convert it to JPEG or PNG."
        raise AdapterError(message, permanent=True) from error
    except _BROKEN as error:
        message = f"{image.name} cannot be decoded ({error or type(error).__name__}); restore or re-export the file."
        raise AdapterError(message, permanent=True) from error


def _identified(stream: BinaryIO) -> Image.Image:
    try:
        return Image.open(stream)
    except UnidentifiedImageError:
        import pillow_heif  # on the first HEIC or AVIF only: the library is large

        pillow_heif.register_heif_opener()
        stream.seek(0)
        return Image.open(stream)


def _upright_rgb(picture: Image.Image, scale: float) -> Image.Image:
    """Decode no larger than useful for `scale` (model pixels per picture pixel): upright, 8-bit RGB on white."""
    wanted, width = scale * OVERSAMPLING, picture.width
    if wanted < 1:
        picture.draft(None, (math.ceil(picture.width * wanted), math.ceil(picture.height * wanted)))
    remaining = picture.width / width / scale
    ImageOps.exif_transpose(picture, in_place=True)
    upright = _on_white(picture)
    return upright.reduce(int(remaining * 2 / AVERAGE_FROM)) if remaining >= AVERAGE_FROM else upright


def _on_white(picture: Image.Image) -> Image.Image:
    """Any mode as RGB: transparency composited on white, 16-bit greys brought to 8 bits."""
    picture.load()
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode in _ALPHA_MODES or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        canvas = Image.new("RGBA", picture.size, (*_WHITE, 255))
        canvas.alpha_composite(picture)
        return canvas.convert("RGB")
    if picture.mode[0] in "IF":
        greys = np.asarray(picture).astype(np.float32)
        top = 65535 if picture.mode[0] == "I" and greys.max(initial=0) > 255 else 255
        picture = Image.fromarray(np.clip(greys * (255 / top), 0, 255).astype(np.uint8))
    return picture.convert("RGB")
