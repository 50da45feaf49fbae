"""JSON from servers of every kind: the best way they know is found, remembered, and never trusted."""

from __future__ import annotations

import pytest

from tagging.adapters.base import ModelUnavailable
from tagging.adapters.endpoint import schema as schemas
from tagging.adapters.endpoint.ladder import response_format
from tagging.adapters.endpoint.reading import json_value
from tests.fakes.lying_server import Say, Status

from .conftest import ask

TAGS = {
    "type": "object",
    "properties": {"tags": {"type": "array", "items": {"type": "string"}, "maxItems": 3}},
    "required": ["tags"],
    "additionalProperties": False,
}
GOOD = '{"tags": ["cat"]}'


def takes(*kinds):
    """A server that refuses every response format but these ("schema", "object+schema", "object", "none")."""

    def answer(asked):
        given = asked.body.get("response_format")
        kind = "none" if given is None else "schema" if given["type"] == "json_schema" else "object"
        if kind == "object" and "schema" in given:
            kind = "object+schema"
        if kind in kinds:
            return Say(GOOD)
        return Status(400, f"Input should be one of {kinds}: response_format")

    return answer


@pytest.mark.parametrize(
    ("kinds", "requests", "flag"),
    [
        (("schema", "object", "none"), 1, ""),
        (("object+schema", "object", "none"), 2, "fallback: json_object+schema"),
        (("object", "none"), 3, "fallback: json_object"),
        (("none",), 4, "fallback: none"),
    ],
)
def test_it_goes_down_to_what_the_server_takes_and_remembers_it(endpoint, server, kinds, requests, flag):
    server.always(takes(*kinds))
    adapter = endpoint()
    (reply,) = ask(adapter, schema=TAGS)
    assert reply.text == GOOD
    assert reply.flags == ((flag,) if flag else ())
    assert len(server.asked) == requests
    ask(adapter, 3, schema=TAGS)
    assert len(server.asked) == requests + 3
    last = server.asked[-1]
    assert ("JSON schema" in last.prompt) == (kinds[0] in ("object", "none"))  # the model must see it somewhere


def test_a_chosen_way_is_the_only_one(endpoint, server):
    server.always(takes("none"))
    with pytest.raises(ModelUnavailable, match="refused the same way"):
        ask(endpoint(response_format="json_schema"), 20, schema=TAGS)
    assert {a.body["response_format"]["type"] for a in server.asked} == {"json_schema"}


def test_a_refusal_that_has_nothing_to_do_with_the_format_blames_no_rung(endpoint, server):
    server.always(lambda asked: Status(400, "temperature is too hot"))
    ask(endpoint(concurrency=1), 1, schema=TAGS)
    server.always(takes("schema"))
    server.asked.clear()
    (reply,) = ask(endpoint(), schema=TAGS)
    assert (reply.text, len(server.asked)) == (GOOD, 1)


def test_without_a_schema_no_format_is_sent(endpoint, server):
    ask(endpoint())
    assert "response_format" not in server.asked[0].body


def test_an_answer_out_of_form_is_asked_for_once_more_with_what_is_wrong(endpoint, server):
    server.next(Say('{"tags": ["a", "b", "c", "d"]}'))
    server.always(Say(GOOD))
    (reply,) = ask(endpoint(), schema=TAGS)
    assert (reply.text, reply.flags) == (GOOD, ("asked_again",))
    assert (reply.tokens_in, reply.tokens_out) == (200, 20)  # both calls were paid for
    turns = server.asked[1].body["messages"]
    assert [t["role"] for t in turns] == ["user", "assistant", "user"]
    assert "tags: has 4 items, at most 3 are allowed" in turns[2]["content"]


def test_an_answer_that_stays_out_of_form_is_a_flagged_result(endpoint, server):
    server.always(Say('{"tags": "cat"}'))
    (reply,) = ask(endpoint(), schema=TAGS)
    assert reply.text == '{"tags": "cat"}'
    assert "parse_failed" in reply.flags
    assert len(server.asked) == 2


def test_a_server_that_promises_form_and_breaks_it_is_told_the_schema(endpoint, server):
    server.always(lambda asked: Say(GOOD if "JSON schema" in asked.prompt else "a cat"))
    adapter = endpoint(concurrency=1)
    replies = ask(adapter, 12, schema=TAGS)
    assert all("parse_failed" not in r.flags for r in replies)
    server.asked.clear()
    ask(adapter, schema=TAGS)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("```json\n" + GOOD + "\n```", ("repaired",)),
        ("<think>what is it?</think>" + GOOD, ()),
        ('Sure! {"tags": ["cat",]}', ("repaired",)),
    ],
)
def test_json_in_wrappings_is_found(endpoint, server, text, flags):
    server.always(Say(text))
    (reply,) = ask(endpoint(), schema=TAGS)
    assert reply.flags == flags
    assert json_value(reply.text)[0] == {"tags": ["cat"]}
    assert len(server.asked) == 1


def test_a_truncated_answer_says_so_and_is_no_broken_promise(endpoint, server):
    server.always(Say('{"tags": ["a", "b', "length"))
    (reply,) = ask(endpoint(), schema=TAGS)
    assert "truncated" in reply.flags
    assert "parse_failed" in reply.flags
    assert reply.finish_reason == "length"


def test_strict_is_asked_only_of_schemas_that_are(endpoint):
    assert response_format("json_schema", TAGS)["json_schema"]["strict"] is True
    loose = {**TAGS, "additionalProperties": True}
    assert response_format("json_schema", loose)["json_schema"]["strict"] is False
    optional = {**TAGS, "required": []}
    assert response_format("json_schema", {"type": "array", "items": optional})["json_schema"]["strict"] is False


@pytest.mark.parametrize(
    ("value", "schema", "wrong"),
    [
        (5, {"type": "integer", "maximum": 10}, []),
        (100, {"type": "integer", "maximum": 10}, ["the answer: 100 must be at most 10"]),
        (5.0, {"type": "integer"}, []),
        (True, {"type": "integer"}, ["the answer: must be integer, not boolean"]),
        (True, {"enum": [1]}, ["the answer: true is not one of the allowed values"]),
        ("A", {"enum": ["A", "B"]}, []),
        ({"a": 1}, {"required": ["b"]}, ["the answer: lacks 'b'"]),
        ({"a": 1}, {"properties": {}, "additionalProperties": False}, ["a: is not allowed"]),
        ({"a": [{"b": "x"}]}, {"properties": {"a": {"items": {"$ref": "#/$defs/t"}}},
         "$defs": {"t": {"properties": {"b": {"type": "number"}}}}}, ["a[0].b: must be number, not string"]),
        (None, {"type": ["string", "null"]}, []),
        (None, {"anyOf": [{"type": "string"}, {"type": "null"}]}, []),
        (3, {"anyOf": [{"type": "string"}, {"type": "null"}]}, ["the answer: fits none of its forms"]),
        (["a", "a"], {"uniqueItems": True}, ["the answer: repeats an item"]),
        ("ab", {"minLength": 3}, ["the answer: has 2 characters, at least 3 are wanted"]),
        ("ab", {"pattern": "^b"}, ["the answer: does not match ^b"]),
        (float("nan"), {"type": "number"}, ["the answer: must be a finite number"]),
        ({"a": {"a": {}}}, {"$ref": "#"}, []),
    ],
)  # fmt: skip
def test_our_own_reading_of_json_schema(value, schema, wrong):
    assert schemas.problems(value, schema) == wrong


def test_an_endless_reference_ends():
    schema = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}
    assert schemas.problems(1, schema) == []
