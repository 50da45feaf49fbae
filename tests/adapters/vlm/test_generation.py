"""What steers an answer, on real `generate` calls of tiny models."""

from __future__ import annotations

import pytest
from PIL import Image
from pydantic import ValidationError

from tagging.adapters.base import AdapterError
from tagging.adapters.vlm.chat import ChatModel

from .conftest import ask, picture

#: Tokenizers of both kinds: underlines for spaces, and bytes.
MODELS = ["llava", "qwen2_5_vl"]
HOT = {"temperature": 1.5, "max_new_tokens": 12}
TERMS = [
    "black cat",
    "cat",
    "cat tree",
    "dog",
    "dog house",
    "street",
    "car",
    "tree",
    "flower",
    "beach",
    "sunset",
    "Lake",
]


@pytest.fixture(params=MODELS)
def adapter(loaded, request):
    return loaded("vlm", request.param)


def texts(replies) -> list[str]:
    return [reply.text for reply in replies]


def test_sampling_is_repeatable_whatever_else_is_in_the_batch(adapter):
    pictures = [picture(n) for n in range(4)]
    together = texts(ask(adapter, *pictures, seed=7, **HOT))
    assert together == texts(ask(adapter, *pictures, seed=7, **HOT))
    assert together[2:] == texts(ask(adapter, pictures[2], seed=7, **HOT)) + texts(
        ask(adapter, pictures[3], seed=7, **HOT)
    )


def test_seed_sample_and_image_change_what_is_drawn(adapter):
    first = texts(ask(adapter, picture(1), seed=7, **HOT))
    assert first != texts(ask(adapter, picture(1), seed=8, **HOT))
    assert first != texts(ask(adapter, picture(1), seed=7, sample=1, **HOT))
    greedy = {"max_new_tokens": 12}
    assert texts(ask(adapter, picture(1), seed=1, **greedy)) == texts(ask(adapter, picture(1), seed=2, **greedy))


def test_top_k_of_one_is_greedy(adapter):
    assert texts(ask(adapter, picture(1), top_k=1, **HOT)) == texts(ask(adapter, picture(1), max_new_tokens=12))
    assert texts(ask(adapter, picture(1), min_p=1.0, **HOT)) == texts(ask(adapter, picture(1), max_new_tokens=12))


def test_draws_follow_the_probabilities(loaded):
    """Of many samples of one token, each token's share is near its probability."""
    import torch

    from tagging.adapters.vlm.decoding import RowSampler, row_seed

    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    rows = 4000
    sampler = RowSampler(torch, [row_seed(1, n, "x") for n in range(rows)], 1, "cpu")
    drawn = sampler(torch.zeros(rows, 3, dtype=torch.long), logits.repeat(rows, 1)).argmax(-1)
    shares = torch.bincount(drawn, minlength=4) / rows
    assert torch.allclose(shares, torch.tensor([0.5, 0.3, 0.15, 0.05]), atol=0.03)


