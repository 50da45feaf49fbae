"""Metadata inside the images: XMP, else IPTC, else EXIF. Only read; pixels are never decoded.

XMP wins over IPTC unless a Photoshop IPTC digest says that the IPTC block was changed since (Metadata Working Group
guidelines 2.0, section 3.3). PNG is read by its chunks, for exiftool puts XMP behind the pixels.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, ClassVar

from PIL import Image, IptcImagePlugin
from pydantic import Field

from tagging.models import Collection, ImageAsset

from ..xmp.document import Refused
from ..xmp.exif import BOILERPLATE
from ..xmp.packet import Packet
from . import keywords
from .base import ImportOptions, Item, Word, words_from

_READ = {"JPEG", "PNG", "WEBP", "TIFF"}
_CHUNK = 64 * 1024 * 1024  # the largest chunk of a PNG that is taken into memory
_XMP_KEYWORD = b"XML:com.adobe.xmp"
_DESCRIPTION, _RATING, _XP_KEYWORDS, _XP_COMMENT = 0x10E, 0x4746, 0x9C9E, 0x9C9C
_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
_IPTC, _IPTC_DIGEST = 0x0404, 0x0425
_UTF8 = b"\x1b%G"


class EmbeddedOptions(ImportOptions):
    every_field: bool = Field(
        False,
        title="Words of every field",
        description="Also words that stand in IPTC or dc:subject, say, but not in the field that is believed first.",
        json_schema_extra={"advanced": True},
    )


class EmbeddedReader:
    """The images of a collection that are there. Images without keywords and texts yield nothing."""

    Options: ClassVar[type[ImportOptions]] = EmbeddedOptions
    several = False

    def __init__(self, collection: Collection, options: EmbeddedOptions) -> None:
        self.warnings: list[str] = []
        self._collection, self._options = collection, options
        self._images = ImageAsset.objects.filter(collection=collection).present()

    def total(self) -> int | None:
        return self._images.count()

    def items(self) -> Iterator[Item]:
        last = number = empty = 0
        other: dict[str, int] = {}
        while page := list(self._images.filter(pk__gt=last).order_by("pk")[:500]):
            last = page[-1].pk
            for image in page:
                image.collection = self._collection
                number += 1
                if image.format.upper() not in _READ:
                    kind = image.format.upper() or "unknown"
                    other[kind] = other.get(kind, 0) + 1
                    continue
                item = Item(number, image.path, image_id=image.pk)
                self._read(image, item)
                if item.error or item.words or item.caption or item.rating:
                    yield item
                else:
                    empty += 1
        for kind, n in sorted(other.items()):
            self.warnings.append(f"{n:,} {kind} files: their embedded metadata is not read; import their sidecars.")
        if empty:
            self.warnings.append(f"{empty:,} images have no keywords, caption or rating in them.")

    def _read(self, image: ImageAsset, item: Item) -> None:
        try:
            with image.open() as stream:
                found = read(stream)
        except OSError as e:
            item.error = f"cannot be read: {e.strerror or e}"
            return
        except Exception as e:  # parsers of damaged files raise anything
            item.error = f"cannot be read: {type(e).__name__}: {e}"[:500]
            return
        found.fill(item, self._options)


class Embedded:
    """The three kinds of metadata of one file, as far as they are there."""

    def __init__(self) -> None:
        self.xmp = b""
        self.iptc: dict[tuple[int, int], Any] = {}
        self.iptc_newer = False
        self.exif: Image.Exif = Image.Exif()

    def fill(self, item: Item, options: EmbeddedOptions) -> None:
        xmp = keywords.Said()
        root = options.prefix.strip()
        if self.xmp:
            try:
                packet = Packet(self.xmp.rstrip(b"\x00 \r\n\t"))
                xmp = keywords.said(packet, root=root, every_field=options.every_field)
            except Refused as e:
                item.notes.append(f"its XMP is left out: {e}")
        item.notes += keywords.left_out(xmp)
        iptc = words_from(((w,) for w in self._iptc_texts(25)), root)
        exif = words_from(((w,) for w in _xp(self.exif.get(_XP_KEYWORDS)).split(";")), root)
        sources = [iptc, xmp.words, exif] if self.iptc_newer else [xmp.words, iptc, exif]
        if self.iptc_newer and iptc and xmp.words:
            item.notes.append("IPTC was changed after XMP (its digest differs) and is believed")
        item.words = next((words for words in sources if words), [])
        if options.every_field:
            known = {w.name.casefold() for w in item.words}
            more: dict[str, Word] = {w.name: w for words in sources for w in words if w.name.casefold() not in known}
            item.words += more.values()
        captions = ["\n".join(self._iptc_texts(120)), xmp.caption]
        captions = captions if self.iptc_newer else captions[::-1]
        item.caption = next((text for text in (*captions, self._exif_caption()) if text), None)
        stars = self.exif.get(_RATING)
        item.rating = xmp.rating or keywords.rating_of("", str(stars) if isinstance(stars, int) else "") or None

    def _iptc_texts(self, dataset: int) -> list[str]:
        values = self.iptc.get((2, dataset), [])
        values = values if isinstance(values, list) else [values]
        declared = self.iptc.get((1, 90), b"")
        utf8 = isinstance(declared, bytes) and declared.startswith(_UTF8)
        return [text for value in values if (text := _decoded(value, utf8=utf8).strip())]

    def _exif_caption(self) -> str:
        text = self.exif.get(_DESCRIPTION)
        text = _decoded(text, utf8=True) if isinstance(text, bytes) else str(text or "")
        text = text.strip("\x00 \t\r\n")
        if text and text.casefold() not in BOILERPLATE and not text.upper().startswith("DCIM\\"):
            return text
        comment = self.exif.get_ifd(_EXIF_IFD).get(_USER_COMMENT, b"")
        if isinstance(comment, bytes) and comment.startswith(b"ASCII\x00\x00\x00"):
            return comment[8:].decode("ascii", "replace").strip("\x00 \t\r\n")
        return _xp(self.exif.get(_XP_COMMENT)).strip()


def read(stream: BinaryIO) -> Embedded:
    """The metadata of an open image. Raises what Pillow raises on damaged files."""
    found = Embedded()
    if stream.read(8) == b"\x89PNG\r\n\x1a\n":
        _read_png(stream, found)
        return found
    stream.seek(0)
    with Image.open(stream, formats=["JPEG", "WEBP", "TIFF"]) as image:
        xmp = image.info.get("xmp") or b""
        found.xmp = xmp.encode() if isinstance(xmp, str) else bytes(xmp)
        found.exif = image.getexif()
        if not found.xmp and isinstance(raw := found.exif.get(700), bytes):
            found.xmp = raw
        found.iptc = dict(IptcImagePlugin.getiptcinfo(image) or {})
        blocks = image.info.get("photoshop")
        if isinstance(blocks, dict) and blocks.get(_IPTC) and len(digest := blocks.get(_IPTC_DIGEST) or b"") == 16:
            current = hashlib.md5(blocks[_IPTC], usedforsecurity=False).digest()
            found.iptc_newer = digest not in (current, bytes(16))
    return found


def _read_png(stream: BinaryIO, found: Embedded) -> None:
    """iTXt and eXIf chunks wherever they stand (PNG specification, third edition, 11.3)."""
    while len(head := stream.read(8)) == 8:
        size, kind = struct.unpack(">I4s", head)
        if kind in (b"iTXt", b"eXIf") and size <= _CHUNK:
            data = stream.read(size)
            if kind == b"eXIf":
                found.exif.load(data)
            elif data.startswith(_XMP_KEYWORD + b"\x00"):
                found.xmp = _itxt(data)
            stream.seek(4, 1)
        elif kind == b"IEND":
            return
        else:
            stream.seek(size + 4, 1)


def _itxt(data: bytes) -> bytes:
    """The text of an iTXt chunk: keyword 0 flag method language 0 translated 0 text."""
    rest = data[len(_XMP_KEYWORD) + 1 :]
    compressed = rest[:1] == b"\x01"
    text = rest[2:].split(b"\x00", 2)[-1]
    if not compressed:
        return text
    inflate = zlib.decompressobj()
    return inflate.decompress(text, _CHUNK)


def _xp(value: Any) -> str:
    """Windows' XP tags: UTF-16, ended by a NUL."""
    if isinstance(value, tuple) and all(isinstance(b, int) and 0 <= b < 256 for b in value):
        value = bytes(value)
    return value.decode("utf-16-le", "replace").rstrip("\x00") if isinstance(value, bytes) else ""


def _decoded(value: Any, *, utf8: bool) -> str:
    if not isinstance(value, bytes):
        return str(value or "")
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("utf-8" if utf8 else "cp1252", "replace")
