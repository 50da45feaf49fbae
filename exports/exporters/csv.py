"""CSV tables of reviewed truth or proposals: safe to open in a spreadsheet, and exact to read back.

The rule for cells is that of `prompts.cells`: `unescape_cell` gives every text cell back as it was, `split_text` the
tags of a text cell.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import Field

from prompts.cells import (
    DANGEROUS,
    ESCAPED,
    TEXT_SEPARATOR,
    escape_cell,
    escape_name,
    join_text,
    split_text,
    unescape_cell,
)
from tagging.models import ImageTag

from .base import Exporter, ExportOptions, Plan
from .counting import left_out
from .lookups import NAMES_KEPT, Names
from .reading import NO_SCORE, SCALE, TAG_BITS, TAG_SHIFT, ImageRow, Packed, Record, Source, TagRow

BOM = b"\xef\xbb\xbf"
__all__ = ["DANGEROUS", "CsvExporter", "CsvOptions", "escape_cell", "join_text", "split_text", "unescape_cell"]
ROWS_AT_ONCE = 1000


WIDE = ("id", "path", "sha256", "width", "height", "captured_at", "review_state", "caption", "rating", "tags", "scores")
LONG = ("id", "path", "tag", "category", "parent", "state", "score", "run", "adapter", "reviewer")
_STATES = {state.value: state.label for state in ImageTag.State}


class CsvOptions(ExportOptions):
    layout: Literal["wide", "long"] = Field(
        "wide",
        title="Layout",
        description="Wide: a row for each image. Long: a row for each tag of an image, with where it came from.",
        json_schema_extra={"labels": {"wide": "wide, a row per image", "long": "long, a row per tag"}},
    )
    tags_as: Literal["json", "text"] = Field(
        "json",
        title="Tags in the wide layout",
        description='JSON reads back exactly; text is joined by "; ", a semicolon in a tag written as "\\;".',
        json_schema_extra={
            "advanced": True,
            "labels": {"json": 'JSON, ["cat", "dog"]', "text": "text, cat; dog"},
        },
    )
    rejected: bool = Field(
        False,
        title="Also rejected tags",
        description="Rows of tags that a person refused (long layout only): examples of what is not there.",
        json_schema_extra={"advanced": True},
    )
    excel: bool = Field(
        False,
        title="For Excel",
        description="With a byte-order mark and Windows line ends, so that Excel reads accents and emoji.",
    )


class CsvExporter(Exporter[CsvOptions]):
    """One CSV file, UTF-8, comma-separated, as RFC 4180 quotes."""

    identifier = "csv"
    label = "CSV table"
    description = "For spreadsheets, scripts and data frames."
    extension = "csv"
    content_type = "text/csv; charset=utf-8"
    Options = CsvOptions

    @property
    def _source(self) -> Source:
        rejected = self.options.layout == "long" and self.options.rejected
        return Source(self.selection, self.options, rejected=rejected)

    def plan(self) -> Plan:
        source = self._source
        images, rows = source.counts() if self.options.layout == "long" else (source.images.count(),) * 2
        skipped, warnings = left_out(self.selection, self.options, images)
        return Plan(images=images, rows=rows, skipped=skipped, warnings=warnings)

    def stream(self) -> Iterator[bytes]:
        source = self._source
        end = "\r\n" if self.options.excel else "\n"
        table: _Wide | _Long = (
            _Wide(source.names, self.options, end) if self.options.layout == "wide" else _Long(source.names, end)
        )
        head = _Lines(end).encode([table.columns])
        yield BOM + head if self.options.excel else head
        for rows in table.pages(source):
            for at in range(0, len(rows), ROWS_AT_ONCE):
                part = rows[at : at + ROWS_AT_ONCE]
                self.rows += len(part)
                yield table.encode(part)  # type: ignore[arg-type]  # each encodes what its own pages give


class _Lines:
    """Rows as CSV bytes, with line ends of LF or CR LF."""

    def __init__(self, end: str) -> None:
        self.end = end

    def encode(self, rows: Sequence[Sequence[Any]]) -> bytes:
        text = _written(rows, self.end)
        if self.end == "\n" and "\r" in text:
            # the writer quotes only what its own line end has in it; readers stumble over a bare CR all the same
            return "\n".join([_written([row], "\r\n").removesuffix("\r\n") for row in [*rows, ()]]).encode()
        return text.encode()


def _written(rows: Sequence[Sequence[Any]], end: str) -> str:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator=end).writerows(rows)
    return out.getvalue()


class _Scores(dict[int, str]):
    """Rank → the score as text with four digits; `nothing` where a person added the tag."""

    def __init__(self, nothing: str) -> None:
        super().__init__({NO_SCORE: nothing})

    def __missing__(self, rank: int) -> str:
        text = self[rank] = f"{-rank / SCALE:.4f}"
        return text


_special = re.compile('[",\r\n]').search


def _cell(text: str) -> str:
    """One cell of a line, escaped and quoted where it must be, as csv.writer does it."""
    if text[:1] in ESCAPED:
        text = escape_cell(text)
    return f'"{_doubled(text)}"' if _special(text) else text


def _doubled(text: str) -> str:
    return text.replace('"', '""')


class _Wide:
    """One row per image. `scores` has one entry per entry of `tags`: null (or nothing) where a person added the tag.

    The lines are put together here, names already quoted: csv.writer would look at every character of every tag again.
    """

    columns = WIDE

    def __init__(self, names: Names, options: CsvOptions, end: str) -> None:
        self.end = end
        self.json = options.tags_as == "json"
        self._names = names
        self._write = _json_text if self.json else escape_name
        # plain dicts: what is looked up ten million times is not worth a look for what is missing
        self.written: dict[int, str] = {}  # tag id → its name as it stands in the cell
        self.scores = {rank: f"{-rank / SCALE:.4f}" for rank in range(-SCALE, 1)}
        self.scores[NO_SCORE] = "null" if self.json else ""

    def encode(self, rows: Sequence[str]) -> bytes:
        return self.end.join([*rows, ""]).encode()

    def pages(self, source: Source) -> Iterator[list[str]]:
        for page in source.pages():
            try:
                yield self._lines(page)
            except KeyError:
                self._learn(page)
                yield self._lines(page)

    def _lines(self, page: Sequence[Record]) -> list[str]:
        cells = self._json_cells if self.json else self._text_cells
        return [
            f"{pk},{_cell(path)},{sha256},{width},{height},{at},{review},{caption and _cell(caption)},"
            f"{rating and _cell(rating)},{cells(packed)}"
            for (pk, path, sha256, width, height, at, review, caption, _, rating, _, _), packed in page
        ]

    def _learn(self, page: Sequence[Record]) -> None:
        """Names, and scores out of the ordinary, that were not met before."""
        if len(self.written) > NAMES_KEPT:
            self.written.clear()
        for _, packed in page:
            for value in packed:
                if (pk := value & TAG_BITS) not in self.written:
                    self.written[pk] = self._write(self._names.tags[pk].name)
                if (rank := value >> TAG_SHIFT) not in self.scores:
                    self.scores[rank] = f"{-rank / SCALE:.4f}"

    def _json_cells(self, packed: Sequence[Packed]) -> str:
        written, said = self.written, self.scores
        tags = ", ".join([written[value & TAG_BITS] for value in packed])
        scores = ", ".join([said[value >> TAG_SHIFT] for value in packed])
        return f'"[{tags}]","[{scores}]"'

    def _text_cells(self, packed: Sequence[Packed]) -> str:
        written, said = self.written, self.scores
        tags = TEXT_SEPARATOR.join([written[value & TAG_BITS] for value in packed])
        scores = TEXT_SEPARATOR.join([said[value >> TAG_SHIFT] for value in packed])
        return f"{_cell(tags)},{scores}"


def _json_text(name: str) -> str:
    """As JSON within a quoted cell."""
    return _doubled(json.dumps(name, ensure_ascii=False))


class _Long:
    """One row per image and tag: state, score, the run and adapter that proposed it, who reviewed the image."""

    columns = LONG

    def __init__(self, names: Names, end: str) -> None:
        self.names = names
        self.scores = _Scores("")
        self.encode = _Lines(end).encode

    def pages(self, source: Source) -> Iterator[list[tuple[Any, ...]]]:
        for page in source.detailed():
            yield [row for record in page for row in self._of(*record)]

    def _of(self, image: ImageRow, rows: Sequence[TagRow]) -> Iterator[tuple[Any, ...]]:
        path = escape_cell(image.path)
        reviewer = escape_cell(self.names.person(image.reviewed_by))
        for row in rows:
            rank, tag_id, state, run_id = row
            tag = self.names.tags[tag_id]
            run, adapter = self.names.run(run_id)
            yield (
                image.id,
                path,
                escape_cell(tag.name),
                escape_cell(tag.category),
                escape_cell(tag.parent),
                _STATES[state],
                self.scores[rank],
                escape_cell(run),
                escape_cell(adapter),
                reviewer,
            )
