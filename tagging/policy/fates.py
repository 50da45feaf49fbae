"""Two proposals beside each other, as their JSON: which tags came and went. Only what differs is parsed, since most of
thirty tags stay to the letter.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

_BETWEEN = "], ["


class Differences(NamedTuple):
    """`before`: how many tags stood in the old one. `gained`, `lost`: names that stand in one and not in the other."""

    before: int
    gained: list[str]
    lost: list[str]


def standing(text: str) -> list[str]:
    """The names of the tags that stand, in order. `text`: JSON as Proposal.tags holds it."""
    return [fate[0] for fate in json.loads(text) if fate[3] != "dropped"]


def differences(old: str, new: str, names: Sequence[str]) -> Differences:
    """What differs. `names` are `standing(new)`."""
    if old == "[]":
        return Differences(0, list(set(names)), [])
    was, now = old[2:-2].split(_BETWEEN), new[2:-2].split(_BETWEEN)
    gone, come = set(was), set(now)
    if len(gone) == len(was) and len(come) == len(now):
        both = gone & come
        try:
            left, joined = _parsed(gone - both), _parsed(come - both)
        except ValueError:  # written in another way, or a name that holds the separator
            pass
        else:
            after = set(names)
            gained = set(joined).difference(left)
            if len(after) < len(names):  # a name that stands twice is new only where all of it is
                gained = {n for n in gained if names.count(n) == joined.count(n)}
            return Differences(len(names) - len(joined) + len(left), list(gained), list(set(left) - after))
    before, after = standing(old), set(names)
    return Differences(len(before), list(after.difference(before)), list(set(before) - after))


def _parsed(pieces: set[str]) -> list[str]:
    """The names that stand in these pieces of JSON. ValueError where one is no whole fate: half a string never is."""
    pieces.discard("")
    if not pieces:
        return []
    found: list[list[Any]] = json.loads("[[" + "],[".join(pieces) + "]]")
    if len(found) != len(pieces):
        raise ValueError("not as json.dumps writes it")
    stand = []
    for fate in found:
        if len(fate) < 4 or type(fate[0]) is not str:
            raise ValueError("not as json.dumps writes it")
        if fate[3] != "dropped":
            stand.append(fate[0])
    return stand
