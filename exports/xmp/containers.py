"""The XMP packet inside a JPEG, PNG or WebP file: found, and put in by a splice that leaves every other byte alone.

Formats: XMP specification part 3 (storage in files) for JPEG and PNG; the WebP container specification
(RIFF); CIPA DC-007 for the index of multi-picture JPEGs. What a splice could damage is refused with the reason: cut-off
files, two packets, places that other parts of the file point to.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from . import jpeg
from .document import Refused
from .splicing import Edit, Payload, inverse, splice

PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_XMP = b"XML:com.adobe.xmp"
_PNG_OLD_XMP = b"raw profile type xmp"  # ImageMagick's, in hexadecimal
MAX_PACKET = 16 * 1024 * 1024

__all__ = ["Container", "Edit", "Refused", "inverse", "opened", "payload_digest", "read_xmp", "splice", "write_xmp"]


@dataclass(frozen=True, slots=True)
class Container:
    """A file taken apart: its packet, and how to make the edits that put another one in.

    `edits(packet)`, for a JPEG also `edits(packet, exif=block, iptc=resources)`, for PNG and WebP `exif` where there is
    one. `payload` names all bytes that are neither the packet nor its book-keeping, `older` those that are not EXIF or
    IPTC either. `exif` is the EXIF block, `iptc` the Photoshop resources of a JPEG. `extended` is the second part of a
    packet that a JPEG did not hold in one piece. `signed`: a C2PA manifest vouches for the bytes as they are.
    """

    format: str
    packet: bytes | None
    edits: Callable[..., list[Edit]]
    payload: Payload
    older: Payload
    exif: bytes | None = None
    iptc: bytes | None = None
    extended: bytes = b""
    signed: bool = False


def opened(data: bytes) -> Container:
    """Take a file apart. Raises Refused for what is no JPEG, PNG or WebP and for what cannot be spliced safely."""
    if data.startswith(b"\xff\xd8\xff"):
        found = jpeg.read(data)
        return Container(
            "JPEG",
            found.packet,
            found.edits,
            found.payload,
            found.older,
            found.exif,
            found.iptc,
            found.extended,
            found.signed,
        )
    if data.startswith(PNG_START):
        return _png(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    raise Refused("its content is neither JPEG nor PNG nor WebP")


def read_xmp(data: bytes) -> bytes | None:
    """The packet as it stands in the file (a compressed one decompressed); None when there is none. Refused."""
    return opened(data).packet


def write_xmp(data: bytes, packet: bytes) -> bytes:
    """The file with `packet` as its XMP, everything else byte for byte as it was. Refused."""
    return splice(data, opened(data).edits(packet))


def payload_digest(data: bytes, *, older: bool = False) -> str:
    """SHA-256 of everything but the XMP packet and the sizes and flags that go with it: pixels and all other metadata.
    With `older` EXIF and IPTC are left out too.

    Equal before and after `write_xmp`, also where that made a simple WebP an extended one. Refused.
    """
    found = opened(data)
    return (found.older if older else found.payload).digest(data)


# -- PNG --------------------------------------------------------------------------------------------------------------
def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of each chunk to IEND, sums checked. What follows IEND is nobody's."""
    at = len(PNG_START)
    view = memoryview(data)
    while True:
        if at + 12 > len(data):
            raise Refused("the PNG is cut off")
        (length,) = struct.unpack_from(">I", data, at)
        kind, end = data[at + 4 : at + 8], at + 12 + length
        if length > 0x7FFFFFFF or end > len(data):
            raise Refused("the PNG is cut off")
        if not kind.isalpha() or struct.unpack_from(">I", data, end - 4)[0] != zlib.crc32(view[at + 4 : end - 4]):
            raise Refused("the PNG is damaged: a chunk's checksum is wrong")
        yield kind, at, end
        if kind == b"IEND":
            return
        at = end


def _png(data: bytes) -> Container:
    found: tuple[int, int] | None = None
    packet, place, first, signed, pixels = None, None, True, False, False
    exif: tuple[int, int] | None = None
    for kind, start, end in _png_chunks(data):
        if first and kind != b"IHDR":
            raise Refused("the PNG does not begin with its header")
        first = False
        if place is None and kind in (b"IDAT", b"fcTL"):
            place = start
        pixels |= kind == b"IDAT"
        signed |= kind == b"caBX"
        if kind == b"eXIf" and exif is None:
            exif = start, end
        if kind not in (b"iTXt", b"tEXt", b"zTXt"):
            continue
        keyword = data[start + 8 : min(start + 8 + 80, end - 4)].partition(b"\0")[0]
        if keyword.lower() == _PNG_OLD_XMP or (keyword == _PNG_XMP and (found or kind != b"iTXt")):
            raise Refused("it has a second XMP packet, and readers differ on which one counts")
        if keyword == _PNG_XMP:
            found, packet = (start, end), _png_text(data[start + 8 + len(_PNG_XMP) + 1 : end - 4])
    if place is None or not pixels:
        raise Refused("the PNG has no image data")
    where = found or (place, place)

    def edits(new: bytes, *, exif: bytes | None = None) -> list[Edit]:
        _check_size(new)
        made = [Edit(*where, _png_chunk(b"iTXt" + _PNG_XMP + b"\0\0\0\0\0" + new))]
        if exif is not None and described:
            made.append(Edit(*described, _png_chunk(b"eXIf" + exif)))
        return made

    described = exif
    holes = (found,) if found else ()
    older = tuple(sorted((*holes, *((described,) if described else ()))))
    block = data[described[0] + 8 : described[1] - 4] if described else None
    return Container("PNG", packet, edits, Payload(holes), Payload(older), block, signed=signed)


