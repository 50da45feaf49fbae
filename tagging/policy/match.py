"""Finding the words of a list in a tag or a caption, fast for thousands of entries.

Word and exact entries are look-ups in dictionaries of token sequences; wildcards and regular expressions are compiled
one by one and run under a time limit.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

import regex

from prompts.wordlists import Entry

from .spec import PolicyError
from .text import clean, tag_key

log = logging.getLogger(__name__)

#: seconds one pattern may take on one text; then it counts as no match
PATTERN_SECONDS = 0.02
#: after so many timeouts a pattern is not tried again
PATTERN_STRIKES = 3

# one token: a run of letters and digits, one ideograph or kana (their scripts write no spaces), or one other sign
_TOKEN = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\W_\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+|[^\w\s]"
)

Tokens = tuple[str, ...]


def tokens(text: str) -> list[tuple[str, int, int]]:
    """(token, start, end) of cleaned text. Underscores and spaces separate and are not tokens."""
    return [(m.group(), m.start(), m.end()) for m in _TOKEN.finditer(text)]


@lru_cache(maxsize=100_000)
def _fold(token: str) -> str:
    return clean(token.casefold())


class Pattern:
    """One wildcard or regular expression with a time limit."""

    def __init__(self, entry: Entry, slug: str, problems: list[str], *, inside_text: bool = False) -> None:
        self.entry = entry
        self.slug = slug
        self._problems = problems
        self._strikes = 0
        source = wildcard(entry.text, inside_text) if entry.match == "wildcard" else entry.text
        flags = regex.V0 | (0 if entry.case == "match" else regex.IGNORECASE)
        try:
            self._regex = regex.compile(source, flags)
        except regex.error as error:
            raise PolicyError(f"{entry.text!r} in {slug!r} does not compile: {error}") from None

    def search(self, text: str) -> bool:
        """Is it in the text? False when it took too long, which is reported once."""
        return next(self.spans(text), None) is not None

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where it matches, left to right, empty matches left out."""
        if self._strikes >= PATTERN_STRIKES:
            return
        try:
            for found in self._regex.finditer(text, timeout=PATTERN_SECONDS):
                if found.end() > found.start():
                    yield found.span()
        except TimeoutError:
            self._strike()

    def replace(self, text: str, replacement: str) -> str:
        """All matches replaced (\\1 and \\g<name> refer to groups in regular expressions); unchanged on timeout."""
        if self._strikes >= PATTERN_STRIKES:
            return text
        template = replacement if self.entry.match == "regex" else replacement.replace("\\", "\\\\")
        try:
            return self._regex.sub(template, text, timeout=PATTERN_SECONDS)
        except TimeoutError:
            self._strike()
        return text

    def check_replacement(self, replacement: str) -> None:
        """PolicyError when the replacement refers to a group that is not there."""
        if self.entry.match == "regex":
            try:
                self._regex.sub(replacement, "", timeout=PATTERN_SECONDS)
                regex.compile(f"(?:{self._regex.pattern})|").sub(replacement, "")
            except (regex.error, IndexError) as error:
                raise PolicyError(f"{replacement!r} in {self.slug!r} cannot be used: {error}") from None
            except TimeoutError:
                self._strike()

    def _strike(self) -> None:
        if not self._strikes:
            text = (
                f"the pattern {self.entry.text!r} of {self.slug!r} took longer than {PATTERN_SECONDS * 1000:.0f} ms "
                "and counts as no match: make it simpler"
            )
            if text not in self._problems:
                self._problems.append(text)
                log.warning("%s", text)
        self._strikes += 1


def wildcard(text: str, inside_text: bool = False) -> str:
    """A regular expression for `*` and `?`. Against a whole tag, or (inside_text) against words of a sentence."""
    any_run, one = (r"[^\s_]*", r"[^\s_]") if inside_text else (".*", ".")
    # clean text has no runs of stars to back-track over
    parts = re.split(r"(\*+|\?)", clean(text).replace("_", " "))
    body = "".join(any_run if p.startswith("*") else one if p == "?" else regex.escape(p) for p in parts if p)
    return rf"(?<![^\W_]){body}(?![^\W_])" if inside_text else rf"\A(?s:{body})\Z"


class Matcher:
    """Is a text on the list? Built once from many entries, then asked often.

    Each entry comes with the slug of its list, which the reason names. `problems` collects patterns that ran too long.
    """

    def __init__(self, entries: Iterable[tuple[Entry, str]], problems: list[str]) -> None:
        self._exact: dict[str, list[tuple[Entry, str]]] = {}
        self._words: dict[Tokens, list[tuple[Entry, str]]] = {}
        self._patterns: list[tuple[Pattern, Pattern]] = []
        self.count = 0
        for entry, slug in entries:
            self.count += 1
            if entry.match in ("wildcard", "regex"):
                in_text = Pattern(entry, slug, problems, inside_text=True) if entry.match == "wildcard" else None
                whole = Pattern(entry, slug, problems)
                self._patterns.append((whole, in_text or whole))
                continue
            for name in (entry.text, *entry.aliases):
                folded = tuple(_fold(t) for t, _, _ in tokens(clean(name)))
                if entry.match == "exact":
                    self._exact.setdefault(tag_key(name), []).append((entry, slug))
                elif folded:
                    self._words.setdefault(folded, []).append((entry, slug))
                else:
                    # nothing but underscores: only ever the whole tag
                    self._exact.setdefault(tag_key(name), []).append((entry, slug))
        self._lengths = sorted({len(t) for t in self._words})
        self._firsts = {t[0] for t in self._words}

    def __bool__(self) -> bool:
        return self.count > 0

    def find(self, name: str) -> tuple[Entry, str] | None:
        """The first entry that matches the tag, and its list's slug."""
        name = clean(name)
        for entry, slug in self._exact.get(tag_key(name), ()):
            if entry.case == "ignore" or name in (clean(entry.text), *map(clean, entry.aliases)):
                return entry, slug
        for _, _, entry, slug in self._word_spans(name):
            return entry, slug
        if self._patterns:
            spaced = name.replace("_", " ")
            for whole, _ in self._patterns:
                if whole.search(spaced if whole.entry.match == "wildcard" else name):
                    return whole.entry, whole.slug
        return None

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where banned words stand in cleaned running text. Exact entries mean tags, not sentences: left out."""
        found = [(start, end) for start, end, _, _ in self._word_spans(text)]
        for _, inside in self._patterns:
            found.extend(inside.spans(text))
        return sorted(found)

    def _word_spans(self, text: str) -> Iterator[tuple[int, int, Entry, str]]:
        if not self._words:
            return
        parts = tokens(text)
        folded = tuple(_fold(t) for t, _, _ in parts)
        for i, first in enumerate(folded):
            if first not in self._firsts:
                continue
            for n in self._lengths:
                if i + n > len(folded):
                    break
                for entry, slug in self._words.get(folded[i : i + n], ()):
                    start, end = parts[i][1], parts[i + n - 1][2]
                    if entry.case == "ignore" or _same_case(text, start, end, entry):
                        yield start, end, entry, slug


def _same_case(text: str, start: int, end: int, entry: Entry) -> bool:
    found = [t for t, _, _ in tokens(text[start:end])]
    return any(found == [t for t, _, _ in tokens(clean(name))] for name in (entry.text, *entry.aliases))
