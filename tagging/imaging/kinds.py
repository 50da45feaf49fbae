"""What a file is, by its first bytes."""

from __future__ import annotations

import struct
from typing import BinaryIO

#: Bytes that `sniff` wants to see.
HEAD = 4096

#: Kind → the Pillow plug-ins that may open it. Others (EPS, PSD …) are never tried on files from outside.
PILLOW = {
    "JPEG": ("JPEG",),  # MPO too: the plug-in sees to it
    "PNG": ("PNG",),
    "WEBP": ("WEBP",),
    "TIFF": ("TIFF",),
    "GIF": ("GIF",),
    "BMP": ("BMP",),
    "AVIF": ("AVIF",),
    "HEIF": ("HEIF",),
}
READABLE = frozenset(PILLOW) | {"RAW"}

RAW_EXTENSIONS = frozenset(
    """
    3fr arw cr2 cr3 crw dcr dng erf fff gpr iiq k25 kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f
    """.split()
)
#: Files with another extension are not looked into.
EXTENSIONS = RAW_EXTENSIONS | frozenset(
    "jpg jpeg jpe jfif mpo png apng webp tif tiff gif bmp dib heic heif hif avif".split()
)

_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"heif"))
_AVIF_BRANDS = frozenset((b"avif", b"avis"))


def has_image_extension(name: str) -> bool:
    """True when the extension of `name` is one that is indexed."""
    return name.rpartition(".")[2].lower() in EXTENSIONS


def sniff(head: bytes, stream: BinaryIO, name: str = "") -> str:
    """One of READABLE, or an empty string. `head` is the start of `stream`, which is moved only for TIFF.

    Camera RAW and TIFF begin alike: the extension of `name`, else the tags of the first directory tell them apart.
    """
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if (
        head[:2] == b"BM"
        and len(head) >= 26
        and struct.unpack_from("<I", head, 14)[0] in (12, 40, 52, 56, 64, 108, 124)
    ):
        return "BMP"
    if head[4:8] == b"ftyp":
        return _boxed(head)
    if head.startswith(_RAW_STARTS) or head[6:14] == b"HEAPCCDR":
        return "RAW"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        named_raw = name.rpartition(".")[2].lower() in RAW_EXTENSIONS
        return "RAW" if named_raw or head[8:10] == b"CR" or _has_raw_tags(head, stream) else "TIFF"
    return ""


_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
_RAW_STARTS = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM")


def _boxed(head: bytes) -> str:
    """ISO base media (ISO/IEC 14496-12 §4.3): the major brand decides, then the compatible ones."""
    size = min(int.from_bytes(head[:4], "big"), len(head), 4096)
    brands = [head[8:12], *(head[i : i + 4] for i in range(16, size, 4))]
    if brands[0] == b"crx ":
        return "RAW"
    if any(b in _AVIF_BRANDS for b in brands):
        return "AVIF"
    return "HEIF" if any(b in _HEIF_BRANDS for b in brands) else ""


def _has_raw_tags(head: bytes, stream: BinaryIO) -> bool:
    """A first directory with DNGVersion (50706), a colour filter array (262 = 32803) or linear raw (34892)."""
    order = "<" if head[:2] == b"II" else ">"
    if head[2:4] in (b"+\0", b"\0+"):  # BigTIFF: no camera writes it
        return False
    if len(head) < 8:
        return False
    stream.seek(struct.unpack_from(order + "I", head, 4)[0])
    count = int.from_bytes(stream.read(2), "little" if order == "<" else "big")
    entries = stream.read(12 * count)
    for at in range(0, len(entries) - 11, 12):
        tag, _type, _n, value = struct.unpack_from(order + "HHIH", entries, at)
        if tag == 50706 or (tag == 262 and value in (32803, 34892)):
            return True
    return False


def describe(head: bytes) -> str:
    """Why a file that is no picture is none, for people."""
    if not head:
        return "The file is empty (0 bytes)."
    for start, what in _OTHERS:
        if head.startswith(start):
            return f"Not a picture: the content is {what}."
    if head[4:8] == b"ftyp":
        return "Not a picture: the content is a video or audio file."
    if not any(head):
        return "Not a picture: the file holds only zeros, as after an interrupted copy."
    try:
        text = head[:512].decode("utf-8", "strict" if len(head) <= 512 else "ignore")
        if text and all(c.isprintable() or c in "\r\n\t\f" for c in text):
            return "Not a picture: the content is text."
    except UnicodeDecodeError:
        pass
    return "Not a picture in a format that iwtag reads (JPEG, PNG, WebP, TIFF, GIF, BMP, HEIC, AVIF, camera RAW)."


_OTHERS = (
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive"),
    (b"8BPS", "a Photoshop document, which iwtag does not read"),
    (b"%!PS", "a PostScript document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000, which iwtag does not read"),
    (b"\xff\x0a", "JPEG XL, which iwtag does not read"),
    (b"\0\0\0\x0cJXL ", "JPEG XL, which iwtag does not read"),
    (b"<svg", "an SVG drawing, which iwtag does not read"),
    (b"<!DOCTYPE", "a web page"),
    (b"<html", "a web page"),
)
