"""A collection that watches its folder and tags what is new; twice at once does it once."""

from __future__ import annotations

import io
import os
import shutil
from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.utils import timezone

from tagging import tasks
from tagging.actions import ingest, runs, watch
from tagging.actions.labels import move_label
from tagging.actions.recipes import ChannelSpec, get_recipe
from tagging.actions.watch import configure, look_now, new_images, tick, watch_of
from tagging.engine import residency, stage
from tagging.models import IngestJob, Proposal, Run, Watch
from tests.fakes import adapter as fakes
from tests.imaging import files

from .ingesting import paths, write
from .watching import champion_fixture, fake_fixture, later_fixture, minute, rung_fixture, state, trip_fixture, work

pytestmark = pytest.mark.django_db
__all__ = ["champion_fixture", "fake_fixture", "later_fixture", "rung_fixture", "trip_fixture"]


def watched(trip, **more):
    return configure(trip, {"look": True, "tag": True, "settle_seconds": 0, **more})


def tags_of(collection, path):
    tags = collection.images.get(path=path).image_tags.order_by("-score").select_related("tag")
    return [one.tag.name for one in tags]


def test_nothing_happens_by_itself_until_it_is_switched_on(trip, champion):
    configure(trip, {})
    minute()
    assert not IngestJob.objects.exists()
    assert not watch_of(trip).active


def test_what_is_new_is_indexed_and_tagged(trip, champion, later):
    watched(trip)
    minute()
    assert paths() == ["a.jpg"]
    minute()
    assert tags_of(trip, "a.jpg") == fakes.expected("a.jpg")
    write(ingest.check_root(trip.root) / "b.jpg", files.jpeg(seed=2))
    minute()
    assert paths() == ["a.jpg"]  # not due yet
    later(301)
    minute()
    minute()
    assert tags_of(trip, "b.jpg") == fakes.expected("b.jpg")
    assert [run.n_total for run in Run.objects.order_by("pk")] == [1, 1]
    minute()
    assert state(trip, "tag")["text"] == "nothing new for Fake"
    assert state(trip, "look")["text"] == "1 new"
    assert Run.objects.count() == 2


def test_looking_every_minute_leaves_time_to_tag(trip, champion, later):
    watched(trip, interval_seconds=60)
    for i in range(4):
        minute()
        write(ingest.check_root(trip.root) / f"more {i}.jpg", files.jpeg(seed=20 + i))
        later(61)
    assert sum(run.n_total for run in Run.objects.all()) == 3


def test_the_end_of_a_look_rings_for_what_waits_for_it(trip, champion, rung):
    row = watched(trip)
    tick(row.pk)
    ((_, job),) = [call for call in rung if call[0] == ingest.TASK]
    rung.clear()
    tasks.ingest(job)
    assert rung == [(watch.TASK, row.pk)]
    tasks.watch(row.pk)
    assert Run.objects.get().n_total == 1
    configure(trip, {"paused": True})
    rung.clear()
    tasks.ingest(ingest.start_ingest(trip).pk)
    assert [call[0] for call in rung] == [ingest.TASK]


