"""Which sidecar belongs to an image.

Two customs: `base.xmp` (Adobe, Capture One, Photo Mechanic, ON1, DxO; shared by a RAW and its JPEG twin) and
`base.ext.xmp` (darktable, digiKam's default, Immich's first choice). A sidecar that is there is honoured before any
profile; names are compared without case and in either Unicode normal form.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

Profile = Literal["lightroom", "capture_one", "darktable", "digikam", "immich", "photoprism", "both"]
Twins = Literal["shared", "exact", "jpeg_only"]

#: Profiles whose tool reads `base.xmp`; the others read `base.ext.xmp`.
_SHORT = ("lightroom", "capture_one", "photoprism")
RAW = frozenset(
    "3fr arw cr2 cr3 crw dcr dng erf fff iiq kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f".split()
)


@dataclass(frozen=True, slots=True)
class Sidecars:
    """Names of the sidecars to write for one image; `exists` tells which are there; `warning` is for the person."""

    names: tuple[str, ...]
    exists: tuple[bool, ...]
    warning: str = ""
    refused: str = ""


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def is_raw(name: str) -> bool:
    return PurePath(name).suffix.lower().lstrip(".") in RAW


def sidecars(image: str, siblings: Iterable[str], profile: Profile, twins: Twins = "exact") -> Sidecars:
    """The sidecars of `image` (a file name) in a folder that holds `siblings` (file names).

    `twins` says what to do where a RAW and another image share a stem, because `base.xmp` would then speak for both:
    "shared" writes it all the same, "exact" uses `base.ext.xmp`, "jpeg_only" leaves the RAW without one.
    """
    stem, suffix = PurePath(image).stem, PurePath(image).suffix
    short, long = f"{stem}.xmp", f"{image}.xmp"
    here = {_key(name): name for name in siblings}
    twin = [
        name
        for key, name in here.items()
        if key != _key(image) and _key(PurePath(name).stem) == _key(stem) and not key.endswith(".xmp")
    ]
    if twin and twins == "jpeg_only" and is_raw(image):
        return Sidecars((), (), refused=f"{image} has the twin {twin[0]}, which carries the keywords")
    there = {form: here[_key(form)] for form in (short, long) if _key(form) in here}
    if short in there and twin and twins != "shared":
        del there[short]  # it may speak for the twin
    if there:
        names = tuple(there.values())
        warning = "two sidecars: both are written" if len(names) == 2 else ""
        return Sidecars(names, (True,) * len(names), warning)
    if profile == "both":
        wanted: tuple[str, ...] = (long,) if twin and twins != "shared" else (short, long)
    elif profile in _SHORT:
        wanted = (long,) if twin and twins != "shared" else (short,)
    else:
        wanted = (long,)
    warning = ""
    if profile == "lightroom" and not is_raw(image):
        warning = f"Lightroom reads no sidecar beside {suffix.upper().lstrip('.') or 'this file'}"
    elif twin and wanted == (long,) and profile in _SHORT:
        warning = f"{twin[0]} shares the stem: {long} is used so that it does not speak for both"
    return Sidecars(wanted, (False,) * len(wanted), warning)
