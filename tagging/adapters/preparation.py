"""Decode and shape a picture for a model: little work, close to the reference pixels.

A JPEG is decoded at a half, a quarter or an eighth of its size where enough for the model remains (libjpeg scales in
the transform domain, so this saves most of the decoding); everything else (padding, cropping, one bicubic resize) then
happens in the reduced space. Against full decoding the model's input keeps at least 50 dB PSNR; other pictures come
out exactly equal, up to `AVERAGE_FROM` times the model's side. Drafting must come before anything that loads the
pixels, turning by the EXIF flag included.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from .base import AdapterError, ImageInput

#: How many times the model's input must remain after drafting, for a padded square and for a crop. Chosen as the
#: least that keeps 50 dB on photographs of grass, gravel and leaves at 448 and 260 pixels; 1.5 falls to 42 dB there.
OVERSAMPLING = 2.0
CROP_OVERSAMPLING = 2.5
#: Pictures with no scaled decode are averaged down by a whole factor first when this many times too large.
AVERAGE_FROM = 8
#: What decoders raise for a broken file. A MemoryError is not among them.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, struct.error, zlib.error)
_ALPHA_MODES = {"RGBA", "LA", "PA", "RGBa", "La"}
_WHITE = (255, 255, 255)
#: EXIF orientations that swap the axes, and those whose first column or row was the last one in the file.
_SIDEWAYS = {5, 6, 7, 8}
_FROM_THE_RIGHT = {2, 3, 6, 7}
_FROM_BELOW = {3, 4, 7, 8}

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Reduced:
    """An upright RGB picture, possibly decoded small, and where the full picture lies in it.

    A side that the reduction does not divide ends inside the last column or row (the first, when turned): `left` and
    `top` are where the content starts, in pixels of `picture`, and `width`, `height` are the full picture's. Ignoring
    the fraction would move the picture by up to half a pixel, which costs 20 dB.
    """

    picture: Image.Image
    width: int
    height: int
    factor: int
    left: float = 0.0
    top: float = 0.0

    def resized(self, side: int, x: float, y: float, length: float) -> Pixels:
        """The square at (x, y) of the full picture, with sides of `length`, as (side, side, 3); white outside."""
        left, top = self.left + x / self.factor, self.top + y / self.factor
        right, bottom = left + length / self.factor, top + length / self.factor
        picture, (before_x, after_x) = self.picture, _margins(left, right, self.picture.width)
        before_y, after_y = _margins(top, bottom, picture.height)
        if before_x or before_y or after_x or after_y:
            size = (picture.width + before_x + after_x, picture.height + before_y + after_y)
            canvas = Image.new("RGB", size, _WHITE)
            canvas.paste(self._edges_on_white(bool(before_x or after_x)), (before_x, before_y))
            picture = canvas
        box = (left + before_x, top + before_y, right + before_x, bottom + before_y)
        return np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC, box=box))

    def _edges_on_white(self, columns: bool) -> Image.Image:
        """The outermost column (or row) mixed with white by how much of it the picture covers."""
        axis = 0 if columns else 1
        start = (self.left, self.top)[axis]
        end = start + (self.width, self.height)[axis] / self.factor
        if start == 0 and end == self.picture.size[axis]:
            return self.picture
        at, covered = (0, 1 - start) if start else (-1, end - math.floor(end))
        pixels = np.array(self.picture)
        edge = pixels[:, at] if columns else pixels[at]
        edge[...] = np.rint(covered * edge.astype(np.float32) + (1 - covered) * 255).astype(np.uint8)
        return Image.fromarray(pixels)


def _margins(start: float, end: float, size: int) -> tuple[int, int]:
    """Whole pixels that must be added before and after an axis of `size` so that start..end lies inside."""
    return max(0, math.ceil(-start - 1e-6)), max(0, math.ceil(end - size - 1e-6))


def padded_square(image: ImageInput, side: int) -> Pixels:
    """The whole picture centred on a white square, bicubic to `side`: uint8 RGB of shape (side, side, 3).

    AdapterError (permanent) when it cannot be read.
    """
    with _opened(image) as opened:
        reduced = _upright_rgb(opened, side / max(opened.size), OVERSAMPLING)
        longest = max(reduced.width, reduced.height)
        x, y = (longest - reduced.width) // 2, (longest - reduced.height) // 2
        return reduced.resized(side, -x, -y, longest)


def centre_crop(image: ImageInput, side: int, padding: int) -> Pixels:
    """The centre square of short side x side / (side + padding), bicubic to `side`: uint8 RGB (side, side, 3).

    AdapterError (permanent) when it cannot be read.
    """
    with _opened(image) as opened:
        reduced = _upright_rgb(opened, (side + padding) / min(opened.size), CROP_OVERSAMPLING)
        crop = min(reduced.width, reduced.height) * side / (side + padding)
        return reduced.resized(side, (reduced.width - crop) / 2, (reduced.height - crop) / 2, crop)


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


def _upright_rgb(picture: Image.Image, scale: float, oversampling: float) -> _Reduced:
    """Decode no larger than useful for `scale` (model pixels per picture pixel): upright, 8-bit RGB on white."""
    (width, height), wanted, factor = picture.size, scale * oversampling, 1
    if wanted < 1:
        picture.draft(None, (math.ceil(width * wanted), math.ceil(height * wanted)))
        factor = max(1, round(width / picture.width))
    orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    ImageOps.exif_transpose(picture, in_place=True)
    upright = _on_white(picture)
    if 1 / (scale * factor) >= AVERAGE_FROM:
        further = int(2 / (scale * factor * AVERAGE_FROM))
        upright, factor = upright.reduce(further), factor * further
    if orientation in _SIDEWAYS:
        width, height = height, width
    left = upright.width - width / factor if orientation in _FROM_THE_RIGHT else 0.0
    top = upright.height - height / factor if orientation in _FROM_BELOW else 0.0
    return _Reduced(upright, width, height, factor, left, top)


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
