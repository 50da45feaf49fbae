"""Experiments from the grid to the leaderboard, with a worker in this process."""

from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError

from judging import board
from judging.actions import advance as controller
from judging.actions.advance import advance
from judging.actions.cells import option_names
from judging.actions.experiments import compare_runs, pause, resume, start, stop
from judging.actions.preflight import preflight
from judging.models import Experiment, ExperimentRun
from tagging.actions.labels import move_label
from tagging.actions.runs import NotNow
from tagging.engine import stage
from tagging.models import Channel, Chunk, ImageAsset, ModelAdapter, Prediction, Proposal, Run

from . import lab

pytestmark = pytest.mark.django_db
AXES = {"mode": "product", "adapters": ["fake"], "options": {"variant": ["a", "b"], "kept": [3, 5]}}


def images(trip):
    return ImageAsset.objects.filter(collection=trip).order_by("pk")


def table(experiment):
    """What a leaderboard says, without numbers of rows."""
    found = board.compute(experiment)
    rows = [{k: v for k, v in row.items() if k not in ("row", "recipe")} for row in found["rows"]]
    for row in rows:
        for name in ("seconds_p50", "seconds_p95"):
            row["metrics"].pop(name)
    return {**found, "rows": rows}


def test_an_experiment_ends_with_a_leaderboard_against_decisions(fake):
    trip = lab.collection(40)
    lab.decide(images(trip), {"variant": "a"}, wrong={"variant": "b"})
    made = lab.experiment(trip, AXES, name="Which variant?")
    assert [row.name for row in made.rows.all()] == [
        "kept 3 · variant a", "kept 5 · variant a", "kept 3 · variant b", "kept 5 · variant b",
    ]  # fmt: skip
    start(made)
    lab.finish(made)
    assert made.state == "done"
    found = board.board(made)
    rows = {row["name"]: row for row in found["rows"]}
    assert found["images"] == found["judged_images"] == 40
    assert rows["kept 5 · variant a"]["metrics"]["f1"] == 1
    assert rows["kept 3 · variant a"]["metrics"]["precision"] == 1
    assert rows["kept 3 · variant a"]["metrics"]["recall"] == pytest.approx(0.6)
    assert rows["kept 5 · variant b"]["metrics"]["f1"] < 0.2
    assert rows["kept 3 · variant a"]["baseline"]
    assert rows["kept 5 · variant a"]["standing"]["f1"]["word"] == "better"
    assert rows["kept 5 · variant b"]["standing"]["f1"]["word"] == "worse"
    # its runs are not those of the lists, and touch no truth
    assert Run.objects.listed().count() == 0
    assert not ImageAsset.objects.exclude(proposed_by=None).exists()


def test_what_is_known_is_not_asked_again(fake):
    trip = lab.collection(30)
    lab.run(lab.recipe(fake, variant="a"), trip)
    known = Prediction.objects.count()
    made = lab.experiment(
        trip, {"mode": "product", "adapters": ["fake"], "options": {"variant": ["a"], "kept": [4, 5]}}
    )
    start(made)
    lab.finish(made)
    asked = Prediction.objects.count() - known
    assert asked == 30  # one of the two has other answers
    again = lab.experiment(
        trip, {"mode": "product", "adapters": ["fake"], "options": {"variant": ["a"], "kept": [4, 5]}}
    )
    start(again)
    lab.finish(again)
    assert Prediction.objects.count() == known + 30


def test_stages_build_on_each_other(fake):
    trip = lab.collection(40)
    made = lab.experiment(trip, AXES)
    start(made, stage="smoke")
    lab.finish(made)
    assert (made.state, made.reached) == ("done", 5)
    assert Proposal.objects.count() == 4 * 5
    start(made, stage="screen")
    lab.finish(made)
    assert Proposal.objects.count() == 4 * 30
    start(made)
    lab.finish(made)
    assert Proposal.objects.count() == 4 * 40
    assert board.board(made)["images"] == 40


def test_samples_are_asked_for_and_compared(fake):
    trip = lab.collection(6)
    made = lab.experiment(trip, {"mode": "product", "adapters": ["fake"], "options": {"variant": ["a"]}}, samples=3)
    start(made)
    lab.finish(made)
    assert Prediction.objects.count() == 18
    assert set(ExperimentRun.objects.values_list("sample", flat=True)) == {0, 1, 2}
    row = board.board(made)["rows"][0]
    assert row["metrics"]["stability"] == 1  # the fake is of one mind
    assert row["done"] == 6


def test_each_model_is_loaded_once_and_goes_slice_by_slice(fake):
    trip = lab.collection(120)
    ModelAdapter.objects.create(slug="other", label="Other", kind="fake", options={"variant": "o"})
    made = lab.experiment(trip, {"mode": "product", "adapters": ["fake", "other"], "options": {"kept": [3, 5]}})
    start(made)
    advance(made.pk)
    begun = ExperimentRun.objects.order_by("run_id").values_list("row__position", "lo")
    assert list(begun) == [
        *[(row, lo) for lo in (0, 5, 30, 100) for row in (0, 1)],
        *[(row, lo) for lo in (0, 5, 30, 100) for row in (2, 3)],
    ]


