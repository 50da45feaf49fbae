"""JSON Lines: Imageworks' personal tagger, iwtag's own export, and whatever names an image and its tags alike.

Imageworks writes {"image": path, "keywords": [{"keyword", "score"}], "caption", "description", "models", "notes", …}
a line; its scores are only the rank (1 − rank/n) and are not taken over as probabilities. Datasets for training have
"file_name" and "text".
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO, ClassVar, Literal

from pydantic import Field

from .base import ImportOptions, ImportProblem, Item
from .tables import leveled, split_tags

LINE = 4 * 1024 * 1024  # bytes
BAD_LINES = 1000
_PATHS = ("path", "image", "file_name", "filename", "file", "image_path", "filepath")
_TAGS = ("tags", "keywords", "labels", "subject")


class JsonlOptions(ImportOptions):
    text: Literal["caption", "description", "both"] = Field(
        "caption",
        title="Which text is the caption",
        description="Imageworks writes a short caption and a longer description.",
        json_schema_extra={
            "labels": {"caption": "the caption", "description": "the description", "both": "both, a paragraph each"}
        },
    )
    hierarchy: str = Field(
        "",
        max_length=3,
        title="Between the levels of a tag",
        description="With | animal|dog is dog below animal. Empty: tags have no levels.",
        json_schema_extra={"advanced": True},
    )


class JsonlReader:
    """One object a line, UTF-8."""

    Options: ClassVar[type[ImportOptions]] = JsonlOptions
    several = False

    def __init__(self, stream: BinaryIO, options: JsonlOptions) -> None:
        """ImportProblem for a file that does not begin with an object."""
        self.warnings: list[str] = []
        self._stream, self._options = stream, options
        first = stream.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
        stream.seek(0)
        if first[:1] == b"[":
            raise ImportProblem("This is one JSON list; JSON Lines has one object a line.")
        if first[:1] != b"{":
            raise ImportProblem("This is no JSON Lines file: its first line is no object.")

    def total(self) -> int | None:
        return None

    def items(self) -> Iterator[Item]:
        number = bad = ranked = 0
        while line := self._stream.readline(LINE + 1):
            number += 1
            if len(line) > LINE:
                while line and not line.endswith(b"\n"):
                    line = self._stream.readline(LINE)
                yield Item(number, "", error=f"longer than {LINE // 2**20} MB")
                continue
            if not line.strip(b"\xef\xbb\xbf \t\r\n"):
                continue
            item = Item(number, "")
            try:
                ranked += self._read(line, item)
            except (ValueError, RecursionError) as e:
                bad += 1
                item.error = str(e) if isinstance(e, _Unusable) else "not a line of JSON"
            yield item
            if bad >= BAD_LINES:
                raise ImportProblem(f"{bad:,} lines are no JSON: this is no JSON Lines file.")
        if ranked:
            self.warnings.append("Imageworks' scores are ranks, not probabilities, and are left out.")

    def _read(self, line: bytes, item: Item) -> bool:
        """Fill the item; True where scores were left out. ValueError."""
        row = json.loads(line.decode("utf-8-sig"))
        if not isinstance(row, dict):
            raise _Unusable("not an object")
        item.key = _text(next((row[name] for name in _PATHS if row.get(name)), ""))
        item.sha256 = _text(row.get("sha256"))
        texts = {"caption": _text(row.get("caption") or row.get("text")), "description": _text(row.get("description"))}
        wanted = texts.values() if self._options.text == "both" else [texts[self._options.text]]
        item.caption = "\n\n".join(text for text in wanted if text) or None
        rating = row.get("rating")
        item.rating = _text(rating if not isinstance(rating, int) else str(rating)) or None
        imageworks = "keywords" in row and "schema_version" in row
        scores: list[Any] = row["scores"] if isinstance(row.get("scores"), list) else []
        said: Any = next((row[name] for name in _TAGS if row.get(name)), [])
        if isinstance(said, str):
            said = split_tags(said)
        if not isinstance(said, list):
            raise _Unusable("its tags are no list")
        for at, one in enumerate(said):
            name, score = _named(one)
            if score is None and len(scores) == len(said) and isinstance(scores[at], int | float):
                score = float(scores[at])
            word = leveled(name, self._options.hierarchy)
            item.words.append(word._replace(score=None if imageworks else score))
        notes = _text(row.get("notes"))
        failed = "inference_failed" in notes or "_error:" in notes
        if imageworks and failed and not item.words and not item.caption:
            raise _Unusable(f"Imageworks failed on it: {notes[:200]}")
        return imageworks and bool(item.words)


class _Unusable(ValueError):
    """A line that is JSON and says nothing that can be used; the text says why."""


def _named(one: Any) -> tuple[str, float | None]:
    if isinstance(one, str):
        return one, None
    if isinstance(one, dict):
        name = next((one[k] for k in ("keyword", "tag", "name", "label") if isinstance(one.get(k), str)), "")
        score = one.get("score")
        if name:
            return name, float(score) if isinstance(score, int | float) and 0 <= score <= 1 else None
    raise _Unusable("its tags are not words")


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""
