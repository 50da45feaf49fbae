"""A picture as an endpoint gets it: upright, sRGB, on white, with the long edge, format and quality that were chosen.

With a long edge of 0 nothing is scaled: the file's own picture data goes out where a server can read it (JPEG and PNG
that are upright and opaque), without its metadata, because places and names in EXIF are nobody's business; every other
file is encoded anew at full size.
"""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass

from PIL import Image

from ...imaging import load
from ..base import AdapterError, ImageInput

#: How much larger than wanted a JPEG is decoded before it is scaled: keeps 50 dB against full decoding.
OVERSAMPLING = 2
MIME = {"jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
#: From this quality on colours keep their full resolution.
FULL_COLOUR = 90
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
#: Segments that decoding needs, besides those that are no APPn: JFIF, colour profile, Adobe's colour transform.
_KEPT_APPS = {0xE0: b"JFIF\0", 0xE2: b"ICC_PROFILE\0", 0xEE: b"Adobe"}
_PNG_KEPT = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"bKGD", b"pHYs"}


@dataclass(frozen=True, slots=True)
class Encoded:
    """`data` is base64 text; `width` and `height` are of the picture that was sent."""

    mime: str
    data: str
    width: int
    height: int

    @property
    def uri(self) -> str:
        return f"data:{self.mime};base64,{self.data}"


def encode(image: ImageInput, long_edge: int, format: str, quality: int) -> Encoded:
    """The picture as it is sent. AdapterError (permanent) when it cannot be read."""
    try:
        with image.open() as stream:
            source = stream.read() if long_edge == 0 else stream
            picture = load.decode(source, min_side=long_edge * OVERSAMPLING or None, name=image.name)
    except load.ImageProblem as problem:
        raise AdapterError(f"{image.name}: {problem}", permanent=True) from problem
    except OSError as error:
        reason = error.strerror or error
        message = f"{image.name} cannot be read ({reason}). Restore the file, or index its folder again."
        raise AdapterError(message, permanent=True) from error
    if isinstance(source, bytes) and (own := _own_data(source, picture)):
        mime, content = own
        return Encoded(mime, base64.b64encode(content).decode("ascii"), picture.width, picture.height)
    upright = load.flatten(_srgb(picture))
    if long_edge and max(upright.size) > long_edge:
        upright = upright.resize(_scaled(picture.width, picture.height, long_edge), Image.Resampling.LANCZOS)
    content = _written(upright, format, quality)
    return Encoded(MIME[format], base64.b64encode(content).decode("ascii"), *upright.size)


def _srgb(picture: load.Picture) -> Image.Image:
    from ...imaging import colour

    return colour.to_srgb(picture.image, picture.icc) if picture.icc else picture.image


def _scaled(width: int, height: int, long_edge: int) -> tuple[int, int]:
    """The size with that long edge, of the file's own shape (a drafted decode rounds it)."""
    longest = max(width, height)
    return max(1, round(width * long_edge / longest)), max(1, round(height * long_edge / longest))


def _written(picture: Image.Image, format: str, quality: int) -> bytes:
    stream = io.BytesIO()
    if format == "png":
        picture.save(stream, "PNG")
    elif format == "webp":
        picture.save(stream, "WEBP", quality=quality)
    else:
        picture.save(stream, "JPEG", quality=quality, subsampling=0 if quality >= FULL_COLOUR else 2)
    return stream.getvalue()


def _own_data(source: bytes, picture: load.Picture) -> tuple[str, bytes] | None:
    """MIME type and the file's own data without metadata; None where it must be encoded anew."""
    if picture.orientation != 1 or picture.image.mode != "RGB" or picture.frames > 1 or picture.icc:
        return None
    try:
        if picture.format == "JPEG":
            return MIME["jpeg"], bare_jpeg(source)
        if picture.format == "PNG":
            return MIME["png"], bare_png(source)
    except (ValueError, IndexError):
        return None
    return None


def bare_jpeg(source: bytes) -> bytes:
    """A JPEG without EXIF, XMP, IPTC, comments and whatever follows its end; the picture data is untouched.

    ValueError when its segments cannot be followed.
    """
    kept, at = [b"\xff\xd8"], 2
    if source[:2] != b"\xff\xd8":
        raise ValueError("no JPEG")
    while True:
        if source[at] != 0xFF:
            raise ValueError("no marker where one must be")
        while source[at + 1] == 0xFF:  # fill bytes
            at += 1
        marker = source[at + 1]
        if marker == 0xD9:
            kept.append(b"\xff\xd9")
            return b"".join(kept)
        length = int.from_bytes(source[at + 2 : at + 4], "big")
        segment = source[at : at + 2 + length]
        if length < 2 or len(segment) < 2 + length:
            raise ValueError("a segment is cut off")
        at += 2 + length
        if marker == 0xDA:  # the scan's data, up to the next marker that is no restart
            following = _NEXT_MARKER.search(source, at)
            if following is None:
                raise ValueError("no end")
            kept += [segment, source[at : following.start()]]
            at = following.start()
        elif not (0xE0 <= marker <= 0xEF or marker == 0xFE) or segment[4:].startswith(_KEPT_APPS.get(marker, b"\xff")):
            kept.append(segment)


def bare_png(source: bytes) -> bytes:
    """A PNG with only the chunks that its pixels and colours need. ValueError when it is cut off."""
    kept, at = [source[:8]], 8
    while True:
        length, name = int.from_bytes(source[at : at + 4], "big"), source[at + 4 : at + 8]
        chunk = source[at : at + 12 + length]
        if len(chunk) < 12 + length:
            raise ValueError("a chunk is cut off")
        if name in _PNG_KEPT:
            kept.append(chunk)
        if name == b"IEND":
            return b"".join(kept)
        at += 12 + length
