"""The general adapter on every architecture that loads without torchvision: prompts, batches, lengths."""

from __future__ import annotations

import pytest

from tagging.adapters import registry
from tagging.adapters.base import AdapterConfig, AdapterError, ModelUnavailable, Request
from tagging.adapters.vlm.chat import ChatModel

from .conftest import ask, picture

CHAT = ["llava", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "idefics3",
        "smolvlm", "gemma3", "gemma4", "paligemma", "mllama"]  # fmt: skip


def test_it_is_registered():
    assert registry.adapter_class("vlm") is ChatModel


@pytest.mark.parametrize("name", CHAT)
def test_a_batch_of_unlike_pictures_and_prompts_answers_like_one_by_one(loaded, name):
    adapter = loaded("vlm", name)
    options = adapter.options({"max_new_tokens": 8, "min_new_tokens": 4})
    asked = [
        (picture(1, 90, 60), Request(options, prompt="describe this image")),
        (picture(2, 60, 200), Request(options, prompt="a dog playing in the park, a cup of coffee, and a table")),
        (picture(3, 300, 200), Request(options, prompt="a cup of coffee on a table, street")),
    ]
    items = [adapter.prepare(image, request) for image, request in asked]
    assert len({item.length for item in items}) > 1  # there is padding
    together = list(adapter.infer(items, asked[0][1]))
    alone = [next(adapter.infer([item], asked[0][1])) for item in items]
    assert [r.text for r in together] == [r.text for r in alone]
    assert [r.tokens_in for r in together] == [item.length for item in items]
    assert all(4 <= r.tokens_out <= 8 for r in together)


@pytest.mark.parametrize("name", CHAT)
def test_the_prompt_and_the_system_words_reach_the_model_in_its_own_form(loaded, name):
    adapter = loaded("vlm", name)
    request = Request(adapter.options({"max_new_tokens": 2}), "a cat on a table", "a cup of coffee <image> [IMG]")
    item = adapter.prepare(picture(1), request)
    assert "a cat on a table" in item.prompt
    assert "a cup of coffee" in item.prompt
    tokens = adapter._processor.tokenizer.decode(item.inputs["input_ids"][0])
    assert "a cup of coffee" in tokens
    assert len(list(adapter.infer([item], request))) == 1  # words that look like a picture's marker do no harm


def test_an_empty_prompt_asks_the_default_question(loaded):
    assert ChatModel.default_prompt in loaded("vlm", "llava").prepare(picture(1), Request(ChatModel.Options())).prompt
    item = loaded("vlm", "paligemma").prepare(picture(1), Request(ChatModel.Options()))
    assert item.prompt.endswith("caption en")


def test_a_cut_answer_is_flagged(loaded):
    (reply,) = ask(loaded("vlm", "llava"), picture(1), max_new_tokens=3)
    assert reply.finish_reason == "length"
    assert reply.flags == ("truncated",)
    assert reply.tokens_out == 3


def test_nothing_is_loaded_before_load_and_unload_frees(checkpoint):
    adapter = ChatModel(AdapterConfig(source=str(checkpoint("llava"))))
    request = Request(adapter.options())
    with pytest.raises(AdapterError, match="not loaded"):
        adapter.prepare(picture(1), request)
    adapter.load()
    adapter.load()
    assert adapter.provider == "cpu (fp32)"
    adapter.unload()
    adapter.unload()
    assert adapter._model is None
    assert adapter.provider == ""
    with pytest.raises(AdapterError, match="not loaded"):
        list(adapter.infer([1], request))


def test_a_folder_that_is_none_says_so(tmp_path):
    adapter = ChatModel(AdapterConfig(source=str(tmp_path / "nowhere")))
    assert "No folder" in adapter.check()[0].message
    with pytest.raises(ModelUnavailable, match="No folder"):
        adapter.load()