def test_a_file_that_still_grows_is_left_for_the_next_look(trip, later, tmp_path):
    watched(trip, tag=False, settle_seconds=30)
    later(60)
    minute()
    assert paths() == ["a.jpg"]
    whole = files.jpeg(seed=3)
    growing = ingest.check_root(trip.root) / "b.jpg"
    later(-60)
    growing.write_bytes(whole[: len(whole) // 2])
    os.utime(growing, (1, 1))  # a copy that keeps an old date
    later(301 - 301)
    Watch.objects.update(last_looked_at=None)
    minute()
    assert paths() == ["a.jpg"]
    job = IngestJob.objects.order_by("-pk").first()
    assert (job.skipped, job.failed, job.missing) == (1, 0, 0)
    assert job.notes == ["b.jpg: left for the next look, it changed just now."]
    growing.write_bytes(whole)
    later(301)
    minute()
    assert paths(state="ready") == ["a.jpg", "b.jpg"]


def test_a_file_that_is_being_rewritten_keeps_its_row_as_it_was(trip, later):
    watched(trip, tag=False, settle_seconds=30)
    later(60)
    minute()
    before = trip.images.get()
    later(-60)
    ingest.check_root(trip.root).joinpath("a.jpg").write_bytes(files.jpeg(seed=9)[:500])
    Watch.objects.update(last_looked_at=None)
    minute()
    after = trip.images.get()
    assert (after.sha256, after.missing_since, after.state) == (before.sha256, None, "ready")


def test_two_workers_at_once_do_it_once(trip, champion, monkeypatch, rung):
    watched(trip)
    minute()
    real, inner = runs.start_run, []

    def start_run(*args, **kwargs):
        inner.append(tick(watch_of(trip).pk))  # the other worker comes in the middle
        return real(*args, **kwargs)

    monkeypatch.setattr(runs, "start_run", start_run)
    minute()
    assert inner == [None]
    assert Run.objects.count() == 1


def test_a_claim_is_lost_to_the_one_who_was_quicker(trip, champion, monkeypatch):
    row = watched(trip)
    real = watch.held

    def held(found):
        if not calls:
            calls.append(1)
            tick(row.pk)  # between looking and claiming
        return real(found)

    calls = []
    monkeypatch.setattr(watch, "held", held)
    assert tick(row.pk) is None
    assert IngestJob.objects.count() == 1


def test_a_dead_workers_claim_is_taken_over_and_a_living_ones_is_not(trip):
    row = watched(trip, tag=False)
    Watch.objects.update(owner="elsewhere|1|1", lease_until=timezone.now() + timedelta(minutes=1))
    minute()
    assert not IngestJob.objects.exists()
    Watch.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    minute()
    assert IngestJob.objects.count() == 1
    row.refresh_from_db()
    assert (row.owner, row.lease_until) == ("", None)


def test_nothing_runs_while_paused(trip, champion):
    row = watched(trip, paused=True)
    minute()
    assert not IngestJob.objects.exists()
    assert row.next_look is None
    with pytest.raises(runs.NotNow, match="paused"):
        look_now(row)
    assert tick(row.pk, force=True) is None
    configure(trip, {"paused": False})
    minute()
    assert IngestJob.objects.count() == 1


def test_a_folder_that_is_away_is_said_and_tried_again_each_minute(trip, later):
    watched(trip, tag=False)
    minute()
    away = trip.root + "-away"
    shutil.move(trip.root, away)
    later(301)
    for _ in range(2):
        minute()
        assert "There is no folder" in state(trip, "look")["error"]
    assert not trip.images.exclude(missing_since=None).exists()
    assert IngestJob.objects.count() == 1
    shutil.move(away, trip.root)
    minute()
    minute()
    assert state(trip, "look")["error"] == ""


def test_looks_that_find_nothing_do_not_pile_up(trip, later):
    watched(trip, tag=False)
    for _ in range(5):
        minute()
        later(301)
    assert [job.added for job in IngestJob.objects.order_by("pk")] == [1, 0]


def test_a_label_that_is_gone_is_an_error_not_another_recipe(trip, champion):
    watched(trip)
    minute()
    Watch.objects.update(recipe="candidate")
    minute()
    assert "no label 'candidate'" in state(trip, "tag")["error"]
    assert not Run.objects.exists()
    move_label("candidate", champion, why="x")
    minute()
    assert state(trip, "tag")["error"] == ""
    assert Run.objects.count() == 1


def test_a_moved_champion_runs_on_all_it_has_not_seen(trip, fake, champion):
    watched(trip)
    for _ in range(3):
        minute()
    other = get_recipe([ChannelSpec(fake, options={"variant": "b"})])
    move_label("champion", other, why="better here", collection=trip)
    minute()
    assert Run.objects.filter(recipe=other, state="done").count() == 1


def test_changed_bytes_are_new_and_failures_are_not(trip, fake, later):
    recipe = get_recipe([ChannelSpec(fake, options={"refused": ["b.jpg"]})])
    move_label("champion", recipe, why="x")
    root = ingest.check_root(trip.root)
    write(root / "b.jpg", files.jpeg(seed=2))
    watched(trip)
    for _ in range(3):
        minute()
    assert Proposal.objects.filter(state="error").count() == 1
    assert not new_images(trip, recipe).exists()
    write(root / "a.jpg", files.jpeg(seed=7))
    later(301)
    minute()
    assert [image.path for image in new_images(trip, recipe)] == ["a.jpg"]
    minute()
    assert Run.objects.order_by("-pk").first().n_total == 1


def test_a_failed_run_is_told_and_tried_again(trip, fake):
    recipe = get_recipe([ChannelSpec(fake, options={"unavailable": "model.onnx is missing"})])
    move_label("champion", recipe, why="x")
    watched(trip)
    for _ in range(3):
        minute()
    assert state(trip, "tag")["error"] == f"Run {Run.objects.get().pk} failed: model.onnx is missing"
    recipe.channels.update(options={**recipe.channels.get().options, "unavailable": ""})
    stage.forget()
    residency.MODELS.evict()
    minute()
    minute()
    assert (Run.objects.get().state, state(trip, "tag")["error"]) == ("done", "")


def test_a_cancelled_run_is_not_started_again_by_itself(trip, champion):
    watched(trip)
    minute()
    watch.sweep()
    runs.cancel(Run.objects.get())
    minute()
    assert Run.objects.count() == 1
    assert "cancelled" in state(trip, "tag")["text"]
    tick(watch_of(trip).pk, force=True)  # "look now"
    work()
    minute()
    assert Run.objects.count() == 2


def test_look_now_rings_and_does_not_wait_for_the_interval(trip, rung):
    row = watched(trip, tag=False)
    minute()
    rung.clear()
    look_now(row)
    assert rung == [("tagging.tasks.watch", row.pk, True)]
    before = IngestJob.objects.order_by("-pk").first().pk
    tick(row.pk, force=True)
    assert IngestJob.objects.order_by("-pk").first().pk > before


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"interval_seconds": 5}, "interval_seconds"),
        ({"interval_seconds": 10**9}, "interval_seconds"),
        ({"settle_seconds": 7200}, "settle_seconds"),
        ({"tag": True, "recipe": "nobody"}, "recipe"),
        ({"tag": True, "recipe": "999"}, "recipe"),
        ({"colour": 1}, "colour"),
    ],
)
def test_wrong_settings_name_their_field_and_change_nothing(trip, given, field):
    with pytest.raises(ValidationError) as e:
        configure(trip, {"look": True, **given})
    assert list(e.value.message_dict) == [field]
    assert not Watch.objects.exists()


