"""Tabs, controllers, workers and people at once on experiments, judges and gates: nothing twice, nobody stuck."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.fakes import judge as judges

from .installation import ROOT, Installation, until
from .test_experiment_killed import SEED, TABLE, state

pytestmark = pytest.mark.cluster

#: Two tabs and two more controllers, in rounds; after each the runs are as the experiment is.
PRESSES = """
import json, random, sys, threading, time
import django
django.setup()
from django.db import connection
from judging.actions import experiments
from judging.actions.advance import advance
from judging.models import Experiment, ExperimentRun
from tagging.actions.runs import NotNow
from tagging.models import Run
pk, failed, apart = int(sys.argv[1]), [], []
ready = threading.Barrier(4)
def tab(seed):
    draw = random.Random(seed)
    for _ in range(12):
        ready.wait(60)
        verb = draw.choice(("pause", "resume", "stop", "start"))
        try:
            getattr(experiments, verb)(Experiment.objects.get(pk=pk))
        except NotNow:
            pass
        yield verb
def controller(seed):
    for _ in range(12):
        ready.wait(60)
        advance(pk)
        yield "advance"
def act(of, seed):
    try:
        for said in of(seed):
            ready.wait(60)
            if of is tab and seed == 1:
                look(said)
            ready.wait(60)
    except Exception as e:
        failed.append(repr(e))
        ready.abort()
    finally:
        connection.close()
def look(said):
    state = Experiment.objects.get(pk=pk).state
    runs = set(Run.objects.filter(experiment_links__row__experiment=pk).values_list("state", flat=True))
    wrong = {"paused": {"running"}, "stopped": {"running", "paused"}, "running": {"paused", "cancelled"}}
    if runs & wrong.get(state, set()):
        apart.append([said, state, sorted(runs)])
acts = [threading.Thread(target=act, args=a) for a in ((tab, 1), (tab, 2), (controller, 3), (controller, 4))]
for t in acts: t.start()
for t in acts: t.join()
try:
    experiments.start(Experiment.objects.get(pk=pk))
except NotNow:
    pass
print(json.dumps([failed, apart]))
"""


def test_tabs_and_controllers_at_once_leave_no_slice_twice_and_no_run_behind(installation: Installation):
    site = installation
    options = json.dumps({"image_ms": 4, "batch": 8, "log": str(site.calls)})
    experiment = int(site.python("-c", SEED, options, "all"))
    for queue, host in (("gpu", "one"), ("gpu", "two"), ("iwtag", "one")):
        site.worker(queue, host)
    failed, apart = json.loads(site.python("-c", PRESSES, str(experiment)))
    assert failed == []
    assert apart == [], "runs that are not as their experiment is"
    until(lambda: state(site, experiment) == "done", "the experiment ends")
    slices = "SELECT COUNT(*), COUNT(DISTINCT row_id || ' ' || sample || ' ' || lo) FROM judging_experimentrun"
    assert len(set(site.rows(slices)[0])) == 1
    asked = site.called("c")
    table = json.loads(site.python("-c", TABLE, str(experiment)))
    again = int(site.python("-c", SEED, options, "all"))
    until(lambda: state(site, again) == "done", "the undisturbed experiment ends")
    assert site.called("c") == asked  # everything was known
    assert json.loads(site.python("-c", TABLE, str(again)))[0] == table[0]
    assert "database is locked" not in site.log.read_text()
    assert "deadlock" not in site.log.read_text()


GATE = """
import json, sys
import django
django.setup()
from judging.actions.gates import save_gate, through_gate
from judging.models import Calibration, Gate
from tagging.models import Collection
from tests.judging.judges.world import judge, run
trip = Collection.objects.create(name="Trip", slug="trip", kind="upload")
said = {f"{i:03}.jpg": [f"tag {(i + k) % 7}" for k in range(3)] for i in range(int(sys.argv[1]))}
made = run(trip, said)
profile = judge(truth=said, slow_ms=3)
gate = save_gate(trip, profile, enabled=True)
Calibration.objects.create(version=profile.current, badge="trusted", figures={}, why="")
Gate.objects.filter(pk=gate.pk).update(accept_at=0.5)
print(json.dumps([through_gate(trip, made).pk for _ in range(2)]))
"""
PEOPLE = """
import json, random, sys
import django
django.setup()
from judging.models import JudgeJob
from tagging.actions import counts, review
from tagging.models import Collection, ImageAsset, ImageTag, TagCount
trip, draw, decided = Collection.objects.get(slug="trip"), random.Random(int(sys.argv[1])), 0
ids = list(ImageAsset.objects.filter(collection=trip).order_by("pk").values_list("pk", flat=True))
while JudgeJob.objects.filter(state__in=("queued", "running")).exists():
    some = draw.sample(ids, 12)
    waiting = ImageAsset.objects.filter(pk__in=some, review_state="unreviewed")
    decided += review.bulk(waiting, by=None, verb="accept").edits
