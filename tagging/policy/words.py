"""What a policy does to one word on its own: normalise → replace → map → length → banned. Remembered per word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from prompts.wordlists import Entry, WordlistError, check_entries, parse_entry

from .match import Matcher
from .replace import Replacements
from .spec import PolicyError, PolicySpec, WordList
from .text import clean, is_kaomoji, spaced, tag_key
from .vocabulary import Vocabulary

#: what the database takes: a tag's name and its key
MAX_NAME = 200
MAX_KEY = 220
#: rounds of normalise → replace → map until a word stays as it is
_ROUNDS = 8
_MEMORY = 200_000
_FIRST_LETTER = re.compile(r"(?:^|(?<=\s))\w")


class Word(NamedTuple):
    """What became of one word. `reason` says why it was changed or dropped."""

    name: str
    key: str
    category: str
    state: Literal["kept", "changed"] = "kept"
    reason: str = ""
    dropped: bool = False
    protected: bool = False


def _entries(lists: Sequence[WordList], kind: str, inline: Sequence[str] = ()) -> list[tuple[Entry, str]]:
    """(entry, slug) of all lists of a kind, then of the policy's own words."""
    found: list[tuple[Entry, str]] = []
    for item in lists:
        if item.kind == kind:
            try:
                found.extend((entry, item.slug) for entry in check_entries(item.entries, kind))
            except WordlistError as error:
                raise PolicyError(f"list {item.slug!r}: {error}") from None
    for text in inline:
        try:
            found.extend((entry, "policy") for entry in check_entries([parse_entry(text, kind)], kind))
        except (WordlistError, ValueError) as error:
            raise PolicyError(f"{kind}: {error}") from None
    return found


class WordRules:
    """The rules for single words of one policy, compiled, with a memory of what each word became."""

    def __init__(self, spec: PolicySpec, lists: Sequence[WordList], problems: list[str]) -> None:
        kinds = {"banned", "forced", "vocabulary", "replacement", "trigger"}
        for item in lists:
            if item.kind not in kinds:
                raise PolicyError(f"list {item.slug!r} has the unknown kind {item.kind!r}")
        self.spec = spec
        banned = _entries(lists, "banned", spec.banned)
        self.banned = Matcher(banned, problems)
        phrases = [(Entry(text=phrase), "caption rules") for phrase in spec.caption.banned_phrases]
        self.banned_in_text = Matcher([*banned, *phrases], problems)
        self.vocabulary = Vocabulary(_entries(lists, "vocabulary"), problems)
        self.replacements = Replacements(_entries(lists, "replacement"), problems)
        self.forced = self._fixed("forced", _entries(lists, "forced", spec.forced))
        self.triggers = self._fixed("trigger", _entries(lists, "trigger", spec.triggers))
        self._fixed_names = {**self.forced, **self.triggers}
        self._memory: dict[tuple[str, str], Word] = {}

    def _fixed(self, kind: str, entries: Sequence[tuple[Entry, str]]) -> dict[str, str]:
        """key → word exactly as the list writes it (only cleaned of invisible characters)."""
        found: dict[str, str] = {}
        for entry, slug in entries:
            name = clean(entry.text)
            key = tag_key(name)
            if not key or len(name) > MAX_NAME or len(key) > MAX_KEY:
                raise PolicyError(f"{entry.text!r} of {slug!r} cannot be a {kind} word: 1 to {MAX_NAME} characters")
            found.setdefault(key, name)
        return found

    def of(self, name: str, category: str) -> Word:
        """What becomes of a word. A dictionary look-up the second time."""
        memory_key = (name, category)
        found = self._memory.get(memory_key)
        if found is None:
            if len(self._memory) >= _MEMORY:
                self._memory.clear()
            found = self._memory[memory_key] = self._judge(name, category)
        return found

    def _judge(self, raw: str, category: str) -> Word:
        plain = clean(raw[: 4 * MAX_NAME])
        fixed = self._fixed_names.get(tag_key(plain))
        if fixed is not None:
            return Word(fixed, tag_key(plain), category, protected=True)
        name, how, category, seen = self._settle(plain, category)
        key = tag_key(name)
        if key in self._fixed_names:
            return Word(self._fixed_names[key], key, category, "changed", how or "spelling", protected=True)
        changed = key != tag_key(plain)
        word = Word(name, key, category, "changed" if changed else "kept", (how or "spelling") if changed else "")
        reason = self._too_long_or_short(raw, word) or self._banned(name) or (seen if seen else "")
        return word._replace(name=name[:MAX_NAME], reason=reason, dropped=True, state="kept") if reason else word

    def _settle(self, name: str, category: str) -> tuple[str, str, str, str]:
        """(name, reasons, category, why it is not allowed): the steps again until the word stays as it is.

        Words that would go round in a circle settle on the circle's first in the alphabet.
        """
        reasons: list[str] = []
        path: list[tuple[str, str, str]] = []
        unknown = ""
        for _ in range(_ROUNDS):
            after, how, new_category, unknown = self._step(name, category)
            reasons.extend(r for r in how if r not in reasons)
            if after == name:
                category = new_category
                break
            path.append((name, category, unknown))
            circle = [i for i, (seen, _, _) in enumerate(path) if seen == after]
            name, category = after, new_category
            if circle:
                name, category, unknown = min(path[circle[0] :])
                break
        return name, "; ".join(reasons), category, unknown

    def _step(self, name: str, category: str) -> tuple[str, list[str], str, str]:
        spec, reasons = self.spec, []
        name = self._normalise(name)
        after, rules = self.replacements.apply(name)
        if rules:
            reasons.extend(rules)
            name = self._normalise(after)
        if not name:
            return "", reasons, category, ""
        vocabulary = self.vocabulary
        if spec.vocabulary == "free" or not vocabulary:
            return name, reasons, category, ""
        mapped = vocabulary.map(tag_key(name), inflect=spec.inflections, similarity=spec.similarity)
        if mapped is not None:
            if mapped.how:
                reasons.append(f"mapped from {name!r} ({mapped.how})")
            return mapped.term.name, reasons, mapped.term.category or category, ""
        if spec.vocabulary == "only" and not (vocabulary.patterns and vocabulary.patterns.find(name)):
            return name, reasons, category, "not in the vocabulary"
        return name, reasons, category, ""

    def _normalise(self, name: str) -> str:
        name = clean(name)
        if is_kaomoji(name):
            return name
        if self.spec.underscores == "spaces":
            name = spaced(name)
        if self.spec.hyphens == "spaces":
            name = clean(name.replace("-", " "))
        if self.spec.case == "lower":
            name = clean(name.lower())
        elif self.spec.case == "title":
            name = clean(_FIRST_LETTER.sub(lambda m: m.group().upper(), name))
        return name

    def _too_long_or_short(self, raw: str, word: Word) -> str:
        if not word.key:
            return word.reason or "empty"
        if len(word.name) > MAX_NAME or len(word.key) > MAX_KEY or len(raw) > 4 * MAX_NAME:
            return f"longer than {MAX_NAME} characters"
        if len(word.name) < self.spec.min_chars:
            return f"shorter than {self.spec.min_chars} characters"
        if self.spec.max_words and len(word.key.split()) > self.spec.max_words:
            return f"more than {self.spec.max_words} words"
        return ""

    def _banned(self, name: str) -> str:
        found = self.banned.find(name)
        if found is None:
            return ""
        entry, slug = found
        return f"banned by {slug!r}" if tag_key(entry.text) == tag_key(name) else f"banned by {slug!r} ({entry.text})"
