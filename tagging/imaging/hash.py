"""Content identity (SHA-256) and likeness (perceptual hash)."""

from __future__ import annotations

import hashlib
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

_SIDE, _LOW = 32, 8


def _cosines() -> npt.NDArray[np.float64]:
    """The first rows of the unnormalised DCT-II of 32 points: 2 cos(π k (2n + 1) / 64), shape (8, 32)."""
    k, n = np.arange(_LOW)[:, None], np.arange(_SIDE)[None, :]
    return 2.0 * np.cos(np.pi * k * (2 * n + 1) / (2 * _SIDE))


_COSINES = _cosines()


def phash(image: Image.Image) -> int:
    """64-bit perceptual hash as a signed integer, the same bits as `imagehash.phash(image)`.

    The picture as 32 × 32 greys, its 8 × 8 lowest frequencies by DCT-II, one bit for each above their median, first bit
    highest (hackerfactor.com, "Looks Like It"). Two pictures are alike when few bits differ. Transparency is ignored,
    so flatten first. From a thumbnail of 320 pixels the hash is that of the full picture.
    """
    grey = np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), dtype=np.float64)
    # rounding makes exact zeros of flat pictures exact again, so that their hash is not noise
    low = np.round(_COSINES @ grey @ _COSINES.T, 6)
    bits = np.packbits(low > np.median(low)).tobytes()
    return int.from_bytes(bits, "big", signed=True)


def distance(a: int, b: int) -> int:
    """In how many of 64 bits two hashes differ."""
    return ((a ^ b) & 0xFFFF_FFFF_FFFF_FFFF).bit_count()


def sha256(stream: BinaryIO, chunk: int = 1 << 20) -> str:
    """Hex digest of everything from the stream's position on, read in pieces."""
    digest = hashlib.sha256()
    while data := stream.read(chunk):
        digest.update(data)
    return digest.hexdigest()