def test_settings_change_while_a_worker_works(trip, champion):
    row = watched(trip)
    Watch.objects.update(token=7, last_result={"look": {"text": "x"}})
    configure(trip, {"interval_seconds": 600})
    row.refresh_from_db()
    assert (row.interval_seconds, row.token, row.result("look")["text"], row.look) == (600, 7, "x", True)


def command(*args):
    out = io.StringIO()
    call_command("watch", *args, stdout=out, stderr=out)
    return out.getvalue()


def test_the_command_looks_once_in_this_process(trip, champion):
    watched(trip)
    said = command("--collection", "Trip", "--once")
    assert paths() == ["a.jpg"]
    assert "look: 1 new" in said
    assert "tags 1 new images" in said
    assert Run.objects.get().n_total == 1
    with pytest.raises(CommandError, match="no collection 'Trap'"):
        command("--collection", "Trap", "--once")
    configure(trip, {"paused": True})
    with pytest.raises(CommandError, match="paused"):
        command("--collection", "Trip", "--once")
    configure(trip, {"paused": False})
    Watch.objects.update(recipe="gone")
    with pytest.raises(CommandError, match="no label 'gone'"):
        command("--collection", "Trip", "--once")


def test_the_command_says_when_there_is_no_watch(trip):
    with pytest.raises(CommandError, match="does not watch"):
        command("--collection", "Trip", "--once")
