"""Camera RAW through LibRaw: the preview that the camera embedded, else a half-size development."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import Any

from PIL import Image

from . import exif

# LibRaw's "flip" (0 none, 3 half turn, 5 a quarter anticlockwise, 6 a quarter clockwise) as EXIF orientation
_FLIPS = {3: 3, 5: 8, 6: 6}
#: A preview with a longer side below this is only good for the camera's own screen.
PREVIEW_SIDE = 1024
_one = threading.Lock()  # developing holds several copies of the sensor: one at a time is enough


@dataclass(slots=True)
class Developed:
    """`preview` is an embedded JPEG still to be decoded and turned; else `image` is upright. Sizes as seen."""

    width: int
    height: int
    orientation: int
    captured_at: datetime | None
    preview: bytes | None = None
    image: Image.Image | None = None


def develop(data: bytes, min_side: int | None) -> Developed | None:
    """None when LibRaw does not know the file. LibRaw's other errors pass through."""
    import rawpy

    with _one:
        try:
            raw = rawpy.imread(BytesIO(data))
        except rawpy.LibRawFileUnsupportedError:
            return None
        with raw:
            sizes = raw.sizes
            orientation = _FLIPS.get(sizes.flip, 1)
            width, height = sizes.width, sizes.height
            if orientation >= 5:
                width, height = height, width
            found = Developed(width, height, orientation, _captured_at(data))
            wanted = min(max(width, height), min_side or PREVIEW_SIDE)
            found.preview = _preview(raw, rawpy, wanted)
            if found.preview is None:
                found.image = Image.fromarray(raw.postprocess(half_size=True, use_camera_wb=True, output_bps=8))
    return found


def _preview(raw: Any, rawpy: Any, wanted: int) -> bytes | None:
    """The embedded JPEG when its longer side is at least `wanted` pixels."""
    try:
        thumb = raw.extract_thumb()
        if thumb.format != rawpy.ThumbFormat.JPEG:
            return None
        with Image.open(BytesIO(thumb.data), formats=("JPEG",)) as jpeg:
            return bytes(thumb.data) if max(jpeg.size) >= wanted else None
    except (rawpy.LibRawError, OSError, SyntaxError, ValueError):
        return None


def _captured_at(data: bytes) -> datetime | None:
    """Most RAW formats are TIFF outside, with the EXIF where TIFF has it."""
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return None
    try:
        found = Image.Exif()
        found.load(b"Exif\0\0" + data)
        return exif.captured_at(found)
    except Exception:  # the preview's own EXIF is the second source
        return None
