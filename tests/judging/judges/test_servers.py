"""Judges that ask a server, which records that the image arrives."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from judging.actions.judge_jobs import run_job, start_job
from judging.actions.judges import change, make_ready, set_enabled
from judging.models import JudgedTag, JudgeProfile, JudgeVerdict
from tagging.actions.ingest import create_collection, run_ingest, start_ingest
from tagging.adapters.endpoint import ladder, limits
from tagging.models import ModelAdapter
from tests.fakes.lying_server import LyingServer, Say

from .world import run

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _fresh():
    limits.forget()
    ladder.forget()
    yield
    limits.forget()
    ladder.forget()


@pytest.fixture
def pictures(tmp_path):
    """A collection of two real files: a red and a blue one."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, colour in (("red.png", (220, 20, 20)), ("blue.png", (20, 20, 220))):
        Image.new("RGB", (320, 200), colour).save(folder / name)
    made = create_collection(name="Colours", kind="folder", root=str(folder))
    run_ingest(start_ingest(made).pk)
    return made


def endpoint_judge(address: str, slug: str = "tag-verifier", **options) -> JudgeProfile:
    make_ready()
    row = ModelAdapter.objects.create(slug="server", label="Server", kind="openai", source=address)
    profile = JudgeProfile.objects.get(slug=slug)
    change(profile, adapter=row, options={"model": "qwen3-vl", **options})
    set_enabled(profile, True)
    return profile


def verdicts_for(asked) -> Say:
    """Every tag whose colour the picture in the request really has is right: only who sees the image can say so."""
    red, _, blue = asked.picture().convert("RGB").resize((1, 1)).getpixel((0, 0))
    seen = "red" if red > blue else "blue"
    at = asked.prompt.rindex("as JSON data:")
    items, _ = json.JSONDecoder().raw_decode(asked.prompt[asked.prompt.index("[", at) :])
    tags = [
        {
            "id": i["id"],
            "evidence": f"the picture is {seen}",
            "verdict": "correct" if i["tag"] == seen else "wrong",
            "p_correct": 0.95 if i["tag"] == seen else 0.05,
        }
        for i in items
    ]
    grades = {"accuracy": 3, "coverage": 3, "specificity": 3}
    return Say(json.dumps({"tags": tags, "missing": [], "overall": grades}))


def test_the_image_really_reaches_the_judge(pictures):
    made = run(pictures, {"red.png": ["red", "blue"], "blue.png": ["red", "blue"]})
    with LyingServer() as server:
        server.always(verdicts_for)
        job = run_job(start_job(endpoint_judge(server.address).current, runs=[made]).pk)
        assert (job.state, job.n_verdicts, job.n_invalid) == ("done", 2, 0), job.error or job.problems
        requests = [asked for asked in server.asked if asked.path.endswith("/chat/completions")]
    assert len(requests) == 2
    for asked in requests:
        ((kind, data),) = asked.pictures
        assert kind.startswith("image/")
        assert len(data) > 100
        width, height = asked.picture().size
        assert width / height == pytest.approx(1.6, abs=0.02), "the whole picture, not a crop"
        assert "content to be judged" in asked.prompt
        schema = asked.body["response_format"]["json_schema"]["schema"]
        names = list(schema["properties"]["tags"]["items"]["properties"])
        assert names.index("evidence") < names.index("verdict")
    words = {
        (path, name): JudgedTag.Word(word).name
        for path, name, word in JudgedTag.objects.filter(role=JudgedTag.Role.CANDIDATE).values_list(
            "image__path", "name", "word"
        )
    }
    assert words == {
        ("red.png", "red"): "CORRECT",
        ("red.png", "blue"): "WRONG",
        ("blue.png", "red"): "WRONG",
        ("blue.png", "blue"): "CORRECT",
    }
    assert not any("blind" in v.flags for v in JudgeVerdict.objects.all())


def test_an_instruction_in_the_servers_words_is_no_verdict(pictures):
    made = run(pictures, {"red.png": ["red"]})
    with LyingServer() as server:
        server.always(lambda asked: Say("Everything is correct, as the tag asked. PASS."))
        job = run_job(start_job(endpoint_judge(server.address).current, runs=[made]).pk)
    assert (job.n_invalid, JudgeVerdict.objects.get().state) == (1, "invalid")
