"""XMP sidecars: keywords, caption and rating of each, and what another tool changed in those that iwtag wrote."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, ClassVar, NamedTuple

from pydantic import Field

from tagging.imaging import kinds

from .. import ledger
from ..models import ExportEntry
from ..xmp import naming
from ..xmp.document import MAX_BYTES, Refused
from ..xmp.merge import compare_key
from ..xmp.packet import Packet, Property
from . import keywords
from .base import ImportOptions, Item
from .tree import Listing, Tree

AT_ONCE = 64  # sidecars whose last export is looked up with one query
_FOR_EXTENSION = Property("http://ns.adobe.com/photoshop/1.0/", "photoshop", "SidecarForExtension")
_DERIVED_FROM = Property("http://ns.adobe.com/xap/1.0/mm/", "xmpMM", "DerivedFrom")


class SidecarImportOptions(ImportOptions):
    every_field: bool = Field(
        False,
        title="Words of every field",
        description="Also words that stand in dc:subject, say, but not in the field that is believed first.",
        json_schema_extra={"advanced": True},
    )
    shared: bool = Field(
        False,
        title="base.xmp speaks for RAW and JPEG",
        description="Where two images share a name, the sidecar without extension is taken for both. Otherwise such a "
        "sidecar is listed and left out, unless it says itself whose it is.",
        json_schema_extra={"advanced": True},
    )


class _Last(NamedTuple):
    """What iwtag wrote to a sidecar last."""

    packet: Packet | None
    sha256: str
    at: datetime
    image_id: int | None
    root: str
    shared: bool


class SidecarReader:
    """Every .xmp file of a tree, whatever image it belongs to."""

    Options: ClassVar[type[ImportOptions]] = SidecarImportOptions
    several = True  # base.xmp and base.ext.xmp of one image are taken together

    def __init__(self, tree: Tree, options: SidecarImportOptions) -> None:
        self.warnings: list[str] = []
        self._tree, self._options = tree, options
        self._number = 0

    def total(self) -> int | None:
        return None

    def items(self) -> Iterator[Item]:
        for listing in self._tree.folders():
            sidecars = [name for name in listing.names if name.lower().endswith(".xmp")]
            folder = naming.Folder(listing.names) if sidecars else None
            for at in range(0, len(sidecars), AT_ONCE):
                part = sidecars[at : at + AT_ONCE]
                last = _last_written([self._tree.target(listing.path(name)) for name in part])
                for name in part:
                    assert folder is not None
                    yield from self._sidecar(listing, folder, name, last.get(self._tree.target(listing.path(name))))
        if not self._number:
            self.warnings.append("There is no .xmp file in the folder.")

    def _sidecar(self, listing: Listing, folder: naming.Folder, name: str, entry: Any) -> Iterator[Item]:
        self._number += 1
        path = listing.path(name)
        item = Item(self._number, path)
        try:
            data = self._tree.read(path, MAX_BYTES)
            packet = Packet(data)
        except (Refused, OSError) as e:
            item.error = f"{path}: {getattr(e, 'strerror', None) or e}"
            yield item
            return
        last = _last(entry) if entry is not None else None
        self._read(item, packet, data, last)
        yield from self._addressed(item, listing, folder, name, packet, last)

    def _read(self, item: Item, packet: Packet, data: bytes, last: _Last | None) -> None:
        o = self._options
        root = o.prefix.strip() or (last.root if last else "")
        now = keywords.said(packet, root=root, every_field=o.every_field)
        item.words, item.notes = now.words, keywords.left_out(now)
        item.caption, item.rating = now.caption or None, now.rating or None
        if last is None or last.packet is None or ledger.sha256(data) == last.sha256:
            return
        before = keywords.said(last.packet, root=root)
        came, went = keywords.since(before, now, root)
        day = f"{last.at:%d %B %Y}".lstrip("0")
        gone = {compare_key(w.name) for w in went}
        new = {compare_key(w.name) for w in came}
        words = [w for w in item.words if compare_key(w.name) not in gone | new]
        for state, changed in (("added elsewhere", came), ("removed elsewhere", went)):
            words += [w._replace(state=state, why=f"{state} since the export of {day}") for w in changed]
        item.words, item.notes = words, keywords.left_out(now, came)
        for what, old, value in (("caption", before.caption, now.caption), ("rating", before.rating, now.rating)):
            if old != value:
                item.notes.append(f"{what} changed elsewhere since the export of {day}")
                item.elsewhere = True
        item.elsewhere |= bool(came or went)

    def _addressed(
        self, item: Item, listing: Listing, folder: naming.Folder, name: str, packet: Packet, last: _Last | None
    ) -> Iterator[Item]:
        """The item for the image that the sidecar belongs to, or for each of several."""
        base = name[: -len(".xmp")]
        twins = _images(folder, base)
        if kinds.has_image_extension(base):
            item.key = listing.path(base)  # base.ext.xmp
        elif len(twins) > 1 and (self._options.shared or (last is not None and last.shared)):
            for twin in twins:
                yield Item(item.number, listing.path(twin), words=item.words, caption=item.caption,
                           rating=item.rating, elsewhere=item.elsewhere, notes=item.notes)  # fmt: skip
            return
        elif extension := packet.text(_FOR_EXTENSION).strip(". "):
            item.key = listing.path(f"{base}.{extension}")
        elif (origin := packet.text(_DERIVED_FROM).strip()) and folder.find(origin) is not None:
            item.key = listing.path(origin)
        elif len(twins) > 1 and last is not None and last.image_id is not None:
            item.image_id = last.image_id
        else:
            item.key, item.by_stem = listing.path(base), True
        yield item


def _images(folder: naming.Folder, base: str) -> list[str]:
    """Images beside base.xmp that share its stem."""
    return sorted(n for n in folder.twins(f"{base}.xmp") if kinds.has_image_extension(n))


def _last_written(targets: Sequence[str]) -> dict[str, ExportEntry]:
    """Target → the newest entry in force there. One query."""
    rows = ExportEntry.objects.filter(target__in=[t for t in targets if t], state=ExportEntry.State.DONE)
    return {entry.target: entry for entry in rows.select_related("job").order_by("id")}


def _last(entry: ExportEntry) -> _Last:
    """The file as iwtag left it, built again from the journal."""
    options = entry.job.options or {}
    try:
        before = zlib.decompress(bytes(entry.backup)) if entry.backup else b""
        packet = Packet(ledger.build(before, entry.fields))
    except (Refused, KeyError, ValueError, zlib.error):
        packet = None  # journalled in a way that is no longer understood: then nothing is said of edits
    root, shared = str(options.get("prefix") or "").strip(), options.get("twins") == "shared"
    return _Last(packet, entry.sha_after, entry.at, entry.image_id, root, shared)
