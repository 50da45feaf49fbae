"""Identifier → export format, imported only when used. Third parties add theirs by the entry point group
`iwtag.exporters`."""

from __future__ import annotations

import logging
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from .base import Exporter

log = logging.getLogger(__name__)

#: identifier → (label, "module:Class"). The label is here so that a list of formats needs no import.
BUILT_IN: dict[str, tuple[str, str]] = {
    "csv": ("CSV table", "exports.exporters.csv:CsvExporter"),
    "jsonl": ("JSON Lines", "exports.exporters.jsonl:JsonlExporter"),
    "parquet": ("Parquet", "exports.exporters.parquet:ParquetExporter"),
    "txt": ("Caption files (.txt, .caption)", "exports.exporters.text_sidecars:CaptionFileExporter"),
    "imagefolder": ("Hugging Face ImageFolder", "exports.exporters.imagefolder:ImageFolderExporter"),
    "webdataset": ("WebDataset shards", "exports.exporters.webdataset:WebDatasetExporter"),
    "coco": ("COCO captions", "exports.exporters.listings:CocoExporter"),
    "fiftyone": ("FiftyOne", "exports.exporters.listings:FiftyOneExporter"),
    "label_studio": ("Label Studio", "exports.exporters.label_studio:LabelStudioExporter"),
    "preferences": ("Preference pairs (DPO)", "exports.exporters.preferences:PreferenceExporter"),
    "hydrus": ("Hydrus sidecars", "exports.exporters.text_sidecars:HydrusExporter"),
    "danbooru": ("Danbooru tag list (CSV)", "exports.exporters.vocabulary:DanbooruExporter"),
    "lightroom": ("Lightroom keyword list", "exports.exporters.vocabulary:LightroomExporter"),
    "xmp_zip": ("XMP sidecars (zip)", "exports.exporters.sidecar_zip:SidecarZipExporter"),
}

#: identifier → label of the formats that write beside the images; `exports.in_place` has their code.
IN_PLACE: dict[str, str] = {
    "xmp": "XMP sidecars beside the images",
    "txt_in_place": "Caption files beside the images",
    "hydrus_in_place": "Hydrus sidecars beside the images",
}
ENTRY_POINTS = "iwtag.exporters"


class UnknownFormat(LookupError):
    """No export format has this identifier; the text lists those there are."""

    def __str__(self) -> str:
        return str(self.args[0])


@cache
def registered() -> dict[str, tuple[str, str]]:
    """All formats: the built-in ones and those of installed packages. A clash with a built-in one is refused."""
    found = dict(BUILT_IN)
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        if point.name in found:
            log.error("export format %r of %s is ignored: the name is taken", point.name, point.value)
            continue
        found[point.name] = (point.name, point.value)
    return found


def choices() -> list[tuple[str, str]]:
    """(identifier, label) pairs for forms: ours in the order above, then those of packages by identifier."""
    return [(identifier, label) for identifier, (label, _) in registered().items()]


def exporter_class(identifier: str) -> type[Exporter[Any]]:
    """The class behind `identifier`. UnknownFormat names those there are."""
    try:
        _, target = registered()[identifier]
    except KeyError:
        raise UnknownFormat(f"No export format {identifier!r}; known: {', '.join(sorted(registered()))}.") from None
    module, _, name = target.partition(":")
    found = getattr(import_module(module), name)
    if not (isinstance(found, type) and issubclass(found, Exporter)):
        raise TypeError(f"{target} is not an Exporter")
    return found
