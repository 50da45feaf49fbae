from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.utils import timezone

from tagging.models import Chunk, ImageAsset, IngestJob, Run, Worker
from tagging.templatetags.humanise import duration, per_cent, rate

from .pages import a_run, collection, images, person, signed_in

pytestmark = pytest.mark.django_db


def text_of(response) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split())


def test_strangers_sign_in_first_and_people_without_a_role_are_refused(client):
    for address in ("/", "/live/", "/runs/", "/tags/"):
        response = client.get(address, headers={"Accept": "text/html"})
        assert response.status_code == 302, address
        assert response["Location"].startswith("/login/")
    client.force_login(person())
    assert client.get("/").status_code == 403


def test_an_empty_installation_says_how_to_begin():
    assert "New collection" in text_of(signed_in("curator").get("/"))
    viewer = text_of(signed_in("viewer").get("/"))
    assert "A curator makes collections" in viewer
    assert "New collection" not in viewer


def test_collections_with_their_strip_and_counts():
    holiday = collection()
    found = images(holiday, 8)
    ImageAsset.objects.filter(pk__in=[i.pk for i in found[:3]]).update(review_state="reviewed")
    ImageAsset.objects.filter(pk=found[3].pk).update(review_state="skipped")
    collection("Empty")
    response = signed_in("reviewer").get("/")
    html = response.content.decode()
    assert len(re.findall(r'<img src="/media/thumb/', html)) == 6
    assert "3 reviewed · 4 to review · 1 skipped" in text_of(response)
    assert "4 images wait for review." in text_of(response)
    assert 'href="/c/holiday/review/"' in html
    assert 'href="/c/empty/review/"' not in html


def test_unreadable_and_missing_files_are_not_in_the_strip():
    holiday = collection()
    images(holiday, 1, state="error", error="cut short")
    images(holiday, 1, missing_since=timezone.now())
    response = signed_in("viewer").get("/")
    assert "/media/thumb/" not in response.content.decode()
    assert "1 image wait" in text_of(response)  # what is gone waits for nobody


def test_running_work_with_rate_and_time_left():
    holiday = collection()
    run = a_run(holiday, images(holiday, 10), done=4, errors=1, seconds=2.0)
    IngestJob.objects.create(collection=holiday, state="running", seen=30, total=120, rate=15.0)
    client = signed_in("viewer")
    text = text_of(client.get("/live/"))
    assert f"{run} on Holiday running" in text
    assert "4 of 10 · 1 failed · 2.0 images/s · 3 s left" in text
    assert "30 of 120 files · 15 files/s" in text
    assert 'hx-trigger="every 2s"' in client.get("/live/").content.decode()


def test_an_idle_page_asks_seldom():
    assert 'hx-trigger="every 15s"' in signed_in("viewer").get("/live/").content.decode()


def test_workers_and_their_absence():
    holiday = collection()
    client = signed_in("viewer")
    assert "no worker is running" not in text_of(client.get("/")).lower()
    a_run(holiday, images(holiday, 3))
    assert "no worker is running" in text_of(client.get("/")).lower()
    beat = timezone.now()
    Worker.objects.create(
        owner="h|1|1",
        queue="gpu",
        host="h",
        pid=1,
        started_at=beat,
        beat_at=beat,
        doing="tagging",
        resident=[{"slug": "wd"}],
    )
    text = text_of(client.get("/"))
    assert "no worker is running" not in text.lower()
    job = IngestJob.objects.create(collection=holiday)  # that one needs another worker
    assert "no worker is running" in text_of(client.get("/")).lower()
    job.delete()
    assert "wd loaded" in text
    Worker.objects.update(beat_at=beat - timedelta(minutes=5))
    assert "no worker is running" in text_of(client.get("/")).lower()


def test_a_failed_run_is_told_for_some_hours():
    holiday = collection()
    run = a_run(holiday, images(holiday, 1), state="failed", error="model.onnx is missing. Put it there.")
    client = signed_in("viewer")
    assert "model.onnx is missing" in text_of(client.get("/"))
    Run.objects.filter(pk=run.pk).update(finished_at=timezone.now() - timedelta(days=2))
    assert "model.onnx is missing" not in text_of(client.get("/"))


def test_queries_do_not_grow_with_collections(django_assert_max_num_queries):
    client = signed_in("reviewer")
    for n in range(12):
        c = collection(f"c{n}")
        found = images(c, 3)
        if n % 2:
            a_run(c, found, done=1)
    assert Chunk.objects.count() == 6
    with django_assert_max_num_queries(12):
        client.get("/")
    with django_assert_max_num_queries(10):
        client.get("/live/")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (273600, "3 d 4 h"),
        (None, ""),
    ],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_rates_and_shares():
    assert [rate(v) for v in (0.123, 1.26, 12.6, 1234.5, None)] == ["0.12", "1.3", "13", "1,234", ""]
    assert per_cent(999, 1000) == "99%"  # not done is never 100%
    assert per_cent(3, 3) == "100%"
    assert per_cent(0, 0) == ""
