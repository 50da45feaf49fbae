"""CSV tables: iwtag's own wide and long layouts, read back exactly, and tables of others with chosen columns."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, ClassVar, Literal

from pydantic import Field

from prompts.cells import split_text, unescape_cell

from ..exporters.csv import LONG, WIDE
from .base import ImportOptions, ImportProblem, Item, Word

CELL = 16 * 1024 * 1024  # characters; the csv module refuses more than 128 KiB unless told
BAD_ROWS = 1000  # after so many broken rows in a row the file is no table
_HEAD = 64 * 1024
_PATHS = ("path", "file_name", "filename", "file", "filepath", "file_path", "image", "image_path", "sourcefile", "name")
_TAGS = ("tags", "keywords", "subject", "hierarchicalsubject", "labels", "keyword", "tag", "label")
_CAPTIONS = ("caption", "description", "text", "title")
_RATINGS = ("rating",)
_SHA = ("sha256", "hash", "checksum")


class CsvOptions(ImportOptions):
    """Which columns say what. Empty: found by their names."""

    path_column: str = Field("", max_length=200, title="Column of the path or file name")
    tags_column: str = Field("", max_length=200, title="Column of the tags")
    caption_column: str = Field("", max_length=200, title="Column of the caption")
    rating_column: str = Field("", max_length=200, title="Column of the rating", json_schema_extra={"advanced": True})
    separator: str = Field(
        "",
        max_length=5,
        title="Between tags in a cell",
        description="Empty: a JSON list, else semicolons where there are any, else commas.",
        json_schema_extra={"advanced": True},
    )
    hierarchy: str = Field(
        "|",
        max_length=3,
        title="Between the levels of a tag",
        description="animal|dog is dog below animal. Empty: tags have no levels.",
        json_schema_extra={"advanced": True},
    )
    encoding: Literal["auto", "utf-8", "cp1252", "latin-1", "utf-16"] = Field(
        "auto",
        title="Encoding",
        description="auto: UTF-8, or UTF-16 with a byte-order mark.",
        json_schema_extra={"advanced": True},
    )


class CsvReader:
    """A CSV file. The header decides: iwtag's own layouts are known, others are read by their columns."""

    Options: ClassVar[type[ImportOptions]] = CsvOptions

    def __init__(self, stream: BinaryIO, options: CsvOptions) -> None:
        """Reads the header. ImportProblem where it has none, or not the columns that were asked for."""
        self.warnings: list[str] = []
        self._options = options
        head = stream.read(_HEAD)
        stream.seek(0)
        self._text = io.TextIOWrapper(stream, encoding=_encoding(head, options.encoding), newline="")
        csv.field_size_limit(max(csv.field_size_limit(), CELL))
        try:
            sample = self._text.readline(_HEAD)
            self._text.seek(0)
            self._rows = csv.reader(self._text, delimiter=_delimiter(sample), strict=False)
            header = next(self._rows, [])
        except UnicodeDecodeError as e:
            raise ImportProblem(_undecodable(1, e)) from None
        except csv.Error as e:
            raise ImportProblem(f"This is no CSV table: {e}.") from None
        self.header = [name.strip() for name in header]
        if not any(self.header):
            raise ImportProblem("The table is empty: its first row must name the columns.")
        chosen = options.path_column or options.tags_column or options.caption_column or options.rating_column
        known = tuple(self.header)
        self.layout = "" if chosen else {WIDE: "wide", LONG: "long"}.get(known, "")
        self.several = self.layout == "long"
        self._at = self._columns()

    def total(self) -> int | None:
        return None

    def _columns(self) -> dict[str, int]:
        if self.layout:
            return {name: i for i, name in enumerate(self.header)}
        o = self._options
        at: dict[str, int] = {}
        for what, given, names in (
            ("path", o.path_column, _PATHS),
            ("tags", o.tags_column, _TAGS),
            ("caption", o.caption_column, _CAPTIONS),
            ("rating", o.rating_column, _RATINGS),
            ("sha256", "", _SHA),
        ):
            found = self._find(what, given, names)
            if found is not None and found not in at.values():
                at[what] = found
        there = ", ".join(self.header[:20])
        if "path" not in at:
            raise ImportProblem(f"path_column: Say which column names the image. The table has: {there}.")
        if not {"tags", "caption", "rating"} & at.keys():
            raise ImportProblem(f"tags_column: Say which column has the tags or the caption. The table has: {there}.")
        if self.header[at.get("tags", 0)].casefold() in ("tag", "keyword", "label"):
            self.several = True  # a row for each tag
        return at

    def _find(self, what: str, given: str, names: Sequence[str]) -> int | None:
        folded = [name.casefold() for name in self.header]
        if given:
            wanted = given.strip().casefold()
            if wanted not in folded:
                there = ", ".join(self.header[:20])
                raise ImportProblem(f"{what}_column: There is no column {given!r}. The table has: {there}.")
            return folded.index(wanted)
        return next((folded.index(name) for name in names if name in folded), None)

    def items(self) -> Iterator[Item]:
        """An item a row; in the long layout one for each run of rows of the same image."""
        waiting: Item | None = None
        for item in self._each():
            if not self.several or item.error:
                if waiting is not None:
                    yield waiting
                    waiting = None
                yield item
            elif waiting is not None and waiting.key == item.key:
                waiting.add(item)
            else:
                if waiting is not None:
                    yield waiting
                waiting = item
        if waiting is not None:
            yield waiting

    def _each(self) -> Iterator[Item]:
        bad = 0
        while True:
            try:
                row = next(self._rows)
            except StopIteration:
                return
            except UnicodeDecodeError as e:
                yield Item(self._rows.line_num + 1, "", error=_undecodable(self._rows.line_num + 1, e))
                return
            except csv.Error as e:
                bad += 1
                yield Item(self._rows.line_num, "", error=f"not a row of a CSV table: {e}")
                if bad >= BAD_ROWS:
                    return
                continue
            if not row or not any(cell.strip() for cell in row):
                continue
            if len(row) != len(self.header):
                what = f"{len(row)} cells where the table has {len(self.header)} columns"
                at = self._at["path"]
                yield Item(self._rows.line_num, row[at][:500] if at < len(row) else "", error=what)
                continue
            yield self._item(row)

    def _item(self, row: list[str]) -> Item:
        make = {"wide": self._wide, "long": self._long}.get(self.layout, self._foreign)
        item = Item(self._rows.line_num, "")
        try:
            make(row, item)
        except ValueError as e:
            item.error = str(e)
        return item

    def _own(self, row: list[str], name: str) -> str:
        return unescape_cell(row[self._at[name]])

    def _wide(self, row: list[str], item: Item) -> None:
        item.key, item.sha256 = self._own(row, "path"), row[self._at["sha256"]].strip()
        item.caption = self._own(row, "caption") or None
        item.rating = self._own(row, "rating") or None
        cell = row[self._at["tags"]]
        if cell.startswith("["):
            item.words = [Word(name) for name in _json_names(cell)]
            scores = _json_scores(row[self._at["scores"]], len(item.words))
        else:
            item.words = [Word(name) for name in split_text(unescape_cell(cell))]
            cells = row[self._at["scores"]].split("; ")
            scores = [_score(text) for text in cells] if len(cells) == len(item.words) else []
        if scores:
            item.words = [w._replace(score=s) for w, s in zip(item.words, scores, strict=True)]

    def _long(self, row: list[str], item: Item) -> None:
        item.key = self._own(row, "path")
        name, parent = self._own(row, "tag"), self._own(row, "parent")
        state = row[self._at["state"]].strip()
        if not name:
            return
        item.words = [
            Word(
                name,
                (parent,) if parent else (),
                state if state in ("rejected", "proposed") else "",
                score=_score(row[self._at["score"]]),
                category=self._own(row, "category") or "general",
            )
        ]

    def _foreign(self, row: list[str], item: Item) -> None:
        item.key = row[self._at["path"]].strip()
        if (at := self._at.get("sha256")) is not None and len(row[at].strip()) == 64:
            item.sha256 = row[at].strip()
        if (at := self._at.get("caption")) is not None:
            item.caption = row[at].strip() or None
        if (at := self._at.get("rating")) is not None:
            item.rating = row[at].strip() or None
        if (at := self._at.get("tags")) is not None:
            names = split_tags(row[at], self._options.separator, single=self.several)
            item.words = [leveled(name, self._options.hierarchy) for name in names]


