"""The automaton of a vocabulary: whatever is drawn from what it allows is a list of terms."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagging.adapters.vlm.trie import State, Vocabulary

END = 0


def letters(text: str) -> list[int]:
    """A tokenizer that knows letters and some longer pieces, and joins a comma with a letter before it in one case."""
    pieces, tokens, at = ("cat", "dog", " ho", "use"), [], 0
    while at < len(text):
        for number, piece in enumerate(pieces):
            if text.startswith(piece, at):
                tokens.append(1 + number)
                at += len(piece)
                break
        else:
            tokens.append(10 + ord(text[at]))
            at += 1
    return tokens


def encode(texts: list[str]) -> list[list[int]]:
    return [letters(text) for text in texts]


def spelled(tokens) -> str:
    pieces = ("cat", "dog", " ho", "use")
    return "".join(pieces[t - 1] if 1 <= t <= len(pieces) else chr(t - 10) if t >= 10 else "" for t in tokens)


def make(terms, **options) -> Vocabulary:
    return Vocabulary(terms, encode, spelled, [END], **options)


def draw(vocabulary: Vocabulary, budget: int, rng: random.Random, keep_on: float = 0.5) -> list[int]:
    """A random walk over allowed tokens, the end being rarer than its share."""
    state, tokens = State(), []
    for step in range(budget):
        allowed = vocabulary.allowed(state, budget - step)
        choices = [*allowed.extra]
        if allowed.node >= 0:
            children = vocabulary.trie(allowed.first).children[allowed.node]
            choices += [token for token in children if token not in allowed.without]
        assert choices, "a dead end"
        going_on = [token for token in choices if token != END]
        token = rng.choice(going_on) if going_on and rng.random() < keep_on else rng.choice(choices)
        tokens.append(token)
        state = vocabulary.step(state, token)
        if state.done:
            break
    return tokens


names = st.text(alphabet="catdoghuse ", min_size=1, max_size=9).filter(lambda text: text.strip())


@settings(max_examples=150, deadline=None)
@given(st.lists(names, min_size=1, max_size=25), st.integers(0, 2**32), st.integers(0, 40), st.booleans())
def test_every_answer_is_a_list_of_terms(terms, seed, spare, repeat):
    vocabulary = make(terms, repeat=repeat, most=5)
    budget = vocabulary.fewest_tokens + spare
    tokens = draw(vocabulary, budget, random.Random(seed), keep_on=0.9)
    known = {" ".join(term.split()) for term in terms}
    said = vocabulary.read(tokens)
    assert said
    assert set(said) <= known
    assert len(said) <= 5
    if not repeat:
        assert len(said) == len(set(said))
    text = spelled([t for t in tokens if t != END])
    assert [piece.strip() for piece in text.split(",")] == said  # the text alone says the same


def test_a_term_that_begins_like_another_can_be_said():
    vocabulary = make(["dog", "dog house", "cat"])
    assert vocabulary.read([*letters("dog house, dog"), END]) == ["dog house", "dog"]


def test_terms_with_commas_are_said_on_lines():
    vocabulary = make(["black, white", "cat"])
    assert vocabulary.separator_text == "\n"
    assert vocabulary.read([*letters("black, white\ncat"), END]) == ["black, white", "cat"]


def test_a_said_term_is_not_allowed_again():
    vocabulary = make(["cat", "cattle"])
    state = State()
    for token in letters("cat,"):
        state = vocabulary.step(state, token)
    for token in letters(" cat"):
        allowed = vocabulary.allowed(state, 30)
        assert token not in allowed.without
        state = vocabulary.step(state, token)
    assert vocabulary.allowed(state, 30).extra == ()  # neither end nor separator: only "tle" is left
    both = State()
    for token in letters("cat, cattle"):
        both = vocabulary.step(both, token)
    assert vocabulary.allowed(both, 30).extra == (END,)  # nothing is left to say


def test_the_separator_is_held_back_when_no_term_would_fit():
    vocabulary = make(["cat", "dog"])
    state = vocabulary.step(State(), letters("cat")[0])
    tight = vocabulary.allowed(state, 2)
    assert tight.extra == (END,)
    assert tight.held_back == tuple(letters(","))
    assert letters(",")[0] in vocabulary.allowed(state, 3).extra


def test_a_vocabulary_that_cannot_be_written_is_refused():
    with pytest.raises(ValueError, match="none of the terms"):
        Vocabulary(["猫"], encode, lambda tokens: "?", [END])


def test_terms_that_cannot_be_written_are_named():
    def decode(tokens):
        return spelled(tokens).replace("x", "?")

    vocabulary = Vocabulary(["cat", "fox"], encode, decode, [END])
    assert vocabulary.terms == ["cat"]
    assert vocabulary.left_out == ["fox"]


def test_thousands_of_terms():
    rng = random.Random(1)
    terms = list({"".join(rng.choice("abcdefghij") for _ in range(rng.randint(3, 12))) for _ in range(5000)})
    vocabulary = make(terms, most=30)
    assert len(vocabulary.terms) == len(terms)
    known = set(terms)
    for seed in range(50):
        assert set(vocabulary.read(draw(vocabulary, 300, random.Random(seed), 0.95))) <= known
