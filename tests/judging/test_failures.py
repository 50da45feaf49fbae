"""What happens to an experiment, a judge's job and a page when the database or our own code fails under them."""

from __future__ import annotations

import pytest
from django.db import DataError, IntegrityError, OperationalError, transaction
from django.test import Client

from judging.actions import advance as controller
from judging.actions import experiments, judge_jobs
from judging.actions.arena import Bout, vote
from judging.models import Experiment, JudgeJob, Vote
from tagging.actions import runs
from tagging.models import Run
from tests.fakes.judge import Scripted
from tests.tagging.world import person

from . import lab
from .judges.conftest import scripted  # noqa: F401  (a fixture)
from .judges.world import judge

AXES = {"mode": "product", "adapters": ["fake"], "options": {"variant": ["a", "b"]}}


def broken(error: Exception):
    def fail(*args, **kwargs):
        raise error

    return fail


@pytest.fixture
def going(fake) -> Experiment:
    made = lab.experiment(lab.collection(6), AXES, name="E")
    experiments.start(made)
    return made


def test_a_controller_whose_database_failed_lets_go_at_once_and_the_next_goes_on(going, monkeypatch):
    monkeypatch.setattr(controller, "_start_runs", broken(OperationalError("the server closed the connection")))
    with pytest.raises(OperationalError):
        controller.advance(going.pk)
    going.refresh_from_db()
    assert (going.state, going.owner, going.lease_until) == ("running", "", None)
    monkeypatch.undo()
    assert lab.finish(going).state == "done"


def test_a_controller_that_cannot_go_on_says_why_and_can_be_started_again(going, monkeypatch):
    monkeypatch.setattr(controller, "start_run", broken(LookupError("there is no adapter 'gone'")))
    controller.advance(going.pk)
    going.refresh_from_db()
    assert (going.state, going.owner) == ("failed", "")
    assert going.error == "It could not go on. LookupError: there is no adapter 'gone'"
    monkeypatch.undo()
    experiments.start(going)
    assert lab.finish(going).state == "done"


def test_a_job_of_a_judge_lets_go_or_says_why(fake, scripted, monkeypatch):  # noqa: F811
    trip = lab.collection(4)
    shown = lab.run(lab.recipe(fake), trip)
    profile = judge(truth={image.path: lab.said(image) for image in trip.images.all()})
    job = judge_jobs.start_job(profile.current, runs=[shown])
    monkeypatch.setattr(judge_jobs, "write", broken(OperationalError("database is locked")))
    with pytest.raises(OperationalError):
        judge_jobs.run_job(job.pk)
    job.refresh_from_db()
    assert (job.state, job.owner, job.n_done) == ("running", "", 0)
    monkeypatch.setattr(judge_jobs, "write", broken(KeyError("tags")))
    judge_jobs.run_job(job.pk)
    job.refresh_from_db()
    assert (job.state, job.error) == ("failed", "It could not go on. KeyError: 'tags'")
    asked = len(Scripted.asked)
    monkeypatch.undo()
    judge_jobs.resume(job)
    assert judge_jobs.run_job(job.pk).state == JudgeJob.State.DONE
    assert len(Scripted.asked) == asked  # the replies were kept


def test_the_database_keeps_one_vote_of_a_person_on_a_pair(going):
    found = lab.finish(going)
    one, other = found.rows.order_by("position")
    ann = person("ann", "reviewer")
    given = vote(found, Bout(found.images[0], one.pk, other.pk), "left", by=ann)
    given.pk = None
    with pytest.raises(IntegrityError), transaction.atomic():
        given.save(force_insert=True)
    assert Vote.objects.count() == 1


def test_a_run_that_was_stopped_when_nothing_was_left_is_done(fake):
    made = lab.run(lab.recipe(fake), lab.collection(3))
    Run.objects.filter(pk=made.pk).update(state=Run.State.CANCELLED)  # between its last image and its end
    made.refresh_from_db()
    assert runs.retry_failed(made) == 0
    assert made.state == Run.State.DONE
    with pytest.raises(runs.NotNow):
        runs.retry_failed(made)


def test_a_page_that_is_sent_what_cannot_be_kept_answers_400(db, monkeypatch):
    monkeypatch.setattr("judging.views.experiments._one", broken(DataError("text fields cannot contain NUL")))
    client = Client()
    client.force_login(person("ann", "viewer"))
    assert client.get("/judging/experiments/1/").status_code == 400
