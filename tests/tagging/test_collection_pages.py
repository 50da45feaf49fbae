from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from PIL import Image

from tagging.actions.ingest import run_ingest
from tagging.models import Collection, ImageAsset, IngestJob

from .pages import collection, images, person, signed_in

pytestmark = pytest.mark.django_db


def text_of(response) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split())


def picture(name: str = "a.png", colour: str = "red") -> SimpleUploadedFile:
    stream = io.BytesIO()
    Image.new("RGB", (32, 24), colour).save(stream, "PNG")
    return SimpleUploadedFile(name, stream.getvalue(), "image/png")


@pytest.fixture
def folder(tmp_path) -> Path:
    place = tmp_path / "pictures"
    place.mkdir()
    Image.new("RGB", (40, 30), "green").save(place / "green.jpg")
    (place / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return place


# -- doors -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("role", ["", "viewer", "reviewer"])
def test_only_curators_make_and_fill_collections(role, folder):
    collection()
    client = signed_in(role)
    assert client.get("/collections/new/").status_code == 403
    assert client.post("/collections/new/", {"name": "X", "kind": "folder", "root": str(folder)}).status_code == 403
    assert client.get("/c/holiday/upload/").status_code == 403
    assert client.post("/c/holiday/upload/", {"files": [picture()]}).status_code == 403
    assert client.post("/c/holiday/ingest/").status_code == 403
    assert client.post("/c/holiday/settings/", {"name": "Mine"}).status_code == 403
    assert client.get("/c/holiday/ingest/status/").status_code == (200 if role else 403)
    assert Collection.objects.get().name == "Holiday"
    assert not IngestJob.objects.exists()


def test_uploads_are_guarded_against_other_sites():
    collection()
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(person("curator"))
    assert strict.post("/c/holiday/upload/", {"files": [picture()]}).status_code == 403
    assert strict.get("/c/holiday/ingest/").status_code == 405


# -- making one --------------------------------------------------------------------------------------------------------
def test_a_folder_is_indexed_at_once(folder):
    response = signed_in("curator").post(
        "/collections/new/", {"name": "Pictures", "kind": "folder", "root": str(folder), "excludes": "*/raw/*\n\n*.tmp"}
    )
    made = Collection.objects.get()
    assert response["Location"] == "/c/pictures/ingest/status/"
    assert (made.root, made.excludes) == (str(folder), ["*/raw/*", "*.tmp"])
    job = IngestJob.objects.get()
    assert (job.state, job.created_by.username) == ("queued", "curator")


def test_uploads_go_on_to_the_upload_page():
    data = {"name": "Phone", "kind": "upload", "root": "/ignored", "excludes": "ignored"}
    response = signed_in("curator").post("/collections/new/", data)
    assert response["Location"] == "/c/phone/upload/"
    assert Collection.objects.get().root == ""
    assert not IngestJob.objects.exists()


@pytest.mark.parametrize(
    ("data", "field", "says"),
    [
        ({"name": "", "kind": "upload"}, "id_name_error", "required"),
        ({"name": "holiday", "kind": "upload"}, "id_name_error", "There is a collection named"),
        ({"name": "New", "kind": "folder", "root": ""}, "id_root_error", "Name the folder"),
        ({"name": "New", "kind": "folder", "root": "/no/such/place"}, "id_root_error", "There is no folder"),
        ({"name": "New", "kind": "folder", "root": "relative"}, "id_root_error", "not an absolute path"),
        ({"name": "New", "kind": "cloud"}, "errors", "cloud"),
    ],
)
def test_bad_input_is_422_beside_its_field(data, field, says):
    collection()
    response = signed_in("curator").post("/collections/new/", data)
    assert response.status_code == 422
    html = response.content.decode()
    assert field in html
    assert says in html
    assert Collection.objects.count() == 1


def test_settings_change_name_and_excludes_only(folder):
    made = Collection.objects.create(name="Pictures", slug="pictures", root=str(folder))
    client = signed_in("curator")
    data = {"name": "Photographs", "excludes": "*/raw/*", "root": "/elsewhere"}
    assert client.post("/c/pictures/settings/", data)["Location"] == "/c/pictures/"
    made.refresh_from_db()
    assert (made.name, made.excludes, made.root) == ("Photographs", ["*/raw/*"], str(folder))
    collection()
    response = client.post("/c/pictures/settings/", {"name": "holiday", "excludes": "x" * 301})
    assert response.status_code == 422
    assert "There is a collection named" in text_of(response)
    assert "at most 300 characters" in text_of(response)


# -- uploads -----------------------------------------------------------------------------------------------------------
def test_files_and_a_refusal_by_plain_form():
    made = collection()
    files = [picture("a.png"), picture("a.png", "blue"), SimpleUploadedFile("notes.txt", b"hello")]
    response = signed_in("curator").post("/c/holiday/upload/", {"files": files}, follow=True)
    assert response.redirect_chain[-1][0] == "/c/holiday/ingest/status/"
    assert "2 files received." in text_of(response)
    assert "notes.txt: Not a picture" in text_of(response)
    run_ingest(IngestJob.objects.get().pk)
    assert set(made.images.values_list("path", flat=True)) == {"a.png", "a (2).png"}


def test_a_script_gets_json():
    collection()
    client = signed_in("curator")
    files = [picture(), SimpleUploadedFile("notes.txt", b"hello")]
    response = client.post("/c/holiday/upload/", {"files": files}, headers={"Accept": "application/json"})
    body = json.loads(response.content)
    assert (body["stored"], body["next"]) == (1, "/c/holiday/ingest/status/")
    assert body["refused"][0]["name"] == "notes.txt"
    response = client.post("/c/holiday/upload/", {}, headers={"Accept": "application/json"})
    assert response.status_code == 422
    assert "files:" in json.loads(response.content)["error"]


def test_a_zip_is_unpacked_by_the_job():
    made = collection()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("trip/one.png", picture().read())
    client = signed_in("curator")
    client.post("/c/holiday/upload/", {"files": [SimpleUploadedFile("trip.zip", stream.getvalue())]})
    run_ingest(IngestJob.objects.get().pk)
    assert list(made.images.values_list("path", flat=True)) == ["trip/one.png"]


def test_no_file_is_422_and_a_folder_collection_takes_none(folder):
    collection()
    client = signed_in("curator")
    assert client.post("/c/holiday/upload/", {}).status_code == 422
    Collection.objects.create(name="Pictures", slug="pictures", root=str(folder))
    response = client.post("/c/pictures/upload/", {"files": [picture()]}, follow=True)
    assert "put files there" in text_of(response)
    assert not IngestJob.objects.exists()


# -- indexing ----------------------------------------------------------------------------------------------------------
def test_the_status_lives_ends_and_lists_problems(folder):
    made = Collection.objects.create(name="Pictures", slug="pictures", root=str(folder))
    client = signed_in("curator")
    assert "Not indexed yet" in text_of(client.get("/c/pictures/ingest/status/"))
    assert client.post("/c/pictures/ingest/")["Location"] == "/c/pictures/ingest/status/"
    waiting = client.get("/c/pictures/ingest/status/")
    assert "No worker is running" in text_of(waiting)
    assert b'hx-trigger="every' in waiting.content
    hx = {"HX-Request": "true"}
    assert client.get("/c/pictures/ingest/status/", headers=hx).status_code == 200

    run_ingest(made.ingest_jobs.get().pk)
    ended = client.get("/c/pictures/ingest/status/", headers=hx)
    assert ended.status_code == 286
    assert b"<html" not in ended.content
    text = text_of(ended)
    assert "done" in text
    assert "broken.jpg" in text
    assert ImageAsset.objects.get(path="broken.jpg").error in text
    assert "Browse the images" in text


def test_numbers_of_a_running_job():
    made = collection()
    IngestJob.objects.create(collection=made, state="running", seen=100, total=400, rate=10.0, failed=2)
    text = text_of(signed_in("viewer").get("/c/holiday/ingest/status/"))
    assert "100 of 400 files · 10 files/s · 30 s left" in text
    assert "Cancel" not in text  # a viewer looks on


def test_the_job_that_works_is_shown_before_those_that_wait():
    made = collection()
    IngestJob.objects.create(collection=made, state="done", seen=1)
    IngestJob.objects.create(collection=made, state="running", seen=222)
    IngestJob.objects.create(collection=made, state="queued")
    assert "222 files" in text_of(signed_in("viewer").get("/c/holiday/ingest/status/"))


def test_a_failed_job_says_why():
    made = collection()
    IngestJob.objects.create(collection=made, state="failed", error="The folder is gone. Mount it again.")
    assert "The folder is gone. Mount it again." in text_of(signed_in("viewer").get("/c/holiday/ingest/status/"))


def test_cancelling():
    made = collection()
    IngestJob.objects.create(collection=made, state="running")
    client = signed_in("curator")
    response = client.post("/c/holiday/ingest/", {"verb": "cancel"}, follow=True)
    assert "What was found so far stays" in text_of(response)
    assert made.ingest_jobs.get().state == "cancelled"
    response = client.post("/c/holiday/ingest/", {"verb": "cancel"}, follow=True)
    assert "Nothing is being indexed any more" in text_of(response)


def test_status_takes_few_queries_however_many_problems(django_assert_max_num_queries):
    made = collection()
    IngestJob.objects.create(collection=made, state="done")
    images(made, 80, state="error", error="cut short")
    client = signed_in("reviewer")
    with django_assert_max_num_queries(9):
        html = client.get("/c/holiday/ingest/status/").content.decode()
    assert html.count("cut short") == 50
    assert "All of them in the grid" in html
