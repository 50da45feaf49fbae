"""Modes and colour profiles: whatever a file holds, models and people see 8-bit sRGB."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageCms

_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC


def levels(image: Image.Image) -> tuple[float, float] | None:
    """The values that become black and white in a picture of more than 8 bits; None where nothing is to be scaled.

    16-bit integers use their whole range; others (32-bit, floating point) the range that the picture really has.
    """
    if image.mode.startswith("I;16"):
        return 0.0, 65535.0
    if image.mode not in ("I", "F"):
        return None
    low, high = (float(x) for x in image.getextrema())  # type: ignore[arg-type]
    if not (np.isfinite(low) and np.isfinite(high)):
        return 0.0, 1.0
    if image.mode == "F" and low >= 0 and high <= 1:
        return 0.0, 1.0
    if image.mode == "I" and low >= 0 and high <= 65535:
        return 0.0, 65535.0 if high > 255 else 255.0
    return (low, high) if high > low else (low, low + 1)


def to_rgb(image: Image.Image, scale: tuple[float, float] | None, icc: bytes) -> tuple[Image.Image, bytes]:
    """Mode RGB, or RGBA where something is transparent, and the profile that is still to be applied."""
    if scale:
        low, high = scale
        values = (np.nan_to_num(np.asarray(image, dtype=np.float32)) - low) * (255.0 / (high - low))
        return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8)).convert("RGB"), b""
    if image.mode == "CMYK" or image.mode == "LAB":
        return _from_print(image, icc), b""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image, icc
    if image.mode in ("1", "L", "LA", "La") or image.mode == "P":
        icc = icc if image.mode == "P" else b""  # a grey profile only bends the tones; not worth a transform
    return image.convert("RGBA" if image.has_transparency_data else "RGB"), icc


def _from_print(image: Image.Image, icc: bytes) -> Image.Image:
    """CMYK through its own profile where it has one (LAB through the standard one), else by the plain formula."""
    try:
        transform = _lab() if image.mode == "LAB" else _transform(icc, "CMYK", "RGB") if icc else None
        if transform is not None:
            converted = ImageCms.applyTransform(image, transform)
            if converted is not None:
                return converted
    except ImageCms.PyCMSError:
        pass
    return image.convert("RGB")


def to_srgb(image: Image.Image, icc: bytes) -> Image.Image:
    """RGB or RGBA pixels from the profile `icc` to sRGB; unchanged when the profile is damaged or of another kind."""
    try:
        transform = _transform(icc, image.mode, image.mode)
        return ImageCms.applyTransform(image, transform) or image
    except (ImageCms.PyCMSError, ValueError, OSError):
        return image


@lru_cache(maxsize=64)
def is_srgb(icc: bytes) -> bool:
    """True when the profile calls itself sRGB, or cannot be read: then sRGB is the best guess."""
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc))
        return "srgb" in (profile.profile.profile_description or "").lower()
    except (OSError, ImageCms.PyCMSError, ValueError):
        return True


@lru_cache(maxsize=64)
def _transform(icc: bytes, source: str, target: str) -> Any:
    profile = ImageCms.ImageCmsProfile(BytesIO(icc))
    return ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), source, target, _INTENT)


@lru_cache(maxsize=1)
def _lab() -> Any:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB", _INTENT)