def test_the_base_is_the_champion_and_one_thing_varies(fake):
    trip = lab.collection(10)
    champion = lab.recipe(fake, variant="a", kept=4)
    move_label("champion", champion, why="so far", collection=trip)
    made = lab.experiment(trip, {"options": {"kept": "3:5:1", "variant": ["b"]}})
    assert made.baseline == champion
    assert [row.values for row in made.rows.all()] == [
        {"variant": "a", "kept": 4}, {"variant": "a", "kept": 3}, {"variant": "a", "kept": 5},
        {"variant": "b", "kept": 4},
    ]  # fmt: skip
    assert made.rows.first().recipe == champion


def test_without_a_champion_there_is_nothing_to_vary(fake):
    trip = lab.collection(3)
    with pytest.raises(ValidationError) as e:
        lab.experiment(trip, {"options": {"kept": [3]}})
    assert "champion" in str(e.value)


def test_a_killed_controller_is_followed_by_one_that_decides_the_same(fake, monkeypatch):
    trip = lab.collection(60)
    lab.decide(images(trip), {"variant": "a"}, wrong={"variant": "b"})
    whole = lab.experiment(trip, AXES, name="whole", seed=3)
    start(whole, racing=True)
    lab.finish(whole)
    wanted = table(whole)
    killed = lab.experiment(trip, AXES, name="whole", seed=3)
    start(killed, racing=True)
    real, n = controller._start_run, 0

    def die(*args, **more):
        nonlocal n
        n += 1
        if n % 3 == 0:
            raise KeyboardInterrupt
        real(*args, **more)

    monkeypatch.setattr(controller, "_start_run", die)
    for _ in range(60):
        try:
            advance(killed.pk)
        except KeyboardInterrupt:  # as a kill: the lease stays, its owner is gone
            Experiment.objects.filter(pk=killed.pk).update(owner="elsewhere|1|1", lease_until="2000-01-01T00:00Z")
        lab.work()
        killed.refresh_from_db()
        if killed.state != "running":
            break
    assert killed.state == "done"
    assert table(killed) == wanted
    assert not ExperimentRun.objects.exclude(run__state="done").exists()


def test_racing_drops_what_cannot_win_and_ends_early(fake):
    trip = lab.collection(250)
    lab.decide(images(trip), {"variant": "a"}, wrong={"variant": "b"})
    made = lab.experiment(trip, AXES)
    start(made, racing=True)
    lab.finish(made)
    assert made.reached == 30
    dropped = {row.name: row.dropped_at for row in made.rows.all()}
    assert dropped["kept 5 · variant a"] is None
    assert dropped["kept 3 · variant b"] == dropped["kept 5 · variant b"] == 30
    assert "kept 5 · variant a" in made.log[-1]["text"]
    assert Proposal.objects.count() == 4 * 30


def test_racing_without_decisions_drops_nothing(fake):
    trip = lab.collection(40)
    made = lab.experiment(trip, AXES)
    start(made, racing=True)
    lab.finish(made)
    assert made.rows.filter(dropped_at=None).count() == 4
    assert "Nothing is judged" in made.log[0]["text"]
    assert "Nobody has reviewed" in board.board(made)["notices"][0]


def test_pause_stop_and_go_on(fake):
    trip = lab.collection(40)
    made = lab.experiment(trip, AXES)
    start(made)
    advance(made.pk)
    pause(made)
    lab.work()
    assert Proposal.objects.count() == 0
    with pytest.raises(NotNow):
        pause(made)
    resume(made)
    advance(made.pk)
    stop(made)
    assert not Chunk.objects.filter(run__state="running").exists()
    start(made)
    lab.finish(made)
    assert Proposal.objects.count() == 4 * 40


def test_a_model_that_cannot_be_used_leaves_the_race(fake):
    trip = lab.collection(10)
    broken = ModelAdapter.objects.create(
        slug="broken", label="Broken", kind="fake", revision="2", options={"unavailable": "no weights", "variant": "x"}
    )
    made = lab.experiment(trip, {"mode": "product", "adapters": ["fake", "broken"]})
    start(made)
    lab.finish(made)
    assert made.state == "done"
    row = made.rows.get(name="Broken")
    assert "no weights" in row.dropped_why
    # mended, it takes part again
    for channel in Channel.objects.filter(adapter=broken):
        Channel.objects.filter(pk=channel.pk).update(options={**channel.options, "unavailable": ""})
    stage.forget()
    start(made)
    lab.finish(made)
    assert made.rows.filter(dropped_at=None).count() == 2
    assert board.board(made)["rows"][1]["done"] == 10


