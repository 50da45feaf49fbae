"""Differences by words, and of lists."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from prompts.diffing import changed, entries, words
from prompts.tokens import estimate
from prompts.wordlists import parse_text


def marked(old: str, new: str) -> str:
    signs = {"same": "{}", "gone": "[-{}-]", "new": "[+{}+]"}
    return "".join(signs[piece.op].format(piece.text) for piece in words(old, new))


def test_words_that_changed_are_marked_and_nothing_else():
    assert marked("List short tags.\nBe brief.", "List long tags.\nBe brief.") == (
        "List [-short-][+long+] tags.\nBe brief."
    )
    assert marked("a red fox", "a very old fox") == "a [-red-][+very old+] fox"
    assert marked("", "new text") == "[+new text+]"
    assert not changed(words("same", "same"))


texts = st.text(alphabet=st.sampled_from("ab{}\n ,.é汽"), max_size=80)


@given(texts, texts)
def test_both_texts_can_be_read_off_the_difference(old: str, new: str):
    pieces = words(old, new)
    assert "".join(p.text for p in pieces if p.op != "new") == old
    assert "".join(p.text for p in pieces if p.op != "gone") == new


def test_a_long_text_without_lines_is_not_compared_word_by_word():
    old, new = "a b " * 20_000, "c d " * 20_000
    assert [p.op for p in words(old, new)] == ["gone", "new"]


def test_a_list_says_what_came_went_and_became_another():
    old = parse_text("cat\ndog = doggo\n=mood\nfox", "vocabulary")
    new = parse_text("fox\ndog = hound\nbee\ncat", "vocabulary")
    found = entries(old, new, "vocabulary")
    assert (found.added, found.removed, found.same) == (["bee"], ["=mood"], 2)
    assert found.changed == [("dog = doggo", "dog = hound")]
    assert not entries(old, old, "vocabulary")


def test_an_estimate_counts_ideographs_singly():
    assert (estimate(""), estimate("word"), estimate("words"), estimate("汽车")) == (0, 1, 2, 2)
