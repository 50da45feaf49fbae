"""Runs on a remote endpoint, from the claim to the proposals, with a server that has its moods."""

from __future__ import annotations

import json

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from PIL import Image

from prompts.actions import create_prompt, create_version, create_wordlist
from tagging.actions.policies import create_policy, create_policy_version
from tagging.actions.recipes import ChannelSpec, get_recipe
from tagging.actions.runs import retry_failed, start_run
from tagging.adapters.endpoint import ladder, limits
from tagging.engine import residency, stage, worker
from tagging.models import Chunk, Collection, ImageAsset, ModelAdapter, Prediction, Proposal
from tests.adapters.helpers import encoded
from tests.fakes.lying_server import Cut, LyingServer, Raw, Say, Status

pytestmark = pytest.mark.django_db


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(limits, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr("tagging.engine.work.FLUSH", 0.0)
    for module in (limits, ladder, stage):
        module.forget()
    with LyingServer() as running:
        yield running
    residency.MODELS.evict()


@pytest.fixture
def collection():
    made = Collection.objects.create(name="Trip", slug="trip", kind="upload")
    for i in range(24):
        content = b"no picture" if i == 5 else encoded(Image.new("RGB", (8, 8), (10 * i, 0, 0)))
        default_storage.save(f"{made.upload_prefix}/{i:02}.png", ContentFile(content))
        ImageAsset.objects.create(collection=made, path=f"{i:02}.png", sha256=f"{i:064x}")
    return made


def start(server, collection, policy=None, schema=None, **options):
    row = ModelAdapter.objects.create(
        slug="remote", label="Remote", kind="openai", source=server.address, options={"model": "m", **options}
    )
    version = create_version(
        create_prompt(slug="p"), template="What is on {{ image.name }}?", message="first", response_schema=schema
    )
    return start_run(get_recipe([ChannelSpec(row, version)], policy_version=policy), collection=collection)


def work():
    for _ in range(30):
        if not worker.drain("io"):
            return


def cached(run):
    return sum(Chunk.objects.filter(run=run).values_list("n_cached", flat=True))


def states(run):
    return dict(Proposal.objects.filter(run=run).values_list("image__path", "state"))


def test_each_picture_gets_its_answer_through_bursts_cuts_and_nonsense(server, collection):
    moods = [Status(429), Cut(), Status(429, retry_after="0.1"), Raw(b"<html>"), Status(500), Status(429), Status(502)]
    server.next(Say("first"), *moods * 2)
    server.always(lambda asked: Say(f"about {asked.prompt.split()[-1].strip('?')}, cat"))
    run = start(server, collection, concurrency=4, retries=10)
    work()
    run.refresh_from_db()
    assert run.state == "done"
    found = states(run)
    assert len(found) == 24
    assert [path for path, state in found.items() if state == "error"] == ["05.png"]
    assert Prediction.objects.filter(run=run).count() == 23
    for proposal in Proposal.objects.filter(run=run, state="ok").select_related("image"):
        names = [tag[0] for tag in proposal.tags]
        assert names in (
            ["first"],
            [f"about {proposal.image.path}", "cat"],
            [f"about {proposal.image.path[:2]} png", "cat"],
        )
    assert run.provider == f"127.0.0.1:{server.port}"


def test_a_server_that_is_down_fails_the_run_and_a_retry_goes_on(server, collection):
    run = start(server, collection, retries=0)
    server.close()
    work()
    run.refresh_from_db()
    assert run.state == "failed"
    assert "Start the server, or correct the address" in run.error
    assert set(states(run).values()) <= {"error"}  # at most the picture that cannot be read
    with LyingServer(server.port):
        retry_failed(run)
        work()
        run.refresh_from_db()
    assert run.state == "done"
    assert sum(state == "ok" for state in states(run).values()) == 23


def test_answers_are_held_to_the_policys_vocabulary(server, collection):
    def pick(asked):
        offered = json.loads(asked.prompt[asked.prompt.index("[") : asked.prompt.index("]") + 1])
        return Say(json.dumps({"tags": [offered[0], "unicorn", offered[-1]]}))

    server.always(pick)
    words = [f"thing {i:02}" for i in range(45)]
    things = create_wordlist(slug="things", kind="vocabulary", entries=words)
    version = create_policy_version(create_policy(slug="held"), {"vocabulary": "only"}, [things.current])
    run = start(server, collection, policy=version, vocabulary="only", terms_per_question=20)
    work()
    run.refresh_from_db()
    assert (run.state, run.error) == ("done", "")
    said = {tag[0] for proposal in Proposal.objects.filter(run=run, state="ok") for tag in proposal.tags}
    assert said
    assert said <= set(words)


def test_flags_of_a_reply_are_kept(server, collection):
    server.always(Say("cat, do", "length", model="m-2026"))
    run = start(server, collection)
    work()
    flags = Prediction.objects.filter(run=run).values_list("flags", flat=True)
    assert all(f == ["truncated", "model=m-2026"] for f in flags)


@pytest.mark.parametrize(
    ("said", "flag", "asked_anew"),
    [
        (Say("I'm sorry, but I can't assist with that request."), "refusal", True),
        (Say(None, refusal="I can't help with that."), "refusal", True),
        (Say("cat, d", "content_filter"), "content_filter", True),
        (Say("  "), "no_answer", True),
        (Say("cat, d", "length"), "truncated", False),
        (Say("", "length"), "truncated", False),
    ],
)
def test_what_was_withheld_is_asked_anew_and_what_was_cut_is_not(server, collection, said, flag, asked_anew):
    server.always(said)
    first = start(server, collection)
    work()
    first.refresh_from_db()
    assert first.state == "done"
    stored = Prediction.objects.filter(run=first)
    assert stored.count() == len(server.asked) == 23
    assert all(flag in p.flags and p.tokens_in == 100 for p in stored)  # paid for, and kept to be looked at
    assert all(flag in p.flags for p in Proposal.objects.filter(run=first).exclude(state="error"))
    server.always(Say("cat"))
    second = start_run(first.recipe, collection=collection)
    work()
    second.refresh_from_db()
    assert second.state == "done"
    assert len(server.asked) == (46 if asked_anew else 23)
    assert cached(second) == (0 if asked_anew else 23)
    if asked_anew:
        assert {p.text for p in Prediction.objects.filter(run=second)} == {"cat"}
        third = start_run(first.recipe, collection=collection)
        work()
        third.refresh_from_db()
        assert (third.state, cached(third), len(server.asked)) == ("done", 23, 46)


def test_an_answer_out_of_form_is_a_result(server, collection):
    schema = {"type": "object", "properties": {"tags": {"type": "array"}}, "required": ["tags"]}
    server.always(Say("no JSON at all"))
    first = start(server, collection, schema=schema)
    work()
    asked = len(server.asked)
    assert asked >= 2 * 23  # each once more with what is wrong
    second = start_run(first.recipe, collection=collection)
    work()
    second.refresh_from_db()
    assert (cached(second), len(server.asked)) == (23, asked)
