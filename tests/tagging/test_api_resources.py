"""Collections, ingests, tags, adapters, recipes and health by HTTP."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import OperationalError, connection
from django.test import Client
from django.utils import timezone

from tagging.models import Collection, IngestJob, ModelAdapter, PolicyVersion, Tag, Worker

from .world import collection, image, keyed, person, run_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def client():
    return keyed(person("cy", "curator"))


@pytest.fixture
def rings(monkeypatch):
    """The queue's doorbell, unheard."""
    heard = []
    monkeypatch.setattr("tagging.queue.defer", lambda path, *args, **kwargs: heard.append((path, *args)))
    return heard


def post(client, url, **body):
    return client.post(url, body, content_type="application/json")


# -- collections
def test_a_folder_is_made_looked_at_and_followed(client, rings, tmp_path):
    made = post(client, "/api/collections", name="Two Trips", root=str(tmp_path))
    assert (made.status_code, made.json()["slug"]) == (201, "two-trips")
    job = client.post("/api/collections/two-trips/ingest")
    assert (job.status_code, job.json()["state"]) == (202, "queued")
    assert client.post("/api/collections/two-trips/ingest").json()["id"] == job.json()["id"]
    assert rings
    url = f"/api/ingests/{job.json()['id']}"
    IngestJob.objects.update(state="running", seen=30, total=90, rate=20.0)
    assert client.get(url).json()["eta_seconds"] == 3.0
    assert client.post(f"{url}/cancel").json()["state"] == "cancelled"
    assert client.post(f"{url}/cancel").status_code == 409
    assert client.get("/api/collections/two-trips").json()["ingest"]["state"] == "cancelled"
    assert len(client.get("/api/collections/two-trips/ingests").json()["items"]) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": " ", "kind": "upload"}, "name"),
        ({"name": "x" * 121, "kind": "upload"}, "name"),
        ({"name": "Trip", "kind": "upload"}, "name"),
        ({"name": "x", "kind": "cloud"}, "kind"),
        ({"name": "x"}, "root"),
        ({"name": "x", "root": "relative"}, "root"),
        ({"name": "x", "root": "/no/such/folder"}, "root"),
        ({"name": "x", "kind": "upload", "root": "/tmp"}, "root"),
        ({"name": "x", "kind": "upload", "excludes": "*.tif"}, "excludes"),
        ({"name": "x", "kind": "upload", "owner": "me"}, "owner"),
    ],
)
def test_a_wrong_collection_names_the_field(client, body, field):
    collection("Trip")
    answer = post(client, "/api/collections", **body)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert Collection.objects.count() == 1


def test_collections_are_listed_in_pages(client):
    for i in range(3):
        collection(f"c{i}")
    first = client.get("/api/collections?limit=2").json()
    assert [c["slug"] for c in first["items"]] == ["c0", "c1"]
    rest = client.get(f"/api/collections?limit=2&cursor={first['next_cursor']}").json()
    assert ([c["slug"] for c in rest["items"]], rest["next_cursor"]) == (["c2"], "")
    assert client.get("/api/collections?cursor=-1").json()["field"] == "cursor"


def test_a_collection_counts_its_images(client):
    trip = collection()
    image(trip, "a.jpg")
    image(trip, "b.jpg", review_state="reviewed")
    image(trip, "c.jpg", state="error", error="truncated")
    image(trip, "d.jpg", missing_since=timezone.now())
    found = client.get("/api/collections/trip").json()
    assert found["images"] == {"unreviewed": 2, "skipped": 0, "reviewed": 1, "auto": 0}
    assert (found["unreadable"], found["missing"], found["ingest"]) == (1, 1, None)


def test_files_are_uploaded(client, rings, samples):
    collection("Up")
    jpeg = next(samples.glob("*.jpg")).read_bytes()
    files = [
        SimpleUploadedFile("a.jpg", jpeg),
        SimpleUploadedFile("../../b.jpg", jpeg),
        SimpleUploadedFile("x.exe", b"MZ"),
    ]
    answer = client.post("/api/collections/up/uploads", {"files": files})
    assert answer.status_code == 202, answer.content
    assert [(f["name"], f["state"], f["path"]) for f in answer.json()] == [
        ("a.jpg", "stored", "a.jpg"),
        ("b.jpg", "stored", "b.jpg"),
        ("x.exe", "skipped", ""),
    ]
    assert IngestJob.objects.count() == 1
    assert client.post("/api/collections/up/uploads").json()["field"] == "files"


# -- tags
def test_tags_are_made_found_and_given_spellings(client):
    made = post(client, "/api/tags", name="Red_Fox", category="Animal", aliases=["vulpes vulpes"])
    assert (made.status_code, made.json()["name"], made.json()["category"]) == (201, "Red Fox", "animal")
    url = f"/api/tags/{made.json()['id']}"
    assert post(client, f"{url}/aliases", name="zorro").json()["aliases"] == ["vulpes vulpes", "zorro"]
    assert post(client, f"{url}/aliases", name="ZORRO").status_code == 201  # it means this tag already
    kit = post(client, "/api/tags", name="fox kit", parent="zorro").json()
    assert kit["parent"] == "Red Fox"
    assert client.get(url).json()["aliases"] == ["vulpes vulpes", "zorro"]
    assert [t["name"] for t in client.get("/api/tags?category=animal").json()["items"]] == ["Red Fox"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "DOG"}, "name"),
        ({"name": "hound"}, "name"),
        ({"name": "cat", "aliases": ["dog"]}, "aliases"),
        ({"name": "cat", "parent": "nope"}, "parent"),
        ({"name": "cat", "category": "x" * 41}, "category"),
        ({"name": 5}, "name"),
    ],
)
def test_a_wrong_tag_names_the_field(client, body, field):
    Tag.objects.create(name="dog").aliases.create(name="hound")
    answer = post(client, "/api/tags", **body)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert Tag.objects.count() == 1