def test_all_models_broken_is_a_failure_that_names_the_mend(fake):
    trip = lab.collection(10)
    ModelAdapter.objects.filter(pk=fake.pk).update(options={"unavailable": "no weights"})
    made = lab.experiment(trip, {"mode": "product", "adapters": ["fake"]})
    start(made)
    lab.finish(made)
    assert made.state == "failed"
    assert "no weights" in made.error


def test_past_runs_beside_each_other_cost_nothing(fake):
    trip = lab.collection(20)
    lab.decide(images(trip), {"variant": "a"}, wrong={"variant": "b"})
    one, other = (lab.run(lab.recipe(fake, variant=v), trip) for v in "ab")
    known = Prediction.objects.count()
    made = compare_runs([one, other])
    found = board.board(made)
    assert [row["metrics"]["f1"] == 1 for row in found["rows"]] == [True, False]
    assert found["rows"][1]["values"] == {"variant": "b"}
    assert Prediction.objects.count() == known
    with pytest.raises(NotNow):
        start(made)
    with pytest.raises(ValidationError):
        compare_runs([one])


def test_unjudged_is_not_wrong(fake):
    trip = lab.collection(10)
    lab.decide(images(trip), {"variant": "a"})
    made = compare_runs([lab.run(lab.recipe(fake, variant=v), trip) for v in "ab"])
    other = board.board(made)["rows"][1]["metrics"]
    assert other["precision"] is None or other["precision"] == 1
    assert other["f1_low"] <= other["f1"] <= other["f1_high"]
    assert other["coverage"] < 0.5
    assert board.board(made)["unjudged"] > 30


def test_the_leaderboard_is_kept_until_something_changes(fake, django_assert_num_queries):
    trip = lab.collection(10)
    lab.decide(images(trip), {"variant": "a"})
    made = compare_runs([lab.run(lab.recipe(fake, variant=v), trip) for v in "ab"])
    first = board.board(made)
    assert board.board(made) == first
    before = made.board_of
    lab.reject(images(trip)[0], ["label 1"])
    board.board(made)
    assert made.board_of != before


def test_the_number_of_queries_does_not_grow_with_the_images(fake, django_assert_max_num_queries):
    trip = lab.collection(60)
    made = compare_runs([lab.run(lab.recipe(fake, variant=v), trip) for v in "abc"])
    with django_assert_max_num_queries(30):
        board.compute(made)


def test_what_a_judge_settled_is_no_truth(fake):
    trip = lab.collection(12)
    lab.decide(images(trip), {"variant": "a"}, wrong={"variant": "b"})
    ImageAsset.objects.filter(collection=trip, pk__in=list(images(trip).values_list("pk", flat=True)[:4])).update(
        review_state=ImageAsset.Review.AUTO
    )
    made = lab.experiment(trip, AXES, name="Which variant?")
    start(made)
    lab.finish(made)
    found = board.board(made)
    assert (found["images"], found["judged_images"]) == (12, 8)
    assert found["unjudged"] == 0  # nor is a person asked about it


def test_originals_against_proxies(fake):
    trip = lab.collection(6)
    axes = {"mode": "product", "adapters": ["fake"], "options": {"read": ["original", "proxy"], "kept": [3]}}
    made = lab.experiment(trip, axes, name="Are proxies as good?")
    rows = list(made.rows.all())
    assert [row.name for row in rows] == ["read original", "read proxy"]
    configs = [row.recipe.channels.get().adapter_config.get("read", "original") for row in rows]
    assert configs == ["original", "proxy"]
    assert all("read" not in row.recipe.channels.get().options for row in rows)
    start(made)
    lab.finish(made)
    assert made.state == "done"
    # what varies something else around a recipe of proxies reads proxies as well
    around = {"mode": "around", "options": {"kept": [5]}}
    second = lab.experiment(trip, around, name="Around it", base=str(rows[1].recipe_id))
    reads = [row.recipe.channels.get().adapter_config.get("read") for row in second.rows.all()]
    assert reads == ["proxy", "proxy"]
    wrong = {"mode": "product", "adapters": ["fake"], "options": {"read": ["original", "thumbnail"]}}
    with pytest.raises(ValidationError, match="thumbnail"):
        lab.experiment(trip, wrong, name="Wrong")


def test_what_was_answered_from_originals_is_not_counted_as_answered_from_proxies(fake):
    trip = lab.collection(6)
    lab.run(lab.recipe(fake), trip)
    axes = {"mode": "product", "adapters": ["fake"], "options": {"read": ["original", "proxy"]}}
    found = preflight(trip, axes)
    assert (found.cells, found.known) == (12, 6)


def test_settings_of_the_model_itself_are_no_axis():
    server = ModelAdapter.objects.create(
        slug="s", label="S", kind="openai", source="http://127.0.0.1:9/v1", options={"api_key_env": "MY_API_KEY"}
    )
    assert {"temperature", "read"} <= set(option_names(server))
    assert "api_key_env" not in option_names(server)
