"""Hugging Face ImageFolder: images and a table beside them that `datasets` reads.

`load_dataset("imagefolder", data_dir=…)` takes `metadata.jsonl` or `metadata.parquet` with the column `file_name`
(https://huggingface.co/docs/datasets/image_dataset). Each image has its row and each row its image: a row without a
file is an error there, an image without a row is silently dropped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

from pydantic import Field

from tagging.models import ImageAsset

from .base import ExportError
from .captions import CaptionOptions, Captions
from .dataset import DatasetExporter, DatasetOptions, Member, Original
from .parquet import Table, arrow
from .reading import Record, score_of, tag_of
from .zipping import drained, spooled


class ImageFolderOptions(CaptionOptions, DatasetOptions):
    files: Literal["none", "copy", "link"] = Field(
        "copy",
        title="Image files",
        description="Without them, put the table into the collection's own folder.",
        json_schema_extra={
            "labels": {"none": "without the images", "copy": "with copies", "link": "with hard links (new folder)"}
        },
    )
    table: Literal["jsonl", "parquet"] = Field("jsonl", title="Table", description="Parquet needs pyarrow.")
    template: str = Field(
        "{caption}",
        max_length=2000,
        title="Template of the column text",
        description="Of {trigger}, {caption}, {tags}, {rating} and {name}; what is empty takes its comma with it.",
    )


class ImageFolderExporter(DatasetExporter[ImageFolderOptions]):
    """metadata.jsonl or metadata.parquet: file_name, text, caption, tags, scores, rating, width, height, sha256,
    reviewed; Parquet also source and updated."""

    identifier = "imagefolder"
    label = "Hugging Face ImageFolder"
    description = 'Images with metadata.jsonl or metadata.parquet, for datasets.load_dataset("imagefolder").'
    Options = ImageFolderOptions

    @cached_property
    def captions(self) -> Captions:
        return Captions(self.options, self.source.names)

    def refusals(self) -> list[str]:
        found = super().refusals()
        if self.options.table == "parquet":
            try:
                arrow()
            except ExportError as e:
                found.append(str(e))
        return found

    def members(self) -> Iterator[Member]:
        spool = spooled()
        table = Table(text=True) if self.options.table == "parquet" else None
        for page in self.named():
            kept: list[tuple[Record, str]] = []
            for record, name in page:
                if self.with_files:
                    image = Member.of(name, Original(self.selection.collection, record.image))
                    yield image
                    if image.failed:
                        continue
                kept.append((record, name))
            if table is None:
                spool.write(b"".join(self._line(record, name) for record, name in kept))
            elif kept:
                records = [record for record, _ in kept]
                texts = [self.captions.of(record) for record in records]
                table.add(self.source.names, records, [name for _, name in kept], texts)
                spool.write(table.drain())
        if table is not None:
            spool.write(table.close())
        yield Member(f"metadata.{self.options.table}", drained(spool))

    def _line(self, record: Record, name: str) -> bytes:
        image, names = record.image, self.source.names
        row: dict[str, Any] = {
            "file_name": name,
            "text": self.captions.of(record),
            "caption": image.caption,
            "tags": [names.tags[tag_of(value)].name for value in record.tags],
            "scores": [score_of(value) for value in record.tags],
            "rating": image.rating,
            "width": image.width,
            "height": image.height,
            "sha256": image.sha256,
            "reviewed": image.review_state == ImageAsset.Review.REVIEWED,
        }
        return json.dumps(row, ensure_ascii=False).encode(errors="replace") + b"\n"
