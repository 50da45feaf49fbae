"""Every picture enters here: one decode gives upright, 8-bit, sRGB pixels and what the file says of itself.

Files are recognised by content, never by extension. What cannot be used raises `ImageProblem` with a text for people.
Pillow's own size guard is switched off for the process, because it cannot know that a drafted JPEG needs a sixty-fourth
of the memory; `MAX_PIXELS` and `MAX_BYTES` take its place.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import Any, BinaryIO, cast

from PIL import AvifImagePlugin, Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

from . import colour, exif, kinds

#: Pictures with more pixels than this are refused whatever their format. Read here, for adapters know no settings.
MAX_PIXELS = int(os.environ.get("IWTAG_MAX_PIXELS") or 400_000_000)
#: Pictures whose decoding needs more bytes of memory than this are refused; together, all threads stay below it too.
MAX_BYTES = 1024 * 1024 * 1024

Image.MAX_IMAGE_PIXELS = None
Image.preinit()  # JPEG, PNG, GIF and BMP; the imports above register the others (Image.init() would load all forty)
# odd metadata is no news; set once, because warnings.catch_warnings is not safe in threads
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
PLUGINS = (AvifImagePlugin, TiffImagePlugin, WebPImagePlugin)

# Memory that Pillow's decoder of a format holds per pixel at its peak (the picture itself, buffers of the library)
_BYTES_PER_PIXEL = {"WEBP": 16, "AVIF": 16, "HEIF": 12, "GIF": 8}
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageProblem(Exception):
    """A file cannot be used as a picture. The text says why, and the mend where there is one.

    `format` is what the file begins like, empty when that is no picture.
    """

    def __init__(self, message: str, format: str = "") -> None:
        super().__init__(message)
        self.format = format


@dataclass(slots=True)
class Picture:
    """A decoded file.

    `image` is its first frame, upright, mode RGB, or RGBA where something is transparent; it may be smaller than
    `width` × `height`, the pixels of the file as seen. `orientation` is the EXIF value before it was applied.
    `icc` is the profile that the pixels are still in, empty for sRGB.
    """

    image: Image.Image
    format: str
    width: int
    height: int
    orientation: int = 1
    frames: int = 1
    captured_at: datetime | None = None
    icc: bytes = b""


def open_image(
    stream: BinaryIO | bytes, *, min_side: int | None = None, cover: bool = False, name: str = "", srgb: bool = True
) -> Image.Image:
    """The picture, upright, RGB (RGBA where something is transparent), wide-gamut colours brought to sRGB.

    With `min_side` the result may be smaller than the file, which is much faster for JPEG: its longer side (with
    `cover` its shorter side) is at least `min_side`, or the file's own if that is less. `name` helps to tell camera
    RAW from TIFF. Raises ImageProblem; OSError when the stream cannot be read.
    """
    picture = decode(stream, min_side=min_side, cover=cover, name=name)
    return colour.to_srgb(picture.image, picture.icc) if srgb and picture.icc else picture.image


def flatten(image: Image.Image, background: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """Mode RGB, transparency laid on `background`."""
    if image.mode == "RGB":
        return image
    rgba = image.convert("RGBA")
    canvas = Image.new("RGB", rgba.size, background)
    canvas.paste(rgba, mask=rgba.getchannel("A"))
    return canvas


def exif_fields(stream: BinaryIO) -> dict[str, str | int | float]:
    """All EXIF fields by name, without decoding any pixel; empty for a file that has none or is no picture. OSError
    when the stream cannot be read."""
    stream.seek(0)
    if kinds.sniff(stream.read(kinds.HEAD), stream, "") == "HEIF":
        _register_heif()
    stream.seek(0)
    try:
        with Image.open(stream) as image:
            return exif.fields(image)
    except OSError as error:
        if error.errno is None:  # Pillow's: no picture, or damaged
            return {}
        raise
    except Exception:  # decoders meet hostile bytes here
        return {}


def decode(
    source: BinaryIO | bytes,
    *,
    min_side: int | None = None,
    cover: bool = False,
    name: str = "",
    max_pixels: int | None = None,
) -> Picture:
    """Decode once. Arguments as of `open_image`; `max_pixels` overrides MAX_PIXELS. The stream is read from its start.

    Raises ImageProblem; OSError when the stream cannot be read.
    """
    stream = BytesIO(source) if isinstance(source, bytes) else source
    stream.seek(0)
    head = stream.read(kinds.HEAD)
    kind = kinds.sniff(head, stream, name or str(getattr(stream, "name", "")))
    stream.seek(0)
    if kind not in kinds.READABLE:
        raise ImageProblem(kinds.describe(head))
    limit = max_pixels or MAX_PIXELS
    try:
        if kind == "RAW":
            picture = _decode_raw(stream, min_side, cover, limit)
            if picture is not None:
                return picture
            kind = "TIFF"  # a plain TIFF with the extension of a RAW
            stream.seek(0)
        return _decode(stream, kind, min_side, cover, limit)
    except ImageProblem as problem:
        raise ImageProblem(str(problem), kind) from None
    except Exception as error:  # decoders meet hostile bytes here: whatever they raise is the file's problem
        raise ImageProblem(_explain(kind, error), kind) from error


def _decode(stream: BinaryIO, kind: str, min_side: int | None, cover: bool, limit: int) -> Picture:
    if kind == "HEIF":
        _register_heif()
    image = Image.open(stream, formats=kinds.PILLOW[kind])
    full = image.size
    _check_pixels(*full, limit)
    facts = exif.read(image)
    icc = image.info.get("icc_profile") or b""
    if min_side and kind == "JPEG":
        image.draft(None, _target(full, min_side, cover))
    factor = _factor(image.size, min_side, cover)
    with _room.hold(_cost(image, kind, full, shrunk=factor > 1)):
        image.load()
        turn = _residual_orientation(image)
        if icc and colour.is_srgb(icc):
            icc = b""
        frames = 1 if kind == "JPEG" else _frames(image)
        small, icc = _normalised(image, factor, icc)
        if turn in _TURN:
            small = small.transpose(_TURN[turn])
    if turn >= 5:
        full = full[1], full[0]
    return Picture(small, kind, *full, facts.orientation, frames, facts.captured_at, icc)


def _decode_raw(stream: BinaryIO, min_side: int | None, cover: bool, limit: int) -> Picture | None:
    """None when LibRaw does not know the file: it may still be a TIFF."""
    from . import raw

    data = stream.read()
    with _room.hold(min(len(data) * 8, MAX_BYTES)):
        found = raw.develop(data, min_side)
    if found is None:
        return None
    _check_pixels(found.width, found.height, limit)
    small = found.image
    if isinstance(found.preview, bytes):
        inner = _decode(BytesIO(found.preview), "JPEG", min_side, cover, limit)
        small = inner.image
        if inner.orientation == 1 and found.orientation in _TURN:
            small = small.transpose(_TURN[found.orientation])
        icc = inner.icc
        captured_at = found.captured_at or inner.captured_at
    else:
        icc, captured_at = b"", found.captured_at
    if small is None:
        return None
    return Picture(small, "RAW", found.width, found.height, found.orientation, 1, captured_at, icc)


# -- sizes -----------------------------------------------------------------------------------------------------------
def _target(size: tuple[int, int], min_side: int, cover: bool) -> tuple[int, int]:
    """The smallest size of the same shape that still satisfies `min_side`."""
    side = min(size) if cover else max(size)
    wanted = min(min_side, side)
    return max(1, size[0] * wanted // side), max(1, size[1] * wanted // side)


def _factor(size: tuple[int, int], min_side: int | None, cover: bool) -> int:
    """By how much a decoded picture is box-reduced; twice the wanted size is kept for the filter that follows."""
    if not min_side:
        return 1
    return max(1, (min(size) if cover else max(size)) // (2 * min_side))


def _check_pixels(width: int, height: int, limit: int) -> None:
    if width * height > limit:
        raise ImageProblem(
            f"{width:,} × {height:,} pixels are more than the limit of {limit / 1e6:,.0f} million. "
            "Scale the picture down or raise IWTAG_MAX_PIXELS."
        )


def _cost(image: Image.Image, kind: str, full: tuple[int, int], *, shrunk: bool) -> int:
    """Bytes that decoding needs at its peak. ImageProblem when that is more than MAX_BYTES."""
    one_byte = image.mode in ("1", "L", "P")
    per_pixel = _BYTES_PER_PIXEL.get(kind) or (1 if one_byte else 2 if image.mode.startswith("I;16") else 4)
    if not shrunk and (one_byte or image.mode != "RGB"):
        per_pixel += 4  # the converted copy
    cost = image.size[0] * image.size[1] * per_pixel
    if kind == "JPEG" and image.info.get("progressive"):
        cost += full[0] * full[1] * _coefficients(image)
    if cost > MAX_BYTES:
        progressive = "progressive " if image.info.get("progressive") else ""
        raise ImageProblem(
            f"{full[0]:,} × {full[1]:,} pixels of {progressive}{kind} need about {cost / 1e9:.1f} GB of memory; "
            f"the limit is {MAX_BYTES / 1e9:.1f} GB. Scale the picture down or save it as baseline JPEG."
        )
    return cost


def _coefficients(image: Image.Image) -> int:
    """Bytes per pixel that libjpeg keeps of a progressive file: two for each sample, rounded up."""
    layers: list[Any] = getattr(image, "layer", [])
    if not layers:
        return 6
    widest, tallest = max(x[1] for x in layers), max(x[2] for x in layers)
    return -(-2 * sum(x[1] * x[2] for x in layers) // (widest * tallest))


class _Room:
    """Lets threads decode side by side as long as their pictures together stay below `total` bytes."""

    def __init__(self, total: int) -> None:
        self._free = self._total = total
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        size = min(size, self._total)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= size)
            self._free -= size
        try:
            yield
        finally:
            with self._changed:
                self._free += size
                self._changed.notify_all()


_room = _Room(MAX_BYTES)


# -- pixels ----------------------------------------------------------------------------------------------------------
def _normalised(image: Image.Image, factor: int, icc: bytes) -> tuple[Image.Image, bytes]:
    """RGB or RGBA, box-reduced by `factor` in strips, so that no second picture of the full size is ever held."""
    levels = colour.levels(image)
    if factor == 1:
        return colour.to_rgb(image, levels, icc)
    width, height = image.size
    rows = factor * max(1, 4_000_000 // (width * factor))
    small: Image.Image | None = None
    left = icc
    for top in range(0, height, rows):
        strip, left = colour.to_rgb(image.crop((0, top, width, min(height, top + rows))), levels, icc)
        strip = strip.reduce(factor)
        if small is None:
            small = Image.new(strip.mode, (-(-width // factor), -(-height // factor)))
        small.paste(strip, (0, top // factor))
    return cast(Image.Image, small), left


def _residual_orientation(image: Image.Image) -> int:
    """What is left to apply after loading: Pillow turns TIFF by itself, pillow-heif turns HEIF."""
    return 1 if image.format in ("TIFF", "HEIF") else exif.orientation(image)


def _frames(image: Image.Image) -> int:
    try:
        return max(1, int(getattr(image, "n_frames", 1)))
    except Exception:  # a damaged later frame is no reason to refuse the first
        return 1


_heif = threading.Lock()
_heif_ready = False


def _register_heif() -> None:
    global _heif_ready
    with _heif:
        if not _heif_ready:
            import pillow_heif

            pillow_heif.register_heif_opener(thumbnails=False)
            _heif_ready = True


def _explain(kind: str, error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    if isinstance(error, MemoryError):
        return f"There was not enough memory to decode this {kind}."
    if isinstance(error, ImportError):
        return f"{kind} needs a package that is not installed ({text})."
    if isinstance(error, UnidentifiedImageError):
        return f"The file starts like {kind}, but its header is damaged or cut off."
    if "truncated" in text.lower() or "end of" in text.lower() or isinstance(error, EOFError):
        return f"The {kind} file is truncated: its picture data ends early."
    return f"The {kind} file is damaged or cut off ({text or type(error).__name__})."