def test_the_answer_ends_before_a_stop_string(adapter):
    whole = texts(ask(adapter, picture(1), seed=3, temperature=1.5, max_new_tokens=24))[0]
    stop = whole[len(whole) // 2]
    (reply,) = ask(adapter, picture(1), seed=3, temperature=1.5, max_new_tokens=24, stop=[stop])
    assert reply.text == whole[: whole.index(stop)].strip()
    assert reply.finish_reason == "stop"
    assert reply.flags == ()
    assert reply.tokens_out < 24


@pytest.mark.parametrize(
    "knobs", [{}, {"num_beams": 3, "length_penalty": 0.5}, {"repetition_penalty": 1.7}, {"no_repeat_ngram_size": 2}]
)
def test_the_answer_is_that_of_the_plain_library(adapter, knobs):
    """The same question by the documented way: chat template, processor, generate, decode."""
    import torch

    processor = adapter._processor
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a cup of coffee"}]}
    text = processor.tokenizer.apply_chat_template(
        [message], chat_template=processor.chat_template, tokenize=False, add_generation_prompt=True
    )
    inputs = processor(text=[text], images=[Image.open(picture(1).open())], return_tensors="pt")
    with torch.no_grad():
        rows = adapter._model.generate(**inputs, max_new_tokens=10, do_sample=False, **knobs)
    plain = processor.batch_decode(rows[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]
    (reply,) = ask(adapter, picture(1), prompt="a cup of coffee", max_new_tokens=10, **knobs)
    assert reply.text == plain.strip()


def test_no_run_of_tokens_is_repeated(adapter):
    (reply,) = ask(adapter, picture(1), prompt="cat", max_new_tokens=40, min_new_tokens=40, no_repeat_ngram_size=1)
    item_tokens = reply.text
    assert item_tokens  # 40 different tokens, none of the prompt's
    assert reply.tokens_out == 40


def test_the_answer_starts_as_wanted_and_goes_on_from_there(adapter):
    start = "a photo of a"
    (reply,) = ask(adapter, picture(1), prompt="describe", start_with=start, max_new_tokens=6, min_new_tokens=6)
    assert reply.text.startswith(start)
    assert len(reply.text) > len(start)
    assert reply.text.count(start) == 1


def test_discouraged_words_do_not_come(adapter):
    seeds = range(6)
    options = {"temperature": 2.0, "max_new_tokens": 24}
    before = [texts(ask(adapter, picture(1), seed=seed, **options))[0] for seed in seeds]
    word = max("cat dog table a the photo coffee tree".split(), key=lambda w: sum(w in text.split() for text in before))
    after = [ask(adapter, picture(1), seed=seed, discouraged=[word], **options)[0] for seed in seeds]
    assert not any(word in reply.text.split() for reply in after)


def test_a_discouraged_word_that_comes_nevertheless_is_flagged(adapter):
    (reply,) = ask(adapter, picture(1), start_with="A cat,", discouraged=["cat"], max_new_tokens=3)
    assert "discouraged_present" in reply.flags


def test_missing_words_are_asked_for_and_flagged(loaded, monkeypatch):
    adapter, asked = loaded("vlm", "llava"), []
    original = type(adapter).ask

    def spy(self, picture, image, request, prompt):
        asked.append(prompt)
        return original(self, picture, image, request, prompt)

    monkeypatch.setattr(type(adapter), "ask", spy)
    (reply,) = ask(adapter, picture(1), prompt="describe", forced=["zebra|unicorn"], forced_retries=2, max_new_tokens=4)
    assert len(asked) == 3
    assert all('"zebra" or "unicorn"' in prompt for prompt in asked[1:])
    assert "forced_missing" in reply.flags
    asked.clear()
    (reply,) = ask(adapter, picture(1), prompt="describe", forced=["cat"], start_with="A cat,", max_new_tokens=4)
    assert len(asked) == 1
    assert "forced_missing" not in reply.flags


def test_an_answer_that_has_the_words_at_the_second_try_is_taken(loaded, monkeypatch):
    adapter, tries = loaded("vlm", "llava"), []
    original = type(adapter).generate

    def second_time_lucky(self, batch, options, attempt=0):
        tries.append([item.name for item in batch])
        answers = original(self, batch, options, attempt)
        for item, answer in zip(batch, answers, strict=True):
            answer.text = "a zebra" if attempt == 1 or item.name == "2.png" else "nothing"
        return answers

    monkeypatch.setattr(type(adapter), "generate", second_time_lucky)
    first, second = ask(adapter, picture(1), picture(2), forced=["zebra"], max_new_tokens=4)
    assert tries == [["1.png", "2.png"], ["1.png"]]  # only what lacked words is asked again
    assert (first.text, second.text) == ("a zebra", "a zebra")
    assert "asked_again" in first.flags
    assert "asked_again" not in second.flags


# -- vocabulary --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, HOT, {"num_beams": 3}, {"repetition_penalty": 1.8}, {"discouraged": ["cat", "dog"]}]
)
def test_an_answer_from_the_vocabulary_is_a_list_of_its_terms(adapter, options):
    chosen = {"max_new_tokens": 40, "vocabulary": "only", "max_terms": 6, **options, "min_new_tokens": 0}
    for reply in ask(adapter, *(picture(n, 60 + 40 * n, 60) for n in range(3)), terms=TERMS, **chosen):
        said = reply.text.split(", ")
        assert said[0]
        assert set(said) <= set(TERMS)
        assert len(said) == len(set(said)) <= 6
        assert reply.caption is None


def test_the_vocabulary_holds_in_a_batch_as_it_does_alone(adapter):
    pictures = [picture(n, 60 + 40 * n, 60) for n in range(3)]
    chosen = {"temperature": 1.5, "max_new_tokens": 30, "vocabulary": "only", "seed": 5}
    together = texts(ask(adapter, *pictures, terms=TERMS, **chosen))
    assert together == [texts(ask(adapter, one, terms=TERMS, **chosen))[0] for one in pictures]


def test_terms_may_repeat_when_asked(adapter):
    (reply,) = ask(adapter, picture(1), terms=["cat"], vocabulary="only", repeat_terms=True, max_new_tokens=60,
                   temperature=2.0, max_terms=3, seed=2)  # fmt: skip
    assert set(reply.text.split(", ")) == {"cat"}
    (once,) = ask(adapter, picture(1), terms=["cat"], vocabulary="only", max_new_tokens=60)
    assert once.text == "cat"
    assert once.finish_reason == "stop"


def test_the_most_terms_are_kept_to(adapter):
    for seed in range(4):
        (reply,) = ask(adapter, picture(1), terms=TERMS, vocabulary="only", max_terms=2, seed=seed, temperature=2.0,
                       max_new_tokens=60)  # fmt: skip
        assert len(reply.text.split(", ")) <= 2


def test_a_vocabulary_that_is_not_there_or_does_not_fit_says_so(adapter):
    with pytest.raises(AdapterError, match="the recipe has none"):
        ask(adapter, picture(1), vocabulary="only")
    with pytest.raises(AdapterError, match="raise the most new tokens"):
        ask(adapter, picture(1), vocabulary="only", terms=["mountains and a lake under a blue sky"], max_new_tokens=1)


def test_ordinary_answers_ignore_the_terms(adapter):
    assert texts(ask(adapter, picture(1), terms=TERMS, max_new_tokens=8)) == texts(
        ask(adapter, picture(1), max_new_tokens=8)
    )


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"top_p": 0.5}, "temperature"),
        ({"num_beams": 2, "temperature": 1.0}, "beams"),
        ({"min_new_tokens": 50, "max_new_tokens": 10}, "fewest"),
        ({"colour": "red"}, "colour"),
        ({"max_new_tokens": "many"}, "max_new_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"seed": -1}, "seed"),
    ],
)
def test_options_that_make_no_sense_are_refused(given, word):
    with pytest.raises(ValidationError, match=word):
        ChatModel.Options.model_validate(given)


def test_how_the_work_is_done_is_no_part_of_the_identity():
    names = set(ChatModel.Options().inference_dict())
    assert {"temperature", "seed", "max_image_side", "dtype", "vocabulary"} <= names
    assert not {"attention", "compile"} & names


def test_every_option_tells_its_title_and_help():
    for name, field in ChatModel.Options.model_json_schema()["properties"].items():
        assert field.get("title"), name
        assert field.get("description"), name
