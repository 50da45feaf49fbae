"""Answers from a list of words, however long: the model chooses from one slice of it after the other.

A list that one question holds is one call with an enum. A longer one is cut into slices in its own order, the same
slices each time; what was picked from them is put in one last question, so that the picks are weighed against each
other. Whatever a server lets through is checked here: a word that is not on the list is not in the answer.
"""

from __future__ import annotations

import copy
import json
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any

#: Letters of the terms in one question at most; OpenAI takes 15,000 in an enum.
MOST_LETTERS = 12_000
#: Rounds of picking from picks before the last question is put as it is.
ROUNDS = 4


class Chooser:
    """Slices a vocabulary, words the questions, and reads picks out of answers."""

    def __init__(self, terms: Sequence[str], per_question: int) -> None:
        self.terms = tuple(dict.fromkeys(t for t in terms if t.strip()))
        self.per_question = per_question
        self._spelling: dict[str, str] = {}
        for term in self.terms:
            self._spelling.setdefault(_plain(term), term)

    def slices(self, terms: Sequence[str]) -> list[Sequence[str]]:
        """Cut in order, as few as hold the limits, about equally long."""
        rough: list[int] = []  # how many terms each slice takes
        letters = n = 0
        for term in terms:
            if n and (n >= self.per_question or letters + len(term) > MOST_LETTERS):
                rough.append(n)
                letters = n = 0
            n, letters = n + 1, letters + len(term)
        rough.append(n)
        even = -(-len(terms) // len(rough))
        if len(rough) > 1 and all(
            sum(map(len, terms[i : i + even])) <= MOST_LETTERS for i in range(0, len(terms), even)
        ):
            return [terms[i : i + even] for i in range(0, len(terms), even)]
        found, at = [], 0
        for n in rough:
            found.append(terms[at : at + n])
            at += n
        return found

    def choose(self, pick: Callable[[Sequence[str], bool], list[str]]) -> list[str]:
        """Terms that fit, in the order of the last answer. `pick(terms, final)` asks about some of them."""
        left: Sequence[str] = self.terms
        for _ in range(ROUNDS):
            slices = self.slices(left)
            if len(slices) == 1:
                break
            picked = {term for part in slices for term in pick(part, False)}
            fewer = [term for term in left if term in picked]
            if not fewer:
                return []
            shrunk = len(fewer) < len(left)
            left = fewer
            if not shrunk:
                break
        found: list[str] = []
        for part in self.slices(left):
            found += [term for term in pick(part, True) if term not in found]
        return found

    def question(self, part: Sequence[str]) -> str:
        """What stands after the prompt."""
        return (
            "Use only these words, spelled exactly so, and only those that fit the picture; an empty list if none "
            f"does:\n{json.dumps(list(part), ensure_ascii=False)}"
        )

    def picked(self, value: Any, part: Sequence[str]) -> list[str]:
        """The terms of `part` in an answer, in its order, each once. Other words are passed over, other spellings
        (case, width, spaces, underscores) are brought to the list's."""
        allowed, found = set(part), []
        for word in _words(value):
            term = word if word in allowed else self._spelling.get(_plain(word), "")
            if term in allowed and term not in found:
                found.append(term)
        return found


def _plain(word: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", word).casefold().replace("_", " ").split()).strip(" .\"'*-")


def _words(value: Any) -> Iterable[str]:
    """Strings in a JSON value; a plain text is cut at commas and lines."""
    if isinstance(value, str):
        yield value
        yield from (piece for line in value.splitlines() for piece in line.split(","))
    elif isinstance(value, list):
        for inner in value:
            yield from _words(inner)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name not in ("caption", "description", "summary", "reason"):
                yield from _words(inner)


def with_terms(schema: dict[str, Any] | None, terms: Sequence[str]) -> dict[str, Any]:
    """A schema of answers whose tags are among `terms`: the given one with its `tags` held to them, else tags alone."""
    items = {"type": "string", "enum": list(terms)}
    tags = {"type": "array", "items": items, "maxItems": len(terms)}
    properties = (schema or {}).get("properties")
    if schema is not None and isinstance(properties, dict) and "tags" in properties:
        found = copy.deepcopy(schema)
        given = properties["tags"] if isinstance(properties["tags"], dict) else {}
        limits = {k: given[k] for k in ("minItems", "maxItems", "description") if k in given}
        found["properties"]["tags"] = {**tags, **limits}
        return found
    return {"type": "object", "properties": {"tags": tags}, "required": ["tags"], "additionalProperties": False}
