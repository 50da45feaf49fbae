"""A watched collection with a judge: what it is sure of leaves by itself, where that is switched on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from django.core.exceptions import ValidationError

from exports import actions
from exports.models import ExportJob
from judging.actions import judge_jobs
from judging.actions.calibrating import calibrate
from judging.actions.gates import save_gate
from judging.models import JudgeJob
from tagging.actions.runs import start_run
from tagging.actions.watch import configure, tick, watch_of
from tagging.models import ImageAsset
from tests.fakes import adapter as fakes
from tests.imaging import files
from tests.judging.judges.conftest import scripted
from tests.judging.judges.test_gate import reviewed_world
from tests.judging.judges.world import judge
from tests.tagging.ingesting import write
from tests.tagging.pages import person, signed_in
from tests.tagging.watching import (
    champion_fixture,
    fake_fixture,
    later_fixture,
    minute,
    rung_fixture,
    state,
    trip_fixture,
    work,
)
from tests.tagging.world import keyed

from .test_watch_export import review, rows

pytestmark = pytest.mark.django_db
__all__ = ["champion_fixture", "fake_fixture", "later_fixture", "rung_fixture", "scripted", "trip_fixture"]


@pytest.fixture(name="gate")
def gate_fixture(trip, champion, scripted):
    """A judge that agrees with the fake model on a.jpg and not on b.jpg, trusted by review elsewhere."""
    known = {"a.jpg": fakes.expected("a.jpg"), "b.jpg": fakes.expected("b.jpg")[1:]}
    profile = reviewed_world(name="Elsewhere", more=known)[2]
    accept_at = calibrate(profile.current).figures["curve"]["chosen"]["accept"]
    write(Path(trip.root) / "b.jpg", files.jpeg(seed=2))
    return save_gate(trip, profile, enabled=True, accept_at=accept_at, audit_share=0.01)


@pytest.fixture(name="closed")
def closed_fixture(trip, champion, scripted):
    """A gate with both bands closed: its judge looks at everything and settles nothing."""
    write(Path(trip.root) / "b.jpg", files.jpeg(seed=2))
    return save_gate(trip, judge(truth={"a.jpg": fakes.expected("a.jpg"), "b.jpg": []}), enabled=True)


def minutes(n=1):
    for _ in range(n):
        minute()
        for job in JudgeJob.objects.filter(state__in=JudgeJob.ACTIVE):
            judge_jobs.run_job(job.pk)
        for job in ExportJob.objects.filter(state__in=actions.OPEN):
            actions.run_export(job.pk)


def watched(trip, *, judged=True, gate=True, **more):
    return configure(
        trip,
        {
            "look": True,
            "tag": True,
            "settle_seconds": 0,
            "gate": {"enabled": gate, **more},
            "export": {"enabled": True, "format": "csv", "options": {"judged": judged}},
        },
    )


def states(trip):
    return dict(trip.images.values_list("path", "review_state"))


def test_from_the_file_to_the_export_without_a_person(trip, gate):
    watched(trip)
    minutes(6)
    assert states(trip) == {"a.jpg": "auto", "b.jpg": "unreviewed"}
    (row,) = rows(ExportJob.objects.get())
    assert (row["path"], row["review_state"]) == ("a.jpg", "auto")
    assert set(json.loads(row["tags"])) == set(fakes.expected("a.jpg"))
    job = JudgeJob.objects.get(gate=gate)
    assert state(trip, "gate")["text"] == f"judge job {job.pk}: 1 accepted, 1 left to people"
    minutes(3)
    assert JudgeJob.objects.filter(gate=gate).count() == 1  # each run goes through once
    assert ExportJob.objects.count() == 1


def test_what_the_judge_accepted_stays_here_unless_it_is_asked_for(trip, gate):
    watched(trip, judged=False)
    minutes(6)
    assert states(trip)["a.jpg"] == "auto"
    assert not ExportJob.objects.exists()
    assert state(trip, "export")["text"] == "nothing reviewed yet"
    review(trip, "b.jpg")
    minutes(3)
    assert [row["path"] for row in rows(ExportJob.objects.get())] == ["b.jpg"]


def test_without_the_step_nothing_is_judged(trip, closed):
    watched(trip, gate=False)
    minutes(6)
    assert not JudgeJob.objects.filter(gate=closed).exists()
    assert set(states(trip).values()) == {"unreviewed"}


def test_runs_from_before_it_was_switched_on_are_left_to_people(trip, closed, champion):
    configure(trip, {"look": True, "settle_seconds": 0})
    minutes(2)
    start_run(champion, collection=trip)
    work()
    configure(trip, {"tag": True, "settle_seconds": 0, "gate": {"enabled": True}})
    minutes(3)
    assert not JudgeJob.objects.filter(gate=closed).exists()
    assert state(trip, "gate")["text"] == "no run has ended yet"


def test_a_budget_that_is_reached_pauses_and_says_so(trip, closed):
    watched(trip, max_calls=1)
    minutes(6)
    job = JudgeJob.objects.get(gate=closed)
    assert (job.state, job.max_calls) == ("paused", 1)
    assert f"judge job {job.pk} is paused" in state(trip, "gate")["text"]


def test_a_gate_that_was_closed_meanwhile_is_an_error_and_the_run_waits_for_it(trip, closed):
    watched(trip)
    type(closed).objects.update(enabled=False)
    minutes(4)
    assert "no open gate" in state(trip, "gate")["error"]
    type(closed).objects.update(enabled=True)
    minutes(4)
    assert JudgeJob.objects.get(gate=closed).state == "done"


def test_a_judge_that_fails_is_told_and_tried_again(trip, closed):
    watched(trip)
    minutes(2)
    minute()
    job = JudgeJob.objects.get(gate=closed)
    JudgeJob.objects.filter(pk=job.pk).update(state="failed", error="No such model.", finished_at=job.created_at)
    minute()
    assert state(trip, "gate")["error"] == f"Judge job {job.pk} failed: No such model."
    minutes(2)
    assert JudgeJob.objects.get(gate=closed).state == "done"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"enabled": True, "thresholds": 1}, "gate.thresholds"),
        ({"enabled": True, "max_calls": "few"}, "gate.max_calls"),
        ({"enabled": True, "max_cost": -1}, "gate.max_cost"),
        ({"enabled": True, "max_cost": "nan"}, "gate.max_cost"),
        ({"enabled": True}, "gate.enabled"),
    ],
)
def test_wrong_settings_name_their_field(trip, champion, given, field):
    with pytest.raises(ValidationError) as refused:
        configure(trip, {"gate": given})
    assert list(refused.value.message_dict) == [field]


def test_the_api_switches_it(trip, closed):
    client = keyed(person("curator", "cy"))
    given = {"steps": {"gate": {"enabled": True, "max_cost": 2.5}}}
    answer = client.put(f"/api/collections/{trip.slug}/watch", given, content_type="application/json")
    assert answer.status_code == 200
    assert answer.json()["steps"]["gate"] == {"enabled": True, "max_calls": None, "max_cost": 2.5}


def test_the_page_switches_it_and_names_the_gate(trip, closed):
    client = signed_in("curator")
    page = client.get(f"/c/{trip.slug}/watch/").content.decode()
    assert f"/judging/gate/{trip.slug}/" in page
    posted = {"interval_seconds": "300", "settle_seconds": "30", "recipe": "champion"}
    answer = client.post(f"/c/{trip.slug}/watch/", {**posted, "gate-enabled": "on", "gate-max_calls": "100"})
    assert answer.status_code == 302
    assert watch_of(trip).steps["gate"] == {"enabled": True, "max_calls": 100, "max_cost": None}
    answer = client.post(f"/c/{trip.slug}/watch/", {**posted, "gate-enabled": "on", "gate-max_cost": "much"})
    assert answer.status_code == 422
    assert "A budget is more than 0" in answer.content.decode()


def test_the_command_does_it_too(trip, closed, capsys):
    from django.core.management import call_command

    watched(trip)
    call_command("watch", collection="Trip", once=True)
    work()
    tick(watch_of(trip).pk)
    call_command("watch", collection="Trip", once=True)
    assert "gate: judge job" in capsys.readouterr().out
    assert ImageAsset.objects.filter(collection=trip).count() == 2
