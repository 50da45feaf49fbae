"""A real `transformers serve` with a vision-language model: pictures go through a server that decodes them and a model
that sees them. Its weights are tiny and random: what is asserted is that pictures reach it, never what it says."""

from __future__ import annotations

import pytest
from PIL import Image

from tagging.adapters.base import AdapterConfig, AdapterError, Reply, Request
from tagging.adapters.endpoint import listing
from tagging.adapters.endpoint.adapter import Endpoint
from tests.adapters.helpers import encoded, image_input
from tests.fakes import transformers_server

from .conftest import ask, picture

pytestmark = pytest.mark.skipif(
    not transformers_server.there(), reason="needs torch, transformers, fastapi and uvicorn"
)

SCHEMA = {
    "type": "object",
    "properties": {"tags": {"type": "array", "items": {"type": "string"}}},
    "required": ["tags"],
}


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    with transformers_server.running(tmp_path_factory.mktemp("served")) as found:
        yield found


@pytest.fixture
def llava(served):
    address, model = served
    made = []

    def make(**options):
        given = {"model": model, "max_tokens": 8, "temperature": 0, "image_format": "png", "retries": 0, **options}
        made.append(Endpoint(AdapterConfig(source=address, options=given)))
        made[-1].load()
        return made[-1]

    yield make
    for adapter in made:
        adapter.unload()


def coloured(*colour):
    return image_input(encoded(Image.new("RGB", (90, 60), colour), "PNG"), "picture.png")


def test_the_answer_depends_on_the_picture(llava):
    adapter = llava()
    pictures = [coloured(255, 0, 0), coloured(0, 255, 0), coloured(0, 0, 255), coloured(255, 0, 0)]
    request = Request(adapter.options(), prompt="a photo of")
    replies = list(adapter.infer([adapter.prepare(p, request) for p in pictures], request))
    assert all(isinstance(reply, Reply) and reply.text for reply in replies)
    texts = [reply.text for reply in replies]
    assert texts[0] == texts[3]
    assert len(set(texts)) > 1
    for reply in replies:
        assert (reply.finish_reason, reply.flags[0], reply.tokens_out) == ("length", "truncated", 8)


def test_a_picture_costs_tokens(llava):
    adapter = llava()
    (seeing,) = ask(adapter, prompt="a photo of")
    (blind,) = ask(llava(send_image=False), prompt="a photo of")
    assert seeing.tokens_in > blind.tokens_in > 0


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_it_reads_every_format_that_is_offered(llava, kind):
    (reply,) = ask(llava(image_format=kind), prompt="a photo of")
    assert reply.text


def test_json_that_the_model_cannot_write_is_flagged(llava):
    """This server takes a response format and does nothing with it."""
    (reply,) = ask(llava(), prompt="Tags for", schema=SCHEMA)
    assert "parse_failed" in reply.flags
    assert reply.text


def test_an_option_that_the_server_does_not_have_is_named(llava):
    (error,) = ask(llava(top_k=5), prompt="a photo of")
    assert isinstance(error, AdapterError)
    assert error.permanent
    assert "422" in error.message
    assert "top_k" in error.message


def test_a_bad_picture_among_good_ones_never_reaches_it(llava):
    adapter = llava()
    request = Request(adapter.options(), prompt="a photo of")
    with pytest.raises(AdapterError):
        adapter.prepare(image_input(b"no picture", "bad.png"), request)
    (reply,) = adapter.infer([adapter.prepare(picture(), request)], request)
    assert reply.text


def test_its_models(served):
    address, model = served
    assert [m["id"] for m in listing.models(AdapterConfig(source=address))] == [model]
