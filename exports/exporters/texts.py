"""One line of text per image, as trainers read it: a template, the order of tags, escaping, drop-outs.

What trainers do with the text: kohya sd-scripts read only the first line, split at commas, and take `{a|b}` as a
wildcard; AI-toolkit takes the whole file as one prompt and splits at commas; OneTrainer takes each line as a prompt of
its own. So a separator inside a tag would make two tags of it: it becomes its full-width look-alike, and is reported.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Flavour = Literal["kohya", "ai_toolkit", "onetrainer", "plain"]
Order = Literal["score", "alphabet", "category", "character_first", "shuffled"]

#: Trainers that take a line for a prompt of its own.
ONE_LINE = ("kohya", "onetrainer")
FIELDS = ("trigger", "caption", "tags", "rating", "name")
_FIELD = re.compile(r"\{(" + "|".join(FIELDS) + r")\}")
_ANY_FIELD = re.compile(r"\{([^{}]*)\}")
_BREAKS = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")
_PARENTHESES = re.compile(r"(?<!\\)([()])")
_LOOK_ALIKES = {",": "\uff0c", ";": "\uff1b", "|": "\uff5c", "{": "\uff5b", "}": "\uff5d", ".": "\uff0e"}


class BadTemplate(ValueError):
    """A template that names a field there is none of. The text lists those there are."""


@dataclass(frozen=True, slots=True)
class TextTag:
    """A tag as a text writer sees it; `score` None where a person added it."""

    name: str
    category: str = "general"
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Style:
    """How a text is written. `drop` is the share of tags left out at random, the same ones at each export of the same
    image and seed; tags in the trigger are never dropped."""

    template: str = "{trigger}, {caption}, {tags}"
    trigger: str = ""
    separator: str = ", "
    order: Order = "score"
    underscores: bool = False
    escape_parentheses: bool = False
    max_tags: int | None = None
    drop: float = 0.0
    seed: int = 0
    flavour: Flavour = "kohya"


class TextWriter:
    """Turns tags and caption into text. `changed` counts the tags whose separator had to be replaced."""

    def __init__(self, style: Style) -> None:
        """Raises BadTemplate."""
        for name in _ANY_FIELD.findall(style.template):
            if name not in FIELDS:
                known = ", ".join(f"{{{field}}}" for field in FIELDS)
                raise BadTemplate(f"There is no field {{{name}}}; there are {known}.")
        self.style = style
        self.changed: dict[str, str] = {}
        self._parts = _parts(style.template)
        marks = style.separator.strip()
        if style.flavour != "plain":
            marks += ","
        if style.flavour == "kohya":
            marks += "|{}"
        self._forbidden = {c: _LOOK_ALIKES[c] for c in marks if c in _LOOK_ALIKES}

    def text(
        self, tags: Sequence[TextTag], *, caption: str = "", rating: str = "", name: str = "", identity: str = ""
    ) -> str:
        """The text of one image. `identity` (its content hash) makes drop-outs and shuffles repeatable."""
        chosen = self._ordered(self._dropped(tags, identity), identity)
        if self.style.max_tags is not None:
            chosen = chosen[: self.style.max_tags]
        values = {
            "trigger": self.style.trigger.strip(),
            "caption": self._line(caption),
            "tags": self.style.separator.join(dict.fromkeys(filter(None, (self.tag(t.name) for t in chosen)))),
            "rating": rating,
            "name": name,
        }
        text = fill(self._parts, values)
        return _BREAKS.sub(" ", text).strip() if self.style.flavour in ONE_LINE else text

    def safe(self, name: str) -> str:
        """The name without what would end the tag or the line; equal where nothing is in the way."""
        text = name if self.style.flavour == "plain" else _BREAKS.sub(" ", name).strip()
        return "".join(self._forbidden.get(c, c) for c in text)

    def tag(self, name: str) -> str:
        """A tag as it stands in the text."""
        safe = self.safe(name)
        if safe != name:
            self.changed[name] = safe
        if self.style.underscores:
            safe = safe.replace(" ", "_")
        if self.style.escape_parentheses:
            safe = _PARENTHESES.sub(r"\\\1", safe)
        return safe

    def _line(self, caption: str) -> str:
        """kohya and OneTrainer take a line for a prompt: theirs get one line."""
        if self.style.flavour in ONE_LINE:
            return " ".join(caption.split())
        return caption.strip()

    def _dropped(self, tags: Sequence[TextTag], identity: str) -> list[TextTag]:
        if self.style.drop <= 0:
            return list(tags)
        trigger = self.style.trigger.casefold()
        dice = _dice(self.style.seed, identity)
        return [t for t in tags if dice.random() >= self.style.drop or t.name.casefold() in trigger]

    def _ordered(self, tags: list[TextTag], identity: str) -> list[TextTag]:
        if self.style.order == "shuffled":
            _dice(self.style.seed + 1, identity).shuffle(tags)
            return tags
        by_score: Callable[[TextTag], float] = lambda t: -2.0 if t.score is None else -t.score  # noqa: E731
        keys: dict[str, Callable[[TextTag], object]] = {
            "score": by_score,
            "alphabet": lambda t: t.name.casefold(),
            "category": lambda t: (t.category, by_score(t)),
            "character_first": lambda t: (t.category != "character", by_score(t)),
        }
        return sorted(tags, key=keys[self.style.order])  # type: ignore[arg-type]


def _dice(seed: int, identity: str) -> random.Random:
    return random.Random(int.from_bytes(hashlib.sha256(f"{seed}:{identity}".encode()).digest()[:8], "big"))


def _parts(template: str) -> list[str]:
    """Literals and field names in turn: an odd index is a field's name."""
    return _FIELD.split(template)


def fill(parts: Sequence[str], values: dict[str, str]) -> str:
    """Put values into a split template. A literal stands only before a field that has something to say, and between
    two such fields once: an empty caption leaves no stray comma."""
    out = ""
    for i in range(1, len(parts), 2):
        if value := values[parts[i]]:
            out += (parts[i - 1] if out else parts[0]) + value
    last_field = parts[-2] if len(parts) > 1 else ""
    return out + parts[-1] if not last_field or values[last_field] else out


def collisions(names: Iterable[str]) -> list[str]:
    """Names that are equal without case: they would be one file on macOS and Windows. Sorted, each once."""
    seen: set[str] = set()
    doubled: dict[str, None] = {}
    for name in names:
        key = name.casefold()
        if key in seen:
            doubled[name] = None
        seen.add(key)
    return sorted(doubled)
