"""The pure rules on the text of an answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagging.adapters.vlm import words


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>a cat?</think>A dog.", "A dog."),
        ("hm, maybe</think> A dog.", "A dog."),  # the template opened the block
        ("<thinking>x</thinking>\nA dog.<think>more</think>", "A dog."),
        ("<think>never ends", ""),
        ("A dog.", "A dog."),
    ],
)
def test_thoughts_are_no_part_of_the_answer(text, answer):
    assert words.without_thoughts(text) == answer


def test_the_first_stop_string_cuts():
    assert words.cut_at_stop("a cat. A dog\n", ["\n", "."]) == ("a cat", True)
    assert words.cut_at_stop("a cat", ["\n"]) == ("a cat", False)


@pytest.mark.parametrize(
    ("start", "text", "prefilled", "whole"),
    [
        ("A photo of", "A photo of a cat", True, "A photo of a cat"),  # the model said it again
        ("A photo of", " a cat", True, "A photo of a cat"),  # it went on
        ("A photo o", "f a cat", True, "A photo of a cat"),  # also within a word
        ("A photo of", "a cat", False, "A photo of a cat"),  # it was never given the words
        ("A cat", ", black", False, "A cat, black"),
        ("tags:\n", "cat", False, "tags:\ncat"),
        ("", "a cat", True, "a cat"),
        ("A photo", "", False, "A photo"),
    ],
)
def test_the_wanted_beginning_is_there_once(start, text, prefilled, whole):
    assert words.with_start(start, text, prefilled=prefilled) == whole


@given(st.text(min_size=1, max_size=20), st.text(max_size=40), st.booleans())
def test_the_wanted_beginning_is_always_there(start, text, prefilled):
    assert words.with_start(start, text, prefilled=prefilled).startswith(start.rstrip())


def test_a_repeated_prompt_is_cut_off():
    assert words.without_prompt("a PHOTO  of a cat", "A photo of") == " a cat"
    assert words.without_prompt("a cat", "A photo of") == "a cat"
    assert words.without_prompt("a cat", "") == "a cat"


def test_forced_words_are_groups_of_alternatives():
    wanted = words.groups(["cat|kitten", r"a\|b", " | ", "table"])
    assert wanted == [("cat", "kitten"), ("a|b",), ("table",)]
    assert words.missing("A Kitten on the table", wanted) == [("a|b",)]
    assert words.missing("concatenated tables", [("cat",), ("table",)]) == [("cat",), ("table",)]


def test_asking_again_names_what_is_missing():
    text = words.asked_again("Describe it.", [("cat", "kitten"), ("table",)], 1)
    assert text.startswith("Describe it.")
    assert '"cat" or "kitten", "table"' in text
    assert words.asked_again("", [("cat",)], 2).startswith("The answer must contain")


def test_a_discouraged_word_means_its_spellings():
    found = words.variants("red car")
    assert {"red car", " red car", "Red car", " Red Car", "RED CAR"} <= set(found)
