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


class Folder:
    """The file names of one folder, ready to be asked about many of its images."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {_key(name): name for name in names}
        self._by_stem: dict[str, list[str]] = {}
        for key, name in self._names.items():
            if not key.endswith(".xmp"):
                self._by_stem.setdefault(_key(PurePath(name).stem), []).append(name)

    def find(self, name: str) -> str | None:
        """The name as it is spelled there; None when it is not there."""
        return self._names.get(_key(name))

    def twins(self, image: str) -> list[str]:
        """Other files, sidecars left out, that share the image's stem."""
        return [n for n in self._by_stem.get(_key(PurePath(image).stem), ()) if _key(n) != _key(image)]


def sidecars(image: str, folder: Folder, profile: Profile, twins: Twins = "exact") -> Sidecars:
    """The sidecars of `image` (a file name) in its folder.

    `twins` says what to do where a RAW and another image share a stem, because `base.xmp` would then speak for both:
    "shared" writes it all the same, "exact" uses `base.ext.xmp`, "jpeg_only" leaves the RAW without one.
    """
    stem, suffix = PurePath(image).stem, PurePath(image).suffix
    short, long = f"{stem}.xmp", f"{image}.xmp"
    others = folder.twins(image)
    if others and twins == "jpeg_only" and is_raw(image):
        return Sidecars((), (), refused=f"{image} has the twin {others[0]}, which carries the keywords")
    apart = bool(others) and twins != "shared"
    there = [found for name in (short, long) if (found := folder.find(name)) and not (apart and name == short)]
    if there:
        warning = "two sidecars: both are written" if len(there) == 2 and profile != "both" else ""
        return Sidecars(tuple(there), (True,) * len(there), warning)
    if profile == "both":
        wanted: tuple[str, ...] = (long,) if apart else (short, long)
    elif profile in _SHORT:
        wanted = (long,) if apart else (short,)
    else:
        wanted = (long,)
    warning = ""
    if profile == "lightroom" and not is_raw(image):
        warning = f"Lightroom reads no sidecar beside {suffix.upper().lstrip('.') or 'this file'}"
    elif apart and profile in _SHORT:
        warning = f"{others[0]} shares the stem: {long} is used so that it does not speak for both"
    return Sidecars(wanted, (False,) * len(wanted), warning)
