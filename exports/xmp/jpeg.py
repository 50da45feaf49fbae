"""Where the XMP packet of a JPEG stands, and what must not move with it.

Format: ITU-T T.81 annex B (markers), XMP specification part 3 §1.1.3 (APP1, extended XMP), CIPA DC-007 (APP2 "MPF",
the index of a multi-picture file), C2PA (APP11 with JUMBF boxes).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .document import Refused
from .iptc import START as PHOTOSHOP
from .splicing import Edit, Payload

XMP = b"http://ns.adobe.com/xap/1.0/\0"
EXTENDED = b"http://ns.adobe.com/xmp/extension/\0"
EXIF = b"Exif\0\0"
MPF = b"MPF\0"
MAX_PACKET = 65_502  # of the 65,535 bytes of a segment; the number is the specification's
_GUID = 32
# a marker among the entropy-coded data: neither a stuffed zero nor fill nor a restart
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
_APP0, _APP1, _APP2, _APP11, _APP13, _SOS, _EOI = 0xE0, 0xE1, 0xE2, 0xEB, 0xED, 0xDA, 0xD9
_MP_ENTRY = 0xB002


@dataclass(frozen=True, slots=True)
class Found:
    """See `containers.Container`."""

    packet: bytes | None
    edits: Callable[..., list[Edit]]
    payload: Payload
    older: Payload
    exif: bytes | None
    iptc: bytes | None
    extended: bytes
    signed: bool


@dataclass(slots=True)
class _Parts:
    """What the segments before the image say."""

    xmp: tuple[int, int] | None = None
    exif: list[tuple[int, int]] = field(default_factory=list)
    iptc: list[tuple[int, int]] = field(default_factory=list)
    jfif: int = 2  # behind JFIF, where an EXIF block goes
    place: int = 2  # where a new packet goes: behind JFIF and Exif
    index: int | None = None  # of a multi-picture file: start of its segment
    pieces: dict[bytes, list[tuple[int, int, bytes]]] = field(default_factory=dict)  # extended XMP by its digest
    signed: bool = False
    scan: int = 0


@dataclass(frozen=True, slots=True)
class Segment:
    """Marker, where its 0xFF stands, where its content begins and ends."""

    marker: int
    start: int
    content: int
    end: int


def segments(data: bytes) -> Iterator[Segment]:
    """The segments up to the first start of scan, which is the last one. Raises Refused for damaged files."""
    at = 2
    while True:
        if at + 4 > len(data):
            raise Refused("the JPEG is cut off")
        if data[at] != 0xFF:
            raise Refused("the JPEG is damaged: no marker where one must be")
        marker = data[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        if marker in (0x00, 0x01, 0xD8, _EOI) or 0xD0 <= marker <= 0xD7:
            raise Refused("the JPEG is damaged: its parts are not in order")
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if end < at + 4 or end > len(data):
            raise Refused("the JPEG is cut off")
        yield Segment(marker, at, at + 4, end)
        if marker == _SOS:
            return
        at = end


def read(data: bytes) -> Found:
    """Raises Refused for a JPEG whose packet cannot be replaced without risk."""
    parts = _parts(data)
    end = _end_of_image(data, parts.scan)
    size_at = None
    if parts.index is not None:
        if parts.xmp and parts.xmp[0] > parts.index:
            raise Refused("its XMP stands behind the index of a multi-picture file, which would no longer fit")
        parts.place = min(parts.place, parts.index)
        size_at = _first_size(data, parts.index, end)
    elif data[end : end + 4096].lstrip(b"\0").startswith(b"\xff\xd8\xff"):
        # a camera's preview behind the image, found by its distance from the Exif block
        raise Refused("a second picture follows the image, and the camera's notes would no longer find it")
    extended = b"".join(_joined(guid, pieces) for guid, pieces in parts.pieces.items())
    packet = data[parts.xmp[0] + 4 + len(XMP) : parts.xmp[1]] if parts.xmp else None
    where = parts.xmp or (parts.place, parts.place)
    kept = [guid for guid in parts.pieces if packet and guid in packet]

    def edits(new: bytes, *, exif: bytes | None = None, iptc: bytes | None = None) -> list[Edit]:
        if len(new) > MAX_PACKET:
            raise Refused(f"the XMP would take {len(new):,} bytes; a JPEG holds {MAX_PACKET:,}")
        if any(guid not in new for guid in kept):
            raise Refused("the new XMP does not point to its extended part")
        made = []
        if exif is not None:
            made.append(_segment(_place(parts.exif, parts.jfif, parts.index, "EXIF"), _APP1, EXIF + exif))
        made.append(_segment(where, _APP1, XMP + new))
        if iptc is not None:
            made.append(_segment(_place(parts.iptc, parts.place, parts.index, "IPTC"), _APP13, PHOTOSHOP + iptc))
        if size_at:
            at, order = size_at
            grown = sum(len(edit.data) - (edit.end - edit.start) for edit in made)
            made.append(Edit(at, at + 4, struct.pack(order + "I", end + grown)))
        return made

    holes = [hole for hole in (parts.xmp, (size_at[0], size_at[0] + 4) if size_at else None) if hole]
    signed = parts.signed or b"dcterms:provenance" in (packet or b"")
    return Found(
        packet,
        edits,
        Payload(tuple(sorted(holes))),
        Payload(tuple(sorted([*holes, *parts.exif[:1], *parts.iptc[:1]]))),
        data[parts.exif[0][0] + 4 + len(EXIF) : parts.exif[0][1]] if parts.exif else None,
        data[parts.iptc[0][0] + 4 + len(PHOTOSHOP) : parts.iptc[0][1]] if parts.iptc else None,
        extended,
        signed,
    )


def _segment(where: tuple[int, int], marker: int, content: bytes) -> Edit:
    if len(content) > 65_533:
        raise Refused(f"its metadata would take {len(content):,} bytes; a part of a JPEG holds 65,533")
    return Edit(*where, bytes((0xFF, marker)) + struct.pack(">H", 2 + len(content)) + content)


def _place(there: list[tuple[int, int]], place: int, index: int | None, what: str) -> tuple[int, int]:
    """Where a block stands, or goes. Refused where replacing it would not be safe."""
    if len(there) > 1:
        raise Refused(f"its {what} stands in several parts")
    if there and index is not None and there[0][0] > index:
        raise Refused(f"its {what} stands behind the index of a multi-picture file, which would no longer fit")
    return there[0] if there else (place, place)


def _parts(data: bytes) -> _Parts:
    parts = _Parts()
    for s in segments(data):
        if s.marker == _APP1 and data.startswith(XMP, s.content):
            if parts.xmp:
                raise Refused("it has two XMP packets, and readers differ on which one counts")
            parts.xmp = (s.start, s.end)
        elif s.marker == _APP1 and data.startswith(EXTENDED, s.content):
            at = s.content + len(EXTENDED)
            if at + _GUID + 8 > s.end:
                raise Refused("its extended XMP is damaged")
            total, offset = struct.unpack_from(">II", data, at + _GUID)
            piece = data[at + _GUID + 8 : s.end]
            parts.pieces.setdefault(data[at : at + _GUID], []).append((offset, total, piece))
        elif s.marker == _APP0:
            parts.jfif = parts.place = s.end
        elif s.marker == _APP1 and data.startswith(EXIF, s.content):
            parts.exif.append((s.start, s.end))
            parts.place = s.end
        elif s.marker == _APP13 and data.startswith(PHOTOSHOP, s.content):
            parts.iptc.append((s.start, s.end))
        elif s.marker == _APP2 and data.startswith(MPF, s.content) and parts.index is None:
            parts.index = s.start
        elif s.marker == _APP11 and b"c2pa" in data[s.content : s.end]:
            parts.signed = True
        elif s.marker == _SOS:
            parts.scan = s.end
    return parts


def _end_of_image(data: bytes, at: int) -> int:
    """Behind the end-of-image marker of the first picture. Refused when there is none."""
    while found := _MARKER.search(data, at):
        at = found.end()
        if data[at - 1] == _EOI:
            return at
        if at + 2 > len(data):
            break
        at += max(2, int.from_bytes(data[at : at + 2], "big"))
    raise Refused("the JPEG is cut off: its end is missing")


def _joined(guid: bytes, pieces: list[tuple[int, int, bytes]]) -> bytes:
    """An extended packet from its pieces, which must be all there."""
    whole, total = b"", pieces[0][1]
    for offset, said, piece in sorted(pieces):
        if offset != len(whole) or said != total:
            break
        whole += piece
    if len(whole) != total:
        raise Refused("its extended XMP is damaged")
    return whole


def _first_size(data: bytes, index: int, end: int) -> tuple[int, str] | None:
    """Where the index of a multi-picture file keeps the length of the first picture, and its byte order; None when it
    says something else than that picture's length and is better left alone."""
    base = index + 4 + len(MPF)
    stop = index + 2 + int.from_bytes(data[index + 2 : index + 4], "big")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[base : base + 4])
    try:
        if order is None:
            raise ValueError
        (directory,) = struct.unpack_from(order + "I", data, base + 4)
        (count,) = struct.unpack_from(order + "H", data, base + directory)
        if base + directory + 2 + 12 * count > stop:
            raise ValueError
        for n in range(count):
            tag, _type, length, offset = struct.unpack_from(order + "HHII", data, base + directory + 2 + 12 * n)
            if tag == _MP_ENTRY:
                at = base + offset + 4
                if length < 16 or base + offset + length > stop:
                    raise ValueError
                return (at, order) if struct.unpack_from(order + "I", data, at)[0] == end else None
        raise ValueError
    except (ValueError, struct.error):
        raise Refused("the index of the multi-picture file is damaged") from None
