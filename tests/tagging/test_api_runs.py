from __future__ import annotations

import shutil

import pytest

from prompts.models import Prompt, PromptVersion
from tagging.actions.ingest import create_collection, run_ingest, start_ingest
from tagging.engine import residency, worker
from tagging.models import Chunk, ModelAdapter, Proposal, Run

from .world import collection, image, keyed, person, run_of

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def rings(monkeypatch):
    """The queue's doorbell, unheard."""
    heard = []
    monkeypatch.setattr("tagging.queue.kick", lambda queue, n=1: heard.append(queue))
    return heard


@pytest.fixture
def client():
    return keyed(person("cy", "curator"))


@pytest.fixture
def trip():
    made = collection()
    ModelAdapter.objects.create(slug="lite", label="Lite", kind="photo-lite")
    for i in range(4):
        image(made, f"{i}.jpg", top_score=i / 4, sha256=f"{i:064x}")
    return made


def post(client, url, **body):
    return client.post(url, body, content_type="application/json")


def test_a_run_is_started_from_an_adapter(client, trip, rings):
    answer = post(client, "/api/runs", collection="trip", adapter="lite", name="First")
    assert answer.status_code == 201, answer.content
    made = answer.json()
    assert (made["state"], made["total"], made["created_by"], made["name"]) == ("running", 4, "cy", "First")
    assert made["counts"] == {"ok": 0, "empty": 0, "error": 0, "cached": 0, "fallback": 0, "waiting": 4}
    assert rings == ["gpu"]
    again = post(client, "/api/runs", collection="trip", recipe=made["recipe"]).json()
    assert (again["recipe"], again["id"]) == (made["recipe"], made["id"] + 1)


def test_a_run_over_filtered_images(client, trip):
    body = {"collection": "trip", "adapter": "lite", "images": {"min_score": 0.5}}
    made = post(client, "/api/runs", **body).json()
    assert made["total"] == 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"collection": "nope", "adapter": "lite"}, "collection"),
        ({"adapter": "lite"}, "collection"),
        ({"collection": "trip"}, "recipe"),
        ({"collection": "trip", "recipe": 1, "adapter": "lite"}, "recipe"),
        ({"collection": "trip", "recipe": 99}, "recipe"),
        ({"collection": "trip", "recipe": 99, "options": {"a": 1}}, "options"),
        ({"collection": "trip", "adapter": "gpt"}, "adapter"),
        ({"collection": "trip", "adapter": "off"}, "adapter"),
        ({"collection": "trip", "adapter": "lite", "options": {"colour": 1}}, "options"),
        ({"collection": "trip", "adapter": "lite", "prompt_version": 99}, "prompt_version"),
        ({"collection": "trip", "adapter": "lite", "prompt_version": "mine"}, "prompt_version"),
        ({"collection": "trip", "adapter": "lite", "images": {"min_score": 7}}, "images.min_score"),
        ({"collection": "trip", "adapter": "lite", "images": {"colour": 7}}, "images.colour"),
        ({"collection": "trip", "adapter": "lite", "images": {"tag": ["nope"]}}, "images"),
        ({"collection": "trip", "adapter": "lite", "priority": 10**6}, "priority"),
    ],
)
def test_a_wrong_run_names_the_field_and_starts_nothing(client, trip, rings, body, field):
    ModelAdapter.objects.create(slug="off", label="Off", kind="photo-lite", enabled=False)
    answer = post(client, "/api/runs", **body)
    assert (answer.status_code, answer.json().get("field")) == (422, field), answer.content
    assert not Run.objects.exists()
    assert rings == []


def test_a_prompt_for_a_model_that_takes_none(client, trip):
    version = PromptVersion.objects.create(prompt=Prompt.objects.create(slug="p", name="p"), template="x", message="x")
    answer = post(client, "/api/runs", collection="trip", adapter="lite", prompt_version=version.pk)
    assert (answer.status_code, answer.json()["field"]) == (422, "prompt_version")