def test_search_puts_exact_first_then_prefix_word_and_close_ones(client):
    trip = collection()
    run = run_of(trip)
    for i, names in enumerate((["sun", "sunset"], ["sunset", "red sun"], ["sunset", "sunflower"])):
        image(trip, f"{i}.jpg", run=run, tags=dict.fromkeys(names, 0.5))
    Tag.objects.get(name="sunset").aliases.create(name="sundown")

    def search(text, **more):
        found = client.get("/api/tags/search", {"q": text, **more}).json()
        return [(hit["name"], hit["match"], hit["count"]) for hit in found]

    assert search("sun") == [
        ("sun", "exact", 1),
        ("sunset", "alias", 3),
        ("sunflower", "prefix", 1),
        ("red sun", "word", 1),
    ]
    assert search("SUNDOWN", collection="trip") == [("sunset", "alias", 3)]
    assert search("sunst")[0] == ("sunset", "fuzzy", 3)
    assert search("")[0] == ("sunset", "prefix", 3)
    assert search("zzzzzz") == []
    assert len(search("s", limit=1)) == 1
    assert client.get("/api/tags/search?limit=101").json()["field"] == "limit"
    assert client.get("/api/tags/search?collection=nope").status_code == 404


# -- adapters
@pytest.fixture
def administrator():
    return keyed(person("ad", "administrator"))


def test_adapters_show_what_they_can_and_what_is_missing(client, administrator):
    made = post(administrator, "/api/adapters", slug="mine", label="Mine", kind="wd", source="/no/such/folder")
    assert made.status_code == 201, made.content
    (row,) = client.get("/api/adapters").json()
    assert row["capabilities"]["outputs"]
    assert row["options_schema"]["properties"]
    assert row["problems"][0]["mend"]
    changed = administrator.patch("/api/adapters/mine", {"enabled": False}, content_type="application/json").json()
    assert (changed["enabled"], changed["label"]) == (False, "Mine")
    assert {kind["key"] for kind in client.get("/api/adapters/kinds").json()} >= {"photo-lite", "wd"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"slug": "mine"}, "slug"),
        ({"slug": "no spaces"}, "slug"),
        ({"kind": "gpt"}, "kind"),
        ({"options": {"colour": 1}}, "options"),
        ({"device": "toaster"}, "device"),
        ({"quantization": "2bit"}, "quantization"),
        ({"label": ""}, "label"),
    ],
)
def test_a_wrong_adapter_names_the_field(administrator, body, field):
    ModelAdapter.objects.create(slug="mine", label="Mine", kind="wd")
    answer = post(administrator, "/api/adapters", **{"slug": "x", "label": "X", "kind": "wd", **body})
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert ModelAdapter.objects.count() == 1


def test_an_adapter_whose_code_is_gone_is_still_listed(client):
    ModelAdapter.objects.create(slug="old", label="Old", kind="gone")
    (row,) = client.get("/api/adapters").json()
    assert row["capabilities"] is None
    assert "gone" in row["problems"][0]["message"]


def test_curators_do_not_configure_models(client):
    assert post(client, "/api/adapters", slug="x", label="X", kind="wd").status_code == 403


# -- policies and recipes
def test_policies_and_recipes_are_read(client):
    run = run_of(collection())
    PolicyVersion.objects.create(policy=run.recipe.policy_version.policy, number=2, spec={"a": 1}, digest="e")
    assert [(p["slug"], p["versions"]) for p in client.get("/api/policies").json()] == [("p", 2)]
    versions = client.get("/api/policies/p/versions").json()["items"]
    assert [(v["number"], v["spec"]) for v in versions] == [(2, {"a": 1}), (1, {})]
    recipe = client.get(f"/api/recipes/{run.recipe_id}").json()
    assert (recipe["policy"], recipe["channels"]) == ("p v1", [])
    assert client.get("/api/recipes").json()["items"] == [recipe]


# -- health
def test_health_tells_of_workers_and_waiting_work(django_assert_max_num_queries):
    now = timezone.now()
    for queue, age in (("gpu", 2), ("default", 2), ("io", 300)):
        beat = now - timedelta(seconds=age)
        Worker.objects.create(owner=queue, queue=queue, host="h", pid=1, started_at=now, beat_at=beat)
    IngestJob.objects.create(collection=collection())
    IngestJob.objects.update(created_at=now - timedelta(seconds=50))
    with django_assert_max_num_queries(6):
        answer = Client().get("/api/health")
    found = answer.json()
    assert (answer.status_code, found["status"], found["missing_queues"]) == (200, "degraded", ["io"])
    assert 50 <= found["queue_age_seconds"] < 60
    assert {(w["queue"], w["alive"]) for w in found["workers"]} == {("gpu", True), ("default", True), ("io", False)}
    Worker.objects.update(beat_at=now)
    assert Client().get("/api/health").json()["status"] == "ok"


def test_health_is_503_without_a_database(monkeypatch):
    def gone(*args, **kwargs):
        raise OperationalError("could not connect to server: secret-host")

    monkeypatch.setattr(connection, "ensure_connection", gone)
    monkeypatch.setattr(connection, "close", lambda: None)
    answer = Client().get("/api/health")
    assert (answer.status_code, answer.json()["status"]) == (503, "down")
    assert "secret-host" not in answer.content.decode()
