"""Makes the good, odd and broken files that the tests of decoding and ingest use."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms


def photo(width: int = 120, height: int = 80, seed: int = 0) -> Image.Image:
    """A smooth coloured picture, red on the left and top: turning or inverting it shows."""
    y, x = np.mgrid[0:height, 0:width]
    rng = np.random.default_rng(seed)
    rgb = np.stack([255 * (1 - x / width), 255 * y / height, np.full_like(x, 40.0, dtype=float)], axis=-1)
    rgb += rng.normal(0, 4, rgb.shape) + seed % 7
    return Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, format: str = "JPEG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def jpeg(width: int = 120, height: int = 80, seed: int = 0, **options: object) -> bytes:
    return encoded(photo(width, height, seed), "JPEG", **options)


def exif(orientation: int | None = None, date: str = "", fraction: str = "", offset: str = "") -> Image.Exif:
    found = Image.Exif()
    if orientation:
        found[0x0112] = orientation
    ifd = found.get_ifd(0x8769)
    for tag, value in ((0x9003, date), (0x9291, fraction), (0x9011, offset)):
        if value:
            ifd[tag] = value
    return found


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """How a camera stores `image` when it says `orientation`: applying it gives `image` back."""
    back = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"}
    back |= {6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}
    return image.transpose(Image.Transpose[back[orientation]]) if orientation in back else image


def wide_gamut() -> bytes:
    """A profile that is not sRGB: sRGB's primaries are mixed differently in it (colour-swapped by hand)."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    data = bytearray(profile.tobytes())
    # swap the colorants rXYZ and bXYZ in the tag table: red becomes blue
    count = struct.unpack_from(">I", data, 128)[0]
    at = {bytes(data[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    data[at[b"rXYZ"] : at[b"rXYZ"] + 4], data[at[b"bXYZ"] : at[b"bXYZ"] + 4] = b"bXYZ", b"rXYZ"
    return bytes(data).replace("sRGB".encode("utf-16-be"), "Odd1".encode("utf-16-be")).replace(b"sRGB", b"Odd1")


def dng(width: int = 64, height: int = 48, preview: bytes = b"", orientation: int = 1) -> bytes:
    """The smallest DNG (Adobe DNG 1.4) that LibRaw develops: a 16-bit Bayer mosaic, with or without a JPEG preview."""
    mosaic = np.full((height, width), 20000, dtype="<u2")
    mosaic[0::2, 0::2] = 52000  # red
    mosaic[1::2, 1::2] = 8000  # blue
    raw = {
        254: (4, [0]), 256: (4, [width]), 257: (4, [height]), 258: (3, [16]), 259: (3, [1]), 262: (3, [32803]),
        273: (4, ["raw"]), 277: (3, [1]), 278: (4, [height]), 279: (4, [mosaic.nbytes]),
        33421: (3, [2, 2]), 33422: (1, [0, 1, 1, 2]), 50717: (4, [65535]),
    }  # fmt: skip
    common = {
        271: (2, b"Test\0"), 272: (2, b"Camera\0"), 274: (3, [orientation]), 306: (2, b"2024:05:06 07:08:09\0"),
        50706: (1, [1, 4, 0, 0]), 50708: (2, b"Test Camera\0"), 50778: (3, [21]),
        50721: (10, [1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1]), 50728: (5, [1, 1, 1, 1, 1, 1]),
    }  # fmt: skip
    if not preview:
        return _tiff([{**raw, **common}], {"raw": mosaic.tobytes()})
    size = Image.open(BytesIO(preview)).size
    first = {
        254: (4, [1]), 256: (4, [size[0]]), 257: (4, [size[1]]), 258: (3, [8, 8, 8]), 259: (3, [7]), 262: (3, [6]),
        273: (4, ["preview"]), 277: (3, [3]), 278: (4, [size[1]]), 279: (4, [len(preview)]), 330: (4, ["ifd1"]),
    }  # fmt: skip
    return _tiff([{**first, **common}, raw], {"raw": mosaic.tobytes(), "preview": preview})


def _tiff(ifds: list[dict[int, tuple[int, list | bytes]]], blobs: dict[str, bytes]) -> bytes:
    sizes = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 10: 4}
    codes = {1: "B", 3: "H", 4: "I", 5: "I", 10: "i"}
    out = bytearray(b"II*\0\0\0\0\0")
    places: dict[str, int] = {}
    for name, blob in blobs.items():
        out += b"\0" * (len(out) % 2)
        places[name] = len(out)
        out += blob
    starts: list[int] = []
    for number in reversed(range(len(ifds))):
        body = bytearray(struct.pack("<H", len(ifds[number])))
        extra_at = len(out) + len(out) % 2 + 2 + 12 * len(ifds[number]) + 4
        extra = bytearray()
        for tag, (kind, values) in sorted(ifds[number].items()):
            if isinstance(values, bytes):
                data, count = values, len(values)
            else:
                data = b"".join(struct.pack("<" + codes[kind], places.get(v, v)) for v in values)
                count = len(values) // (2 if kind in (5, 10) else 1)
            assert len(data) == count * sizes[kind] * (2 if kind in (5, 10) else 1)
            if len(data) > 4:
                value = struct.pack("<I", extra_at + len(extra))
                extra += data + b"\0" * (len(data) % 2)
            else:
                value = data.ljust(4, b"\0")
            body += struct.pack("<HHI", tag, kind, count) + value
        out += b"\0" * (len(out) % 2)
        places[f"ifd{number}"] = len(out)
        starts.append(len(out))
        out += body + b"\0\0\0\0" + extra
    struct.pack_into("<I", out, 4, starts[-1])
    return bytes(out)
