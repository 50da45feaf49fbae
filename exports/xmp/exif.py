"""The description in an EXIF block, changed so that nothing else in the block moves.

Format: TIFF 6.0 section 2, EXIF 2.32 (CIPA DC-008). Camera makers keep offsets of their own in a block, counted from
its start, so values are only overwritten where they fit or appended at the end: no byte that was there changes place.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from .document import Refused

DESCRIPTION = 0x010E
_ASCII = 2
#: What cameras write into ImageDescription of every picture: nobody's words.
BOILERPLATE = frozenset(
    (
        "olympus digital camera|sony dsc|konica minolta digital camera|minolta digital camera|samsung digital camera|"
        "kodak digital still camera|digital camera|exif_jpeg_picture|exif_jpeg_420|default|picture|cof|hdr|mde|rptnb"
    ).split("|")
)
_NEW = b"MM\x00*\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00"


@dataclass(frozen=True, slots=True)
class _Directory:
    """IFD0 of a block: byte order, where it stands, its entries of 12 bytes each, what follows them."""

    order: str
    at: int
    entries: list[bytes]
    following: bytes

    def find(self, tag: int) -> int | None:
        wanted = struct.pack(self.order + "H", tag)
        return next((n for n, entry in enumerate(self.entries) if entry[:2] == wanted), None)


def _directory(block: bytes) -> _Directory:
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    try:
        if order is None:
            raise ValueError
        (at,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, at)
        end = at + 2 + 12 * count
        if at < 8 or end + 4 > len(block):
            raise ValueError
    except (ValueError, struct.error):
        raise Refused("its EXIF block is damaged") from None
    entries = [block[at + 2 + 12 * n : at + 14 + 12 * n] for n in range(count)]
    return _Directory(order, at, entries, block[end : end + 4])


def description(block: bytes | None) -> str:
    """ImageDescription as text, without trailing NULs and blanks; empty when there is none. Refused."""
    if block is None:
        return ""
    found = _directory(block)
    n = found.find(DESCRIPTION)
    if n is None:
        return ""
    raw = _value(block, found, n)
    try:
        text = raw.decode()
    except UnicodeDecodeError:  # EXIF says ASCII; programs wrote what their system had
        text = raw.decode("cp1252", "replace")
    return text.split("\0")[0].strip()


def _value(block: bytes, found: _Directory, n: int) -> bytes:
    kind, length, offset = struct.unpack(found.order + "HII", found.entries[n][2:])
    if kind != _ASCII:
        raise Refused("the description in its EXIF block is no text")
    if length <= 4:
        return found.entries[n][8 : 8 + length]
    if offset + length > len(block):
        raise Refused("its EXIF block is damaged")
    return block[offset : offset + length]


def with_description(block: bytes | None, text: str) -> bytes:
    """The block with that ImageDescription, in UTF-8 as the Metadata Working Group asks for. None makes a block. Raises
    Refused for a damaged one."""
    block = _NEW if block is None else block
    found = _directory(block)
    value = text.encode() + b"\0"
    n = found.find(DESCRIPTION)
    if n is not None:
        old = _value(block, found, n)
        at = found.at + 2 + 12 * n
        (offset,) = struct.unpack(found.order + "I", found.entries[n][8:])
        if 4 < len(value) <= len(old):
            entry = struct.pack(found.order + "HHII", DESCRIPTION, _ASCII, len(value), offset)
            changed = block[:at] + entry + block[at + 12 :]
            return changed[:offset] + value.ljust(len(old), b"\0") + changed[offset + len(old) :]
        changed, entry = _entry(block, found.order, value)
        return changed[:at] + entry + changed[at + 12 :]
    changed, entry = _entry(block, found.order, value)
    entries = sorted([*found.entries, entry], key=lambda e: int(struct.unpack(found.order + "H", e[:2])[0]))
    changed += b"\0" * (len(changed) % 2)
    head = struct.pack(found.order + "I", len(changed))
    directory = struct.pack(found.order + "H", len(entries)) + b"".join(entries) + found.following
    return changed[:4] + head + changed[8:] + directory


def _entry(block: bytes, order: str, value: bytes) -> tuple[bytes, bytes]:
    """The block with the value appended (where an entry does not hold it), and the entry."""
    if len(value) <= 4:
        return block, struct.pack(order + "HHI", DESCRIPTION, _ASCII, len(value)) + value.ljust(4, b"\0")
    block += b"\0" * (len(block) % 2)
    return block + value, struct.pack(order + "HHII", DESCRIPTION, _ASCII, len(value), len(block))
