"""Content that a judge is shown is data: how tags and sentences are made fit to be put before a language model.

A tag comes from a model or a person, a caption from a model, and both may carry words meant for the judge. Three
guards, none of which trusts the judge to resist: texts are cleaned and cut; a text that looks like an instruction or
like a piece of our own protocol is never sent, it goes to a person instead; and what is sent travels as JSON strings
beside opaque ids that follow from the content, so that no text can name the id of another.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
TAG_LENGTH = 80
SENTENCE_LENGTH = 600

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_HIDDEN = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")
_TAGS_BLOCK = re.compile("[\U000e0000-\U000e007f]")  # Unicode's invisible letters, used to smuggle sentences
#: words that speak to a model instead of naming what is in a picture
_INSTRUCTION = re.compile(
    r"\b(ignore|disregard|forget|override|overrule|bypass)\b.{0,40}\b(previous|prior|above|earlier|all|any|your|the)\b"
    r"|\b(previous|prior|above|system)\s+(instruction|prompt|rule|message)s?\b"
    r"|\b(you must|you should|as an ai|act as|pretend to)\b|\byou are (now|an?|the) (ai|assistant|judge|model)\b"
    r"|\b(mark|rate|judge|answer|label|score|respond|reply|output|return|say)\b.{0,40}"
    r"\b(correct|wrong|true|false|supported|contradicted|everything|winner|verdict|json|yes|10|1\.0)\b"
    r"|<\|?/?(im_start|im_end|system|assistant|user|s|inst|endoftext)\|?>|\[/?INST\]|(^|\W)(system|assistant|user)\s*:"
    r"|p_correct|\bverdict\b|```",
    re.IGNORECASE | re.DOTALL,
)
#: the shape of a reply of ours: a quoted name with a colon, an object that is closed and another opened
_PROTOCOL = re.compile(r"[\"']\s*:\s*[\"'\d{\[]|[}\]]\s*,\s*[{\[\"']|\{\s*[\"']")


@dataclass(frozen=True, slots=True)
class Checked:
    """A text made fit to be sent. `refused` says why it must not be; empty when it may."""

    text: str
    refused: str = ""


def check_text(text: str, limit: int) -> Checked:
    """NFKC without control and invisible characters, white space as one space, at most `limit` characters."""
    flat = unicodedata.normalize("NFKC", text)
    hidden = bool(_HIDDEN.search(flat) or _TAGS_BLOCK.search(flat))
    shown = " ".join(_CONTROL.sub(" ", _TAGS_BLOCK.sub("", _HIDDEN.sub("", flat))).split())
    if not shown:
        return Checked("", "no text")
    if len(shown) > limit:
        return Checked(shown[:limit].rstrip(), f"longer than {limit} characters")
    if _PROTOCOL.search(shown):
        return Checked(shown, "looks like a piece of a reply")
    if _INSTRUCTION.search(shown):
        return Checked(shown, "reads like an instruction")
    if hidden and _TAGS_BLOCK.search(flat):
        return Checked(shown, "has invisible letters")
    return Checked(shown)


def check_tag(name: str) -> Checked:
    """A tag for a judge; line breaks in a tag are refused, for no vocabulary has them."""
    checked = check_text(name, TAG_LENGTH)
    if not checked.refused and re.search(r"[\r\n\u2028\u2029]", name.strip()):
        return Checked(checked.text, "has line breaks")
    return checked


def check_sentence(text: str) -> Checked:
    return check_text(text, SENTENCE_LENGTH)


def digest(value: Any) -> str:
    """sha256 (hex) of canonical JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def seeded(*parts: Any) -> random.Random:
    """A random source that the content alone decides: the same call is made again the same way, whoever makes it."""
    return random.Random(int(digest(list(parts))[:16], 16))


def shuffled(items: Sequence[T], *seed: Any) -> list[T]:
    found = list(items)
    seeded("order", *seed).shuffle(found)
    return found


def opaque_ids(n: int, *seed: Any) -> list[str]:
    """n different ids of four letters and digits. They follow from the whole call, so that a text inside it, which was
    written before, cannot name them."""
    source = seeded("ids", *seed)
    found: list[str] = []
    while len(found) < n:
        made = "".join(source.choice("bcdfghjkmnpqrstvwxz") + source.choice("23456789") for _ in range(2))
        if made not in found:
            found.append(made)
    return found


def as_json(value: Any) -> str:
    """JSON for a prompt: readable, one item a line where it is a list."""
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(json.dumps(item, ensure_ascii=False) for item in value) + "\n]"
    return json.dumps(value, ensure_ascii=False)
