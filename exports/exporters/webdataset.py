"""WebDataset: tar shards in which the members of a sample lie one after the other.

The key of a sample is its name up to the first dot (https://github.com/webdataset/webdataset), so keys are numbers:
`IMG.v1.jpg` and `IMG.v2.jpg` would be one sample. `000000042.jpg`, `.txt`, `.json`.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import Field

from .base import ExportError
from .captions import CaptionOptions, Captions
from .dataset import READ_AT_ONCE, DatasetExporter, DatasetOptions, Member, Original, size_of
from .reading import Record, score_of, tag_of

BLOCK = tarfile.BLOCKSIZE
MEGABYTE = 1_000_000


class WebDatasetOptions(CaptionOptions, DatasetOptions):
    files: Literal["none", "copy"] = Field(
        "copy",
        title="Image files",
        json_schema_extra={"labels": {"none": "texts only", "copy": "with the images"}},
    )
    shard_mb: int = Field(1000, ge=1, le=100_000, title="Size of a shard", description="Megabytes.")


class WebDatasetExporter(DatasetExporter[WebDatasetOptions]):
    """`<collection>-000000.tar`, …: per image the file as it is, the text, and a JSON object."""

    identifier = "webdataset"
    label = "WebDataset shards"
    description = "Tar files of about 1 GB for streaming training (webdataset, img2dataset's readers, datasets)."
    Options = WebDatasetOptions

    @property
    def _names_matter(self) -> bool:
        return False  # samples are numbered

    @cached_property
    def captions(self) -> Captions:
        return Captions(self.options, self.source.names)

    def members(self) -> Iterator[Member]:
        self._samples = enumerate(record for page in self.named() for record, _ in page)
        self._next = next(self._samples, None)
        shard = 0
        while self._next is not None or shard == 0:
            name = f"{self.selection.collection.slug or 'shard'}-{shard:06d}.tar"
            yield Member(name, self._shard(), packed=False)
            shard += 1

    def _shard(self) -> Iterator[bytes]:
        """One tar: samples until it is full. Takes `_next` and leaves there what comes after."""
        size, limit = 0, self.options.shard_mb * MEGABYTE
        while self._next is not None and size < limit:
            number, record = self._next
            for piece in self._sample(f"{number:09d}", record):
                size += len(piece)
                yield piece
            self._next = next(self._samples, None)
        yield bytes(2 * BLOCK)

    def _sample(self, key: str, record: Record) -> Iterator[bytes]:
        if self.with_files:
            original = Original(self.selection.collection, record.image)
            try:
                stream = original.open()
            except OSError as e:
                self.left_out.append((record.image.path, e.strerror or str(e)))
                return
            suffix = PurePosixPath(record.image.path).suffix.lower() or ".bin"
            with stream:
                size = size_of(stream)
                yield _header(key + suffix, size)
                left = size
                while left:
                    piece = stream.read(min(READ_AT_ONCE, left))
                    if not piece:
                        raise ExportError(f"{record.image.path} became shorter while it was read.")
                    left -= len(piece)
                    yield piece
                yield bytes(-size % BLOCK)
        for suffix, data in (
            (".txt", self.captions.of(record).encode(errors="replace")),
            (".json", self._json(record)),
        ):
            yield _header(key + suffix, len(data)) + data + bytes(-len(data) % BLOCK)

    def _json(self, record: Record) -> bytes:
        image, names = record.image, self.source.names
        row: dict[str, Any] = {
            "path": image.path,
            "sha256": image.sha256,
            "width": image.width,
            "height": image.height,
            "caption": image.caption,
            "rating": image.rating,
            "tags": [names.tags[tag_of(value)].name for value in record.tags],
            "scores": [score_of(value) for value in record.tags],
            "review_state": image.review_state,
        }
        return json.dumps(row, ensure_ascii=False).encode(errors="replace")


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.USTAR_FORMAT if size < 8 << 30 else tarfile.GNU_FORMAT)