print(decided)
"""
COUNTED = """
import json
import django
django.setup()
from tagging.actions import counts
from tagging.models import Collection, TagCount
def counters():
    return sorted(c for c in TagCount.objects.values_list("tag_id", "proposed", "accepted", "rejected", "added")
                  if any(c[1:]))
kept = counters()
counts.rebuild(Collection.objects.get(slug="trip"))
print(json.dumps(kept == counters()))
"""


def test_two_jobs_through_a_gate_and_people_at_once(installation: Installation):
    """Two tabs sent the same run through the gate, two workers take a job each, people decide on the same images."""
    site, n = installation, 120
    if "IWTAG_BROKER_URL" in site.environment:
        pytest.skip("the broker takes no part in writing")
    judges.install(site.folder / "site")
    jobs = json.loads(site.python("-c", GATE, str(n)))
    workers = [site.worker("io", "one"), site.worker("io", "two")]
    people = [
        subprocess.Popen(
            [sys.executable, "-c", PEOPLE, str(seed)], cwd=ROOT, env=site.environment, stdout=-1, stderr=-1, text=True
        )
        for seed in (1, 2)
    ]
    site.worker("iwtag")  # whose sweeper rings again
    for job in jobs:
        until(lambda: site.value("SELECT state FROM judging_judgejob WHERE id = ?", job) == "done", f"job {job}")  # noqa: B023
    for person in people:
        out, err = person.communicate(timeout=60)
        assert person.returncode == 0, err[-2000:]
        assert int(out) >= 0
    assert all(worker.poll() is None for worker in workers)
    assert site.rows("SELECT COUNT(*), COUNT(DISTINCT image_sha256) FROM judging_judgeverdict") == [(n, n)]
    assert site.rows("SELECT COUNT(*) FROM judging_runverdict") == [(n,)]
    assert json.loads(site.python("-c", COUNTED)), "the counters differ from the rows"
    twice = "SELECT image_id FROM tagging_tagedit WHERE kind = 'tag' GROUP BY image_id, tag_id HAVING COUNT(*) > 1"
    assert site.rows(twice) == []
    log = site.log.read_text()
    assert "deadlock" not in log
    assert "database is locked" not in log


TABS = """
import json, sys, threading
import django
django.setup()
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import connection
from judging.actions.arena import Bout, vote
from judging.actions.gates import save_gate
from judging.actions.promote import promote
from judging.models import Experiment, Gate, JudgeProfile, Vote
from tagging.actions import review
from tagging.models import ImageAsset, LabelEvent
from tests.judging.judges.world import judge
ann = User.objects.create(username="ann")
experiment = Experiment.objects.get(pk=int(sys.argv[1]))
rows = list(experiment.rows.order_by("position"))
bout = Bout(experiment.images[0], rows[0].pk, rows[1].pk)
profile = judge()
def at_once(act):
    ready, said = threading.Barrier(6), []
    def press():
        try:
            ready.wait(60)
            act()
            said.append("ok")
        except ValidationError as e:
            said.append("refused")
        except Exception as e:
            said.append(repr(e))
        finally:
            connection.close()
    threads = [threading.Thread(target=press) for _ in range(6)]
    for t in threads: t.start()
    for t in threads: t.join()
    return sorted(said)
votes = at_once(lambda: vote(experiment, bout, "left", by=ann))
moved = at_once(lambda: promote(experiment, rows[0], why="x", by=ann))
gates = at_once(lambda: save_gate(experiment.collection, profile, enabled=True, by=ann))
print(json.dumps([votes, Vote.objects.count(), moved, LabelEvent.objects.count(), gates, Gate.objects.count()]))
"""


def test_six_tabs_vote_promote_and_set_a_gate_at_once(installation: Installation):
    site = installation
    if "IWTAG_BROKER_URL" in site.environment:
        pytest.skip("the broker takes no part in writing")
    judges.install(site.folder / "site")
    experiment = int(site.python("-c", SEED, json.dumps({"log": str(site.calls)}), "all"))
    site.worker("gpu")
    site.worker("iwtag")
    until(lambda: state(site, experiment) == "done", "the experiment ends")
    votes, n_votes, moved, n_moves, gates, n_gates = json.loads(site.python("-c", TABS, str(experiment)))
    assert (votes, n_votes) == (["ok", *["refused"] * 5], 1)
    assert (moved, n_moves) == (["ok", *["refused"] * 5], 1)
    assert (gates, n_gates) == (["ok"] * 6, 1)
