"""How a tag is written and how two tags are compared."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

#: Emoticons of the booru vocabularies: their underscores are eyes and mouths, not spaces.
KAOMOJI = frozenset(
    [
        "0_0",
        "(o)_(o)",
        "+_+",
        "+_-",
        "._.",
        "<o>_<o>",
        "<|>_<|>",
        "=_=",
        ">_<",
        "3_3",
        "6_9",
        ">_o",
        "@_@",
        "^_^",
        "o_o",
        "u_u",
        "x_x",
        "|_|",
        "||_||",
        "d_d",
        "t_t",
        "-_-",
        ";_;",
        "$_$",
        ">_@",
        ">o_o<",
        "\\_/",
        "c_c",
        "e_e",
        "n_n",
        "v_v",
        "w_w",
        "z_z",
        "ó_ò",
        "ò_ó",
        "﹏_﹏",
        "._.;",
        "^_^;",
        "-_-;",
        ">_<;",
        "=_=;",
        "o_o;",
        "o_o'",
    ]
)
_SPACE = re.compile(r"\s+")
#: names whose key is remembered: judging a word asks for it several times, and every policy asks again
_REMEMBERED = 1 << 15
# zero-width and direction marks, soft hyphen, byte-order mark: invisible, so never part of a word
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\x00-\x08\x0e-\x1f\x7f]"
)


def clean(text: str) -> str:
    """NFKC, invisible characters removed, runs of white space as one space, trimmed.

    Zero-width joiners between emoji are removed too: a tag is compared by what one sees as words.
    """
    if text.isascii() and text.isprintable():  # nothing to normalise: nearly every word there is
        return " ".join(text.split())
    return _SPACE.sub(" ", _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))).strip()


def is_kaomoji(text: str) -> bool:
    """True for an emoticon whose underscores must stay."""
    return text.casefold() in KAOMOJI


def spaced(text: str) -> str:
    """Underscores as spaces, except in kaomoji. Expects cleaned text."""
    return text if "_" not in text or is_kaomoji(text) else _SPACE.sub(" ", text.replace("_", " ")).strip()


@lru_cache(maxsize=_REMEMBERED)
def tag_key(name: str) -> str:
    """How two tags are compared: cleaned, spaced, case folded. Idempotent."""
    return clean(spaced(clean(name)).casefold())
