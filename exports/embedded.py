"""XMP inside the image files themselves: which may be written, how that is proven, and what follows in our tables.

Only the packet is spliced (`xmp.containers`); a file's backup is the inverse of the splice, a few kilobytes that bring
back every byte. Formats that hold their pixels by offsets, and those that cameras own, are never written.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import PurePath
from typing import Any

from django.core.files.storage import default_storage
from PIL import Image

from tagging.imaging import load, storing, thumbnails
from tagging.models import ImageAsset
from tagging.models.collections import thumbnail_name

from . import older
from .safe_write import Seen, WriteRefused
from .xmp import containers, exif, iptc, splicing
from .xmp.containers import Container
from .xmp.document import Refused

#: The name under which an entry's `fields` say that the target is an image, with its format and payload digest.
FIELD = "embedded"
WARNING = (
    "Writes into your image files. Only the metadata changes, every pixel and byte beside it stays, and undo brings "
    "the files back. But their content is new to backups and to iwtag's models, whose cached answers go by content."
)
_FORMATS = {"jpg": "JPEG", "jpeg": "JPEG", "jpe": "JPEG", "jfif": "JPEG", "png": "PNG", "apng": "PNG", "webp": "WebP"}
_OURS = re.compile(
    rb":(subject|hierarchicalSubject|TagsList|LastKeywordXMP|CatalogSets|description|ImageDescription|Rating|Label)\b"
)
_ONLY = "only JPEG, PNG and WebP are written to"


def unsuited(name: str) -> str:
    """Why a file of that name gets a sidecar instead; empty when it may be written to."""
    extension = PurePath(name).suffix.lower().lstrip(".")
    return "" if extension in _FORMATS else f"not embedded: {_ONLY}, not {extension.upper() or 'this'}"


def opened(name: str, data: bytes) -> Container:
    """The file taken apart, if it may be written to. Raises Refused with the reason."""
    extension = PurePath(name).suffix.lower().lstrip(".")
    container = containers.opened(data)
    if _FORMATS.get(extension) != container.format:
        raise Refused(f"its name says {extension or 'nothing'}, its content is {container.format}")
    if container.signed:
        raise Refused("it is signed (C2PA), and any change would make the signature invalid")
    if _OURS.search(container.extended):
        raise Refused("its keywords or caption stand in an extended XMP part, which is not edited")
    return container


def described(container: Container, data: bytes, *, with_older: bool = False) -> dict[str, str]:
    """What `verify` needs to know of the file before. `with_older`: IPTC or EXIF are written too."""
    if not with_older:
        return {"format": container.format, "payload": container.payload.digest(data)}
    return {"format": container.format, "payload": container.older.digest(data), "rest": older.rest(data)}


def notes(container: Container, *, caption: bool) -> list[str]:
    """What a person should know of the older fields that stay as they are: where they win over XMP by the rules of the
    Metadata Working Group. `caption`: one is to be written."""
    found = []
    try:
        if caption and exif.description(container.exif):
            found.append("the EXIF description stays as it is, and many programs show it instead of the caption")
        there = iptc.Iptc(container.iptc)
    except Refused:  # these are hints only
        return found
    if there.keywords or there.caption:
        if there.newer:
            found.append("its IPTC keywords and caption are newer than its XMP was, and programs read them instead")
        else:
            found.append("its IPTC keywords and caption stay as they are: programs that read only IPTC see those")
    return found


def build(before: bytes, packet: bytes, fields: Mapping[str, Any]) -> bytes:
    """The image with that packet in it, and with what `fields` (as of an entry) say of IPTC and EXIF. Raises Refused,
    also for an image that cannot be decoded whole."""
    try:
        load.open_image(before, srgb=False)
    except load.ImageProblem as e:
        raise Refused(f"it cannot be read as a picture: {e}") from None
    container = containers.opened(before)
    return splicing.splice(before, container.edits(packet, **older.blocks(container, fields)))


def backup(before: bytes, after: bytes, fields: Mapping[str, Any]) -> bytes:
    """What brings `before` back from `after`, tried out. Raises Refused when it would not."""
    packet = containers.read_xmp(after)
    if packet is None:
        raise Refused("the new content has no XMP")
    container = containers.opened(before)
    edits = splicing.inverse(before, container.edits(packet, **older.blocks(container, fields)))
    if splicing.splice(after, edits) != before:
        raise Refused("its old content could not be brought back")
    return splicing.pack(edits)


def restore(now: bytes, packed: bytes) -> bytes:
    """The image before, from `now` as we left it and its backup. Raises Refused."""
    return splicing.splice(now, splicing.unpack(packed))


def packet_read_back(data: bytes, said: Mapping[str, str]) -> bytes:
    """The packet as Pillow finds it in the new content. `said` is `described` of the file before: raises WriteRefused
    when anything but the packet, and what was to change in IPTC and EXIF, changed."""
    try:
        if containers.payload_digest(data, older="rest" in said) != said["payload"]:
            raise WriteRefused("the new content does not read back: more than the metadata would change")
        if "rest" in said and older.rest(data) != said["rest"]:
            raise WriteRefused("the new content does not read back: more than the metadata would change")
        with Image.open(BytesIO(data)) as image:
            if image.format == "PNG":
                image.load()  # a packet behind the pixels is found only so
            found = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    except (Refused, OSError, ValueError, SyntaxError, struct.error) as e:
        raise WriteRefused(f"the new content does not read back: {e}") from None
    return (found.encode() if isinstance(found, str) else bytes(found)).strip(b"\0 \r\n\t")


# -- our own tables ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Moved:
    """An image whose content went from one hash to another by our doing, and the file as it is since."""

    image_id: int
    before: str
    after: str
    seen: Seen


def copy_renditions(moves: Iterable[Moved]) -> None:
    """Thumbnails under the new content's name: the pixels are the same. Those that are not there are made when asked
    for; the old ones stay for other images of that content."""
    for move in moves:
        for side in (thumbnails.THUMB, thumbnails.PROXY):
            try:
                with default_storage.open(thumbnail_name(move.before, side), "rb") as f:
                    data = f.read()
                storing.put(default_storage, thumbnail_name(move.after, side), data)
            except OSError:
                continue


def follow(moves: Iterable[Moved]) -> None:
    """Tell the images their new content, so that the next ingest finds nothing changed. One that ingest has read anew
    meanwhile is left to it."""
    for move in moves:
        ImageAsset.objects.filter(pk=move.image_id, sha256=move.before).update(
            sha256=move.after, size=move.seen.size, mtime_ns=move.seen.mtime_ns
        )
