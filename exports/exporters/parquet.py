"""Apache Parquet: one row per image, for data frames and training; written as a stream, a row group at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from pydantic import Field

from tagging.models import ImageAsset

from .base import Exporter, ExportError, ExportOptions, Plan
from .counting import left_out
from .lookups import Names
from .reading import NO_SCORE, SCALE, TAG_BITS, TAG_SHIFT, DetailedRecord, Record, Source, TagRow

ROW_GROUP = 50_000
REPEATED = ["rating", "tags.list.element", "source.list.element"]  # a dictionary of what is unique only costs
INSTALL = "install it in iwtag's folder: .venv/bin/pip install '.[parquet]'"


def arrow(name: str = "pyarrow") -> Any:
    """A module of pyarrow, imported when it is used. ExportError that says how to install it."""
    try:
        return import_module(name)
    except ImportError:
        raise ExportError(f"Parquet needs the package pyarrow, which is not here: {INSTALL}") from None


class ParquetOptions(ExportOptions):
    origins: bool = Field(
        False,
        title="Name the models",
        description="In `source` the adapters that proposed a tag, instead of only model or person. Takes about twice "
        "as long.",
    )


class ParquetExporter(Exporter[ParquetOptions]):
    """One Parquet file, zstd, row groups of 50,000.

    `file_name` string, `sha256` string, `width`, `height` int32, `caption` string, `rating` string, `tags`
    list<string>, `scores` list<float> (null where a person added the tag), `source` list<string> (one for each tag),
    `reviewed` bool, `updated` timestamp[us, UTC]: when a person last reviewed it, else when it was indexed.
    """

    identifier = "parquet"
    label = "Parquet"
    description = "One row per image, compressed: pandas, polars, DuckDB, Spark, Hugging Face datasets. Needs pyarrow."
    extension = "parquet"
    content_type = "application/vnd.apache.parquet"
    Options = ParquetOptions

    def plan(self) -> Plan:
        images = Source(self.selection, self.options).images.count()
        skipped, warnings = left_out(self.selection, self.options, images)
        return Plan(images, images, skipped, warnings, self.refusals())

    def refusals(self) -> list[str]:
        try:
            arrow()
        except ExportError as e:
            return [str(e)]
        return []

    def stream(self) -> Iterator[bytes]:
        table = Table()
        yield table.drain()  # the magic bytes: the answer begins at once
        source = Source(self.selection, self.options)
        pages = source.detailed() if self.options.origins else source.pages()
        for page in pages:
            table.add(source.names, page)
            self.rows += len(page)
            if data := table.drain():
                yield data
        yield table.close()


class Table:
    """A Parquet file in the making: `add` pages, `drain` what was written so far, `close` for the rest."""

    def __init__(self, row_group: int = ROW_GROUP, *, text: bool = False) -> None:
        """`text` adds a column of that name after `file_name`. ExportError without pyarrow."""
        self.pa = arrow()
        self._pipe = _Pipe()
        self._row_group = row_group
        self._batches: list[Any] = []
        self._waiting = 0
        self.schema = _schema(self.pa)
        if text:
            self.schema = self.schema.insert(1, self.pa.field("text", self.pa.string()))
        parquet = arrow("pyarrow.parquet")
        self._writer = parquet.ParquetWriter(self._pipe, self.schema, compression="zstd", use_dictionary=REPEATED)

    def add(
        self,
        names: Names,
        page: Sequence[Record] | Sequence[DetailedRecord],
        paths: Sequence[str] | None = None,
        texts: Sequence[str] | None = None,
    ) -> None:
        """Rows of one page. `paths` names the files other than they are named in the collection."""
        columns = _columns_of(self.pa, names, page, paths)
        if texts is not None:
            columns["text"] = self.pa.array([_clean(text) for text in texts], self.pa.string())
        self._batches.append(
            self.pa.RecordBatch.from_arrays([columns[name] for name in self.schema.names], schema=self.schema)
        )
        self._waiting += len(page)
        if self._waiting >= self._row_group:
            self._flush()

    def _flush(self) -> None:
        if self._batches:
            self._writer.write_table(self.pa.Table.from_batches(self._batches, self.schema), self._row_group)
            self._batches, self._waiting = [], 0

    def drain(self) -> bytes:
        return self._pipe.take()

    def close(self) -> bytes:
        self._flush()
        self._writer.close()
        return self._pipe.take()


class _Pipe:
    """A file that is only written to, and emptied by its reader."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._at = 0

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        self._at += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        return

    def close(self) -> None:
        self.closed = True

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def take(self) -> bytes:
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data