def _png_chunk(body: bytes) -> bytes:
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def _png_text(rest: bytes) -> bytes:
    """The text of an iTXt chunk, from behind its keyword: flags, language, translated keyword, text."""
    parts = rest[2:].split(b"\0", 2)
    if len(rest) < 4 or len(parts) != 3 or rest[0] > 1 or (rest[0] and rest[1]):
        raise Refused("the XMP chunk of the PNG is damaged")
    if not rest[0]:
        return parts[2]
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(parts[2], MAX_PACKET)
    except zlib.error:
        raise Refused("the compressed XMP chunk of the PNG is damaged") from None
    if not unpacker.eof:
        raise Refused("the compressed XMP chunk of the PNG is cut off or too large")
    return text


# -- WebP -------------------------------------------------------------------------------------------------------------
_XMP_FLAG, _ALPHA_FLAG = 0x04, 0x10


def _webp_chunks(data: bytes, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """(four characters, start, end with the pad byte) of each chunk."""
    at = 12
    while at < stop:
        if at + 8 > stop:
            raise Refused("the WebP is cut off")
        (size,) = struct.unpack_from("<I", data, at + 4)
        end = at + 8 + size + size % 2
        if end > stop:
            raise Refused("the WebP is cut off")
        yield data[at : at + 4], at, end
        at = end


def _webp(data: bytes) -> Container:
    stop = 8 + struct.unpack_from("<I", data, 4)[0]
    if stop > len(data) or stop % 2:
        raise Refused("the WebP is cut off: its size is not what its header says")
    chunks = list(_webp_chunks(data, stop))
    names = [name for name, _, _ in chunks]
    if names.count(b"XMP ") > 1:
        raise Refused("it has two XMP packets, and readers differ on which one counts")
    if not any(name in (b"VP8 ", b"VP8L", b"ANMF") for name in names) or b"VP8X" in names[1:]:
        raise Refused("the WebP is damaged: its parts are not in order")
    old = next(((start, end) for name, start, end in chunks if name == b"XMP "), None)
    head = (chunks[0][1], chunks[0][2])  # of VP8X, or where it goes
    extended = names[0] == b"VP8X"
    if extended:
        if struct.unpack_from("<I", data, head[0] + 4)[0] != 10:
            raise Refused("the WebP is damaged: its header has the wrong size")
        fields = data[head[0] + 8 : head[0] + 18]
    else:
        head = (head[0], head[0])
        fields = _webp_fields(data, chunks)
    if bool(old) != bool(fields[0] & _XMP_FLAG):
        raise Refused("the WebP's header and content disagree on whether there is XMP")
    packet = None
    if old:
        packet = data[old[0] + 8 : old[0] + 8 + struct.unpack_from("<I", data, old[0] + 4)[0]]
    plain = bytes([fields[0] & ~_XMP_FLAG]) + fields[1:]

    at = next(((start, end) for name, start, end in chunks if name == b"EXIF"), None)
    block = data[at[0] + 8 : at[0] + 8 + struct.unpack_from("<I", data, at[0] + 4)[0]] if at else b""
    start = block[: len(jpeg.EXIF)] if block.startswith(jpeg.EXIF) else b""  # some writers keep a JPEG's

    def edits(new: bytes, *, exif: bytes | None = None) -> list[Edit]:
        _check_size(new)
        header = b"VP8X" + struct.pack("<I", 10) + bytes([fields[0] | _XMP_FLAG]) + fields[1:]
        where = old or (stop, stop)
        made = [Edit(head[0], head[1], header), Edit(where[0], where[1], _webp_chunk(b"XMP ", new))]
        if exif is not None and at:
            made.append(Edit(at[0], at[1], _webp_chunk(b"EXIF", start + exif)))
        size = stop - 8 + sum(len(edit.data) - (edit.end - edit.start) for edit in made)
        if size > 0xFFFFFFFE - 8:
            raise Refused("the WebP would be larger than the format allows")
        return [Edit(4, 8, struct.pack("<I", size)), *made]

    holes = tuple(hole for hole in ((4, 8), head, old) if hole and hole[0] < hole[1])
    older = Payload(tuple(sorted((*holes, *((at,) if at else ())))), plain)
    exif = block[len(start) :] if at else None
    return Container("WebP", packet, edits, Payload(holes, plain), older, exif, signed=b"C2PA" in names)


def _webp_chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def _webp_fields(data: bytes, chunks: Sequence[tuple[bytes, int, int]]) -> bytes:
    """What the extended header of a simple WebP says: flags, and its canvas less one in 24 bits each.

    Frame headers: RFC 6386 §9.1 (VP8), the WebP lossless bitstream specification §3 (VP8L).
    """
    (name, start, end), flags = chunks[0], 0
    frame = data[start + 8 : min(end, start + 18)]
    if name == b"VP8 " and len(frame) == 10 and not frame[0] & 1 and frame[3:6] == b"\x9d\x01\x2a":
        width, height = (x & 0x3FFF for x in struct.unpack_from("<HH", frame, 6))
    elif name == b"VP8L" and len(frame) >= 5 and frame[0] == 0x2F and not frame[4] >> 5:
        (bits,) = struct.unpack_from("<I", frame, 1)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        flags = _ALPHA_FLAG if bits >> 28 & 1 else 0
    else:
        raise Refused("the WebP is damaged: its frame has no header")
    if not width or not height or any(name != b"C2PA" for name, _, _ in chunks[1:]):
        raise Refused("the WebP is damaged: its parts are not in order")
    return bytes([flags, 0, 0, 0]) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")


def _check_size(packet: bytes) -> None:
    if len(packet) > MAX_PACKET:
        raise Refused(f"the XMP would take {len(packet):,} bytes; at most {MAX_PACKET:,} are written")
