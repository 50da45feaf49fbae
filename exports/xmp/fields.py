"""From tags to the keyword fields that photo tools read, and back.

Which tool reads what (from the tools' sources and documents): darktable reads lr:hierarchicalSubject and then ignores
dc:subject; digiKam takes the first non-empty of digiKam:TagsList, MicrosoftPhoto:LastKeywordXMP,
lr:hierarchicalSubject, mediapro:CatalogSets, dc:subject; Immich reads digiKam:TagsList, then lr:hierarchicalSubject,
and never dc:subject; PhotoPrism reads dc:subject as elements. So every tag goes to all three of ours, root-level ones
too, and two fields more are brought up to date where a file has them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from . import acdsee
from .merge import Merge, Mode, compare_key, merge
from .packet import Packet, Property

DC = "http://purl.org/dc/elements/1.1/"
SUBJECT = Property(DC, "dc", "subject")
DESCRIPTION = Property(DC, "dc", "description")
HIERARCHY = Property("http://ns.adobe.com/lightroom/1.0/", "lr", "hierarchicalSubject")
TAGS_LIST = Property("http://www.digikam.org/ns/1.0/", "digiKam", "TagsList")
LAST_KEYWORD = Property("http://ns.microsoft.com/photo/1.0/", "MicrosoftPhoto", "LastKeywordXMP")
CATALOG_SETS = Property("http://ns.iview-multimedia.com/mediapro/1.0/", "mediapro", "CatalogSets")
CATEGORIES = Property("http://ns.acdsee.com/iptc/1.0/", "acdsee", "categories")
IMAGE_DESCRIPTION = Property("http://ns.adobe.com/tiff/1.0/", "tiff", "ImageDescription")
RATING = Property("http://ns.adobe.com/xap/1.0/", "xmp", "Rating")
ACDSEE_RATING = Property("http://ns.acdsee.com/iptc/1.0/", "acdsee", "rating")
MICROSOFT_RATING = Property("http://ns.microsoft.com/photo/1.0/", "MicrosoftPhoto", "Rating")
LABEL = Property("http://ns.adobe.com/xap/1.0/", "xmp", "Label")

#: Ours: a bag of structures, one for each keyword, with the fields of Detail. The namespace is a name, not an address;
#: docs/exports.md describes it.
DETAILS = Property("urn:x-iwtag:xmp:1.0/", "iwtag", "keywords")

#: Simple values, written as attribute or text; all other texts are alternatives by language.
PLAIN = frozenset((RATING, ACDSEE_RATING, MICROSOFT_RATING, LABEL))
#: One to five stars as Windows counts them.
_MICROSOFT_STARS = {1: "1", 2: "25", 3: "50", 4: "75", 5: "99"}

#: A level separator inside a name would split it: these look the same and do not.
_STAND_INS = {"|": "\uff5c", "/": "\u2215"}
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ufffe\uffff]|[\ud800-\udfff]")


class UnwritableWord(ValueError):
    """A tag that no metadata field can hold. The text names it."""


@lru_cache(1 << 16)
def clean_word(text: str) -> str:
    """NFC, trimmed. Raises UnwritableWord for control characters (a newline in a keyword splits or hides it in other
    tools), unpaired surrogates, the non-characters U+FFFE and U+FFFF (readers refuse the whole file), and nothing."""
    cleaned = unicodedata.normalize("NFC", text).strip()
    if not cleaned:
        raise UnwritableWord("an empty keyword cannot be written")
    if _FORBIDDEN.search(cleaned):
        raise UnwritableWord(f"the keyword {text!r} has a character that metadata fields cannot hold")
    return cleaned


def join_path(levels: Sequence[str], separator: str) -> str:
    """Levels as one path; a separator inside a level becomes its look-alike (U+FF5C for |, U+2215 for /)."""
    return separator.join(level.replace(separator, _STAND_INS[separator]) for level in levels)


@dataclass(frozen=True, slots=True)
class Keyword:
    """One tag with its ancestors, root first, the tag itself last: ("animal", "dog", "spaniel")."""

    path: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.path[-1]


@dataclass(frozen=True, slots=True)
class Detail:
    """Where a keyword comes from. Empty fields are not written."""

    name: str
    model: str = ""
    recipe: str = ""
    score: str = ""  # probability, four digits
    reviewer: str = ""

    def as_struct(self) -> dict[str, str]:
        pairs = (("name", self.name), ("model", self.model), ("recipe", self.recipe), ("score", self.score))
        return {name: clean_word(text) for name, text in (*pairs, ("reviewer", self.reviewer)) if text.strip()}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What should stand in a file of ours. `None` leaves a field alone."""

    keywords: tuple[Keyword, ...] = ()
    caption: str | None = None
    rating: int | None = None
    label: str | None = None
    details: tuple[Detail, ...] | None = None


