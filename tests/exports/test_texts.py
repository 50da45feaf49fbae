from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exports.exporters.texts import BadTemplate, Style, TextTag, TextWriter, collisions

TAGS = [
    TextTag("dog", score=0.9),
    TextTag("sea", score=0.95),
    TextTag("miku (vocaloid)", "character", 0.5),
    TextTag("mine"),
]


@pytest.mark.parametrize(
    ("template", "trigger", "caption", "tags", "text"),
    [
        ("{trigger}, {caption}, {tags}", "ohwx", "A dog\nruns", TAGS[:2], "ohwx, A dog runs, sea, dog"),
        ("{trigger}, {caption}, {tags}", "ohwx", "", TAGS[:1], "ohwx, dog"),
        ("{trigger}, {caption}, {tags}", "", "", TAGS[:1], "dog"),
        ("{trigger}, {caption}, {tags}", "", "", [], ""),
        ("photo of {caption}. ({tags})", "", "x", TAGS[:1], "photo of x. (dog)"),
        ("photo of {caption}. ({tags})", "", "x", [], "photo of x"),
        ("{tags}.", "", "", TAGS[:1], "dog."),
        ("always this", "", "", [], "always this"),
    ],
)
def test_a_template_leaves_no_stray_separators(template, trigger, caption, tags, text):
    assert TextWriter(Style(template=template, trigger=trigger)).text(tags, caption=caption) == text


def test_orders():
    def order(name):
        return TextWriter(Style(template="{tags}", order=name)).text(TAGS).split(", ")

    assert order("score") == ["mine", "sea", "dog", "miku (vocaloid)"]
    assert order("alphabet") == ["dog", "miku (vocaloid)", "mine", "sea"]
    assert order("character_first")[0] == "miku (vocaloid)"


def test_a_separator_in_a_tag_makes_no_second_tag_and_is_reported():
    writer = TextWriter(Style(template="{tags}"))
    assert writer.text([TextTag("a, b"), TextTag("{x|y}")]) == "a\uff0c b, \uff5bx\uff5cy\uff5d"
    assert writer.changed == {"a, b": "a\uff0c b", "{x|y}": "\uff5bx\uff5cy\uff5d"}


def test_underscores_and_parentheses():
    writer = TextWriter(Style(template="{tags}", underscores=True, escape_parentheses=True))
    assert writer.text([TextTag("miku (vocaloid)")]) == r"miku_\(vocaloid\)"


def test_drop_outs_are_the_same_each_time_and_spare_the_trigger():
    tags = [TextTag(f"t{i}") for i in range(200)] + [TextTag("ohwx")]
    writer = TextWriter(Style(template="{tags}", trigger="ohwx", drop=0.5, seed=3))
    first = writer.text(tags, identity="abc")
    assert first == writer.text(tags, identity="abc")
    assert first != writer.text(tags, identity="abd")
    assert "ohwx" in first.split(", ")
    assert 60 < len(first.split(", ")) < 140


def test_an_unknown_field_is_named():
    with pytest.raises(BadTemplate, match=r"\{tag\}.*\{tags\}"):
        TextWriter(Style(template="{tag}"))


@given(st.lists(st.text(min_size=1, max_size=20), max_size=10), st.text(max_size=50))
def test_kohya_gets_one_line_and_as_many_tags_as_there_are(names, caption):
    names = list(dict.fromkeys(" ".join(n.split()) for n in names if n.strip()))
    writer = TextWriter(Style(template="{tags}"))
    text = writer.text([TextTag(n) for n in names])
    assert len(text.split(", ") if text else []) <= len(names)
    assert "\n" not in TextWriter(Style()).text([TextTag(n) for n in names], caption=caption)


def test_collisions_ignore_case():
    assert collisions(["a.txt", "b.txt", "A.txt", "a.txt"]) == ["A.txt", "a.txt"]
