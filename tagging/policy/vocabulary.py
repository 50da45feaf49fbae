"""Mapping a word to the vocabulary's own spelling: exact → alias → inflection → close match."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rapidfuzz import process
from rapidfuzz.distance import DamerauLevenshtein

from prompts.wordlists import Entry

from .match import Matcher
from .text import clean, tag_key

# irregular plurals that pictures are full of; both ways
_IRREGULAR = {
    "men": "man",
    "women": "woman",
    "children": "child",
    "people": "person",
    "feet": "foot",
    "teeth": "tooth",
    "mice": "mouse",
    "geese": "goose",
    "oxen": "ox",
    "leaves": "leaf",
    "wolves": "wolf",
    "knives": "knife",
    "shelves": "shelf",
    "scarves": "scarf",
    "loaves": "loaf",
    "cacti": "cactus",
    "fungi": "fungus",
    "firemen": "fireman",
    "policemen": "policeman",
}
_IRREGULAR_PLURAL = {one: many for many, one in _IRREGULAR.items()}


class Term(NamedTuple):
    """A word of the vocabulary as it is to be written."""

    name: str
    key: str
    category: str
    parent: str
    position: int


class Mapped(NamedTuple):
    """What a word became: `how` is empty for the list's own word, else a few words for the reason."""

    term: Term
    how: str


def inflections(key: str) -> Iterator[tuple[str, str]]:
    """(other form, what it is) guesses for the last word of a key. Only a list may confirm one: 'lens' is no plural."""
    head, space, last = key.rpartition(" ")
    start = head + space
    if last in _IRREGULAR:
        yield start + _IRREGULAR[last], "plural"
    if last in _IRREGULAR_PLURAL:
        yield start + _IRREGULAR_PLURAL[last], "singular"
    if len(last) < 3:
        return
    if last.endswith("ies") and len(last) > 4:
        yield start + last[:-3] + "y", "plural"
    if last.endswith("ves"):
        yield start + last[:-3] + "f", "plural"
        yield start + last[:-3] + "fe", "plural"
    if last.endswith("s") and not last.endswith("ss"):
        yield start + last[:-1], "plural"
        if last.endswith("es"):
            yield start + last[:-2], "plural"
    if last.endswith("men"):
        yield start + last[:-3] + "man", "plural"
    if last.endswith("y"):
        yield start + last[:-1] + "ies", "singular"
    if last.endswith("man"):
        yield start + last[:-3] + "men", "singular"
    yield start + last + "s", "singular"
    yield start + last + "es", "singular"


class Vocabulary:
    """The vocabulary lists of a policy, compiled. Terms that stand twice keep their first place."""

    def __init__(self, entries: Iterable[tuple[Entry, str]], problems: list[str]) -> None:
        self.terms: dict[str, Term] = {}
        aliases: list[tuple[str, str]] = []
        patterns: list[tuple[Entry, str]] = []
        for entry, slug in entries:
            if entry.match in ("wildcard", "regex"):
                patterns.append((entry, slug))
                continue
            name = clean(entry.text)
            key = tag_key(name)
            if not key or key in self.terms:
                key = key and self.terms[key].key
            else:
                self.terms[key] = Term(name, key, entry.category, tag_key(entry.parent), len(self.terms))
            aliases.extend((tag_key(alias), key) for alias in entry.aliases if key)
        # a term is never another term's alias
        self.aliases = {alias: key for alias, key in reversed(aliases) if alias and alias not in self.terms}
        self.patterns = Matcher(patterns, problems)
        self._keys = sorted(self.terms)

    def __bool__(self) -> bool:
        return bool(self.terms) or bool(self.patterns)

    def map(self, key: str, *, inflect: bool, similarity: float) -> Mapped | None:
        """The term for a key, or None. Deterministic: among equally close terms the first in the alphabet."""
        if term := self.terms.get(key):
            return Mapped(term, "")
        if target := self.aliases.get(key):
            return Mapped(self.terms[target], "alias")
        if inflect:
            for guess, form in inflections(key):
                found = self.terms.get(guess) or self.terms.get(self.aliases.get(guess, ""))
                if found:
                    return Mapped(found, form)
        if similarity > 0 and self._keys:
            close = process.extractOne(
                key, self._keys, scorer=DamerauLevenshtein.normalized_similarity, score_cutoff=similarity
            )
            if close:
                return Mapped(self.terms[close[0]], f"close match, similarity {close[1]:.2f}")
        return None

    def ancestors(self, key: str) -> tuple[str, ...]:
        """Keys of the broader terms, nearest first. A circle ends where it closes."""
        found: list[str] = []
        term = self.terms.get(key)
        while term and term.parent and term.parent != key and term.parent not in found:
            found.append(term.parent)
            term = self.terms.get(term.parent)
        return tuple(found)
