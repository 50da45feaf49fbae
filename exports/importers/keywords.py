"""What an XMP packet says of an image: keywords with their hierarchy, caption, rating; and what changed in it since
iwtag wrote it.

Several fields hold the same keywords. As digiKam and Immich do, the first that is not empty is believed:
digiKam:TagsList, MicrosoftPhoto:LastKeywordXMP, lr:hierarchicalSubject, mediapro:CatalogSets, dc:subject. What other
fields say besides is noted, or taken too where that was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..xmp import fields
from ..xmp.merge import compare_key
from ..xmp.packet import Packet, Property
from .base import Word, words_from

_LOOK_ALIKES = {"|": "\uff5c", "/": "\u2215"}  # what iwtag writes for a separator within a name
_ORDER: tuple[tuple[Property, str], ...] = (
    (fields.TAGS_LIST, "/"),
    (fields.LAST_KEYWORD, "/"),
    (fields.HIERARCHY, "|"),
    (fields.CATALOG_SETS, "|"),
    (fields.SUBJECT, ""),
)
_INTERNAL = "_Digikam_Internal_Tags_"
CONTENT_RATINGS = frozenset(["general", "sensitive", "questionable", "explicit", "safe"])


@dataclass(slots=True)
class Said:
    """What a packet says. `fields` is the keyword paths of each field that is there, by its name."""

    words: list[Word] = field(default_factory=list)
    caption: str = ""
    rating: str = ""
    more: list[Word] = field(default_factory=list)  # of the fields that are not believed
    believed: str = ""
    fields: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)


def levels(text: str, separator: str) -> tuple[str, ...]:
    """A path of a hierarchical field, root first."""
    if not separator:
        return (text,)
    stand_in = _LOOK_ALIKES[separator]
    return tuple(level.replace(stand_in, separator) for level in text.split(separator))


def said(packet: Packet, *, root: str = "", every_field: bool = False) -> Said:
    """What the packet says. `root`: the branch to cut off."""
    found = Said()
    for prop, separator in _ORDER:
        paths = [levels(text, separator) for text in packet.values(prop) or ()]
        paths = [path for path in paths if path[0] != _INTERNAL]
        if paths:
            found.fields[str(prop)] = paths
    chosen = next(iter(found.fields), None)
    if chosen:
        found.words = words_from(found.fields[chosen], root)
        found.believed, found.more = chosen, _more(found, chosen, root)
        if every_field:
            found.words, found.more = [*found.words, *found.more], []
    found.caption = (packet.text(fields.DESCRIPTION) or packet.text(fields.IMAGE_DESCRIPTION)).strip()
    found.rating = rating_of(packet.text(fields.LABEL), packet.text(fields.RATING))
    return found


def left_out(found: Said, taken: Iterable[Word] = ()) -> list[str]:
    """A note of the words that other fields have besides, but for those in `taken`."""
    known = {compare_key(w.name) for w in taken}
    more = [w.name for w in found.more if compare_key(w.name) not in known]
    names = ", ".join(more[:5]) + (" …" if len(more) > 5 else "")
    return [f"not in {found.believed}, and so left out: {names}"] if more else []


def _more(found: Said, chosen: str, root: str) -> list[Word]:
    """Words of the other fields that are on no level of the chosen field's paths."""
    known = {compare_key(level) for path in found.fields[chosen] for level in path}
    others = [path for name, paths in found.fields.items() if name != chosen for path in paths]
    return [w for w in words_from(others, root) if compare_key(w.name) not in known]


def rating_of(label: str, stars: str) -> str:
    """The content rating where the label is one (iwtag writes it there), else one to five stars as their number."""
    if label.strip().casefold() in CONTENT_RATINGS:
        return label.strip().casefold()
    number = stars.strip().partition(".")[0]
    return number if number in ("1", "2", "3", "4", "5") else ""


def since(before: Said, now: Said, root: str) -> tuple[list[Word], list[Word]]:
    """(words that came, words that went) between two states of one packet, whatever field they came to or went from.

    darktable rewrites dc:subject and lr:hierarchicalSubject and leaves digiKam:TagsList alone: so a word that is gone
    from one field was taken out, although another field still has it.
    """
    came: dict[str, Word] = {}
    went: dict[str, Word] = {}
    there = _leaves(now.fields.values())
    for name in {*before.fields, *now.fields}:
        old, new = before.fields.get(name, []), now.fields.get(name, [])
        old_keys, new_keys = _leaves([old]), _leaves([new])
        for word in words_from(new, root):
            if compare_key(word.name) not in old_keys:
                came.setdefault(compare_key(word.name), word)
        for word in words_from(old, root):
            if compare_key(word.name) not in new_keys:
                went.setdefault(compare_key(word.name), word)
    earlier = _leaves(before.fields.values())
    came = {key: word for key, word in came.items() if key not in earlier}
    # a word that went from one field and came to another was moved, not removed
    moved = {key for key in went if key in there and any(_gained(before, now, key))}
    return list(came.values()), [word for key, word in went.items() if key not in moved]


def _gained(before: Said, now: Said, key: str) -> Iterable[bool]:
    for name, paths in now.fields.items():
        yield key in _leaves([paths]) and key not in _leaves([before.fields.get(name, [])])


def _leaves(fields_: Iterable[list[tuple[str, ...]]]) -> set[str]:
    return {compare_key(path[-1]) for paths in fields_ for path in paths if path}
