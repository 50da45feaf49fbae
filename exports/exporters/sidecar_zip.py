"""New XMP sidecars as a zip: for collections of uploads, which have no folder to write into."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from ..xmp import fields
from ..xmp.packet import Packet
from .base import ExportError
from .dataset import DatasetExporter, DatasetOptions, Member, Original
from .reading import tag_of
from .sidecars import Ancestry


class SidecarZipOptions(DatasetOptions):
    names: Literal["long", "short"] = Field(
        "long",
        title="Names",
        json_schema_extra={
            "labels": {
                "long": "IMG.JPG.xmp (darktable, digiKam, Immich)",
                "short": "IMG.xmp (Lightroom, Capture One, PhotoPrism)",
            }
        },
    )
    prefix: str = Field(
        "", max_length=60, title="Root of the hierarchy", description='For example "iw" gives iw|animal|dog.'
    )
    ancestors_flat: bool = Field(False, title="Broader tags as flat keywords too", json_schema_extra={"advanced": True})


class SidecarZipExporter(DatasetExporter[Any]):
    identifier = "xmp_zip"
    label = "XMP sidecars (zip)"
    description = "New sidecars for photo tools. To write beside the images of a folder, with undo, use xmp instead."
    Options = SidecarZipOptions
    names_always = True

    @property
    def by_stem(self) -> bool:  # type: ignore[override]
        return bool(self.options.names == "short")

    def members(self) -> Iterator[Member]:
        style = fields.Style(prefix=self.options.prefix.strip(), ancestors_flat=self.options.ancestors_flat)
        ancestry = Ancestry(self.source.names)
        for page in self.named():
            ancestry.learn({tag_of(t) for record, _ in page for t in record.tags})
            for record, name in page:
                if self.with_files:
                    image = Member.of(name, Original(self.selection.collection, record.image))
                    yield image
                    if image.failed:
                        continue
                keywords = tuple(fields.Keyword(path) for t in record.tags if (path := ancestry.path(tag_of(t))))
                packet = Packet.new()
                try:
                    planned = fields.plan(packet, fields.Wanted(keywords, record.image.caption), {}, style)
                except fields.UnwritableWord as e:
                    raise ExportError(f"{record.image.path}: {e}. Rename the tag, then export again.") from None
                if fields.apply(packet, planned):
                    yield Member(self.text_name(name, ".xmp"), packet.to_bytes())