@dataclass(frozen=True, slots=True)
class Style:
    """How tags are written: `prefix` is a root branch of the hierarchy ("iw" gives iw|animal|dog)."""

    prefix: str = ""
    prefix_flat: bool = False  # the prefix as a flat keyword too
    ancestors_flat: bool = False  # all levels in the flat list, not only the tag
    hierarchy: bool = True
    tags_list: bool = True
    mode: Mode = "merge"


WordsKind = Literal["Bag", "Seq", "XML"]


@dataclass(frozen=True, slots=True)
class FieldPlan:
    """What one field gets. `kind` is its container, or "XML" for acdsee:categories."""

    prop: Property
    kind: WordsKind
    merge: Merge


@dataclass(slots=True)
class Plan:
    """What a packet gets, computed without changing it. `written` is what the ledger keeps: field → our words."""

    fields: list[FieldPlan] = field(default_factory=list)
    texts: list[tuple[Property, str, str]] = field(default_factory=list)  # property, before, after
    details: tuple[list[dict[str, str]], list[dict[str, str]]] | None = None  # before, after
    written: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        texts = any(before != after for _, before, after in self.texts)
        return texts or self.details is not None or any(f.merge.changed for f in self.fields)


def flat_words(keywords: Iterable[Keyword], style: Style) -> list[str]:
    """The flat list: each tag once, in order; ancestors and the prefix where the style says so."""
    words: dict[str, None] = {}
    for keyword in keywords:
        for word in keyword.path if style.ancestors_flat else keyword.path[-1:]:
            words[clean_word(word)] = None
    if style.prefix and style.prefix_flat and words:
        words[clean_word(style.prefix)] = None
    return list(words)


def paths(keywords: Iterable[Keyword], style: Style, separator: str) -> list[str]:
    """The hierarchical list, each path once, below the prefix."""
    roots = (clean_word(style.prefix),) if style.prefix else ()
    found: dict[str, None] = {}
    for keyword in keywords:
        found[join_path([*roots, *(clean_word(level) for level in keyword.path)], separator)] = None
    return list(found)


def plan(packet: Packet, wanted: Wanted, last: Mapping[str, Sequence[str]], style: Style) -> Plan:
    """Compare what stands in `packet` with what should. `last` is `Plan.written` of our last write to this file.

    Raises UnwritableWord, and Refused for acdsee:categories that cannot be read. Changes nothing.
    """
    result = Plan()
    flat = flat_words(wanted.keywords, style)
    targets: list[tuple[Property, WordsKind, list[str]]] = [(SUBJECT, "Bag", flat)]
    # a word that someone took out of the flat list is meant to be gone everywhere: programs that know only some of
    # the fields leave it in the others, and a new prefix would bring it back there
    gone = _taken_out(packet, last, flat) if style.mode == "merge" else set()
    keywords = [k for k in wanted.keywords if compare_key(clean_word(k.name)) not in gone]
    if style.hierarchy:
        targets.append((HIERARCHY, "Bag", paths(keywords, style, "|")))
    if style.tags_list:
        targets.append((TAGS_LIST, "Seq", paths(keywords, style, "/")))
    if packet.values(LAST_KEYWORD):
        targets.append((LAST_KEYWORD, "Bag", paths(keywords, style, "/")))
    if packet.values(CATALOG_SETS):
        targets.append((CATALOG_SETS, "Bag", paths(keywords, style, "|")))
    if packet.text(CATEGORIES):
        targets.append((CATEGORIES, "XML", paths(keywords, style, "|")))
    for prop, kind, words in targets:
        merged = merge(words_of(packet, prop), last.get(str(prop), ()), words, style.mode)
        result.fields.append(FieldPlan(prop, kind, merged))
        # a word that a person had put there already stays theirs, wanted or not; one that a person took out is
        # remembered as ours, or the next export would put it back
        ours = {compare_key(w) for w in last.get(str(prop), ())}
        ours |= {compare_key(c.word) for c in merged.changes if c.kind == "added"}
        withheld = [c.word for c in merged.changes if c.kind == "withheld" and compare_key(c.word) in ours]
        result.written[str(prop)] = [w for w in merged.words if compare_key(w) in ours] + withheld
    _plan_texts(packet, wanted, last, style, result)
    if wanted.details is not None:
        there = {compare_key(w) for w in result.fields[0].merge.words}
        before = packet.structs(DETAILS)
        after = [struct for d in wanted.details if compare_key((struct := d.as_struct())["name"]) in there]
        if before != after:
            result.details = before, after
    return result


