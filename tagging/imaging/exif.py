"""What is read from EXIF: how the picture is turned and when it was taken; for prompts, all fields that are text or
numbers."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from PIL import ExifTags, Image

_ORIENTATION, _EXIF_IFD, _DATE = 0x0112, 0x8769, 0x0132
# date, its fraction of a second, its offset from UTC (CIPA DC-008 §4.6.5)
_DATES = ((0x9003, 0x9291, 0x9011), (0x9004, 0x9292, 0x9012))
_STAMP = re.compile(r"(\d{4})[:\-/](\d{1,2})[:\-/](\d{1,2})[ T](\d{1,2}):(\d{1,2})(?::(\d{1,2}))?")
_LONGEST = 500  # characters of a field that are of use in a prompt
_OFFSET = re.compile(r"([+-])(\d{2}):?(\d{2})")


@dataclass(frozen=True, slots=True)
class Facts:
    orientation: int = 1
    captured_at: datetime | None = None


def read(image: Image.Image) -> Facts:
    """Both facts of an opened picture; damaged EXIF counts as none."""
    try:
        found = image.getexif()
        info = image.info.get("original_orientation")  # pillow-heif turns the picture and resets the tag
        return Facts(_valid(info or found.get(_ORIENTATION, 1)), captured_at(found))
    except Exception:  # written by every camera and editor there ever was: anything can be in it
        return Facts(_valid(orientation(image)))


def orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 when it is missing or nonsense."""
    try:
        return _valid(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        return 1


def _valid(value: Any) -> int:
    try:
        value = int(value)
    except (TypeError, ValueError):
        return 1
    return value if 1 <= value <= 8 else 1


def captured_at(found: Image.Exif) -> datetime | None:
    """DateTimeOriginal, else DateTimeDigitized, else DateTime, in UTC. Without an offset camera time counts as UTC."""
    ifd = found.get_ifd(_EXIF_IFD)
    for date, fraction, offset in _DATES:
        if moment := parse(ifd.get(date), ifd.get(fraction), ifd.get(offset)):
            return moment
    return parse(found.get(_DATE), ifd.get(0x9290), ifd.get(0x9010))


def parse(date: Any, fraction: Any = None, offset: Any = None) -> datetime | None:
    """An EXIF date ("2024:05:06 07:08:09", fraction "123", offset "+02:00"); None when it is none."""
    match = _STAMP.search(_text(date))
    if not match:
        return None
    digits = re.match(r"\d+", _text(fraction).strip())
    micro = int(digits[0][:6].ljust(6, "0")) if digits else 0
    try:
        moment = datetime(*(int(x or 0) for x in match.groups()), micro, tzinfo=UTC)  # type: ignore[arg-type, misc]
        if shift := _OFFSET.search(_text(offset)):
            minutes = int(shift[2]) * 60 + int(shift[3])
            zone = timezone(timedelta(minutes=minutes if shift[1] == "+" else -minutes))
            moment = moment.replace(tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment if moment.year >= 1800 else None


def fields(image: Image.Image) -> dict[str, str | int | float]:
    """Every field of an opened picture by its name in the standard (Model, LensModel, ISOSpeedRatings, FNumber, …)
    whose value is a text or a number; a field is left out where it is neither, or damaged. Empty without EXIF."""
    try:
        found = image.getexif()
        raw = {**found, **found.get_ifd(_EXIF_IFD)}
    except Exception:  # see `read`
        return {}
    named = ((ExifTags.TAGS.get(number), value) for number, value in raw.items())
    plain = ((name, _plain(value)) for name, value in named if name)
    return {name: value for name, value in plain if value is not None}


def _plain(value: Any) -> str | int | float | None:
    if isinstance(value, bytes):
        try:
            value = value.decode("ascii")
        except UnicodeDecodeError:
            return None
    if isinstance(value, str):
        text = " ".join(value.replace("\0", " ").split())[:_LONGEST]
        return text if text.isprintable() else None
    if isinstance(value, int):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return int(number) if number.is_integer() else round(number, 6) if math.isfinite(number) else None


def _text(value: Any) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")
