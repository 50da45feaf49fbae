"""The doors of experiments: HTTP and command."""

from __future__ import annotations

import csv
import io
import json

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from judging.models import Experiment
from tagging.actions.labels import move_label
from tagging.models import ImageAsset, Run
from tests.tagging.world import keyed, person

from . import lab

pytestmark = pytest.mark.django_db
AXES = {"mode": "product", "adapters": ["fake"], "options": {"variant": ["a", "b"]}}


@pytest.fixture
def curator():
    return keyed(person("c", "curator"))


@pytest.fixture
def viewer():
    return keyed(person("v", "viewer"), ["read"])


@pytest.fixture
def trip(fake):
    made = lab.collection(12)
    lab.decide(ImageAsset.objects.all(), {"variant": "a"}, wrong={"variant": "b"})
    return made


def post(client, path, body):
    return client.post(f"/api/experiments{path}", json.dumps(body), content_type="application/json")


def test_from_plan_to_leaderboard(trip, curator, viewer):
    plan = {"collection": "trip", "axes": AXES}
    before = post(curator, "/preflight", plan).json()
    assert (before["cells"], before["known"], before["to_run"]) == (24, 0, 24)
    assert before["reviewed"] == 12
    assert 0 < before["detectable"] < 0.2
    made = post(curator, "", {**plan, "name": "Which?", "start": "full"})
    assert made.status_code == 201, made.content
    pk = made.json()["id"]
    lab.finish(Experiment.objects.get(pk=pk))
    found = viewer.get(f"/api/experiments/{pk}").json()
    assert (found["state"], found["done"], found["cells"]) == ("done", 24, 24)
    rows = viewer.get(f"/api/experiments/{pk}/leaderboard").json()["rows"]
    assert rows[0]["metrics"]["f1"] == 1
    assert rows[1]["standing"]["f1"]["word"] == "worse"
    after = post(curator, "/preflight", plan).json()
    assert (after["known"], after["to_run"], after["seconds"]) == (24, 0, 0)
    assert viewer.get("/api/experiments?collection=trip").json()["items"][0]["name"] == "Which?"


def test_a_sweep_of_thresholds_is_known_before_it_is_run(trip, curator):
    lab.run(lab.recipe_of("fake", variant="a"), trip)
    plan = {"collection": "trip", "axes": {"mode": "product", "adapters": ["fake"],
            "options": {"variant": ["a"], "threshold": "0.2:0.8:0.2"}}}  # fmt: skip
    before = post(curator, "/preflight", plan).json()
    assert (before["cells"], before["to_run"]) == (48, 0)


def test_cells_as_lines_and_as_a_table(trip, curator, viewer):
    pk = post(curator, "", {"collection": "trip", "axes": AXES, "start": "full"}).json()["id"]
    lab.finish(Experiment.objects.get(pk=pk))
    text = b"".join(viewer.get(f"/api/experiments/{pk}/cells").streaming_content).decode()
    cells = [json.loads(line) for line in text.splitlines()]
    assert len(cells) == 24
    assert len({cell["prediction_key"] for cell in cells}) == 24
    assert {tag["verdict"] for cell in cells for tag in cell["tags"] if tag["verdict"]} == {"right", "wrong"}
    table = b"".join(viewer.get(f"/api/experiments/{pk}/cells?format=csv").streaming_content).decode()
    rows = list(csv.DictReader(io.StringIO(table)))
    assert len(rows) == 24
    assert rows[0]["right"].count("label") == 5
    board = b"".join(viewer.get(f"/api/experiments/{pk}/leaderboard.csv").streaming_content).decode()
    assert [row["f1 word"] for row in csv.DictReader(io.StringIO(board))] == ["baseline", "worse"]


def test_runs_beside_each_other(trip, curator):
    runs = [lab.run(lab.recipe_of("fake", variant=v), trip) for v in "ab"]
    made = post(curator, "/from-runs", {"runs": [run.pk for run in runs]})
    assert made.status_code == 201
    assert made.json()["state"] == "done"
    assert post(curator, "/from-runs", {"runs": [runs[0].pk, 999]}).status_code == 422
    assert post(curator, f"/{made.json()['id']}/start", {}).status_code == 409


