"""What was reviewed in a watched collection leaves by itself."""

from __future__ import annotations

import csv
import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.exceptions import ValidationError
from django.core.files.storage import default_storage
from django.utils import timezone

from exports import actions, in_place
from exports.models import ExportJob
from tagging import queue
from tagging.actions.review import accept_image, decide
from tagging.actions.watch import configure, tick, watch_of
from tagging.models import ImageAsset, TagEdit, Watch
from tests.fakes import adapter as fakes
from tests.tagging.pages import person, signed_in
from tests.tagging.watching import (
    champion_fixture,
    fake_fixture,
    later_fixture,
    minute,
    rung_fixture,
    state,
    trip_fixture,
)
from tests.tagging.world import keyed

pytestmark = pytest.mark.django_db
__all__ = ["champion_fixture", "fake_fixture", "later_fixture", "rung_fixture", "trip_fixture"]


def export_of(trip, **more):
    settings = {"enabled": True, "format": "csv", **more}
    return configure(trip, {"look": True, "tag": True, "settle_seconds": 0, "export": settings})


def minutes(n=1):
    for _ in range(n):
        minute()
        for job in ExportJob.objects.filter(state__in=actions.OPEN):
            actions.run_export(job.pk)


def review(trip, path="a.jpg"):
    image = trip.images.get(path=path)
    seen = list(image.image_tags.values_list("tag_id", flat=True))
    accept_image(image.pk, by=person("reviewer", f"ann{TagEdit.objects.count()}"), door="review", seen=seen)


def an_interval_ago():
    for one in Watch.objects.all():
        result = one.last_result["export"]
        result["started"] = (timezone.now() - timedelta(seconds=one.interval_seconds + 1)).isoformat()
        Watch.objects.filter(pk=one.pk).update(last_result={**one.last_result, "export": result})


def rows(job):
    with default_storage.open(job.file) as f:
        return list(csv.DictReader(f.read().decode("utf-8-sig").splitlines()))


def test_a_new_file_is_indexed_tagged_and_exported_after_its_review(trip, champion):
    export_of(trip)
    minutes(3)
    assert trip.images.get().image_tags.count() == 5
    assert not ExportJob.objects.exists()  # nobody has reviewed it
    assert state(trip, "export")["text"] == "nothing reviewed yet"
    review(trip)
    minutes(3)
    job = ExportJob.objects.get()
    assert (job.state, job.format) == ("done", "csv")
    (row,) = rows(job)
    assert set(json.loads(row["tags"])) == set(fakes.expected("a.jpg"))
    assert state(trip, "export")["text"] == f"export {job.pk} is done"


def test_it_follows_the_decisions_no_oftener_than_the_interval(trip, champion):
    export_of(trip)
    minutes(3)
    review(trip)
    minutes(2)
    image = trip.images.get()
    decide(image.pk, by=person("reviewer", "bo"), door="review", add=["by hand"])
    minutes(2)
    assert ExportJob.objects.count() == 1
    assert state(trip, "export")["text"] == "new decisions wait for the next export"
    an_interval_ago()
    minutes(3)
    assert ExportJob.objects.count() == 2
    assert "by hand" in rows(ExportJob.objects.order_by("-pk").first())[0]["tags"]


def test_decisions_settle_first(trip, champion):
    export_of(trip)
    minutes(3)
    configure(trip, {"settle_seconds": 60})
    review(trip)
    minutes(2)
    assert not ExportJob.objects.exists()
    TagEdit.objects.update(at=timezone.now() - timedelta(seconds=61))
    minutes(2)
    assert ExportJob.objects.count() == 1


def test_decisions_elsewhere_export_nothing_here(trip, champion):
    from tests.tagging.world import collection, image

    export_of(trip)
    minutes(3)
    other = image(collection("Other"), "x.jpg", tags={"cat": 0.9})
    decide(other.pk, by=person("reviewer"), door="review", add=["dog"])
    minutes(2)
    assert not ExportJob.objects.exists()


def test_two_workers_at_once_export_once(trip, champion, monkeypatch):
    export_of(trip)
    minutes(3)
    review(trip)
    real, inner = actions.create_export, []

    def create_export(*args, **kwargs):
        inner.append(tick(watch_of(trip).pk))
        return real(*args, **kwargs)

    monkeypatch.setattr(actions, "create_export", create_export)
    queue.run_sweeps()
    queue.run_sweeps()
    assert inner == [None]
    assert ExportJob.objects.count() == 1


