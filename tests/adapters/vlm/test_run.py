"""A run with a local vision-language model, through the engine: real files, real worker, real proposals."""

from __future__ import annotations

import pytest
from PIL import Image

from prompts.actions import create_prompt, create_version, create_wordlist
from tagging.actions import policies
from tagging.actions.recipes import ChannelSpec, get_recipe
from tagging.actions.runs import start_run
from tagging.engine import residency, stage, worker
from tagging.models import Collection, ImageAsset, ModelAdapter, Policy, Prediction

pytestmark = pytest.mark.django_db

TERMS = ["black cat", "cat", "dog house", "street", "sunset"]


@pytest.fixture(autouse=True)
def _clean():
    stage.forget()
    yield
    residency.MODELS.evict()
    stage.forget()


@pytest.fixture
def collection(tmp_path):
    made = Collection.objects.create(name="Trip", slug="trip", root=str(tmp_path))
    for i, colour in enumerate(["red", "blue", "white"]):
        Image.new("RGB", (80 + 40 * i, 60), colour).save(tmp_path / f"{i}.jpg")
        ImageAsset.objects.create(collection=made, path=f"{i}.jpg", sha256=f"{i:064x}")
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    ImageAsset.objects.create(collection=made, path="bad.jpg", sha256="f" * 64)
    return made


def test_a_run_answers_from_the_vocabulary_and_names_the_bad_file(collection, checkpoint):
    model = ModelAdapter.objects.create(
        slug="tiny", label="Tiny", kind="vlm", source=str(checkpoint("qwen2_5_vl")), device="cpu",
        options={"vocabulary": "only", "max_new_tokens": 40, "max_terms": 3, "temperature": 1.0},
    )  # fmt: skip
    words = create_wordlist(slug="terms", kind="vocabulary", entries=TERMS)
    policy = policies.create_policy_version(
        Policy.objects.create(slug="p", name="p"), {"vocabulary": "only"}, [words.current]
    )
    prompt = create_version(create_prompt(slug="tags", task="tags"), template="Tags for {{ image.name }}:", message="x")
    run = start_run(get_recipe([ChannelSpec(model, prompt)], policy_version=policy), collection=collection)
    for _ in range(5):
        worker.drain("gpu")
        worker.drain("iwtag")
    run.refresh_from_db()
    assert run.state == "done", run.error
    assert run.provider == "cpu (fp32)"
    assert run.proposals.filter(state="error").values_list("image__path", flat=True).get() == "bad.jpg"
    for proposal in run.proposals.exclude(state="error"):
        kept = [tag[0] for tag in proposal.tags if tag[3] != "dropped"]
        assert kept
        assert set(kept) <= set(TERMS)
    assert Prediction.objects.count() == 3
    assert all(p.tokens_in and p.tokens_out for p in Prediction.objects.all())


def test_without_a_prompt_a_model_is_asked_in_its_own_words(collection, checkpoint):
    model = ModelAdapter.objects.create(
        slug="tiny", label="Tiny", kind="vlm", source=str(checkpoint("qwen2_5_vl")), device="cpu",
        options={"max_new_tokens": 8, "temperature": 0},
    )  # fmt: skip
    run = start_run(get_recipe([ChannelSpec(model)]), collection=collection)
    for _ in range(5):
        worker.drain("gpu")
        worker.drain("iwtag")
    run.refresh_from_db()
    assert run.state == "done", run.error
    assert Prediction.objects.filter(run=run).count() == 3
    assert all(p.tokens_in and p.tokens_out for p in Prediction.objects.filter(run=run))