def _schema(pa: Any) -> Any:
    return pa.schema(
        [
            ("file_name", pa.string()),
            ("sha256", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("caption", pa.string()),
            ("rating", pa.string()),
            ("tags", pa.list_(pa.string())),
            ("scores", pa.list_(pa.float32())),
            ("source", pa.list_(pa.string())),
            ("reviewed", pa.bool_()),
            ("updated", pa.timestamp("us", tz="UTC")),
        ]
    )


def _columns_of(
    pa: Any, names: Names, page: Sequence[Record] | Sequence[DetailedRecord], paths: Sequence[str] | None
) -> dict[str, Any]:
    images = [record.image for record in page]
    offsets = np.zeros(len(page) + 1, np.int32)
    np.cumsum([len(record.tags) for record in page], out=offsets[1:])
    ids, ranks, (kinds, which) = _columns(names, page, int(offsets[-1]))
    used, index = np.unique(ids, return_inverse=True)
    words = pa.array([_clean(names.tags[int(pk)].name) for pk in used], pa.string())
    unsure = ranks == NO_SCORE
    scores = pa.array(np.where(unsure, 0, -ranks / SCALE).astype(np.float32), mask=unsure)
    when = _updated([image.id for image in images])
    files = paths if paths is not None else [image.path for image in images]
    reviewed = [image.review_state == ImageAsset.Review.REVIEWED for image in images]
    return {
        "file_name": pa.array([_clean(path) for path in files], pa.string()),
        "sha256": pa.array([image.sha256 for image in images], pa.string()),
        "width": pa.array([image.width for image in images], pa.int32()),
        "height": pa.array([image.height for image in images], pa.int32()),
        "caption": pa.array([_clean(image.caption) for image in images], pa.string()),
        "rating": pa.array([image.rating for image in images], pa.string()),
        "tags": pa.ListArray.from_arrays(offsets, words.take(pa.array(index))),
        "scores": pa.ListArray.from_arrays(offsets, scores),
        "source": pa.ListArray.from_arrays(offsets, pa.array(kinds, pa.string()).take(pa.array(which))),
        "reviewed": pa.array(reviewed, pa.bool_()),
        "updated": pa.array([when.get(image.id) for image in images], pa.timestamp("us", tz="UTC")),
    }


def _columns(
    names: Names, page: Sequence[Record] | Sequence[DetailedRecord], n: int
) -> tuple[np.ndarray, np.ndarray, tuple[list[str], np.ndarray]]:
    """(tag ids, ranks, (names of sources, which of them)) of all tags of a page, one after the other."""
    if page and isinstance(page[0], DetailedRecord):
        rows: list[TagRow] = [row for record in page for row in record.tags]  # type: ignore[misc]
        kinds: dict[str, int] = {}
        which = np.empty(n, np.int64)
        for i, row in enumerate(rows):
            by_model = names.run(row.run_id)[1] or "model"
            which[i] = kinds.setdefault("person" if row.rank == NO_SCORE else by_model, len(kinds))
        ids = np.fromiter((row.tag_id for row in rows), np.int64, n)
        ranks = np.fromiter((row.rank for row in rows), np.int64, n)
        return ids, ranks, (list(kinds), which)
    packed = np.fromiter((value for record in page for value in record.tags), np.int64, n)
    ranks = packed >> TAG_SHIFT
    return packed & TAG_BITS, ranks, (["model", "person"], (ranks == NO_SCORE).astype(np.int64))


def _updated(ids: Sequence[int]) -> dict[int, Any]:
    rows = ImageAsset.objects.filter(pk__in=ids).values_list("pk", "reviewed_at", "added_at")
    return {pk: reviewed or added for pk, reviewed, added in rows}


def _clean(text: str) -> str:
    """File names that are no UTF-8 cannot stand in a Parquet string as they are."""
    return text if text.isascii() else text.encode(errors="replace").decode()
