"""Families with prompt or output rules of their own."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from tagging.adapters import registry
from tagging.adapters.base import AdapterConfig, AdapterError, ModelUnavailable, Request
from tagging.adapters.vlm.captioners import without_places
from tagging.adapters.vlm.florence import REGION_TASKS, Florence2
from tagging.adapters.vlm.joycaption import EXTRAS, KINDS, JoyCaption, wording

from .conftest import ask, picture
from .stand_in import write_moondream

FAMILIES = [
    ("florence2", "florence2", ""),
    ("promptgen", "florence2", ""),
    ("blip", "blip", "a photo of"),
    ("blip", "blip2", "a photo of"),
    ("blip", "instructblip", "describe this image"),
    ("kosmos2", "kosmos2", "An image of"),
    ("git", "git", "a dog"),
    ("git", "vit_gpt2", ""),
    ("joycaption", "joycaption", ""),
]


@pytest.mark.parametrize(("key", "name", "prompt"), FAMILIES)
def test_a_batch_answers_like_one_by_one(loaded, key, name, prompt):
    adapter = loaded(key, name)
    options = adapter.options({"max_new_tokens": 6, "min_new_tokens": 3})
    longer = f"{prompt} a cup of coffee" if prompt else ""
    asked = [
        (picture(1), Request(options, prompt=prompt)),
        (picture(2, 60, 200), Request(options, prompt=longer)),
        (picture(3, 300, 200), Request(options, prompt=prompt)),
    ]
    items = [adapter.prepare(image, request) for image, request in asked]
    together = list(adapter.infer(items, asked[0][1]))
    assert [r.text for r in together] == [next(adapter.infer([i], asked[0][1])).text for i in items]
    assert all(3 <= r.tokens_out <= 6 for r in together)
    assert all(not r.text.startswith(prompt) for r in together if prompt)  # the prompt is cut off


@pytest.mark.parametrize(("key", "name", "prompt"), [f for f in FAMILIES if f[0] in ("blip", "git", "kosmos2")])
def test_the_answer_starts_as_wanted(loaded, key, name, prompt):
    (reply,) = ask(
        loaded(key, name), picture(1), prompt=prompt, start_with="a black cat", max_new_tokens=4, min_new_tokens=4
    )
    assert reply.text.startswith("a black cat")
    assert len(reply.text) > len("a black cat")


@pytest.mark.parametrize("name", ["blip", "blip2", "instructblip"])
def test_captioners_keep_to_a_vocabulary_too(loaded, name):
    terms = ["black cat", "cat", "dog", "street"]
    for seed in range(3):
        (reply,) = ask(loaded("blip", name), picture(1), prompt="a photo of", terms=terms, vocabulary="only",
                       temperature=1.5, seed=seed, max_new_tokens=30)  # fmt: skip
        assert set(reply.text.split(", ")) <= set(terms)
        assert reply.caption is None


@pytest.mark.parametrize(("key", "name", "prompt"), [f for f in FAMILIES if f[0] in ("blip", "git")])
def test_captioners_answer_with_a_caption(loaded, key, name, prompt):
    (reply,) = ask(loaded(key, name), picture(1), prompt=prompt, max_new_tokens=6)
    assert reply.caption == reply.text


@pytest.mark.parametrize("key", ["florence2", "promptgen", "git", "kosmos2", "blip"])
def test_only_options_that_the_family_has_are_offered(key):
    names = set(registry.adapter_class(key).Options.model_fields)
    lacking = {
        "florence2": {"start_with", "vocabulary", "thinking"},
        "promptgen": {"start_with", "vocabulary", "thinking"},
        "git": {"vocabulary", "thinking"},
        "kosmos2": {"vocabulary", "thinking"},
        "blip": {"thinking"},
    }[key]
    assert not names & lacking
    assert {"max_new_tokens", "seed", "dtype"} <= names


# -- Florence-2 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", REGION_TASKS)
def test_region_tasks_are_refused_by_name(loaded, task):
    adapter = loaded("florence2", "florence2")
    with pytest.raises(AdapterError, match="places in the picture"):
        adapter.prepare(picture(1), Request(adapter.options(), prompt=f"<{task}>"))
    with pytest.raises(ValidationError, match="task"):
        adapter.options({"task": task})


def test_florence_takes_a_task_as_a_prompt_and_no_other_words(loaded):
    adapter = loaded("florence2", "florence2")
    assert adapter.prepare(picture(1), Request(adapter.options(), prompt="<OCR>")).prompt == "<OCR>"
    assert adapter.prepare(picture(1), Request(adapter.options({"task": "CAPTION"}))).prompt == "<CAPTION>"
    with pytest.raises(AdapterError, match="Leave the prompt empty"):
        adapter.prepare(picture(1), Request(adapter.options(), prompt="describe this"))


def test_promptgen_tags_are_left_to_the_policy_and_captions_are_captions(loaded):
    adapter = loaded("promptgen", "florence2")
    (tags,) = ask(adapter, picture(1), task="GENERATE_TAGS", max_new_tokens=4)
    (caption,) = ask(adapter, picture(1), task="CAPTION", max_new_tokens=4)
    assert tags.caption is None
    assert caption.caption is not None
    with pytest.raises(AdapterError, match="no free words"):
        adapter.prepare(picture(1), Request(adapter.options(), prompt="<OCR_>"))


def test_places_are_no_part_of_a_florence_caption():
    clean = Florence2(AdapterConfig(source="x")).clean
    assert clean("a cat<loc_12><loc_3> on a <poly><loc_1></poly>table", Florence2.Options()) == "a cat on a table"


def test_the_layout_of_florences_authors_is_told_apart(checkpoint, tmp_path):
    config = {"model_type": "florence2", "auto_map": {"AutoConfig": "configuration_florence2.Florence2Config"},
              "vision_config": {"model_type": "davit"}}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((checkpoint("florence2") / "model.safetensors").read_bytes())
    adapter = Florence2(AdapterConfig(source=str(tmp_path)))
    assert any("convert" in problem.mend for problem in adapter.check())
    with pytest.raises(ModelUnavailable, match="converted"):
        adapter.load()


# -- Kosmos-2 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "caption", "names"),
    [
        (
            "An image of<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863></object> warming by"
            "<phrase> a fire</phrase><object><patch_index_0005><patch_index_0911></object>.",
            "An image of a snowman warming by a fire.",
            ["a snowman", "a fire"],
        ),
        ("<phrase>a cat</phrase> and<phrase> a cat</phrase>", "a cat and a cat", ["a cat"]),
        (
            "<phrase>dogs</phrase><object><patch_index_0001></delimiter_of_multi_objects/>"
            "<patch_index_0002></object> run",
            "dogs run",
            ["dogs"],
        ),
        ("a cat<object><patch_index_0001>", "a cat", []),  # cut off within places
        ("a cat", "a cat", []),
    ],
)
def test_grounding_is_cut_out_and_its_phrases_become_tags(text, caption, names):
    assert without_places(text) == (caption, names)


def test_kosmos_answers_without_places(loaded):
    (reply,) = ask(loaded("kosmos2", "kosmos2"), picture(1), max_new_tokens=8)
    assert "<" not in reply.caption
    item = loaded("kosmos2", "kosmos2").prepare(picture(1), Request(loaded("kosmos2", "kosmos2").options()))
    assert item.prompt == "<grounding>An image of"


# -- JoyCaption --------------------------------------------------------------------------------------------------------


def test_joycaption_is_asked_in_its_own_words(loaded):
    adapter = loaded("joycaption", "joycaption")
    options = adapter.options({"caption_type": "casual", "caption_length": "50", "extras": ["lighting"]})
    item = adapter.prepare(picture(1), Request(options))
    assert "You are a helpful image captioner." in item.prompt
    assert "casual tone in 50 words or less." in item.prompt
    assert "lighting" in item.prompt
    own = adapter.prepare(picture(1), Request(options, "Be brief.", "What is this?"))
    assert "Be brief." in own.prompt
    assert "What is this? Include information about lighting." in own.prompt


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", ["any", "short", "30"])
def test_every_type_and_length_makes_one_clean_request(kind, length):
    text = wording(JoyCaption.Options(caption_type=kind, caption_length=length))
    assert "{" not in text
    assert "  " not in text
    assert (length in text) == (length != "any")
    assert text.endswith(".")


def test_every_extra_adds_a_sentence_and_a_name_needs_a_name():
    plain = wording(JoyCaption.Options())
    for extra in EXTRAS:
        assert len(wording(JoyCaption.Options(extras=[extra], person_name="Ann"))) > len(plain)
    assert wording(JoyCaption.Options(extras=["name"])) == plain
    assert "Ann" in wording(JoyCaption.Options(extras=["name"], person_name="Ann"))


# -- Moondream: code that comes with the model -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moondream(checkpoint, tmp_path_factory):
    return write_moondream(tmp_path_factory.mktemp("moon"))


def test_moondream_runs_its_own_code_only_when_that_is_ticked(moondream):
    adapter = registry.build("moondream", AdapterConfig(source=str(moondream)))
    assert any(problem.fatal and "tick" in problem.mend for problem in adapter.check())
    with pytest.raises(ModelUnavailable, match="tick 'Run code"):
        adapter.load()
    trusted = registry.build("moondream", AdapterConfig(source=str(moondream), options={"trust_remote_code": True}))
    (warning,) = trusted.check()
    assert not warning.fatal
    assert "all rights" in warning.message
    assert trusted.identity() != adapter.identity()  # the code's content counts


def test_moondream_captions_and_answers(moondream):
    adapter = registry.build("moondream", AdapterConfig(source=str(moondream), options={"trust_remote_code": True}))
    with adapter:
        (caption,) = ask(adapter, picture(1, 200, 100), length="short", max_image_side=100)
        assert caption.caption.startswith("a short caption of 100x50")
        (answer,) = ask(adapter, picture(1), prompt="what is it?")
        assert (answer.text, answer.caption) == ("WHAT IS IT?", None)
        warm = {"temperature": 1.0}
        assert ask(adapter, picture(1), **warm)[0].text == ask(adapter, picture(1), **warm)[0].text
        assert ask(adapter, picture(1), **warm)[0].text != ask(adapter, picture(1), seed=1, **warm)[0].text
        with pytest.raises(AdapterError, match="No memory"):
            ask(adapter, picture(1), prompt="fail")
