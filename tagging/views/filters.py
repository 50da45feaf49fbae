"""An ImageFilter as a person reads it."""

from __future__ import annotations

from dataclasses import dataclass

from ..filters import ImageFilter

SORTS = [
    ("id", "as indexed"),
    ("-id", "newest first"),
    ("queue", "review order"),
    ("score", "most certain first"),
    ("-score", "least certain first"),
]


@dataclass(frozen=True, slots=True)
class Word:
    """One part of a filter in words, and the address without it."""

    text: str
    without: str


def words(f: ImageFilter) -> list[Word]:
    """The filter's parts in a fixed order, each with the query string that drops it (and keeps the others)."""
    found: list[Word] = []

    def add(text: str, **changes: object) -> None:
        found.append(Word(text, f.query_string(**changes)))

    if f.review:
        # the queue's order is about unreviewed images: it goes with them
        add(f.review, review="", **({"sort": ""} if f.sort == "queue" else {}))
    if f.run is not None:
        add(f"run {f.run}", run=None)
    for name in f.tag:
        add(f"tag {name}", tag=tuple(t for t in f.tag if t != name))
    for name in f.not_tag:
        add(f"not {name}", not_tag=tuple(t for t in f.not_tag if t != name))
    if f.min_score is not None:
        add(f"p ≥ {f.min_score:g}", min_score=None)
    if f.max_score is not None:
        add(f"p ≤ {f.max_score:g}", max_score=None)
    if f.rating:
        add(f"rated {f.rating}", rating="")
    if f.errors:
        add("with errors", errors=False)
    if f.missing:
        add("missing files", missing=False)
    if f.q:
        add(f"path has “{f.q}”", q="")
    return found
