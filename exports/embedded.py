"""XMP inside the image files themselves: which may be written, how that is proven, and what follows in our tables.

Only the packet is spliced (`xmp.containers`); a file's backup is the inverse of the splice, a few kilobytes that bring
back every byte. Formats that hold their pixels by offsets, and those that cameras own, are never written.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import PurePath

from django.core.files.storage import default_storage
from PIL import Image

from tagging.imaging import load, storing, thumbnails
from tagging.models import ImageAsset
from tagging.models.collections import thumbnail_name

from .safe_write import Seen, WriteRefused
from .xmp import containers, splicing
from .xmp.containers import Container
from .xmp.packet import Refused

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
_IMAGE_DESCRIPTION = 270  # EXIF
_IPTC, _IPTC_DIGEST = 0x0404, 0x0425  # Photoshop image resources
_KEYWORDS, _CAPTION = b"\x1c\x02\x19", b"\x1c\x02\x78"  # IPTC-IIM datasets 2:25 and 2:120
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


def described(container: Container, data: bytes) -> dict[str, str]:
    """What `verify` needs to know of the file before."""
    return {"format": container.format, "payload": container.payload.digest(data)}


def notes(data: bytes, *, caption: bool) -> list[str]:
    """What a person should know of the older fields that stay as they are: where they win over XMP by the rules of the
    Metadata Working Group. `caption`: one is to be written."""
    try:
        with Image.open(BytesIO(data)) as image:
            described = str(image.getexif().get(_IMAGE_DESCRIPTION) or "").strip("\0 ")
            found_there = image.info.get("photoshop")
    except Exception:  # Pillow raises anything on odd Exif; these are hints only, and the decoder has the say later
        return []
    found = []
    if caption and described:
        found.append("the EXIF description stays as it is, and many programs show it instead of the caption")
    resources: dict[int, bytes] = found_there if isinstance(found_there, dict) else {}
    iptc = resources.get(_IPTC, b"")
    if any(dataset in iptc for dataset in (_KEYWORDS, _CAPTION)):
        digest = resources.get(_IPTC_DIGEST)
        if digest and digest != hashlib.md5(iptc, usedforsecurity=False).digest():
            found.append("its IPTC keywords and caption are newer than its XMP was, and programs read them instead")
        else:
            found.append("its IPTC keywords and caption stay as they are: programs that read only IPTC see those")
    return found


def build(before: bytes, packet: bytes) -> bytes:
    """The image with that packet in it. Raises Refused, also for an image that cannot be decoded whole."""
    try:
        load.open_image(before, srgb=False)
    except load.ImageProblem as e:
        raise Refused(f"it cannot be read as a picture: {e}") from None
    return containers.write_xmp(before, packet)


def backup(before: bytes, after: bytes) -> bytes:
    """What brings `before` back from `after`, tried out. Raises Refused when it would not."""
    packet = containers.read_xmp(after)
    if packet is None:
        raise Refused("the new content has no XMP")
    edits = splicing.inverse(before, containers.opened(before).edits(packet))
    if splicing.splice(after, edits) != before:
        raise Refused("its old content could not be brought back")
    return splicing.pack(edits)


def restore(now: bytes, packed: bytes) -> bytes:
    """The image before, from `now` as we left it and its backup. Raises Refused."""
    return splicing.splice(now, splicing.unpack(packed))


def packet_read_back(data: bytes, payload: str) -> bytes:
    """The packet as Pillow finds it in the new content. Raises WriteRefused when anything but the packet changed."""
    try:
        if containers.payload_digest(data) != payload:
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
