"""Differences between two texts by words, and between two versions of a wordlist by entries. Pure; bounded in time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

from .wordlists import Entry, format_entry

#: two blocks whose token counts multiply to more than this are shown as gone and new, not word by word
MAX_CELLS = 4_000_000
_TOKEN = re.compile(r"\s+|\w+|[^\w\s]")

Op = Literal["same", "gone", "new"]


class Piece(NamedTuple):
    """A run of text that both have, or that only the old (gone) or the new (new) one has."""

    op: Op
    text: str


def words(old: str, new: str) -> list[Piece]:
    """Word-level difference: lines are aligned first, then the words of lines that changed.

    Joining the texts of same and gone pieces gives `old`, those of same and new pieces `new`.
    """
    a, b = old.splitlines(keepends=True), new.splitlines(keepends=True)
    pieces: list[Piece] = []
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        before, after = "".join(a[i1:i2]), "".join(b[j1:j2])
        pieces += [Piece("same", before)] if tag == "equal" else _block(before, after)
    return _merged(pieces)


def _block(old: str, new: str) -> list[Piece]:
    a, b = _TOKEN.findall(old), _TOKEN.findall(new)
    if not a or not b or len(a) * len(b) > MAX_CELLS:
        return [Piece("gone", old), Piece("new", new)]
    pieces: list[Piece] = []
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag == "equal":
            pieces.append(Piece("same", "".join(a[i1:i2])))
        else:
            pieces += [Piece("gone", "".join(a[i1:i2])), Piece("new", "".join(b[j1:j2]))]
    return pieces


def _merged(pieces: Iterable[Piece]) -> list[Piece]:
    """Neighbours of one kind joined, empty ones out; a space between two changes belongs to them, so that a changed
    phrase reads as one."""
    found: list[Piece] = []
    held: dict[Op, str] = {"gone": "", "new": ""}

    def flush() -> None:
        for op in ("gone", "new"):
            if held[op]:
                found.append(Piece(op, held[op]))
                held[op] = ""

    rest = [piece for piece in pieces if piece.text]
    for i, piece in enumerate(rest):
        if piece.op != "same":
            held[piece.op] += piece.text
        elif held["gone"] and held["new"] and piece.text == " " and i + 1 < len(rest):
            held["gone"] += " "
            held["new"] += " "
        else:
            flush()
            if found and found[-1].op == "same":
                found[-1] = Piece("same", found[-1].text + piece.text)
            else:
                found.append(piece)
    flush()
    return found


def changed(pieces: Sequence[Piece]) -> bool:
    return any(piece.op != "same" for piece in pieces)


@dataclass(frozen=True, slots=True)
class ListDifference:
    """Lines of the text form that one version has and the other has not, in their order; and how many stayed.

    `changed` holds (old line, new line) of words that are in both with other fields.
    """

    added: list[str]
    removed: list[str]
    changed: list[tuple[str, str]]
    same: int

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


def entries(old: Sequence[Entry], new: Sequence[Entry], kind: str) -> ListDifference:
    """What a new version of a list changes. A move to another place counts as the same."""
    before, after = dict.fromkeys(old), dict.fromkeys(new)
    removed = [entry for entry in before if entry not in after]
    added = [entry for entry in after if entry not in before]
    by_word: dict[tuple[str, str], Entry] = {}
    for entry in removed:
        by_word.setdefault((entry.text, entry.match), entry)
    pairs: list[tuple[str, str]] = []
    really_added: list[str] = []
    for entry in added:
        other = by_word.pop((entry.text, entry.match), None)
        if other is None:
            really_added.append(format_entry(entry, kind))
        else:
            pairs.append((format_entry(other, kind), format_entry(entry, kind)))
            removed.remove(other)
    return ListDifference(
        really_added, [format_entry(entry, kind) for entry in removed], pairs, len(before.keys() & after.keys())
    )
