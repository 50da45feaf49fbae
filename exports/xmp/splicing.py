"""Edits of a byte string, their exact inverse, and the digest of what they leave alone."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .document import Refused


class Edit(NamedTuple):
    """Bytes `start` to `end` become `data`."""

    start: int
    end: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Payload:
    """All bytes outside `holes`, which are in order and apart; `stand_in` is hashed first, in the place of a header
    that a splice may have to make."""

    holes: tuple[tuple[int, int], ...] = ()
    stand_in: bytes = b""

    def digest(self, data: bytes) -> str:
        sha256, at, view = hashlib.sha256(self.stand_in), 0, memoryview(data)
        for start, end in self.holes:
            sha256.update(view[at:start])
            at = end
        sha256.update(view[at:])
        return sha256.hexdigest()


def splice(data: bytes, edits: Iterable[Edit]) -> bytes:
    """`data` with all edits made; they must not overlap."""
    parts, at = [], 0
    for edit in sorted(edits, key=lambda e: e[:2]):
        if not at <= edit.start <= edit.end <= len(data):
            raise Refused("the edits do not fit the file")
        parts += [data[at : edit.start], edit.data]
        at = edit.end
    return b"".join([*parts, data[at:]])


def inverse(data: bytes, edits: Iterable[Edit]) -> list[Edit]:
    """The edits that bring `data` back from `splice(data, edits)`."""
    found, shift = [], 0
    for edit in sorted(edits, key=lambda e: e[:2]):
        start = edit.start + shift
        found.append(Edit(start, start + len(edit.data), data[edit.start : edit.end]))
        shift += len(edit.data) - (edit.end - edit.start)
    return found


_HEAD = struct.Struct(">QQI")


def pack(edits: Sequence[Edit]) -> bytes:
    """Edits as bytes: of each its start, end and length as big-endian 8, 8 and 4 bytes, then its data."""
    return b"".join(_HEAD.pack(e.start, e.end, len(e.data)) + e.data for e in edits)


def unpack(packed: bytes) -> list[Edit]:
    """Raises Refused for what `pack` did not make."""
    edits, at = [], 0
    while at < len(packed):
        if at + _HEAD.size > len(packed):
            raise Refused("the backup is damaged")
        start, end, length = _HEAD.unpack_from(packed, at)
        at += _HEAD.size + length
        if at > len(packed):
            raise Refused("the backup is damaged")
        edits.append(Edit(start, end, packed[at - length : at]))
    return edits
