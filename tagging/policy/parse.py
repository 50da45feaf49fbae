"""Reading tags and a caption out of a model's text reply. Never raises: what cannot be read is a problem."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NamedTuple

from .caption import clean_text, sentences
from .spec import Candidate
from .text import clean

#: a reply is at most this long; the rest is not read
MAX_TEXT = 100_000
MAX_TAGS = 2_000
MAX_PIECE = 1_000

_FENCE = re.compile(r"```[\w-]*\s*\n?(.*?)(?:```|\Z)", re.DOTALL)
_THINKING = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_BULLET = re.compile(r"^\s*(?:[-*•·–—]\s+|#{1,6}\s+|\(?\d{1,3}[.):]\s+)")
_LABEL = re.compile(r"^\s*\**(?:tags?|keywords?|labels?)\**\s*:\s*", re.IGNORECASE)
_QUOTES = "\"'`“”‘’«»"
_TAG_FIELDS = ("tags", "keywords", "labels", "general")
_NAME_FIELDS = ("name", "tag", "keyword", "label", "text", "word")
_SCORE_FIELDS = ("score", "confidence", "probability", "p")
_CAPTION_FIELDS = ("caption", "description", "summary")


class Parsed(NamedTuple):
    """What was read. `problem` is empty when the reply had the form that the rule expects."""

    tags: list[Candidate]
    caption: str = ""
    problem: str = ""


def parse(text: str, rule: str = "auto") -> Parsed:
    """Read a reply by a rule: auto, comma, newline, json, sentences or caption.

    auto takes JSON where the reply is JSON, else one tag a line where there are several lines without commas, else
    commas. sentences makes each sentence a tag; caption takes the whole reply as prose.
    """
    text = _THINKING.sub("", text[:MAX_TEXT])
    if rule == "caption":
        return Parsed([], clean_text(text))
    if rule in ("json", "auto"):
        found = _json(text)
        if found is not None:
            return found
        if rule == "json":
            return Parsed([], "", "the reply is not JSON with tags or a caption")
    fenced = _FENCE.search(text)
    body = fenced.group(1) if fenced and fenced.group(1).strip() else text
    if rule == "sentences":
        return _named(sentences(clean_text(body)))
    lines = [line for line in body.splitlines() if line.strip()]
    if rule == "newline" or (rule == "auto" and len(lines) > 1 and not any("," in line for line in lines)):
        return _named(lines)
    return _named([piece for line in lines for piece in _LABEL.sub("", _BULLET.sub("", line)).split(",")])


def _named(pieces: list[str]) -> Parsed:
    """Pieces of text as tags: bullets, numbers, quotes and a closing full stop go."""
    tags: list[Candidate] = []
    for piece in pieces:
        name = _LABEL.sub("", _BULLET.sub("", clean(piece[:MAX_PIECE]) if len(piece) > MAX_PIECE else piece))
        name = clean(name).strip(_QUOTES + " *")
        if name.endswith(".") and not name.endswith("..") and not re.search(r"\.\w*\.$", name):
            name = name[:-1]
        name = name.strip(_QUOTES + " *")
        if name:
            tags.append(Candidate(name))
        if len(tags) >= MAX_TAGS:
            break
    return Parsed(tags)


def _json(text: str) -> Parsed | None:
    """A JSON reply, bare, fenced or with prose around it; None when there is none."""
    for piece in json_pieces(text):
        try:
            value = json.loads(piece)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, list):
            return Parsed(_tags(value, "general"))
        if isinstance(value, dict) and (found := _object(value)):
            return found
    return None


def json_pieces(text: str) -> list[str]:
    """Where JSON may stand in a reply: all of it, fenced parts, from the first brace to the last."""
    pieces = [text.strip(), *(match.group(1).strip() for match in _FENCE.finditer(text))]
    for opening, closing in ("{}", "[]"):
        start, end = text.find(opening), text.rfind(closing)
        if 0 <= start < end:
            pieces.append(text[start : end + 1])
    return [piece for piece in pieces if piece[:1] in ("{", "[")]


def _object(value: dict[Any, Any]) -> Parsed | None:
    lowered = {str(k).casefold(): v for k, v in value.items()}
    caption = next((lowered[k] for k in _CAPTION_FIELDS if isinstance(lowered.get(k), str)), "")
    tags: list[Candidate] = []
    known = bool(caption)
    for field, inner in lowered.items():
        if field in _CAPTION_FIELDS:
            continue
        category = "general" if field in _TAG_FIELDS else clean(field)[:40]
        if isinstance(inner, str) and field in _TAG_FIELDS:
            tags.extend(_named(inner.split(",")).tags)
            known = True
        elif isinstance(inner, list):
            tags.extend(_tags(inner, category))
            known = True
        elif isinstance(inner, dict) and field in _TAG_FIELDS:
            for name, score in inner.items():
                if isinstance(score, list):
                    tags.extend(_tags(score, clean(str(name))[:40]))
                else:
                    tags.extend(_tags([{"name": name, "score": score}], "general"))
            known = True
    return Parsed(tags[:MAX_TAGS], clean_text(caption)) if known else None


def _tags(items: list[Any], category: str) -> list[Candidate]:
    """Strings, or objects with a name and perhaps a score and category; other things are passed over."""
    found: list[Candidate] = []
    for item in items[:MAX_TAGS]:
        if isinstance(item, str):
            found.extend(_named([item.replace("\n", " ")]).tags)
        elif isinstance(item, dict):
            lowered = {str(k).casefold(): v for k, v in item.items()}
            name = next((lowered[k] for k in _NAME_FIELDS if isinstance(lowered.get(k), str)), "")
            given = lowered.get("category")
            score = next((s for k in _SCORE_FIELDS if (s := _score(lowered.get(k))) is not None), None)
            if tag := clean(name[:MAX_PIECE]):
                found.append(Candidate(tag, clean(given)[:40] if isinstance(given, str) and given else category, score))
    return found


def _score(value: Any) -> float | None:
    """A probability from 0 to 1; percentages from 1 to 100 are taken as such; anything else is no score."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        return None
    if value <= 1:
        return float(value)
    return float(value) / 100 if value <= 100 else None
