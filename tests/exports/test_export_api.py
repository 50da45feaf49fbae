from __future__ import annotations

import pytest
from django.contrib.auth.models import Group, User

from exports.actions import run_export
from exports.models import ExportJob
from tagging import queue

from .truth import State, collection, exported, image, run_of

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _silent_queue(monkeypatch):
    monkeypatch.setattr(queue, "defer", lambda *args, **kwargs: None)


@pytest.fixture
def holiday():
    c = collection()
    image(c, "a.jpg", [("cat", State.ACCEPTED, 0.9)], run=run_of(c))
    image(c, "b.jpg", reviewed=False)
    return c


def sign_in(client, role):
    user = User.objects.create_user(role)
    user.groups.add(Group.objects.get(name=role))
    client.force_login(user)
    return client


def post(client, **payload):
    return client.post("/api/exports", payload, content_type="application/json")


def test_from_post_to_the_file(client, holiday):
    sign_in(client, "curator")
    made = post(client, collection="holiday", format="csv", options={"layout": "long"}, filter={"tag": ["cat"]})
    assert made.status_code == 202
    job = made.json()
    assert (job["state"], job["collection"], job["filter"], job["files"]) == ("queued", "holiday", {"tag": ["cat"]}, [])
    waiting = client.get(f"/api/exports/{job['id']}/files")
    assert waiting.status_code == 409

    run_export(job["id"])

    job = client.get(f"/api/exports/{job['id']}").json()
    assert (job["state"], job["n_rows"], job["n_total"]) == ("done", 1, 1)
    (file,) = job["files"]
    data = client.get(file["url"]).getvalue()
    assert data == exported(holiday, layout="long")
    assert file["size"] == len(data)
    listed = client.get("/api/exports?collection=holiday").json()
    assert [one["id"] for one in listed["items"]] == [job["id"]]


def test_a_dry_run_only_counts(client, holiday):
    sign_in(client, "curator")
    response = post(client, collection="holiday", dry_run=True)
    assert response.status_code == 200
    assert response.json() | {"warnings": []} == {"images": 1, "rows": 1, "skipped": 1, "warnings": [], "problems": []}
    assert not ExportJob.objects.exists()


def test_cancel(client, holiday):
    sign_in(client, "curator")
    job = post(client, collection="holiday").json()
    assert client.post(f"/api/exports/{job['id']}/cancel").json()["state"] == "cancelled"
    assert client.post(f"/api/exports/{job['id']}/cancel").status_code == 409


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({"collection": "nowhere"}, "collection"),
        ({"collection": "holiday", "format": "xls"}, "format"),
        ({"collection": "holiday", "options": {"layout": "tall"}}, "layout"),
        ({"collection": "holiday", "options": {"colour": 1}}, "colour"),
        ({"collection": "holiday", "filter": {"colour": "red"}}, "filter"),
        ({"collection": "holiday", "filter": {"min_score": "x"}}, "filter"),
        ({"collection": "holiday", "colour": "red"}, "colour"),
        ({}, "collection"),
    ],
)
def test_wrong_input_names_its_field(client, holiday, payload, field):
    response = post(sign_in(client, "curator"), **payload)
    assert response.status_code == 422
    assert response.json()["field"] == field
    assert not ExportJob.objects.exists()


def test_who_may(client, holiday):
    assert client.get("/api/exports").status_code == 401
    sign_in(client, "viewer")
    assert client.get("/api/exports").status_code == 200
    assert post(client, collection="holiday").status_code == 403
    assert client.get("/api/exports/4711").status_code == 404


def test_formats_say_their_options(client):
    formats = sign_in(client, "viewer").get("/api/exports/formats").json()
    (csv,) = [one for one in formats if one["format"] == "csv"]
    assert csv["options_schema"]["properties"]["layout"]["enum"] == ["wide", "long"]
