"""What is done to one file, in a thread: read once, decoded once. Touches storage, never the database."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from django.conf import settings
from django.core.files.storage import default_storage

from ..imaging import load, storing, thumbnails
from ..imaging.walk import Found, Tree
from ..models.collections import thumbnail_name

#: Files up to this size are read into memory once; larger ones are read a second time for decoding.
MEMORY_LIMIT = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Known:
    """What the row of a path says of its file."""

    id: int
    size: int
    mtime_ns: int
    sha256: str
    error: bool
    missing: bool


@dataclass(slots=True)
class Outcome:
    """One file, settled. `fields` are the columns of ImageAsset that describe content; empty when `same`."""

    found: Found
    known: Known | None
    sha256: str = ""
    size: int = 0
    same: bool = False  # touched, but the content is that of the row
    gone: bool = False  # vanished between listing and reading
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def error(self) -> str:
        return str(self.fields.get("error", ""))


def examine(tree: Tree, found: Found, known: Known | None) -> Outcome:
    """Hash, decode, make renditions. A file's problems come back in the outcome; OSError of the storage is raised."""
    outcome = Outcome(found, known, size=max(0, found.size))
    try:
        with tree.open(found.path) as stream:
            data, outcome.sha256, outcome.size = _read(stream)
            if known and known.sha256 == outcome.sha256 and not known.error:
                outcome.same = True
                return outcome
            picture = load.decode(
                stream if data is None else data,
                min_side=thumbnails.DECODE_SIDE,
                name=found.path,
                max_pixels=settings.IWTAG_MAX_PIXELS,
            )
    except FileNotFoundError:
        outcome.gone = True
        return outcome
    except load.ImageProblem as problem:
        outcome.fields = _unreadable(str(problem), problem.format)
        return outcome
    except OSError as error:
        outcome.sha256 = ""  # read it again next time: this may pass
        outcome.fields = _unreadable(f"The file cannot be read ({error.strerror or error}).")
        return outcome
    try:
        renditions = thumbnails.render(picture)
    except (OSError, ValueError, MemoryError) as error:
        outcome.fields = _unreadable(f"No thumbnail can be made of this picture ({error}).", picture.format)
        return outcome
    for side, webp in renditions.files.items():
        storing.put(default_storage, thumbnail_name(outcome.sha256, side), webp)
    outcome.fields = {
        "format": picture.format,
        "width": picture.width,
        "height": picture.height,
        "orientation": picture.orientation,
        "frames": picture.frames,
        "captured_at": picture.captured_at,
        "phash": renditions.phash,
        "state": "ready",
        "error": "",
    }
    return outcome


def _read(stream: BinaryIO) -> tuple[bytes | None, str, int]:
    """The content when it is small enough to be held, its sha256 and its size."""
    data = stream.read(MEMORY_LIMIT + 1)
    digest = hashlib.sha256(data)
    if len(data) <= MEMORY_LIMIT:
        return data, digest.hexdigest(), len(data)
    size = len(data)
    del data
    for piece in storing.pieces(stream):
        digest.update(piece)
        size += len(piece)
    return None, digest.hexdigest(), size


def _unreadable(text: str, format: str = "") -> dict[str, Any]:
    return {
        "format": format,
        "width": 0,
        "height": 0,
        "orientation": 1,
        "frames": 1,
        "captured_at": None,
        "phash": None,
        "state": "error",
        "error": text,
    }
