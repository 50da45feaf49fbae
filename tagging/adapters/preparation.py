"""Decode and shape a picture for a model: little work, close to the reference pixels.

A JPEG is decoded at a half, a quarter or an eighth of its size where enough for the model remains (libjpeg scales in
the transform domain, so this saves most of the decoding); everything else (padding, cropping, one bicubic resize) then
happens in the reduced space. Against full decoding the model's input keeps at least 50 dB PSNR; other pictures come
out exactly equal, up to eight times the model's side. Colours stay as the file has them, without its colour profile,
as taggers are trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..imaging import load
from .base import AdapterError, ImageInput

#: How many times the model's input must remain after drafting, for a padded square and for a crop. Chosen as the
#: least that keeps 50 dB on photographs of grass, gravel and leaves at 448 and 260 pixels; 1.5 falls to 42 dB there.
OVERSAMPLING = 2.0
CROP_OVERSAMPLING = 2.5
_WHITE = (255, 255, 255)
#: EXIF orientations whose first column or row was the last one in the file.
_FROM_THE_RIGHT = {2, 3, 6, 7}
_FROM_BELOW = {3, 4, 7, 8}

Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]
How = Literal["squash", "fit", "cover"]


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
        columns, rows = self._touched(side, x, self.width, length), self._touched(side, y, self.height, length)
        left, right = (self.left + (x + column * length / side) / self.factor for column in columns)
        top, bottom = (self.top + (y + row * length / side) / self.factor for row in rows)
        size = (columns[1] - columns[0], rows[1] - rows[0])
        picture, (before_x, after_x) = self.picture, _margins(left, right, self.picture.width)
        before_y, after_y = _margins(top, bottom, picture.height)
        if before_x or before_y or after_x or after_y:
            canvas = Image.new("RGB", (picture.width + before_x + after_x, picture.height + before_y + after_y), _WHITE)
            canvas.paste(self._edges_on_white(bool(before_x or after_x)), (before_x, before_y))
            picture = canvas
        box = (max(0.0, left + before_x), max(0.0, top + before_y), right + before_x, bottom + before_y)
        content = np.asarray(picture.resize(size, Image.Resampling.BICUBIC, box=box))
        if size == (side, side):
            return content
        pixels = np.full((side, side, 3), 255, np.uint8)
        pixels[rows[0] : rows[1], columns[0] : columns[1]] = content
        return pixels

    def part(self, content: tuple[int, int], box: tuple[int, int, int, int], resample: int) -> Pixels:
        """The full picture resized to `content`, of that the pixels in `box` (left, top, right, bottom)."""
        scale = (self.width / self.factor / content[0], self.height / self.factor / content[1])
        # the filters see what lies outside the box: up to four pixels of the picture or of the result
        margins = [math.ceil(4 * max(1.0, 1 / s)) for s in scale]
        out = [(max(0, box[i] - margins[i]), min(content[i], box[i + 2] + margins[i])) for i in (0, 1)]
        start = (self.left, self.top)
        source = [start[axis] + edge * scale[axis] for axis in (0, 1) for edge in out[axis]]
        region = (source[0], source[2], min(source[1], self.picture.width), min(source[3], self.picture.height))
        size = (out[0][1] - out[0][0], out[1][1] - out[1][0])
        pixels = np.asarray(self.picture.resize(size, Image.Resampling(resample), box=region))
        x, y = box[0] - out[0][0], box[1] - out[1][0]
        return pixels[y : y + box[3] - box[1], x : x + box[2] - box[0]]

    def _touched(self, side: int, start: float, extent: int, length: float) -> tuple[int, int]:
        """First and last (exclusive) output pixel that needs computing; what lies further out is white for certain.

        A bicubic filter reaches two pixels; five keep its neighbours' filters whole too. An undrafted picture is cut
        at whole pixels only, so that the result stays exactly that of the whole square.
        """
        scale = length / side
        reach = math.ceil(5 * max(1.0, 1 / scale))
        first, last = math.floor(-start / scale) - reach, math.ceil((extent - start) / scale) + reach
        if self.factor == 1 and (first > 0 or last < side):
            whole = side // math.gcd(side, round(length))
            first, last = first // whole * whole, -(-last // whole) * whole
        return max(0, first), min(side, last)

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
    reduced = _decoded(image, side * OVERSAMPLING, cover=False)
    longest = max(reduced.width, reduced.height)
    x, y = (longest - reduced.width) // 2, (longest - reduced.height) // 2
    return reduced.resized(side, -x, -y, longest)


def centre_crop(image: ImageInput, side: int, padding: int) -> Pixels:
    """The centre square of short side x side / (side + padding), bicubic to `side`: uint8 RGB (side, side, 3).

    AdapterError (permanent) when it cannot be read.
    """
    reduced = _decoded(image, (side + padding) * CROP_OVERSAMPLING, cover=True)
    crop = min(reduced.width, reduced.height) * side / (side + padding)
    return reduced.resized(side, (reduced.width - crop) / 2, (reduced.height - crop) / 2, crop)


def fitted(image: ImageInput, longest: int) -> Image.Image:
    """The whole picture, upright, RGB on white, its longer side at most `longest`; a smaller one stays as it is.

    AdapterError (permanent) when it cannot be read.
    """
    reduced = _decoded(image, longest * OVERSAMPLING, cover=False)
    scale = longest / max(reduced.width, reduced.height)
    if scale >= 1:
        return reduced.picture
    size = (max(1, round(reduced.width * scale)), max(1, round(reduced.height * scale)))
    right, bottom = reduced.left + reduced.width / reduced.factor, reduced.top + reduced.height / reduced.factor
    box = (reduced.left, reduced.top, min(right, reduced.picture.width), min(bottom, reduced.picture.height))
    return reduced.picture.resize(size, Image.Resampling.BICUBIC, box=box)


@dataclass(frozen=True, slots=True)
class Framing:
    """How a picture becomes `width` x `height` pixels: resized to whole pixels first, then cut or surrounded.

    "squash" ignores the aspect; "fit" keeps all of it and surrounds it with `colour`; "cover" resizes the shorter side
    to `short` and takes the centre. Whole pixels at the same places as the usual libraries, so that drafting is the
    only difference to them. `truncate`: the other side is cut to whole pixels instead of rounded.
    """

    how: How
    width: int
    height: int
    resample: int = Image.Resampling.BICUBIC
    colour: Colour = _WHITE
    short: int = 0
    truncate: bool = False

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready: part of a prediction's identity where it comes from a file."""
        found: dict[str, Any] = {"how": self.how, "size": [self.width, self.height], "resample": int(self.resample)}
        if self.how == "fit":
            found |= {"colour": list(self.colour), "truncate": self.truncate}
        if self.how == "cover":
            found["short"] = self.short
        return found

    def content(self, width: int, height: int) -> tuple[int, int]:
        """What a picture of this size is resized to."""
        if self.how == "squash":
            return self.width, self.height
        if self.how == "fit":
            ratio = min(self.width / width, self.height / height)
            if not self.truncate:
                return max(1, round(width * ratio)), max(1, round(height * ratio))
            if self.width * height <= self.height * width:  # the side that fills the frame has no fraction
                return self.width, max(1, int(self.width * height / width))
            return max(1, int(self.height * width / height)), self.height
        longer = int(self.short * max(width, height) / min(width, height))
        return (self.short, longer) if width <= height else (longer, self.short)

    def pixels(self, image: ImageInput) -> Pixels:
        """uint8 RGB of shape (height, width, 3). AdapterError (permanent) when the picture cannot be read."""
        largest = max(self.width, self.height)
        if self.how == "fit":
            soft = self.resample in (Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
            reduced = _decoded(image, largest * (OVERSAMPLING if soft else CROP_OVERSAMPLING), cover=False)
        else:
            side = self.short * CROP_OVERSAMPLING if self.how == "cover" else largest * OVERSAMPLING
            reduced = _decoded(image, side, cover=True)
        content = self.content(reduced.width, reduced.height)
        x, y = (self.width - content[0]) // 2, (self.height - content[1]) // 2
        if self.how == "cover":  # as torchvision rounds
            x, y = -round((content[0] - self.width) / 2), -round((content[1] - self.height) / 2)
        left, top = max(0, -x), max(0, -y)
        right, bottom = min(content[0], self.width - x), min(content[1], self.height - y)
        part = reduced.part(content, (left, top, right, bottom), self.resample)
        if part.shape[:2] == (self.height, self.width):
            return part
        canvas = np.empty((self.height, self.width, 3), np.uint8)
        canvas[:] = self.colour
        canvas[max(0, y) : max(0, y) + part.shape[0], max(0, x) : max(0, x) + part.shape[1]] = part
        return canvas


@dataclass(frozen=True, slots=True)
class Norm:
    """From 0..255 to what the model takes: (pixel * scale - mean) / std, per channel in the model's order."""

    scale: float = 1 / 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    order: Literal["RGB", "BGR"] = "RGB"

    def as_dict(self) -> dict[str, Any]:
        return {
            "scale": self.scale,
            "mean": list(self.mean),
            "std": list(self.std),
            "layout": self.layout,
            "order": self.order,
        }

    def arranged(self, pixels: Pixels) -> Pixels:
        """One picture (height, width, 3) RGB in the model's layout and channel order, still uint8."""
        if self.order == "BGR":
            pixels = pixels[:, :, ::-1]
        return np.ascontiguousarray(pixels.transpose(2, 0, 1) if self.layout == "NCHW" else pixels)

    def floats(self, batch: Pixels) -> npt.NDArray[np.float32]:
        """A batch of arranged pictures as the model takes it."""
        shape = (1, 3, 1, 1) if self.layout == "NCHW" else (1, 1, 1, 3)
        mean, std = (np.array(v, np.float32).reshape(shape) for v in (self.mean, self.std))
        found = batch.astype(np.float32)
        if self.scale != 1:
            found *= np.float32(self.scale)
        if mean.any():
            found -= mean
        if (std != 1).any():
            found /= std
        return found


IMAGENET = Norm(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

_RESAMPLES: Mapping[str, int] = {r.name.lower(): r for r in Image.Resampling}


def resample(name: str) -> int:
    """Pillow's filter of this name (bicubic, bilinear, lanczos, nearest, box, hamming). ValueError."""
    try:
        return _RESAMPLES[str(name).lower()]
    except KeyError:
        raise ValueError(f"unknown interpolation {name!r}; known: {', '.join(_RESAMPLES)}") from None


def _decoded(image: ImageInput, side: float, *, cover: bool) -> _Reduced:
    """The picture, its longer side (`cover`: its shorter) at least `side` pixels or as in the file."""
    try:
        with image.open() as stream:
            picture = load.decode(stream, min_side=math.ceil(side), cover=cover, name=image.name)
    except load.ImageProblem as problem:
        raise AdapterError(f"{image.name}: {problem}", permanent=True) from problem
    except OSError as error:
        message = (
            f"{image.name} cannot be read ({error.strerror or error}). Restore the file, or index its folder again."
        )
        raise AdapterError(message, permanent=True) from error
    upright = _on_white(picture.image)
    if picture.format == "RAW":  # the camera's preview: a picture of its own
        return _Reduced(upright, *upright.size, 1)
    factor = _factor((picture.width, picture.height), upright.size)
    turned = 1 if picture.format in ("TIFF", "HEIF") else picture.orientation  # those are turned before reduction
    left = upright.width - picture.width / factor if turned in _FROM_THE_RIGHT else 0.0
    top = upright.height - picture.height / factor if turned in _FROM_BELOW else 0.0
    return _Reduced(upright, picture.width, picture.height, factor, left, top)


def _factor(full: tuple[int, int], reduced: tuple[int, int]) -> int:
    """The whole number that `full` was divided by; both decoders round up what it does not divide."""
    guess = max(1, round(max(full) / max(reduced)))
    for factor in (guess, guess + 1, guess - 1):
        if factor and all(-(-f // factor) == r for f, r in zip(full, reduced, strict=True)):
            return factor
    return guess


def _on_white(picture: Image.Image) -> Image.Image:
    """Transparency composited on white."""
    if picture.mode == "RGB":
        return picture
    canvas = Image.new("RGBA", picture.size, (*_WHITE, 255))
    canvas.alpha_composite(picture.convert("RGBA"))
    return canvas.convert("RGB")
