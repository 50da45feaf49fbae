"""What an entry of the ledger changes, word by word, as a person thinks of it.

One tag stands in several fields (flat, in two hierarchies, among what iwtag says of itself); a person sees it once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .models import ExportEntry
from .xmp.merge import Kind, compare_key

#: Where the fields disagree (a person had put the word into one of them), the first of these is what is shown.
_ORDER: dict[str, int] = {"removed": 0, "added": 1, "withheld": 2, "kept": 3}
_WINS: dict[str, int] = {"added": 0, "withheld": 1, "removed": 2, "kept": 3}
_SEPARATOR = {"lr:hierarchicalSubject": "|", "mediapro:CatalogSets": "|", "acdsee:categories": "|"}
_PATHS = ("digiKam:TagsList", "MicrosoftPhoto:LastKeywordXMP", *_SEPARATOR)
_LOOK_ALIKES = str.maketrans({"\uff5c": "|", "\u2215": "/"})


@dataclass(slots=True)
class Word:
    """A tag and what happens to it. `paths` are its places in the hierarchy, levels joined by " › "."""

    name: str
    kind: Kind
    why: str
    paths: list[str] = field(default_factory=list)
    fields: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Text:
    """A text that changes: caption, label."""

    field: str
    before: str
    after: str


def words(described: Mapping[str, Any]) -> list[Word]:
    """The words of an entry's `fields`: removed, added, withheld, then those that stay."""
    found: dict[str, Word] = {}
    kinds: dict[str, set[str]] = {}
    for name, what in described.items():
        for text, kind, why in what.get("changes", ()):
            levels = text.split(_SEPARATOR.get(name, "/")) if name in _PATHS else [text]
            leaf = levels[-1].translate(_LOOK_ALIKES) if name in _PATHS else text
            key = compare_key(leaf)
            word = found.setdefault(key, Word(leaf, kind, why))
            kinds.setdefault(key, set()).add(kind)
            if _WINS[kind] < _WINS[word.kind]:
                word.kind, word.why = kind, why
            word.fields.append(name)
            path = " › ".join(level.translate(_LOOK_ALIKES) for level in levels)
            if len(levels) > 1 and kind != "removed" and path not in word.paths:
                word.paths.append(path)
    for key, word in found.items():
        if {"added", "removed"} <= kinds[key]:
            word.kind, word.why = "kept", "its place in the hierarchy changes"
    return sorted(found.values(), key=lambda w: _ORDER[w.kind])


def texts(described: Mapping[str, Any]) -> list[Text]:
    return [Text(name, what["before"], what["after"]) for name, what in described.items() if "after" in what]


_BIT = {"added": 1, "withheld": 2, "removed": 4, "kept": 8}


def count(entry: ExportEntry) -> None:
    """Fill in the entry's numbers of words by kind: what `words` says, without making the words."""
    masks: dict[str, int] = {}
    for name, what in entry.fields.items():
        separator = _SEPARATOR.get(name, "/") if name in _PATHS else ""
        for text, kind, _ in what.get("changes", ()):
            if separator:
                text = text.rpartition(separator)[2]
                if not text.isascii():
                    text = text.translate(_LOOK_ALIKES)
            key = compare_key(text)
            masks[key] = masks.get(key, 0) | _BIT[kind]
    # a word that is both put in and taken out stays: its place in the hierarchy changes
    counted = [8 if mask & 5 == 5 else mask & -mask for mask in masks.values()]
    entry.n_added, entry.n_withheld = counted.count(1), counted.count(2)
    entry.n_removed, entry.n_kept = counted.count(4), counted.count(8)
    entry.texts = any("after" in what for what in entry.fields.values())