def test_nothing_leaves_while_paused_or_off(trip, champion):
    export_of(trip)
    minutes(3)
    review(trip)
    configure(trip, {"paused": True})
    minutes(2)
    configure(trip, {"paused": False, "export": {"enabled": False}})
    minutes(2)
    assert not ExportJob.objects.exists()


def test_a_failed_export_is_told_and_tried_again(trip, champion, monkeypatch):
    export_of(trip)
    minutes(3)
    review(trip)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(actions, "_publish", full)
    minutes(3)
    assert "No space left on device" in state(trip, "export")["error"]
    assert ExportJob.objects.count() == 1  # failed ones do not pile up
    monkeypatch.undo()
    actions.run_export(ExportJob.objects.get().pk)
    minutes(2)
    assert ExportJob.objects.filter(state="done").count() == 1


def test_the_file_goes_to_the_target_and_replaces_only_its_own(trip, champion, tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    export_of(trip, target=str(target))
    minutes(3)
    review(trip)
    minutes(2)
    minutes(1)
    there = target / "trip.csv"
    assert "a.jpg" in there.read_text()
    decide(trip.images.get().pk, by=person("reviewer", "bo"), door="review", add=["by hand"])
    an_interval_ago()
    minutes(3)
    assert "by hand" in there.read_text()
    there.write_text("somebody's own")
    decide(trip.images.get().pk, by=person("reviewer", "cy"), door="review", add=["again"])
    an_interval_ago()
    minutes(3)
    assert there.read_text() == "somebody's own"
    assert "not what iwtag wrote" in state(trip, "export")["error"]
    there.unlink()
    minutes(1)
    assert "again" in there.read_text()
    assert state(trip, "export")["error"] == ""


def test_a_target_that_is_away_is_told(trip, champion, tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    export_of(trip, target=str(target))
    minutes(3)
    review(trip)
    shutil.rmtree(target)
    minutes(3)
    assert "There is no folder" in state(trip, "export")["error"]


def test_sidecars_beside_the_images(trip, champion):
    export_of(trip, format="xmp")
    minutes(3)
    review(trip)
    minutes(2)
    sidecar = Path(trip.root, "a.xmp")
    assert fakes.expected("a.jpg")[0] in sidecar.read_text()
    job = ExportJob.objects.get()
    assert (job.state, job.step) == ("done", ExportJob.Step.APPLY)
    in_place.undo(job)
    actions.run_export(job.pk)
    assert not sidecar.exists()


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"format": "word"}, "export.format"),
        ({"options": {"colour": 1}}, "export.colour"),
        ({"filter": {"colour": 1}}, "export.filter"),
        ({"target": "somewhere"}, "export.target"),
        ({"target": "/no/such/folder"}, "export.target"),
        ({"format": "xmp", "target": "/tmp"}, "export.target"),
        ({"where": "x"}, "export.where"),
    ],
)
def test_wrong_settings_name_their_field(trip, given, field):
    with pytest.raises(ValidationError) as e:
        configure(trip, {"export": {"enabled": True, "format": "csv", **given}})
    assert list(e.value.message_dict) == [field]
    assert not Watch.objects.exists()


# -- doors ------------------------------------------------------------------------------------------------------------
def put(client, **body):
    return client.put("/api/collections/trip/watch", body, content_type="application/json")


def test_the_api_reads_and_changes_it(trip, champion, rung):
    client = keyed(person("curator", "cy"))
    empty = client.get("/api/collections/trip/watch").json()
    off = {"gate": {"enabled": False}, "export": {"enabled": False}}
    assert (empty["active"], empty["look"], empty["steps"]) == (False, False, off)
    changed = put(client, look=True, tag=True, steps={"export": {"enabled": True, "format": "jsonl"}})
    assert changed.status_code == 200, changed.content
    minute()
    found = client.get("/api/collections/trip/watch").json()
    assert (found["active"], found["recipe"], found["interval_seconds"]) == (True, "champion", 300)
    assert found["steps"]["export"]["format"] == "jsonl"
    assert found["last_result"]["look"]["text"] == "looking now"
    assert found["last_looked_at"] < found["next_look_at"]
    assert put(client, interval_seconds=600).json()["look"] is True
    rung.clear()
    assert client.post("/api/collections/trip/watch/look").status_code == 202
    assert rung == [("tagging.tasks.watch", watch_of(trip).pk, True)]
    put(client, paused=True)
    assert client.post("/api/collections/trip/watch/look").status_code == 409


