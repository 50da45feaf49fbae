"""Tables of a dataset in one JSON file beside the images: COCO captions and FiftyOne."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from pydantic import Field

from .captions import CaptionOptions, Captions
from .dataset import DatasetExporter, DatasetOptions, Member, Original
from .names import split
from .reading import Record, score_of, tag_of
from .zipping import drained, spooled


class CocoOptions(CaptionOptions, DatasetOptions):
    template: str = Field(
        "{caption}",
        max_length=2000,
        title="Template of the caption",
        description="Of {trigger}, {caption}, {tags}, {rating} and {name}; what is empty takes its comma with it.",
    )


class CocoExporter(DatasetExporter[CocoOptions]):
    """`captions.json` as COCO's captions_*.json (https://cocodataset.org/#format-data), images under `images/`.

    Ids of images are ours; annotations are numbered. An image whose text is empty has no annotation.
    """

    identifier = "coco"
    label = "COCO captions"
    description = "captions.json for pycocotools, torchvision's CocoCaptions and caption trainers."
    Options = CocoOptions

    @cached_property
    def captions(self) -> Captions:
        return Captions(self.options, self.source.names)

    def placed(self, path: str) -> str:
        return f"images/{path}"

    def members(self) -> Iterator[Member]:
        images, annotations = spooled(), spooled()
        n = 0
        for page in self.named():
            for record, name in page:
                if self.with_files:
                    member = Member.of(name, Original(self.selection.collection, record.image))
                    yield member
                    if member.failed:
                        continue
                image = record.image
                file_name = name.removeprefix("images/")
                size = {"width": image.width, "height": image.height}
                images.write(_entry({"id": image.id, "file_name": file_name, **size}))
                if caption := self.captions.of(record):
                    n += 1
                    annotations.write(_entry({"id": n, "image_id": image.id, "caption": caption}))

        def whole() -> Iterator[bytes]:
            info = {"description": f"{self.selection.collection.name}, written by iwtag"}
            yield b'{"info": ' + json.dumps(info).encode() + b', "licenses": [], "images": ['
            yield from drained(images, skip=1)
            yield b'\n], "annotations": ['
            yield from drained(annotations, skip=1)
            yield b"\n]}\n"

        yield Member("captions.json", whole())


class FiftyOneOptions(DatasetOptions):
    confidence: bool = Field(
        True, title="With probabilities", description="Tags that a person added are given without one."
    )


class FiftyOneExporter(DatasetExporter[FiftyOneOptions]):
    """FiftyOne's FiftyOneImageClassificationDataset with several labels for each image.

    `labels.json` is {"classes": null, "labels": {uuid: [{"label", "confidence"}, …]}}, uuid the image's path below
    `data/` without its extension. Without the images `data.json` maps each uuid to the path of the original. Source:
    fiftyone/utils/data/importers.py and exporters.py, class FiftyOneImageClassificationDataset(Importer|Exporter), and
    https://docs.voxel51.com/user_guide/dataset_creation/datasets.html.
    """

    identifier = "fiftyone"
    label = "FiftyOne"
    description = "A FiftyOneImageClassificationDataset: fiftyone.Dataset.from_dir(dataset_dir=…, dataset_type=…)."
    Options = FiftyOneOptions
    by_stem = True
    names_always = True

    def placed(self, path: str) -> str:
        return f"data/{path}"

    def name_problems(self) -> list[str]:
        if self.options.clashes == "keep_extension" and self.names.clashes.doubled:
            return [
                f"{self.names.clashes.doubled:,} images differ only by their extension, which FiftyOne ignores. "
                'Choose "rename" for names that clash.'
            ]
        return super().name_problems()

    def members(self) -> Iterator[Member]:
        labels, data = spooled(), spooled()
        root = self.selection.collection.root
        for page in self.named():
            for record, name in page:
                if self.with_files:
                    member = Member.of(name, Original(self.selection.collection, record.image))
                    yield member
                    if member.failed:
                        continue
                uuid = split(name.removeprefix("data/"))[0]
                labels.write(_pair(uuid, self._labels(record)))
                if not self.with_files:
                    data.write(_pair(uuid, f"{root}/{record.image.path}" if root else record.image.path))
        yield Member("labels.json", _object(b'{"classes": null, "labels": {', labels, b"\n}}\n"))
        if not self.with_files:
            yield Member("data.json", _object(b"{", data, b"\n}\n"))
        else:
            data.close()

    def _labels(self, record: Record) -> list[dict[str, Any]]:
        found = []
        for value in record.tags:
            label: dict[str, Any] = {"label": self.source.names.tags[tag_of(value)].name}
            score = score_of(value)
            if self.options.confidence and score is not None:
                label["confidence"] = score
            found.append(label)
        return found

    def warnings(self) -> list[str]:
        if not self.with_files and not self.selection.collection.root:
            return ["Uploaded images have no path on this machine: data.json names them by their relative path."]
        return []


def _entry(row: dict[str, Any]) -> bytes:
    return b",\n" + json.dumps(row).encode()


def _pair(key: str, value: object) -> bytes:
    return b",\n" + json.dumps(key).encode() + b": " + json.dumps(value).encode()


def _object(head: bytes, spool: Any, tail: bytes) -> Iterator[bytes]:
    yield head
    yield from drained(spool, skip=1)
    yield tail
