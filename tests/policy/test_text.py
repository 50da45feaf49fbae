"""How tags are written and compared."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagging.policy.text import _INVISIBLE, clean, spaced, tag_key


@given(st.one_of(st.text(), st.text(st.characters(max_codepoint=130))))
def test_the_short_way_for_ascii_equals_the_long_one(text):
    long = re.sub(r"\s+", " ", _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))).strip()
    assert clean(text) == long


@given(st.text())
def test_keys_are_keys_of_themselves(text):
    assert tag_key(tag_key(text)) == tag_key(text)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Long_Hair", "long hair"),
        ("^_^", "^_^"),
        ("a_(b)", "a (b)"),
        ("_x_", "x"),
        ("a\u200bb", "ab"),
        ("ﬁsh", "fish"),
        ("Straße", "strasse"),
    ],
)
def test_keys(name, key):
    assert tag_key(name) == key
    assert spaced(clean(name)).casefold() == key
