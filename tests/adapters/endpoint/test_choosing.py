"""Answers from a word list, of any length: nothing else ever comes out."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagging.adapters.base import AdapterError
from tagging.adapters.endpoint.choosing import MOST_LETTERS, Chooser
from tests.fakes.lying_server import Say

from .conftest import ask

TERMS = tuple(f"term {i:04}" for i in range(3000))


def choice(asked):
    """The words that a request offers by its schema."""
    return asked.body["response_format"]["json_schema"]["schema"]["properties"]["tags"]["items"]["enum"]


def wanting(*words):
    """A model that picks these words wherever it may."""
    return lambda asked: Say(json.dumps({"tags": [w for w in choice(asked) if w in words]}))


def test_a_short_list_is_one_question(endpoint, server):
    server.always(wanting("b", "c"))
    (reply,) = ask(endpoint(vocabulary="only"), terms=("a", "b", "c"))
    assert [t.name for t in reply.tags] == ["b", "c"]
    assert json.loads(reply.text) == {"tags": ["b", "c"]}
    assert len(server.asked) == 1
    assert '["a", "b", "c"]' in server.asked[0].prompt


def test_three_thousand_terms_are_asked_in_slices_and_once_more(endpoint, server):
    wanted = ("term 0003", "term 0777", "term 2999")
    server.always(wanting(*wanted))
    (reply,) = ask(endpoint(vocabulary="only", terms_per_question=200), terms=TERMS)
    assert tuple(t.name for t in reply.tags) == wanted
    assert len(server.asked) == 16
    assert [w for a in server.asked[:15] for w in choice(a)] == list(TERMS)  # all of them, in their order
    assert choice(server.asked[15]) == list(wanted)
    assert reply.tokens_in == 1600


def test_the_slices_are_the_same_each_time(endpoint, server):
    server.always(wanting("term 0003"))
    adapter = endpoint(vocabulary="only", concurrency=1)
    ask(adapter, 2, terms=TERMS)
    first, second = server.asked[: len(server.asked) // 2], server.asked[len(server.asked) // 2 :]
    assert [choice(a) for a in first] == [choice(a) for a in second]


def test_what_a_server_lets_through_is_not_in_the_answer(endpoint, server):
    server.always(Say('{"tags": ["Cat", "unicorn", " sun_set ", "cat"]}'))
    (reply,) = ask(endpoint(vocabulary="only"), terms=("cat", "sun set", "dog"))
    assert [t.name for t in reply.tags] == ["cat", "sun set"]
    assert "parse_failed" in reply.flags


def test_prose_instead_of_json_gives_the_words_that_it_holds(endpoint, server):
    server.always(Say("dog, a unicorn, Cat"))
    (reply,) = ask(endpoint(vocabulary="only"), terms=("cat", "dog"))
    assert [t.name for t in reply.tags] == ["dog", "cat"]


def test_a_caption_that_the_prompt_asks_for_comes_with_the_words(endpoint, server):
    schema = {
        "type": "object",
        "properties": {
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
            "caption": {"type": "string"},
        },
        "required": ["tags", "caption"],
        "additionalProperties": False,
    }  # fmt: skip
    server.always(Say('{"tags": ["cat"], "caption": "A cat\\n sleeps."}'))
    (reply,) = ask(endpoint(vocabulary="only"), terms=("cat", "dog"), schema=schema)
    assert ([t.name for t in reply.tags], reply.caption) == (["cat"], "A cat sleeps.")
    sent = server.asked[0].body["response_format"]["json_schema"]["schema"]["properties"]
    assert (sent["tags"]["items"]["enum"], sent["tags"]["maxItems"]) == (["cat", "dog"], 2)


def test_nothing_that_fits_is_an_empty_answer(endpoint, server):
    server.always(Say('{"tags": []}'))
    (reply,) = ask(endpoint(vocabulary="only", terms_per_question=10), terms=TERMS[:25])
    assert reply.tags == ()
    assert reply.empty
    assert len(server.asked) == 3


def test_without_a_list_it_says_what_is_missing(endpoint, server):
    (error,) = ask(endpoint(vocabulary="only"))
    assert isinstance(error, AdapterError)
    assert "choose a vocabulary list" in error.message
    assert server.asked == []


@given(
    st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=400),
    st.integers(10, 100),
    st.lists(st.text(max_size=20)),
)
def test_whatever_is_answered_lies_in_the_list(terms, per_question, junk):
    chooser = Chooser(terms, per_question)
    if not chooser.terms:
        return
    asked: list[str] = []

    def pick(part, final):
        assert 0 < len(part) <= per_question
        assert sum(map(len, part)) <= MOST_LETTERS
        asked.extend(() if final else part)
        return chooser.picked({"tags": [*junk, *part[::3]]}, part)

    found = chooser.choose(pick)
    assert set(found) <= set(chooser.terms)
    assert len(set(found)) == len(found)
    if len(chooser.terms) > per_question:
        assert asked[: len(chooser.terms)] == list(chooser.terms)


def test_a_vocabulary_is_part_of_the_question_but_prices_are_not(endpoint):
    adapter = endpoint()
    base = adapter.options().inference_dict()
    assert adapter.options({"vocabulary": "only"}).inference_dict() != base
    for name, value in {"price_in": 3, "concurrency": 2, "read_timeout": 5, "retries": 0, "patience": 9}.items():
        assert adapter.options({name: value}).inference_dict() == base
    for name, value in {"long_edge": 0, "image_quality": 80, "temperature": 0, "seed": 1, "model": "n"}.items():
        assert adapter.options({name: value}).inference_dict() != base


@pytest.mark.parametrize("name", ["IWTAG_SECRET_KEY", "DATABASE_URL", "sk-abc", "PATH", "AWS_SECRET_ACCESS_KEY"])
def test_only_names_of_keys_are_taken(endpoint, name):
    with pytest.raises(ValueError, match="give the name of a variable"):
        endpoint().options({"api_key_env": name})


def test_the_extra_body_cannot_take_over_the_request(endpoint):
    with pytest.raises(ValueError, match="messages, model cannot be set here"):
        endpoint().options({"extra_body": {"model": "x", "messages": []}})
