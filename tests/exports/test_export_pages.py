from __future__ import annotations

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from exports.actions import create_export, run_export
from exports.exporters import registry
from exports.models import ExportJob
from tagging import queue

from .truth import State, collection, exported, image, run_of, table

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _silent_queue(monkeypatch):
    monkeypatch.setattr(queue, "defer", lambda *args, **kwargs: None)


@pytest.fixture
def holiday():
    c = collection()
    run = run_of(c)
    image(c, "a.jpg", [("cat", State.ACCEPTED, 0.9)], run=run)
    image(c, "b.jpg", [("dog", State.PROPOSED, 0.9)], run=run, reviewed=False)
    return c


def person(role):
    user = User.objects.create_user(role, password="x")
    user.groups.add(Group.objects.get(name=role))
    return user


@pytest.fixture
def curator(client):
    client.force_login(person("curator"))
    return client


@pytest.fixture
def viewer(client):
    client.force_login(person("viewer"))
    return client


# -- the direct download ----------------------------------------------------------------------------------------------
def test_the_download_streams_a_csv(curator, holiday):
    response = curator.get(reverse("exports:csv", args=["holiday"]))
    assert response.status_code == 200
    assert response.streaming
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert response["Content-Disposition"] == 'attachment; filename="holiday.csv"'
    assert response.getvalue() == exported(holiday)


def test_the_download_takes_filter_and_options_from_the_address(curator, holiday):
    url = reverse("exports:csv", args=["holiday"])
    query = "?tag=dog&options-proposed=true&options-layout=long&options-excel=true"
    data = curator.get(url + query).getvalue()
    assert data == exported(holiday, {"tag": ["dog"]}, proposed=True, layout="long", excel=True)
    assert [r["tag"] for r in table(data)] == ["dog"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("min_score=x", "min_score"),
        ("colour=red", "colour"),
        ("options-layout=tall", "layout"),
        ("options-colour=red", "options-colour"),
    ],
)
def test_a_wrong_address_is_a_readable_400(curator, holiday, query, said):
    response = curator.get(reverse("exports:csv", args=["holiday"]) + "?" + query)
    assert response.status_code == 400
    assert said in response.content.decode()


def test_who_may_download(client, holiday):
    url = reverse("exports:csv", args=["holiday"])
    assert client.get(url).status_code == 302
    client.force_login(person("reviewer"))
    assert client.get(url).status_code == 403
    assert client.post(url).status_code == 403


# -- jobs -------------------------------------------------------------------------------------------------------------
def test_the_form_counts_then_exports(curator, holiday):
    page = curator.get(reverse("exports:new") + "?collection=holiday&filter=tag%3Dcat").content.decode()
    assert "Only images with: tag cat" in page
    data = {"collection": "holiday", "format": "csv", "filter": "tag=cat", "options-layout": "long"}

    counted = curator.post(reverse("exports:new"), {**data, "do": "count"})
    assert "<strong>1 row</strong>" in counted.content.decode()
    assert not ExportJob.objects.exists()

    response = curator.post(reverse("exports:new"), {**data, "do": "start"})
    assert response.headers["Location"] == reverse("exports:jobs")
    job = ExportJob.objects.get()
    assert (job.filter, job.options["layout"]) == ({"tag": ["cat"]}, "long")

    response = curator.post(reverse("exports:new"), {**data, "options-excel": "true", "do": "download"}, follow=True)
    assert response.getvalue() == exported(holiday, {"tag": ["cat"]}, layout="long", excel=True)


def test_the_form_begins_with_the_format_most_programs_read(curator, holiday):
    page = curator.get(reverse("exports:new")).content.decode()
    assert '<option value="csv" selected>' in page


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"collection": "nowhere"}, "There is no collection"),
        ({"format": "xls"}, "There is no format"),
        ({"options-min_score": "7"}, "1"),
        ({"filter": "min_score=x"}, "not a score"),
    ],
)
def test_the_form_refuses_wrong_input(curator, holiday, data, said):
    response = curator.post(reverse("exports:new"), {"collection": "holiday", "format": "csv", "do": "start", **data})
    assert response.status_code == 422
    assert said in response.content.decode()
    assert not ExportJob.objects.exists()


def test_the_page_of_exports(curator, holiday):
    assert "No exports yet" in curator.get(reverse("exports:jobs")).content.decode()
    done = run_export(create_export(holiday, "csv", {"proposed": True}).pk)
    create_export(holiday, "csv")
    page = curator.get(reverse("exports:jobs")).content.decode()
    assert reverse("exports:download", args=[done.pk]) in page
    assert "every 2s" in page
    assert done.sha256 in page

    response = curator.get(reverse("exports:download", args=[done.pk]))
    assert response.getvalue() == exported(holiday, proposed=True)
    assert 'filename="holiday.csv"' in response["Content-Disposition"]


def test_the_page_of_exports_asks_as_much_for_one_as_for_many(curator, holiday):
    def queries():
        with CaptureQueriesContext(connection) as found:
            curator.get(reverse("exports:jobs"))
        return len(found)

    create_export(holiday, "csv")
    one = queries()
    for _ in range(10):
        create_export(holiday, "csv")
    assert queries() == one <= 8


def test_cancel_and_delete(curator, holiday):
    job = create_export(holiday, "csv")
    curator.post(reverse("exports:act", args=[job.pk, "cancel"]))
    job.refresh_from_db()
    assert job.state == "cancelled"
    assert curator.get(reverse("exports:download", args=[job.pk])).status_code == 404
    assert curator.get(reverse("exports:act", args=[job.pk, "delete"])).status_code == 405
    assert curator.post(reverse("exports:act", args=[job.pk, "burn"])).status_code == 404
    curator.post(reverse("exports:act", args=[job.pk, "delete"]))
    assert not ExportJob.objects.exists()


def test_a_viewer_sees_and_fetches_but_changes_nothing(viewer, holiday):
    job = run_export(create_export(holiday, "csv").pk)
    page = viewer.get(reverse("exports:jobs")).content.decode()
    assert "Delete" not in page
    assert "New export" not in page
    assert viewer.get(reverse("exports:download", args=[job.pk])).status_code == 200
    assert viewer.post(reverse("exports:act", args=[job.pk, "delete"])).status_code == 403
    assert viewer.get(reverse("exports:new")).status_code == 403


def test_a_file_that_vanished_is_not_a_500(curator, holiday, settings):
    job = run_export(create_export(holiday, "csv").pk)
    settings.MEDIA_ROOT = settings.MEDIA_ROOT / "elsewhere"
    response = curator.get(reverse("exports:download", args=[job.pk]))
    assert response.status_code == 404


def test_another_format_keeps_what_fits(curator, holiday):
    page = curator.get(
        reverse("exports:new") + "?collection=holiday&format=csv&options-proposed=true&options-min_score=x"
    )
    form = page.context["form"]
    assert form.options["proposed"].value is True
    assert form.options["min_score"].value == "0"


def test_every_format_streams(curator, holiday):
    for name, _ in registry.choices():
        response = curator.get(reverse("exports:stream", args=["holiday", name]))
        assert response.status_code == 200, name
        assert b"a.jpg" in b"".join(response) or name not in ("csv", "jsonl"), name
    assert curator.get(reverse("exports:stream", args=["holiday", "nope"])).status_code == 404