def words_of(packet: Packet, prop: Property) -> list[str]:
    """The words of a keyword field, in order. Refused."""
    return acdsee.paths(packet.text(prop)) if prop == CATEGORIES else packet.values(prop) or []


def set_words(packet: Packet, prop: Property, words: Sequence[str], kind: WordsKind) -> bool:
    """Make a keyword field hold exactly these words; True when it changed."""
    if kind == "XML":
        return packet.set_plain(prop, acdsee.text(words))
    return packet.set_array(prop, list(words), kind)


def set_text(packet: Packet, prop: Property, value: str) -> bool:
    """Set a text as its property is kept; True when it changed."""
    return packet.set_plain(prop, value) if prop in PLAIN else packet.set_text(prop, value)


def _taken_out(packet: Packet, last: Mapping[str, Sequence[str]], flat: Sequence[str]) -> set[str]:
    there = {compare_key(w) for w in packet.values(SUBJECT) or ()}
    ours = {compare_key(w) for w in last.get(str(SUBJECT), ())}
    return {key for w in flat if (key := compare_key(w)) in ours and key not in there}


def _plan_texts(packet: Packet, wanted: Wanted, last: Mapping[str, Sequence[str]], style: Style, result: Plan) -> None:
    texts: list[tuple[Property, str]] = []
    if wanted.caption is not None:
        texts.append((DESCRIPTION, wanted.caption))
        if packet.text(IMAGE_DESCRIPTION):
            texts.append((IMAGE_DESCRIPTION, wanted.caption))
    if wanted.rating is not None:
        texts.append((RATING, str(wanted.rating)))
        if packet.text(ACDSEE_RATING):
            texts.append((ACDSEE_RATING, str(wanted.rating)))
        if packet.text(MICROSOFT_RATING):
            texts.append((MICROSOFT_RATING, _MICROSOFT_STARS[wanted.rating]))
    if wanted.label is not None:
        texts.append((LABEL, wanted.label))
    for prop, after in texts:
        before = packet.text(prop)
        ours = list(last.get(str(prop), ()))
        if not after and before not in ours:
            continue  # nothing to say, and nothing of ours to take back
        if before and before != after and style.mode != "replace_own" and before not in ours:
            result.notes.append(f"{prop} was written by someone else and is left as it is")
            after = before
        else:
            result.written[str(prop)] = [after]
        result.texts.append((prop, before, after))


def apply(packet: Packet, planned: Plan) -> bool:
    """Carry out a plan made from this very packet. True when the packet changed."""
    changed = False
    for item in planned.fields:
        if item.merge.changed:
            changed |= set_words(packet, item.prop, item.merge.words, item.kind)
    for prop, before, after in planned.texts:
        if before != after:
            changed |= set_text(packet, prop, after)
    if planned.details is not None:
        changed |= packet.set_structs(DETAILS, planned.details[1])
    return changed
