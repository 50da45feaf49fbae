"""Replacements inside a tag, on word boundaries."""

from __future__ import annotations

from collections.abc import Iterable

from prompts.wordlists import Entry

from .match import Matcher, Pattern, tokens
from .text import clean, tag_key


class Replacements:
    """The replacement lists of a policy, compiled.

    Whole-tag rules go first, then words inside, then patterns, each group in the order of the lists. A word is left
    alone where it already stands inside its own replacement ("sea -> sea side" does not touch "sea side").
    """

    def __init__(self, entries: Iterable[tuple[Entry, str]], problems: list[str]) -> None:
        self._exact: dict[str, tuple[Entry, str]] = {}
        self._words: list[tuple[Entry, str, Matcher, Matcher | None]] = []
        self._patterns: list[tuple[Pattern, str]] = []
        for entry, slug in entries:
            new = clean(entry.replacement or "")
            if entry.match in ("wildcard", "regex"):
                pattern = Pattern(entry, slug, problems)
                pattern.check_replacement(new)
                self._patterns.append((pattern, new))
            elif entry.match == "exact":
                for name in (entry.text, *entry.aliases):
                    self._exact.setdefault(tag_key(name), (entry, slug))
            else:
                inside = Matcher([(Entry(text=new), slug)], problems) if tokens(new) else None
                self._words.append((entry, slug, Matcher([(entry, slug)], problems), inside))

    def __bool__(self) -> bool:
        return bool(self._exact or self._words or self._patterns)

    def apply(self, name: str) -> tuple[str, list[str]]:
        """(new name, the rules that changed it). Expects a normalised name; the result is not normalised."""
        rules: list[str] = []
        found = self._exact.get(tag_key(name)) if self._exact else None
        if found is not None and (found[0].case == "ignore" or name in (found[0].text, *found[0].aliases)):
            after = clean(found[0].replacement or "")
            if after != name:
                rules.append(_rule(found[0], found[1]))
            name = after
        for entry, slug, matcher, inside in self._words:
            after = _replace_words(name, entry.replacement or "", matcher, inside)
            if after != name:
                rules.append(_rule(entry, slug))
                name = after
        for pattern, new in self._patterns:
            after = clean(pattern.replace(name, new))
            if after != name:
                rules.append(_rule(pattern.entry, pattern.slug))
                name = after
        return name, rules


def _rule(entry: Entry, slug: str) -> str:
    return f"replaced by {slug!r} ({entry.text} -> {entry.replacement})"


def _replace_words(name: str, new: str, matcher: Matcher, inside: Matcher | None) -> str:
    spans = matcher.spans(name)
    if not spans:
        return name
    safe = inside.spans(name) if inside else []
    parts: list[str] = []
    at = 0
    for start, end in spans:
        if start < at or any(a <= start and end <= b for a, b in safe):
            continue
        parts += (name[at:start], new)
        at = end
    return clean("".join(parts) + name[at:])