def test_pause_resume_stop_and_delete(trip, curator):
    pk = post(curator, "", {"collection": "trip", "axes": AXES, "start": "smoke"}).json()["id"]
    assert post(curator, f"/{pk}/pause", {}).json()["state"] == "paused"
    assert post(curator, f"/{pk}/pause", {}).status_code == 409
    assert post(curator, f"/{pk}/resume", {}).json()["state"] == "running"
    assert curator.delete(f"/api/experiments/{pk}").status_code == 409
    assert post(curator, f"/{pk}/stop", {}).json()["state"] == "stopped"
    assert curator.delete(f"/api/experiments/{pk}").status_code == 204


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"collection": "nowhere"}, "collection"),
        ({"axes": {"mode": "product", "adapters": ["nobody"]}}, "adapters"),
        ({"axes": {"mode": "product", "adapters": ["fake"], "options": {"kept": "1:9"}}}, "options"),
        ({"axes": {"mode": "product", "adapters": ["fake"], "options": {"kept": "9:1:2"}}}, "options"),
        ({"axes": {"mode": "product", "adapters": ["fake"], "options": {"labels": [3]}}}, "options"),
        ({"axes": {"mode": "sideways"}}, "mode"),
        ({"axes": {"mode": "around", "options": {"kept": [1]}}}, "base"),
        ({"base": "best"}, "base"),
        ({"sample": 0}, "sample"),
        ({"samples": 99}, "samples"),
        ({"holdout": 0.9}, "holdout"),
        ({"filter": "review=maybe"}, "filter"),
        ({"filter": "q=nothing"}, "filter"),
    ],
)
def test_what_is_refused_names_its_field(trip, curator, change, field):
    answer = post(curator, "", {"collection": "trip", "axes": AXES, **change})
    assert answer.status_code == 422, answer.content
    assert answer.json()["field"].startswith(field)
    assert not Experiment.objects.exists()
    assert not Run.objects.exists()


def test_who_may(trip, viewer):
    plan = {"collection": "trip", "axes": AXES}
    assert post(viewer, "", plan).status_code == 403
    assert post(viewer, "/preflight", plan).status_code == 403
    assert viewer.get("/api/experiments").status_code == 200


def test_the_number_of_queries_of_the_list(trip, curator, django_assert_max_num_queries):
    for _ in range(4):
        post(curator, "", {"collection": "trip", "axes": AXES})
    with django_assert_max_num_queries(14):
        assert len(curator.get("/api/experiments").json()["items"]) == 4


# -- the command -------------------------------------------------------------------------------------------------------
def test_a_plan_in_a_file(trip, tmp_path, capsys):
    move_label("champion", lab.recipe_of("fake", variant="a"), why="so far")
    plan = tmp_path / "plan.yaml"
    plan.write_text("collection: Trip\nquestion: more or fewer?\naxes:\n  options:\n    kept: 3:5:1\n")
    call_command("experiment", str(plan), "--plan")
    assert "36 cells: 0 answered already, 36 to run" in capsys.readouterr().out
    assert not Experiment.objects.exists()
    call_command("experiment", str(plan))
    made = Experiment.objects.get()
    lab.finish(made)
    call_command("experiment", "--show", str(made.pk))
    told = capsys.readouterr().out
    assert "baseline" in told
    assert "kept 3" in told
    call_command("experiment", "--show", str(made.pk), "--json")
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 3


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("colection: Trip\n", "colection"),
        ("- 1\n", "no plan"),
        ("a: [", "cannot be read"),
        ("collection: Trip\naxes: {mode: product}\n", "Choose at least one model"),
    ],
)
def test_a_bad_file_is_refused_with_the_reason(trip, tmp_path, text, why):
    plan = tmp_path / "plan.yaml"
    plan.write_text(text)
    with pytest.raises(CommandError, match=why):
        call_command("experiment", str(plan))
