"""A server's models: asked for by an administrator, fetched by a worker, chosen from a list."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.urls import reverse
from django.utils import timezone

from tagging import tasks
from tagging.actions.listings import ask_for_models, choose_model
from tagging.models import ModelAdapter, ModelListing
from tests.fakes.lying_server import LyingServer, Raw, Status

pytestmark = pytest.mark.django_db
LIST = {"data": [{"id": "llama3:8b"}, {"id": "qwen2.5vl:7b"}]}


@pytest.fixture
def server():
    with LyingServer() as running:
        running.always(Raw(json.dumps(LIST).encode()))
        yield running


@pytest.fixture
def rung(monkeypatch):
    """What was queued: (task, arguments, cluster)."""
    found = []
    monkeypatch.setattr("tagging.queue.defer", lambda path, *args, cluster=None: found.append((path, args, cluster)))
    return found


@pytest.fixture
def row(server):
    options = {"model": "old", "max_tokens": 99}
    return ModelAdapter.objects.create(slug="e", label="E", kind="openai", source=server.address, options=options)


def test_asking_calls_nobody_and_a_worker_answers(row, rung, server):
    listing = ask_for_models(row)
    assert listing.waiting
    assert server.asked == []
    assert rung == [("tagging.tasks.list_models", (row.pk,), "io")]
    tasks.list_models(row.pk)
    listing.refresh_from_db()
    assert listing.state == "there"
    assert [(m["id"], m["sees"]) for m in listing.found] == [("qwen2.5vl:7b", True), ("llama3:8b", False)]
    assert listing.answered_at >= listing.asked_at


def test_a_server_that_refuses_is_told_and_the_last_list_stays(row, rung, server):
    ask_for_models(row)
    tasks.list_models(row.pk)
    server.always(Status(401, "who are you"))
    ask_for_models(row)
    tasks.list_models(row.pk)
    listing = ModelListing.objects.get()
    assert listing.state == "failed"
    assert "who are you" in listing.error
    assert len(listing.found) == 2


def test_a_question_that_nobody_took_up_is_lost_after_a_while(row, rung):
    listing = ask_for_models(row)
    listing.asked_at = timezone.now() - timedelta(minutes=1)
    assert listing.lost
    assert not listing.waiting


def test_a_model_that_went_away_is_no_error(rung):
    tasks.list_models(12345)


def test_only_endpoints_have_lists(rung):
    local = ModelAdapter.objects.create(slug="l", label="L", kind="photo-lite")
    with pytest.raises(ValidationError, match="no endpoint"):
        ask_for_models(local)


def test_choosing_keeps_the_other_options(row, rung):
    ask_for_models(row)
    tasks.list_models(row.pk)
    choose_model(row, "qwen2.5vl:7b")
    row.refresh_from_db()
    assert row.options == {"model": "qwen2.5vl:7b", "max_tokens": 99}
    with pytest.raises(ValidationError, match="no model 'nope'"):
        choose_model(row, "nope")


def test_the_page_asks_polls_and_chooses(row, rung, admin_client, server):
    url = reverse("admin:tagging_modeladapter_models", args=[row.pk])
    change = reverse("admin:tagging_modeladapter_change", args=[row.pk])
    assert url in admin_client.get(change).content.decode()
    assert "hx-get" not in admin_client.get(url).content.decode()
    assert admin_client.post(url).status_code == 302
    assert 'hx-trigger="every 1s"' in admin_client.get(url).content.decode()
    assert server.asked == []  # never in a web request
    tasks.list_models(row.pk)
    piece = admin_client.get(url, headers={"HX-Request": "true"}).content.decode()
    assert "qwen2.5vl:7b" in piece
    assert "hx-trigger" not in piece
    assert "<html" not in piece
    assert admin_client.post(url, {"model": "qwen2.5vl:7b"}).url == change
    row.refresh_from_db()
    assert row.options["model"] == "qwen2.5vl:7b"
    assert "in use" in admin_client.get(url).content.decode()


def test_the_page_of_a_local_model_is_not_there(admin_client):
    local = ModelAdapter.objects.create(slug="l", label="L", kind="photo-lite")
    assert admin_client.get(reverse("admin:tagging_modeladapter_models", args=[local.pk])).status_code == 404


def test_known_servers_are_offered_for_endpoints_only(row, admin_client):
    change = admin_client.get(reverse("admin:tagging_modeladapter_change", args=[row.pk])).content.decode()
    assert "http://localhost:11434/v1" in change
    local = ModelAdapter.objects.create(slug="l", label="L", kind="photo-lite")
    assert (
        "11434" not in admin_client.get(reverse("admin:tagging_modeladapter_change", args=[local.pk])).content.decode()
    )


def test_the_api(row, rung, admin_client, client, django_user_model):
    assert admin_client.get("/api/adapters/e/models").status_code == 404
    asked = admin_client.post("/api/adapters/e/models")
    assert (asked.status_code, asked.json()["state"]) == (202, "asked")
    tasks.list_models(row.pk)
    found = admin_client.get("/api/adapters/e/models").json()
    assert found["models"][0] == {"id": "qwen2.5vl:7b", "sees": True, "note": ""}
    client.force_login(django_user_model.objects.create_user("eve"))
    assert client.get("/api/adapters/e/models").status_code == 403
    assert client.post("/api/adapters/e/models").status_code == 403