def test_the_api_refuses_with_the_fields_name(trip):
    client = keyed(person("curator", "cy"))
    for body, field in (
        ({"interval_seconds": 5}, "interval_seconds"),
        ({"settle_seconds": -1}, "settle_seconds"),
        ({"tag": True}, "recipe"),  # there is no champion
        ({"colour": 1}, "colour"),
        ({"steps": {"print": {}}}, "print"),
        ({"steps": {"export": {"format": "word"}}}, "export.format"),
    ):
        answer = put(client, **body)
        assert (answer.status_code, answer.json()["field"]) == (422, field), answer.content
    assert client.get("/api/collections/nope/watch").status_code == 404
    assert client.post("/api/collections/trip/watch/look").status_code == 409
    viewer = keyed(person("viewer", "vi"), ["read"])
    assert viewer.get("/api/collections/trip/watch").status_code == 200
    assert put(viewer, look=True).status_code == 403
    assert not Watch.objects.exists()


def form(client, **fields):
    given = {"interval_seconds": "300", "settle_seconds": "30", "recipe": "champion", "export-format": "csv", **fields}
    return client.post("/c/trip/watch/", {"do": "save", **given})


def test_the_page_saves_shows_and_looks(trip, champion, rung):
    client = signed_in("curator")
    assert b"nothing is switched on" in client.get("/c/trip/watch/").content
    assert form(client, look="on", tag="on", **{"export-enabled": "on"}).status_code == 302
    row = watch_of(trip)
    assert (row.enabled, row.settle_seconds, row.changed_by.username) == (["look", "tag", "export"], 30, "curator")
    minute()
    page = client.get("/c/trip/watch/").content.decode()
    assert "Look for new files, Tag what is new, Export what was reviewed" in page
    rung.clear()
    assert client.post("/c/trip/watch/", {"do": "now"}).status_code == 302
    assert rung == [("tagging.tasks.watch", row.pk, True)]
    Watch.objects.update(last_result={"tag": {"error": "Run 3 failed: <no model>", "text": ""}})
    assert "Run 3 failed: &lt;no model&gt;" in client.get("/c/trip/watch/").content.decode()


def test_the_page_keeps_what_was_typed_and_says_what_is_wrong(trip, champion):
    client = signed_in("curator")
    for fields, text in (
        ({"interval_seconds": "5"}, "greater than or equal to 60"),
        ({"interval_seconds": "soon"}, "Enter a whole number."),
        ({"tag": "on", "recipe": "baseline"}, "no label &#x27;baseline&#x27;"),
        ({"export-enabled": "on", "export-target": "nowhere"}, "nowhere is not an absolute path."),
        ({"export-format": "word"}, "There is no format"),
        ({"export-options-of": "csv", "export-options-min_score": "7"}, "At most 1"),
    ):
        answer = form(client, look="on", **fields)
        page = answer.content.decode()
        assert answer.status_code == 422
        assert text in page, fields
        assert 'id="id_look" checked' in page
    assert not Watch.objects.exists()


def test_another_formats_options_are_drawn_and_saved(trip, champion):
    client = signed_in("curator")
    page = form(client, do="redraw", **{"export-format": "xmp"}).content.decode()
    assert 'name="export-options-profile"' in page
    assert not Watch.objects.exists()
    given = {"export-format": "xmp", "export-options-of": "xmp", "export-options-prefix": "iw", "export-enabled": "on"}
    assert form(client, **given).status_code == 302
    assert watch_of(trip).steps["export"]["options"]["prefix"] == "iw"
    assert form(client, **{"export-format": "xmp"}).status_code == 302  # without the options: they stay
    assert watch_of(trip).steps["export"]["options"]["prefix"] == "iw"


def test_only_curators_watch(trip):
    assert signed_in("reviewer").get("/c/trip/watch/").status_code == 403
    assert form(signed_in("viewer"), look="on").status_code == 403
    assert not Watch.objects.exists()
    assert ImageAsset.objects.count() == 0
