"""The search for the best recipe within a time and an amount of money, with a worker in this process."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.urls import reverse
from django.utils import timezone

from judging.actions import overnight_steps as controller
from judging.actions.advance import advance
from judging.actions.advance import sweep as sweep_experiments
from judging.actions.experiments import TASK as EXPERIMENT_TASK
from judging.actions.overnight import pause, resume, start_search, stop
from judging.actions.overnight_steps import advance_search
from judging.models import Experiment, OvernightSearch
from judging.neighbours import between, refined
from prompts.actions import create_prompt, create_version
from tagging import queue
from tagging.actions import review
from tagging.actions.labels import find_recipe, move_label
from tagging.actions.recipes import ChannelSpec, get_recipe
from tagging.actions.runs import NotNow
from tagging.adapters import registry
from tagging.engine.owners import owner_id
from tagging.models import ImageAsset, LabelEvent, ModelAdapter, Run
from tests.fakes.teller import right
from tests.tagging.pages import signed_in

from . import lab

pytestmark = pytest.mark.django_db
AXES = {"options": {"variant": ["a", "b"], "kept": [3, 4, 5]}}


@pytest.fixture
def trip(fake):
    """Truth is what variant b says with five kept; the champion is variant a with three."""
    made = lab.collection(80)
    lab.decide(ImageAsset.objects.filter(collection=made), {"variant": "b", "kept": 5}, wrong={"variant": "a"})
    move_label("champion", lab.recipe(fake, variant="a", kept=3), why="so far", collection=made)
    return made


def finish(search: OvernightSearch, times: int = 60) -> OvernightSearch:
    """Controllers and a worker by turns until it has ended."""
    for _ in range(times):
        advance_search(search.pk)
        for pk in Experiment.objects.filter(state="running").values_list("pk", flat=True):
            advance(pk)
        lab.work()
        search.refresh_from_db()
        if search.state not in OvernightSearch.OPEN:
            return search
    raise AssertionError(f"still {search.state}: {search.log}")


def options(recipe):
    found = recipe.channels.get().options
    return found["variant"], found["kept"]


def test_it_finds_the_planted_best_step_by_step_and_promotes_nothing(trip):
    before = find_recipe("champion", collection=trip)
    search = finish(start_search(trip, AXES, hours=1))
    assert search.state == "done"
    assert options(search.best) == ("b", 5)  # two steps away from the champion
    rounds = list(search.rounds.all())
    assert [r.kind for r in rounds][-1] == "check"
    assert len(rounds) >= 3
    assert "is better than" in search.verdict
    # on images that no round of the search has seen
    seen = {pk for r in rounds[:-1] for pk in r.experiment.images}
    checked = set(rounds[-1].experiment.images)
    assert checked
    assert not checked & seen
    assert seen | checked == set(search.images)
    assert rounds[-1].experiment.baseline == before
    # a person promotes
    assert find_recipe("champion", collection=trip) == before
    assert LabelEvent.objects.count() == 1


def test_what_is_dropped_says_why(trip):
    search = finish(start_search(trip, AXES, hours=1))
    first = search.rounds.first()
    assert {row["word"] for row in first.outcome["rows"]} & {"better", "baseline"}
    assert any("against" in row["dropped"] for r in search.rounds.all() for row in r.outcome["rows"])


def test_when_nothing_is_better_there_is_nothing_to_check(trip, fake):
    move_label("champion", lab.recipe(fake, variant="b", kept=5), why="the best", collection=trip)
    search = finish(start_search(trip, AXES, hours=1))
    assert "nothing to promote" in search.verdict
    assert set(search.rounds.values_list("kind", flat=True)) == {"search"}


def test_values_between_are_tried_when_the_given_ones_are_spent(fake):
    made = lab.collection(80, name="Fine")
    lab.decide(
        ImageAsset.objects.filter(collection=made), {"variant": "a", "kept": 6}, wrong={"variant": "a", "kept": 9}
    )
    move_label("champion", lab.recipe(fake, variant="a", kept=4), why="so far", collection=made)
    search = finish(start_search(made, {"options": {"kept": [4, 8]}}, hours=1))
    assert options(search.best) == ("a", 6)


@pytest.mark.parametrize(
    ("values", "best", "whole", "found"),
    [
        ([0, 0.4, 0.8], 0.4, False, [0.2, 0.6]),
        ([0, 0.4, 0.8], 0, False, [0.2]),
        ([1, 2, 9], 2, True, [5]),
        ([1, 2], 1, True, []),
        ([1, 2], 7, False, []),
        (["a", True], "a", False, []),
    ],
)
def test_gaps_beside_the_best_are_halved(values, best, whole, found):
    assert between(values, best, whole=whole) == found


def test_only_numbers_with_room_are_refined():
    assert refined({"t": [0, 0.5], "mode": ["a", "b"], "k": [1, 2]}, {"t": 0.5, "mode": "a", "k": 1}) == {"t": [0.25]}


# -- budgets ----------------------------------------------------------------------------------------------------------
def test_time_ends_the_search_and_leaves_some_for_the_check(trip):
    search = start_search(trip, AXES, hours=1)
    advance_search(search.pk)
    advance_search(search.pk)
    advance(search.rounds.get().experiment_id)
    lab.work()
    # the night passes while the first round is under way
    OvernightSearch.objects.filter(pk=search.pk).update(clock_from=timezone.now() - timedelta(minutes=55))
    search = finish(search)
    assert search.state == "done"
    assert [r.kind for r in search.rounds.all()] == ["search", "check"]
    assert "for the last check" in str(search.log)
    assert search.rounds.last().experiment.state == "done"


def test_no_time_left_at_all_stops_everything(trip):
    search = start_search(trip, AXES, hours=1)
    advance_search(search.pk)
    OvernightSearch.objects.filter(pk=search.pk).update(clock_from=timezone.now() - timedelta(hours=2))
    search = finish(search)
    assert search.state == "done"
    assert not Run.objects.filter(state__in=Run.OPEN).exists()
    assert search.rounds.filter(kind="search").count() == 1


@pytest.fixture
def priced(fake, monkeypatch):
    """A language model that costs money, on images whose truth it half knows."""
    monkeypatch.setitem(registry.BUILT_IN, "fake-teller", ("Fake teller", "tests.fakes.teller:Teller"))
    registry.registered.cache_clear()
    model = ModelAdapter.objects.create(
        slug="dear",
        label="Dear",
        kind="fake-teller",
        options={"price_in": 100, "price_out": 100, "currency": "EUR", "batch": 1},
    )
    made = lab.collection(60, name="Dear")
    for image in ImageAsset.objects.filter(collection=made):
        review.decide(image.pk, by=None, door="review", add=right(image.name), review="reviewed")
    brief, long = (
        create_version(create_prompt(slug=slug), template=text, message="First")
        for slug, text in (("brief", "Name it."), ("long", "Name everything."))
    )
    base = get_recipe([ChannelSpec(model, brief, {"temperature": 1.6})])
    move_label("champion", base, why="so far", collection=made)
    return made, {"prompts": [brief.pk, long.pk], "options": {"temperature": [0, 0.4, 0.8, 1.2, 1.6]}}


def test_money_is_never_exceeded(priced):
    made, axes = priced
    free = finish(start_search(made, axes, hours=1, seed=1))
    assert free.spent > 0
    assert free.best.channels.get().options["temperature"] == 0
    everything = free.spent
    from tagging.models import Prediction, Proposal

    Proposal.objects.all().delete()
    Prediction.objects.all().delete()
    limit = Decimal(str(round(everything / 3, 4)))
    search = finish(start_search(made, axes, hours=1, money=limit, seed=2))
    assert search.state == "done"
    assert search.currency == "EUR"
    assert 0 < search.spent <= float(limit) * 1.1  # a call in flight may end above
    assert "money" in str(search.log)


# -- interruption -----------------------------------------------------------------------------------------------------
def outcome_of(search):
    return [
        [(row["recipe"], row["name"], row["value"], row["word"], row["dropped"]) for row in r.outcome["rows"]]
        for r in search.rounds.all()
    ]


def test_a_killed_controller_is_followed_by_one_that_decides_the_same(trip, monkeypatch):
    whole = finish(start_search(trip, AXES, hours=1, name="one", seed=4))
    search = start_search(trip, AXES, hours=1, name="one", seed=4)
    n = 0

    def dying(real):
        def act(*args, **more):
            nonlocal n
            n += 1
            if n % 2:
                raise KeyboardInterrupt
            return real(*args, **more)

        return act

    for name in ("_begin", "_close"):
        monkeypatch.setattr(controller, name, dying(getattr(controller, name)))
    monkeypatch.setattr(controller.experiments, "start", dying(controller.experiments.start))
    for _ in range(80):
        try:
            advance_search(search.pk)
        except KeyboardInterrupt:  # as a kill: the lease stays, its owner is gone
            OvernightSearch.objects.filter(pk=search.pk).update(owner="elsewhere|1|1", lease_until="2000-01-01T00:00Z")
        for pk in Experiment.objects.filter(state="running").values_list("pk", flat=True):
            advance(pk)
        lab.work()
        search.refresh_from_db()
        if search.state not in OvernightSearch.OPEN:
            break
    assert search.state == "done"
    assert (search.best, search.verdict) == (whole.best, whole.verdict)
    assert outcome_of(search) == outcome_of(whole)


@pytest.mark.parametrize(
    ("broken", "error", "said"),
    [
        ("create_experiment", ValidationError({"axes": "The prompt is gone."}), "The prompt is gone."),
        ("start", ValidationError("No judge has this name."), "No judge has this name."),
        ("start", RuntimeError("a wall"), "RuntimeError: a wall"),
    ],
)
def test_one_that_cannot_go_on_ends_and_says_why(trip, monkeypatch, broken, error, said):
    def failing(*args, **more):
        raise error

    monkeypatch.setattr(controller.experiments, broken, failing)
    search = advance_search(start_search(trip, AXES, hours=1).pk)
    assert search.state == "failed"
    assert search.clock_from is None
    page = signed_in("curator").get(search.get_absolute_url()).content.decode()
    assert f"It could not go on. {said}" in page
    assert not search.owner
    assert advance_search(search.pk).state == "failed"


def test_what_is_under_way_stops_with_a_search_that_cannot_go_on(trip, monkeypatch):
    search = start_search(trip, AXES, hours=1)
    advance_search(search.pk)
    round_ = search.rounds.get()
    advance(round_.experiment_id)
    under_way = Run.objects.filter(experiment_links__row__experiment=round_.experiment_id, state__in=Run.OPEN)
    assert under_way.exists()

    def failing(*args, **more):
        raise ZeroDivisionError("no rest")

    monkeypatch.setattr(controller, "_over", failing)
    assert advance_search(search.pk).state == "failed"
    round_.experiment.refresh_from_db()
    assert round_.experiment.state == "stopped"
    assert not under_way.exists()


def test_one_killed_between_giving_up_and_stopping_gives_up_again(trip, monkeypatch):
    """Neither half is there alone: a search that ended would leave runs that cost money and that nobody waits for."""
    search = start_search(trip, AXES, hours=1)
    advance_search(search.pk)
    round_ = search.rounds.get()
    advance(round_.experiment_id)

    def failing(*args, **more):
        raise ZeroDivisionError("no rest")

    def killed(*args, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(controller, "_over", failing)
        patch.setattr(controller.experiments, "stop", killed)
        with pytest.raises(KeyboardInterrupt):
            advance_search(search.pk)
    search.refresh_from_db()
    assert search.state == "running"
    OvernightSearch.objects.filter(pk=search.pk).update(owner="elsewhere|1|1", lease_until="2000-01-01T00:00Z")
    monkeypatch.setattr(controller, "_over", failing)
    assert advance_search(search.pk).state == "failed"
    round_.experiment.refresh_from_db()
    assert round_.experiment.state == "stopped"


def test_the_sweeper_rings_once_for_a_search_and_an_experiment_whose_controller_died(trip, monkeypatch):
    search = start_search(trip, AXES, hours=1)
    advance_search(search.pk)
    experiment = search.rounds.get().experiment
    past = {"owner": "elsewhere|1|1", "lease_until": "2000-01-01T00:00Z"}
    OvernightSearch.objects.filter(pk=search.pk).update(**past)
    Experiment.objects.filter(pk=experiment.pk).update(state="running", **past)
    rung: list[tuple[str, int]] = []
    monkeypatch.setattr(queue, "defer", lambda task, pk: rung.append((task, pk)))
    controller.sweep()
    sweep_experiments()
    assert rung == [("judging.tasks.search", search.pk), (EXPERIMENT_TASK, experiment.pk)]
    rung.clear()
    OvernightSearch.objects.filter(pk=search.pk).update(
        owner=owner_id(), lease_until=timezone.now() + timedelta(hours=1)
    )
    Experiment.objects.filter(pk=experiment.pk).update(
        owner=owner_id(), lease_until=timezone.now() + timedelta(hours=1)
    )
    controller.sweep()
    sweep_experiments()
    assert rung == []  # they are being looked after


def test_a_database_that_stays_away_ends_nothing(trip, monkeypatch):
    def away(*args, **more):
        raise OperationalError("server closed the connection unexpectedly")

    search = start_search(trip, AXES, hours=1)
    with monkeypatch.context() as patch:
        patch.setattr(controller, "spent_of", away)
        with pytest.raises(OperationalError):
            advance_search(search.pk)
    search.refresh_from_db()
    assert (search.state, search.owner) == ("running", "")  # the next one takes it at once
    assert finish(search).state == "done"


def test_pause_stands_the_clock_still_and_resume_goes_on(trip):
    search = start_search(trip, AXES, hours=1)
    advance_search(search.pk)
    advance_search(search.pk)
    pause(search)
    assert search.rounds.get().experiment.state == "paused"
    assert search.clock_from is None
    used = search.used()
    assert search.used(timezone.now() + timedelta(hours=5)) == used
    with pytest.raises(NotNow):
        pause(search)
    assert advance_search(search.pk).state == "paused"
    resume(search)
    assert options(finish(search).best) == ("b", 5)


def test_stop_keeps_what_was_found_and_checks_nothing(trip):
    search = start_search(trip, AXES, hours=1)
    advance_search(search.pk)
    advance_search(search.pk)
    stop(search)
    assert search.state == "stopped"
    assert "Stopped" in search.verdict
    assert search.rounds.get().experiment.state == "stopped"
    assert advance_search(search.pk).state == "stopped"


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"hours": 0}, "hours"),
        ({"hours": 1, "money": "much"}, "money"),
        ({"hours": 1, "money": -1}, "money"),
        ({"hours": 1, "holdout": 0}, "holdout"),
        ({"hours": 1, "sample": 20}, "filter"),
        ({"hours": 1, "base": "nobody"}, "base"),
        ({"hours": 1, "axes": {}}, "axes"),
        ({"hours": 1, "axes": {"options": {"kept": [999, "x"]}}}, "options"),
    ],
)
def test_what_cannot_be_searched_is_told_at_once(trip, more, field):
    axes = more.pop("axes", AXES)
    with pytest.raises(ValidationError) as e:
        start_search(trip, axes, **more)
    assert field in e.value.message_dict
    assert not OvernightSearch.objects.exists()


# -- doors ------------------------------------------------------------------------------------------------------------
def test_a_curator_begins_one_from_the_page_and_sees_the_report(trip, fake):
    client = signed_in("curator")
    form = {"collection": "trip", "hours": "1", "filter": "review=reviewed", "holdout": "30", "seed": "0"}
    form |= {"option": ["kept", "variant"], "values": ["3, 4, 5", "a, b"]}
    wrong = client.post(reverse("judging:overnight_new"), {**form, "hours": "0"})
    assert wrong.status_code == 422
    assert "at most 168 hours" in wrong.content.decode()
    made = client.post(reverse("judging:overnight_new"), form)
    search = OvernightSearch.objects.get()
    assert made["Location"] == search.get_absolute_url()
    assert "running" in client.get(made["Location"]).content.decode()
    finish(search)
    page = client.get(search.get_absolute_url()).content.decode()
    assert "is better than" in page
    assert "Promote" in page
    assert "dropped: " in page
    check = search.rounds.last().experiment
    assert reverse("judging:experiment_report", args=[check.pk]) in page
    assert client.get(reverse("judging:search_status", args=[search.pk])).status_code == 286
    assert search.name in client.get(reverse("judging:overnight")).content.decode()
    client.post(reverse("judging:search_act", args=[search.pk, "delete"]))
    assert not OvernightSearch.objects.exists()
    assert Experiment.objects.filter(pk=check.pk).exists()


def test_viewers_look_and_begin_nothing(trip):
    client = signed_in("viewer")
    assert client.get(reverse("judging:overnight")).status_code == 200
    assert client.get(reverse("judging:overnight_new")).status_code == 403
    assert client.post("/api/overnight", {}, content_type="application/json").status_code in (403, 422)
    search = start_search(trip, AXES, hours=1)
    assert client.post(reverse("judging:search_act", args=[search.pk, "stop"])).status_code == 403


def test_by_api_and_command(trip, capsys):
    client = signed_in("curator")
    given = {"collection": "trip", "axes": AXES, "hours": 1}
    made = client.post("/api/overnight", given, content_type="application/json")
    assert made.status_code == 201, made.content
    at = f"/api/overnight/{made.json()['id']}"
    assert client.post(f"{at}/pause").json()["state"] == "paused"
    assert client.post(f"{at}/pause").status_code == 409
    assert client.post(f"{at}/resume").json()["state"] == "running"
    search = finish(OvernightSearch.objects.get())
    found = client.get(at).json()
    assert found["verdict"] == search.verdict
    assert found["rounds"][-1]["kind"] == "check"
    assert client.get("/api/overnight").json()["items"][0]["id"] == search.pk
    call_command("overnight", show=search.pk)
    assert search.verdict in capsys.readouterr().out
    call_command("overnight", collection="Trip", hours=0.5, option=["kept=3:5:1"])
    again = OvernightSearch.objects.first()
    assert (again.seconds, again.axes["options"]) == (1800, {"kept": [3, 4, 5]})
    call_command("overnight", stop=again.pk)
    with pytest.raises(CommandError, match="cannot be stopped"):
        call_command("overnight", stop=again.pk)