def leveled(name: str, separator: str) -> Word:
    """animal|dog as dog below animal."""
    levels = [level.strip() for level in name.split(separator)] if separator else [name.strip()]
    levels = [level for level in levels if level] or [name.strip()]
    return Word(levels[-1], tuple(levels[:-1]))


def split_tags(cell: str, separator: str = "", *, single: bool = False) -> list[str]:
    """The tags of a cell of somebody else's. ValueError for a broken JSON list."""
    text = cell.strip()
    if not text:
        return []
    if not separator and text.startswith("[") and text.endswith("]"):
        return _json_names(text)
    if single and not separator:
        return [text]
    mark = separator or (";" if ";" in text else ",")
    return [name for part in text.split(mark) if (name := part.strip())]


def _json_names(cell: str) -> list[str]:
    try:
        found: Any = json.loads(cell)
    except ValueError:
        raise ValueError("the tags begin with [ but are no JSON list") from None
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise ValueError("the tags are no JSON list of words")
    return [name for name in found if name.strip()]


def _json_scores(cell: str, n: int) -> list[float | None]:
    try:
        found: Any = json.loads(cell) if cell else []
    except ValueError:
        return []
    fits = isinstance(found, list) and len(found) == n
    return [float(s) if isinstance(s, int | float) else None for s in found] if fits else []


def _score(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None


def _encoding(head: bytes, asked: str) -> str:
    if asked not in ("auto", "utf-8"):
        return asked
    if asked == "auto" and head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig"


def _undecodable(line: int, error: UnicodeDecodeError) -> str:
    what = f"from about line {line} on it is not {error.encoding.upper()} text"
    return f"{what}: save it as CSV UTF-8, or choose its encoding"


def _delimiter(header: str) -> str:
    """Of comma, semicolon and tab the one that the header has most often."""
    return max(",;\t", key=header.count)
