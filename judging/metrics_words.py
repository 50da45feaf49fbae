"""Which tag is meant by a word that a model said: the same for people's decisions and for every recipe.

NFKC, case folded, underscores as spaces (`tag_key`); then the vocabulary's aliases, those of the vocabulary lists, and
singular or plural where the vocabulary has one of the two: only a list may confirm that, for 'lens' is no plural.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from prompts.models import Wordlist, WordlistVersion
from tagging.models import Tag, TagAlias
from tagging.policy.text import tag_key
from tagging.policy.vocabulary import inflections

_STEP = 500
_WORD = re.compile(r"[^\W_]+", re.UNICODE)


class Words:
    """Tags by number: those of the vocabulary and those that models made up. Local to one comparison.

    `add` all words first, then `resolve` (a few queries for all), then ask `tag_of`.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.categories: list[str] = []
        self.known: list[bool] = []
        self._of_key: dict[str, int] = {}  # key as it was said → number
        self._of_word: dict[str, int] = {}  # as it was written → number
        self._of_tag: dict[int, int] = {}  # primary key → number
        self.tag_ids: list[int | None] = []
        self._waiting: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.names)

    def add(self, words: Iterable[str]) -> None:
        for word in words:
            if word not in self._of_word and word not in self._waiting:
                self._waiting[word] = tag_key(word)

    @property
    def waiting(self) -> list[str]:
        """Words that were added and not resolved yet."""
        return list(self._waiting)

    def add_tag(self, pk: int, key: str, category: str) -> int:
        """A tag of the vocabulary, by what is known of it."""
        if pk in self._of_tag:
            return self._of_tag[pk]
        number = self._new(key, category, pk)
        self._of_tag[pk] = number
        self._of_key[key] = number
        return number

    def tag_of(self, word: str) -> int:
        """The number of a resolved word. KeyError before that; -1 for a word without anything visible."""
        return self._of_word[word]

    def number_of(self, pk: int) -> int:
        return self._of_tag[pk]

    def _new(self, key: str, category: str, pk: int | None) -> int:
        self.names.append(key)
        self.categories.append(category)
        self.known.append(pk is not None)
        self.tag_ids.append(pk)
        return len(self.names) - 1

    def resolve(self) -> None:
        """Look up what was added. Queries for 500 keys at a time."""
        keys = {key for key in self._waiting.values() if key and key not in self._of_key}
        self._by_tag(keys)
        left = self._left(keys)
        self._by_alias(left)
        left = self._left(left)
        if left:
            listed = _list_aliases()
            self._through({key: listed[key] for key in left if key in listed})
            left = self._left(left)
            self._through_forms(left)
        for key in sorted(self._left(left)):
            self._of_key[key] = self._new(key, "unknown", None)
        for word, key in self._waiting.items():
            self._of_word[word] = self._of_key[key] if key else -1
        self._waiting.clear()

    def _left(self, keys: set[str]) -> set[str]:
        return {key for key in keys if key not in self._of_key}

    def _by_tag(self, keys: Iterable[str]) -> None:
        for part in _parts(keys):
            for pk, key, category in Tag.objects.filter(key__in=part).values_list("pk", "key", "category"):
                self.add_tag(pk, key, category)

    def _by_alias(self, keys: Iterable[str]) -> None:
        for part in _parts(keys):
            rows = TagAlias.objects.filter(key__in=part).values_list("key", "tag_id", "tag__key", "tag__category")
            for key, pk, tag, category in rows:
                self._of_key[key] = self.add_tag(pk, tag, category)

    def _through(self, targets: dict[str, str]) -> None:
        """Words that mean others: key → key of the vocabulary, or an alias there."""
        self._by_tag(set(targets.values()) - self._of_key.keys())
        self._by_alias(set(targets.values()) - self._of_key.keys())
        for key, target in targets.items():
            if target in self._of_key:
                self._of_key[key] = self._of_key[target]

    def _through_forms(self, keys: set[str]) -> None:
        guesses = {key: [guess for guess, _ in inflections(key)] for key in keys}
        wanted = {guess for forms in guesses.values() for guess in forms} - self._of_key.keys()
        self._by_tag(wanted)
        self._by_alias(wanted - self._of_key.keys())
        for key in sorted(keys):
            for guess in guesses[key]:
                number = self._of_key.get(guess)
                if number is not None and self.known[number]:
                    self._of_key[key] = number
                    break


def _parts(keys: Iterable[str]) -> Iterator[list[str]]:
    ordered = sorted(keys)
    yield from (ordered[at : at + _STEP] for at in range(0, len(ordered), _STEP))


def _list_aliases() -> dict[str, str]:
    """Another spelling → the word's key, from the newest versions of the vocabulary lists."""
    found: dict[str, str] = {}
    for wordlist in Wordlist.objects.filter(kind=Wordlist.Kind.VOCABULARY).order_by("slug"):
        version = WordlistVersion.objects.filter(wordlist=wordlist).order_by("-number").first()
        for entry in version.entries if version else ():
            for alias in entry.get("aliases") or ():
                found.setdefault(tag_key(alias), tag_key(entry["text"]))
    return found


def named_in(text: str, keys: Sequence[str]) -> list[str]:
    """Which of the keys a caption names: as whole words in a row, singular or plural."""
    if not text or not keys:
        return []
    plain = " ".join(_WORD.findall(tag_key(text)))
    padded = f" {plain} "
    found = []
    for key in keys:
        forms = [key, *(guess for guess, _ in inflections(key))]
        if any(f" {' '.join(_WORD.findall(form))} " in padded for form in forms if form):
            found.append(key)
    return found
