"""What a policy does to a caption: prefixes, banned words, sentence limits, blending with the tags."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .match import Matcher
from .spec import CaptionRules
from .text import clean

#: a caption is prose of at most this many characters; the rest is cut before any rule looks at it
MAX_CAPTION = 20_000
_ROUNDS = 20
# a sentence ends at . ! ? … (and closing quotes) before a space, or at the full stops of scripts without spaces
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？])\s*|\n+")
_ABBREVIATION = re.compile(r"(?:\b(?:mr|mrs|ms|dr|st|no|vs|etc|approx|e\.g|i\.e|c)|\b[A-Z])\.$", re.IGNORECASE)
_BEFORE_SIGN = re.compile(r"\s+([,.;:!?…])")
_DOUBLE_SIGN = re.compile(r"([,;:])(?:\s*[,;:])+")
_SIGN_BEFORE_END = re.compile(r"[,;:]\s*([.!?…])")
_LEADING_SIGNS = re.compile(r"^[\s,;:.!?…]+")
_AFTER_ARTICLE = re.compile(r"\b(an?|the|very)\s+[,;]\s*", re.IGNORECASE)
_DANGLING = re.compile(r"\b(?:an?|the|very)\s*(?=[,.;:!?…]|$)", re.IGNORECASE)


def clean_text(text: str) -> str:
    """Cleaned prose: each line as a tag is cleaned, empty lines out, at most MAX_CAPTION characters."""
    lines = (clean(line) for line in text[:MAX_CAPTION].splitlines())
    return "\n".join(line for line in lines if line)[:MAX_CAPTION].strip()


def sentences(text: str) -> list[str]:
    """Sentences of cleaned prose, signs kept. Common abbreviations and initials end none."""
    found: list[str] = []
    start = 0
    for match in _SENTENCE_END.finditer(text):
        piece = text[start : match.end()].strip()
        if not piece or ("\n" not in match.group() and _ABBREVIATION.search(text[start : match.start()])):
            continue
        found.append(piece)
        start = match.end()
    if rest := text[start:].strip():
        found.append(rest)
    return found


def apply_caption(text: str, rules: CaptionRules, banned: Matcher, names: Sequence[str]) -> str:
    """The caption by the rules; `names` are the final tags, for blending. Nothing banned is left in the prose."""
    tags = ", ".join(names)
    text = clean_text(text)
    if not text and (rules.blend == "caption" or not tags):
        return ""
    if rules.blend == "tags":
        return tags
    if tags and rules.blend == "caption, tags" and (text == tags or text.endswith(f", {tags}")):
        text = text[: -len(tags)].removesuffix(", ")
    elif tags and rules.blend == "tags, caption" and (text == tags or text.startswith(f"{tags}, ")):
        text = text[len(tags) :].removeprefix(", ")
    text = _prose(text, rules, banned)
    if tags and rules.blend == "caption, tags":
        text = text.rstrip(". ")
    parts = {"caption": [text], "caption, tags": [text, tags], "tags, caption": [tags, text]}[rules.blend]
    return ", ".join(part for part in parts if part)


def _prose(text: str, rules: CaptionRules, banned: Matcher) -> str:
    """All rules but blending, until nothing changes any more: removing one word may lay another bare."""
    for _ in range(_ROUNDS):
        before = text
        text = _without_prefix(text, rules.strip_prefixes)
        text = _without_banned(text, rules.banned_action, banned)
        text = _limited(text, rules)
        if text == before:
            return text
    return text if not (banned and banned.spans(text)) else ""


def _without_prefix(text: str, prefixes: Sequence[str]) -> str:
    for prefix in sorted(prefixes, key=len, reverse=True):
        words = r"\s+".join(re.escape(word) for word in clean(prefix).split())
        found = re.match(rf"{words}(?!\w)[\s,:;-]*", text, re.IGNORECASE) if words else None
        if found and found.end():
            rest = text[found.end() :]
            return rest[:1].upper() + rest[1:]
    return text


def _without_banned(text: str, action: str, banned: Matcher) -> str:
    spans = banned.spans(text) if banned else []
    if not spans:
        return text
    if action == "sentence":
        kept = [sentence for sentence in sentences(text) if not banned.spans(sentence)]
        text = " ".join(kept)
        if not banned.spans(text):
            return text
        spans = banned.spans(text)
    parts: list[str] = []
    at = 0
    for start, end in spans:
        if end > at:
            parts.append(text[at : max(start, at)])
            at = end
    return _tidied("".join(parts) + text[at:], text[:1].isupper())


def _tidied(text: str, capital: bool) -> str:
    """Prose after words were taken out: no double spaces or signs, no dangling 'a'."""
    text = clean_text(text)
    text = _AFTER_ARTICLE.sub(r"\1 ", text)
    text = _BEFORE_SIGN.sub(r"\1", text)
    text = _DOUBLE_SIGN.sub(r"\1", text)
    text = _SIGN_BEFORE_END.sub(r"\1", text)
    text = _DANGLING.sub("", text)
    text = _BEFORE_SIGN.sub(r"\1", _LEADING_SIGNS.sub("", text)).rstrip(" ,;:-")
    return text[:1].upper() + text[1:] if capital else text


def _limited(text: str, rules: CaptionRules) -> str:
    if rules.max_sentences:
        found = sentences(text)
        if len(found) > rules.max_sentences:
            text = " ".join(found[: rules.max_sentences])
    if rules.max_chars and len(text) > rules.max_chars:
        whole = ""
        for sentence in sentences(text):
            longer = f"{whole} {sentence}".strip()
            if len(longer) > rules.max_chars:
                break
            whole = longer
        text = whole or text[: rules.max_chars + 1].rpartition(" ")[0] or text[: rules.max_chars]
    return text.strip()
