"""JSON Lines: one object per image, UTF-8, the columns of the wide CSV with real lists. Nothing is escaped but JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from .base import Exporter, ExportOptions, Plan
from .counting import left_out
from .lookups import Written
from .reading import NO_SCORE, SCALE, TAG_BITS, TAG_SHIFT, ImageRow, Packed, Record, Source

_encoded = json.JSONEncoder(ensure_ascii=False).encode  # dumps() would make an encoder for every word


class JsonlOptions(ExportOptions):
    """What every format is asked, no more."""


class JsonlExporter(Exporter[JsonlOptions]):
    """`{"id", "path", "sha256", "width", "height", "captured_at", "review_state", "caption", "rating", "tags",
    "scores"}` a line.

    `scores` has one entry per entry of `tags`: null where a person added the tag. `captured_at` is the camera's local
    time without a zone, or null.
    """

    identifier = "jsonl"
    label = "JSON Lines"
    description = "One object per image, for scripts, pandas and Hugging Face datasets."
    extension = "jsonl"
    content_type = "application/x-ndjson; charset=utf-8"
    Options = JsonlOptions

    def plan(self) -> Plan:
        images = Source(self.selection, self.options).images.count()
        skipped, warnings = left_out(self.selection, self.options, images)
        return Plan(images=images, rows=images, skipped=skipped, warnings=warnings)

    def stream(self) -> Iterator[bytes]:
        source = Source(self.selection, self.options)
        lines = Lines(source)
        for page in source.pages():
            data = lines.encode(page)
            self.rows += len(page)
            yield data


class Lines:
    """Records as JSON lines. Names and scores are encoded once, not once a tag: that is what makes it fast."""

    def __init__(self, source: Source) -> None:
        self._written = Written(source.names, text)
        self._scores = _Scores({NO_SCORE: "null"})

    def encode(self, page: Sequence[Record]) -> bytes:
        return "".join([self._line(image, tags) for image, tags in page]).encode()

    def _line(self, image: ImageRow, packed: Sequence[Packed]) -> str:
        written, scores = self._written, self._scores
        tags = ", ".join([written[value & TAG_BITS] for value in packed])
        said = ", ".join([scores[value >> TAG_SHIFT] for value in packed])
        when = f'"{image.captured_at}"' if image.captured_at else "null"
        return (
            f'{{"id": {image.id}, "path": {text(image.path)}, "sha256": "{image.sha256}", "width": {image.width}, '
            f'"height": {image.height}, "captured_at": {when}, "review_state": "{image.review_state}", '
            f'"caption": {text(image.caption)}, "rating": {text(image.rating)}, '
            f'"tags": [{tags}], "scores": [{said}]}}\n'
        )


class _Scores(dict[int, str]):
    """Rank → the score as a JSON number."""

    def __missing__(self, rank: int) -> str:
        written = self[rank] = f"{-rank / SCALE:.4g}"
        return written


def text(value: str) -> str:
    """A JSON string, readable; lone surrogates (from file names that are no UTF-8) as escapes."""
    encoded = _encoded(value)
    return encoded if encoded.isascii() or _utf8(encoded) else json.dumps(value)


def _utf8(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
