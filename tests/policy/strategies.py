"""Hostile words, candidates and policies for the property tests."""

from __future__ import annotations

import random

from hypothesis import strategies as st

from tagging.policy.spec import Candidate, PolicyError, WordList
from tagging.policy.text import KAOMOJI

#: words that meet often, so that lists and tags really touch each other
WORDS = ["cat", "cats", "black cat", "Cat", "dog", "sea", "sea side", "mood", "mood_lighting", "1girl", "lens", "^_^"]
PIECES = [
    "{",
    "}",
    "{{ x }}",
    "[",
    '"',
    "\\",
    "<b>",
    ",",
    ";",
    "\n",
    "\r\n",
    "\t",
    "\u200b",
    "\u200d",
    "\u202e",
    "\ufeff",
    "\x00",
    "أسد",
    "שלום",
    "汽车",
    "ﬁ",
    "ß",
    "İ",
    "ŉ",
    "e\u0301",
    "👩‍👩‍👧",
    "🏳️‍🌈",
    "_",
    "-",
    "  ",
    "%s",
    "'); DROP",
    "../",
    "(saber)",
    *sorted(KAOMOJI)[:8],
    *WORDS,
]


def hostile_text(rng: random.Random) -> str:
    """One nasty string; now and then a very long one."""
    text = "".join(rng.choice(PIECES) for _ in range(rng.randint(0, 12)))
    if rng.random() < 0.02:
        text = text * 2000 + "x" * rng.randint(0, 5000)
    return "".join(c for c in text if not "\ud800" <= c <= "\udfff")


words = st.one_of(
    st.sampled_from(WORDS),
    st.lists(st.sampled_from(PIECES), max_size=5).map("".join),
    st.text(max_size=20),
)
scores = st.one_of(st.none(), st.floats(0, 1, width=16))
categories = st.sampled_from(["general", "character", "copyright"])
candidates = st.lists(
    st.builds(Candidate, words, categories, scores, st.just("m"), st.one_of(st.none(), st.sampled_from(WORDS))),
    max_size=14,
)
scored_candidates = st.lists(
    st.builds(Candidate, words, categories, st.floats(0, 1, width=16), st.just("m"), st.none()), max_size=14
)

_plain = st.sampled_from(WORDS)
_entry = st.fixed_dictionaries(
    {"text": _plain, "match": st.sampled_from(["word", "exact"])},
    optional={"case": st.sampled_from(["ignore", "match"])},
)
_pattern = st.sampled_from(
    [{"text": "*cat*", "match": "wildcard"}, {"text": "?ea", "match": "wildcard"}, {"text": r"\d+", "match": "regex"}]
)
_replacement = st.fixed_dictionaries(
    {"text": _plain, "match": st.sampled_from(["word", "exact"]), "replacement": st.sampled_from([*WORDS, ""])}
)
_term = st.fixed_dictionaries(
    {"text": _plain},
    optional={"aliases": st.lists(_plain, max_size=2), "parent": _plain, "category": st.sampled_from(["fauna"])},
)
lists = st.tuples(
    st.lists(st.one_of(_entry, _pattern), max_size=3).map(lambda e: WordList("bans", "banned", e)),
    st.lists(_replacement, max_size=3).map(lambda e: WordList("swaps", "replacement", e)),
    st.lists(_term, max_size=6).map(lambda e: WordList("words", "vocabulary", e)),
    st.lists(st.sampled_from(["cat", "Photo", "1girl"]), max_size=2).map(lambda e: WordList("must", "forced", e)),
)
specs = st.fixed_dictionaries(
    {},
    optional={
        "case": st.sampled_from(["keep", "lower", "title"]),
        "underscores": st.sampled_from(["spaces", "keep"]),
        "hyphens": st.sampled_from(["spaces", "keep"]),
        "vocabulary": st.sampled_from(["free", "prefer", "only"]),
        "inflections": st.booleans(),
        "similarity": st.sampled_from([0.0, 0.6, 0.85]),
        "thresholds": st.just({"general": 0.3}),
        "tag_thresholds": st.just({"cat": 0.1, "dog": 0.9}),
        "triggers": st.lists(st.sampled_from(["ohwx man", "MASTERPIECE", "sea"]), max_size=2),
        "trigger_position": st.sampled_from(["first", "last"]),
        "parents": st.sampled_from(["keep", "drop"]),
        "exclusive": st.just([["cat", "dog"], ["sea", "mood"]]),
        "min_tags": st.integers(0, 4),
        "max_tags": st.one_of(st.none(), st.integers(4, 6)),
        "max_words": st.sampled_from([0, 2]),
        "order": st.sampled_from(["score", "vocabulary", "alphabet", "category"]),
        "category_order": st.sampled_from([["character"], [], ["copyright", "general"]]),
    },
)
refused = PolicyError
