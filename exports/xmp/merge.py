"""What to write where words already stand: iwtag's words and a person's own live in the same list."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Mode = Literal["merge", "replace_own", "only_empty"]
Kind = Literal["kept", "added", "removed", "withheld"]


@dataclass(frozen=True, slots=True)
class Change:
    """One word of the plan: what happens to it and why, in words a person can read."""

    word: str
    kind: Kind
    why: str


@dataclass(frozen=True, slots=True)
class Merge:
    """The words to write, in order, and what happens to each."""

    words: list[str]
    changes: list[Change]

    @property
    def changed(self) -> bool:
        return any(c.kind in ("added", "removed") for c in self.changes)


@lru_cache(1 << 16)  # the same tags come with every file
def compare_key(word: str) -> str:
    """Two spellings are the same word when these are equal: NFC, case folded, outer space cut."""
    return unicodedata.normalize("NFC", word.strip()).casefold()


def merge(disk: Sequence[str], last_written: Iterable[str], wanted: Sequence[str], mode: Mode = "merge") -> Merge:
    """The three-way merge of a keyword list.

    `disk` is what stands there now, `last_written` what iwtag wrote there last (from the ledger, empty the first time),
    `wanted` what should be there of ours. In mode "merge" a word that we wrote and that is gone now was taken out by a
    person in another tool: it is withheld. "replace_own" takes all of ours out and puts `wanted` in; "only_empty"
    writes only where no word stands. A person's own words are kept in every mode, in their order and spelling.
    """
    ours = {compare_key(w) for w in last_written}
    want = {compare_key(w): w for w in wanted if w.strip()}
    there = {compare_key(w) for w in disk}
    if mode == "only_empty" and there:
        changes = [Change(w, "kept", "there before") for w in disk]
        changes += [Change(w, "withheld", "the list is not empty") for k, w in want.items() if k not in there]
        return Merge(list(disk), changes)
    words: list[str] = []
    changes = []
    for word in disk:
        key = compare_key(word)
        if key in ours and key not in want:
            changes.append(Change(word, "removed", "written by iwtag, no longer wanted"))
            continue
        words.append(word)
        changes.append(Change(word, "kept", "wanted" if key in want else "not written by iwtag"))
    for key, word in want.items():
        if key in there:
            continue
        if mode == "merge" and key in ours:
            changes.append(Change(word, "withheld", "written by iwtag before and taken out by someone since"))
            continue
        words.append(word)
        changes.append(Change(word, "added", "wanted"))
    return Merge(words, changes)