def test_progress_of_many_runs_costs_the_same(client, trip, django_assert_num_queries):
    for _ in range(3):
        post(client, "/api/runs", collection="trip", adapter="lite")
    Chunk.objects.filter(run=Run.objects.first()).update(n_ok=2, n_error=1, n_cached=1)
    with django_assert_num_queries(4):  # key, permissions, runs, progress
        items = client.get("/api/runs").json()["items"]
    assert items[0]["counts"] == {"ok": 2, "empty": 0, "error": 1, "cached": 1, "fallback": 0, "waiting": 1}
    assert items[0]["done"] == 3
    assert client.get(f"/api/runs/{items[0]['id']}").json() == items[0]


def test_runs_are_filtered(client, trip):
    post(client, "/api/runs", collection="trip", adapter="lite")
    collection("Other")
    assert len(client.get("/api/runs?collection=trip&state=running").json()["items"]) == 1
    assert client.get("/api/runs?collection=other").json()["items"] == []
    assert client.get("/api/runs?state=paused").json()["items"] == []
    assert client.get("/api/runs?state=asleep").json()["field"] == "state"


def test_a_run_is_paused_resumed_cancelled_and_retried(client, trip):
    url = f"/api/runs/{post(client, '/api/runs', collection='trip', adapter='lite').json()['id']}"
    assert client.post(f"{url}/pause").json()["state"] == "paused"
    refused = client.post(f"{url}/pause")
    assert (refused.status_code, "paused" in refused.json()["detail"]) == (409, True)
    assert client.post(f"{url}/resume").json()["state"] == "running"
    assert client.post(f"{url}/cancel").json()["state"] == "cancelled"
    assert client.post(f"{url}/cancel").status_code == 409
    assert client.post(f"{url}/resume").status_code == 409
    assert client.post(f"{url}/retry").json()["state"] == "running"


def test_proposals_come_in_pages_with_the_fate_of_each_tag(client, trip, django_assert_num_queries):
    run = run_of(trip)
    for i in range(5):
        state = {"state": "error", "error": "truncated"} if i == 4 else {"state": "ok"}
        tags = [["dog", "animal", 0.5, "changed", "underscores", "lite", "dog_"]]
        Proposal.objects.create(run=run, image=image(trip, f"p{i}.jpg"), tags=tags if i < 4 else [], **state)
    url = f"/api/runs/{run.pk}/proposals?limit=3"
    client.get(url)
    with django_assert_num_queries(4):
        first = client.get(url).json()
    rest = client.get(f"{url}&cursor={first['next_cursor']}").json()
    assert [p["path"] for p in first["items"] + rest["items"]] == [f"p{i}.jpg" for i in range(5)]
    (fate,) = first["items"][0]["tags"]
    assert (fate["name"], fate["category"], fate["score"], fate["source"]) == ("dog", "animal", 0.5, "lite")
    assert (fate["state"], fate["reason"], fate["original"]) == ("changed", "underscores", "dog_")
    (failed,) = client.get(f"{url}&state=error").json()["items"]
    assert failed["error"] == "truncated"


def test_what_a_worker_proposed_is_shown(client, samples, tmp_path):
    """The rows as the engine writes them, from a real photograph."""
    for name in ("cat-face.jpg", "dahlia.jpg"):
        shutil.copy(samples / name, tmp_path)
    photos = create_collection(name="Photos", root=str(tmp_path))
    run_ingest(start_ingest(photos, ring=False).pk)
    ModelAdapter.objects.create(slug="lite", label="Lite", kind="photo-lite")
    run = post(client, "/api/runs", collection="photos", adapter="lite").json()
    try:
        worker.drain("gpu")
    finally:
        residency.MODELS.evict()
    assert client.get(f"/api/runs/{run['id']}").json()["state"] == "done"
    proposals = client.get(f"/api/runs/{run['id']}/proposals").json()["items"]
    (cat,) = [p for p in proposals if p["path"] == "cat-face.jpg"]
    assert {"cat", "animal"} <= {fate["original"] for fate in cat["tags"] if fate["state"] == "kept"}
    detail = client.get(f"/api/images/{cat['image']}").json()
    assert detail["proposals"] == [cat]
    assert {"cat", "animal"} <= {tag["name"] for tag in detail["tags"] if tag["state"] == "proposed"}
