"""IPTC keywords and caption in a JPEG's Photoshop resources; every other dataset and resource stays byte for byte.

Formats: IPTC-NAA Information Interchange Model 4.2 (datasets 1:90, 2:0, 2:25, 2:120), Adobe Photoshop file formats
(image resource blocks 0x0404 and 0x0425), Metadata Working Group guidelines 2.0 (the digest says whether the IPTC was
changed since XMP was written beside it).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import NamedTuple

from .document import Refused

START = b"Photoshop 3.0\0"
_IIM, _DIGEST = 0x0404, 0x0425
_CHARACTERS, _VERSION, _KEYWORD, _CAPTION = (1, 90), (2, 0), (2, 25), (2, 120)
_UTF8 = b"\x1b%G"
#: Bytes of a keyword and of a caption, by the standard.
KEYWORD_BYTES, CAPTION_BYTES = 64, 2000


class Resource(NamedTuple):
    """An image resource block: its number, the bytes between number and size (its name), its content."""

    number: int
    name: bytes
    data: bytes
    signature: bytes = b"8BIM"


class Dataset(NamedTuple):
    """Record and number, and the value."""

    key: tuple[int, int]
    value: bytes


def resources(content: bytes) -> list[Resource]:
    """The blocks of a segment, from behind "Photoshop 3.0". Raises Refused for damaged ones."""
    found, at = [], 0
    while at < len(content):
        if content[at : at + 4] not in (b"8BIM", b"MeSa", b"PHUT", b"AgHg", b"DCSR") or at + 7 > len(content):
            if not content[at:].strip(b"\0"):
                break  # padding
            raise Refused("its Photoshop resources are damaged")
        (number,) = struct.unpack_from(">H", content, at + 4)
        name_end = at + 7 + content[at + 6]
        name_end += (name_end - at) % 2
        if name_end + 4 > len(content):
            raise Refused("its Photoshop resources are damaged")
        (size,) = struct.unpack_from(">I", content, name_end)
        end = name_end + 4 + size
        if end > len(content):
            raise Refused("its Photoshop resources are damaged")
        found.append(
            Resource(number, content[at + 6 : name_end], content[name_end + 4 : end], bytes(content[at : at + 4]))
        )
        at = end + size % 2
    return found


def joined(blocks: Sequence[Resource]) -> bytes:
    """The inverse of `resources`."""
    return b"".join(
        b.signature
        + struct.pack(">H", b.number)
        + b.name
        + struct.pack(">I", len(b.data))
        + b.data
        + b"\0" * (len(b.data) % 2)
        for b in blocks
    )


def datasets(iim: bytes) -> list[Dataset]:
    """The datasets in order. Raises Refused for damaged ones and for values of more than 32,767 bytes."""
    found, at = [], 0
    while at < len(iim):
        if iim[at] != 0x1C:
            if not iim[at:].strip(b"\0"):
                break
            raise Refused("its IPTC block is damaged")
        if at + 5 > len(iim):
            raise Refused("its IPTC block is damaged")
        record, number, size = struct.unpack_from(">BBH", iim, at + 1)
        if size & 0x8000 or at + 5 + size > len(iim):
            raise Refused("its IPTC block is damaged, or has a value in extended form")
        found.append(Dataset((record, number), iim[at + 5 : at + 5 + size]))
        at += 5 + size
    return found


class Iptc:
    """The IPTC of one file as words. `there`: it has an IPTC block at all."""

    def __init__(self, content: bytes | None) -> None:
        """`content`: the Photoshop segment from behind its name; None where there is none. Refused."""
        self._blocks = resources(content) if content is not None else []
        blocks = [b for b in self._blocks if b.number == _IIM]
        if len(blocks) > 1:
            raise Refused("it has two IPTC blocks")
        self.there = bool(blocks)
        self._iim = blocks[0].data if blocks else b""
        self._sets = datasets(self._iim)
        self._utf8 = any(d.key == _CHARACTERS and d.value.startswith(_UTF8) for d in self._sets)

    @property
    def newer(self) -> bool:
        """Changed by a program that left the digest: its values, not XMP's, are the truth for readers."""
        digest = next((b.data for b in self._blocks if b.number == _DIGEST), b"")
        current = hashlib.md5(self._iim, usedforsecurity=False).digest()
        return len(digest) == 16 and digest not in (current, bytes(16))

    @property
    def keywords(self) -> list[str]:
        return [self._text(d.value) for d in self._sets if d.key == _KEYWORD]

    @property
    def caption(self) -> str:
        return "\n".join(self._text(d.value) for d in self._sets if d.key == _CAPTION)

    def rest(self) -> str:
        """A digest of everything but keywords, caption, the character set and the digest that go with them."""
        ours = (_CHARACTERS, _VERSION, _KEYWORD, _CAPTION)
        sets = [d for d in self._sets if d.key not in ours]
        blocks = [b for b in self._blocks if b.number not in (_IIM, _DIGEST)]
        return hashlib.sha256(repr((sets, blocks)).encode()).hexdigest()

    def _text(self, value: bytes) -> str:
        try:
            return value.decode().strip("\0 ")
        except UnicodeDecodeError:
            return value.decode("utf-8" if self._utf8 else "cp1252", "replace").strip("\0 ")

    def with_words(self, keywords: Sequence[str] | None, caption: str | None) -> bytes:
        """The segment's new content. None leaves keywords or caption as they are; an empty one takes them out. Too long
        a value is cut at a whole character. The digest, where there is one, is brought up to date.

        Raises Refused where other values are in an unknown character set, which declaring UTF-8 would spoil.
        """
        ours = {key for key, value in ((_KEYWORD, keywords), (_CAPTION, caption)) if value is not None}
        kept = [d for d in self._sets if d.key not in ours]
        new = [Dataset(_KEYWORD, cut(word, KEYWORD_BYTES)) for word in keywords or ()]
        new += [Dataset(_CAPTION, cut(caption, CAPTION_BYTES))] if caption else []
        if not self._utf8 and any(not d.value.isascii() for d in [*kept, *new] if d.key[0] == 2 and d.key != _VERSION):
            for d in kept:
                try:
                    d.value.decode()
                except UnicodeDecodeError:
                    raise Refused("its IPTC is in an unknown character set") from None
            kept = [Dataset(_CHARACTERS, _UTF8), *(d for d in kept if d.key != _CHARACTERS)]
        if not any(d.key == _VERSION for d in kept):
            kept.append(Dataset(_VERSION, b"\0\x04"))
        ordered = sorted([*kept, *new], key=lambda d: (d.key[0], d.key != _VERSION))  # records in order, stable within
        iim = b"".join(struct.pack(">BBBH", 0x1C, *d.key, len(d.value)) + d.value for d in ordered)
        digest = hashlib.md5(iim, usedforsecurity=False).digest()
        blocks = [b._replace(data={_IIM: iim, _DIGEST: digest}.get(b.number, b.data)) for b in self._blocks]
        if not self.there:
            blocks.append(Resource(_IIM, b"\0\0", iim))
        return joined(blocks)


def cut(text: str, limit: int) -> bytes:
    """UTF-8 of at most `limit` bytes, whole characters."""
    return text.encode()[:limit].decode(errors="ignore").encode()
