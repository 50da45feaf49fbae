"""Questions outside of runs: judges, merges."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tagging.adapters import registry
from tagging.adapters.base import AdapterError, ModelUnavailable
from tagging.engine import asking, residency
from tagging.engine.asking import Item, ask, call_of
from tagging.models import Collection, ImageAsset, ModelAdapter, Prediction
from tests.fakes.lying_server import LyingServer, Say

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    for key, name in (("fake-talker", "Talker"), ("fake-reader", "Reader")):
        monkeypatch.setitem(registry.BUILT_IN, key, (name, f"tests.fakes.adapter:{name}"))
    registry.registered.cache_clear()
    yield
    residency.MODELS.evict()
    registry.registered.cache_clear()


@pytest.fixture
def row(tmp_path):
    return ModelAdapter.objects.create(
        slug="t", label="T", kind="fake-talker", options={"says": "{prompt} of {name}", "log": str(tmp_path / "log")}
    )


@pytest.fixture
def images():
    collection = Collection.objects.create(name="C", slug="c", root="/nowhere")
    return [ImageAsset.objects.create(collection=collection, path=f"{i}.jpg", sha256=f"{i:064x}") for i in range(5)]


def answered(*args, **kwargs):
    return {item.ref: outcome for item, outcome in ask(*args, **kwargs)}


def computed(tmp_path):
    log = tmp_path / "log"
    return [line for line in log.read_text().splitlines() if line.startswith("c ")] if log.exists() else []


def test_answers_are_predictions_and_are_asked_for_once(row, images, tmp_path):
    items = [Item(ref=i, image=image, prompt="A tag") for i, image in enumerate(images)]
    found = answered(call_of(row), items)
    assert {ref: p.text for ref, p in found.items()} == {i: f"A tag of {i}.jpg" for i in range(5)}
    again = answered(call_of(row), items)
    assert {ref: p.pk for ref, p in again.items()} == {ref: p.pk for ref, p in found.items()}
    assert len(computed(tmp_path)) == Prediction.objects.count() == 5


def test_what_differs_is_another_question(row, images, tmp_path):
    image = images[0]
    base = {"image": image, "prompt": "A"}
    variants = [
        {},
        {"prompt": "B"},
        {"system": "S"},
        {"schema": {"type": "object"}},
        {"sample": 1},
        {"image": images[1]},
    ]
    items = [Item(ref=i, **{**base, **more}) for i, more in enumerate(variants)]
    assert len({p.pk for p in answered(call_of(row), items).values()}) == 6
    assert len({p.pk for p in answered(call_of(row, extras={"rubric": "x"}), items).values()}) == 6
    assert len({p.pk for p in answered(call_of(row, {"variant": "2"}), items).values()}) == 6
    assert Prediction.objects.count() == 18


def test_the_same_question_twice_at_once_is_one_call(row, images, tmp_path):
    items = [Item(ref=i, image=images[0], prompt="A") for i in range(4)]
    assert len(answered(call_of(row), items)) == 4
    assert len(computed(tmp_path)) == 1


def test_a_bad_image_is_its_own_error_and_is_not_kept(row, images):
    call = call_of(row, {"bad": ["1.jpg"], "refused": ["2.jpg"], "failing": ["3.jpg"]})
    found = answered(call, [Item(ref=i, image=image, prompt="A") for i, image in enumerate(images)])
    assert {ref for ref, outcome in found.items() if isinstance(outcome, AdapterError)} == {1, 2, 3}
    assert str(found[1]) == "1.jpg cannot be decoded"
    assert str(found[3]) == "RuntimeError: shape mismatch"
    assert Prediction.objects.count() == 2


def test_stop_keeps_what_was_answered(row, images, tmp_path, monkeypatch):
    monkeypatch.setattr(asking, "STORE_AT", 1)
    seen = []
    call = call_of(row, {"batch": 1})
    items = [Item(ref=i, image=image, prompt="A") for i, image in enumerate(images)]
    for item, _ in ask(call, items, stop=lambda: len(seen) >= 2):
        seen.append(item.ref)
    assert len(seen) == 2
    assert Prediction.objects.count() == 2
    assert len(answered(call, items)) == 5
    assert len(computed(tmp_path)) == 5


def test_an_asker_that_leaves_early_loses_nothing(row, images):
    call = call_of(row, {"batch": 1})
    stream = ask(call, [Item(ref=i, image=image, prompt="A") for i, image in enumerate(images)])
    next(stream)
    stream.close()
    assert Prediction.objects.count() >= 1


def test_out_of_memory_halves_and_is_remembered(row, images, tmp_path):
    call = call_of(row, {"batch": 4, "out_of_memory_over": 2})
    for prompt in ("A", "B"):
        assert len(answered(call, [Item(ref=i, image=image, prompt=prompt) for i, image in enumerate(images)])) == 5
    tried = [int(x.split()[1]) for x in (tmp_path / "log").read_text().splitlines() if x.startswith("batch")]
    assert [n for n in tried if n > 2] == [4]


def test_text_alone_needs_no_image(row, images):
    (prediction,) = answered(call_of(row), [Item(ref=1, image=None, prompt="A")]).values()
    assert (prediction.text, prediction.image_sha256) == ("A of ", "")


def test_a_model_that_does_not_see_is_asked_the_same_only_once(images, tmp_path):
    row = ModelAdapter.objects.create(
        slug="r", label="R", kind="fake-reader", options={"says": "{prompt}", "log": str(tmp_path / "log")}
    )
    found = answered(call_of(row), [Item(ref=i, image=image, prompt="A") for i, image in enumerate(images)])
    assert len(found) == 5
    assert len(computed(tmp_path)) == 1


def test_what_keeps_a_model_from_loading_is_said(row, images):
    with pytest.raises(ModelUnavailable, match="Mend"):
        answered(call_of(row, {"unavailable": "Mend me."}), [Item(ref=1, image=images[0], prompt="A")])
    with pytest.raises(ValidationError):
        call_of(row, {"no_such": 1})


def test_cached_answers_load_no_model(row, images):
    items = [Item(ref=1, image=images[0], prompt="A")]
    answered(call_of(row), items)
    residency.MODELS.evict()
    doing: list[str] = []
    answered(call_of(row), items, doing=doing.append)
    assert doing == []
    assert call_of(row).model_key not in residency.MODELS


def test_a_refusal_is_kept_and_asked_anew():
    with LyingServer() as server:
        server.always(Say("I'm sorry, but I can't assist with that."))
        row = ModelAdapter.objects.create(
            slug="r", label="R", kind="openai", source=server.address, options={"model": "m"}
        )
        items = [Item(ref=i, image=None, prompt=f"Tell me {i}") for i in range(3)]
        first = answered(call_of(row), items)
        assert [p.flags[0] for p in first.values()] == ["refusal"] * 3
        server.always(Say("yes"))
        second = answered(call_of(row), items)
        assert {p.text for p in second.values()} == {"yes"}
        assert len(server.asked) == Prediction.objects.count() == 6
        assert {p.pk for p in answered(call_of(row), items).values()} == {p.pk for p in second.values()}
        assert len(server.asked) == 6
