"""What an option does and what a change did: the numbers behind the pictures, and the pages."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import Group, User
from django.urls import reverse

from judging.actions.experiments import start
from judging.board import board
from judging.curves import curves, drawn, heat_map, swept
from judging.matrix import index_of
from judging.outcomes import outcome
from tagging.models import ImageAsset

from . import lab

pytestmark = pytest.mark.django_db
AXES = {"mode": "product", "adapters": ["fake"], "options": {"variant": ["a", "b"], "kept": [2, 3, 5]}}


@pytest.fixture
def trip(fake):
    return lab.collection(20)


@pytest.fixture
def made(trip):
    found = lab.experiment(trip, AXES, name="How many?")
    lab.decide(ImageAsset.objects.filter(collection=trip), {"variant": "a", "kept": 5}, wrong={"variant": "b"})
    start(found)
    return lab.finish(found)


@pytest.fixture
def person(client):
    user = User.objects.create_user("vera")
    user.groups.add(Group.objects.get(name="viewer"))
    client.force_login(user)
    return client


def test_a_curve_for_each_metric_and_a_series_for_all_else(made):
    found = board(made)
    assert swept(found) == ["kept"]
    by_metric = {c.metric: c for c in curves(found, "kept")}
    assert {"f1", "edits", "precision", "recall", "tags_per_image"} <= set(by_metric)
    a, b = sorted(by_metric["recall"].series, key=lambda s: s.name)
    assert (a.name, b.name) == ("variant a", "variant b")
    assert [(p.at, round(p.value, 3)) for p in a.points] == [(2, 0.4), (3, 0.6), (5, 1.0)]
    assert all(p.low <= p.value <= p.high for p in (*a.points, *b.points))
    assert [p.value for p in by_metric["tags_per_image"].series[0].points] == [2, 3, 5]


def test_drawing_keeps_the_order_and_the_frame(made):
    for curve in curves(board(made), "kept"):
        shown = drawn(curve)
        for line in shown.lines:
            xs = [p["x"] for p in line["points"]]
            assert xs == sorted(xs)
            assert all(52 <= x <= 446 for x in xs)
            assert all(12 <= p["y"] <= 224 for p in line["points"])
        ys = [y for y, _ in shown.y_ticks]
        assert ys == sorted(ys, reverse=True)


def test_nothing_to_draw_where_nothing_varies_in_numbers():
    assert (
        swept({"rows": [{"values": {"adapter": "x", "flag": True}}, {"values": {"adapter": "y", "flag": False}}]}) == []
    )
    assert curves({"rows": []}, "kept") == []


def row(pk, value):
    return {
        "row": pk,
        "name": f"r{pk}",
        "values": {},
        "metrics": {},
        "standing": {"f1": {"value": value}, "edits": {"value": 1 - value}},
    }


def test_the_best_prompt_of_each_model_is_marked_by_the_metric():
    found = {"rows": [row(1, 0.5), row(2, 0.7), row(3, 0.9), row(4, 0.6), row(5, 0.8)]}
    places = {1: ("m", 10), 2: ("m", 20), 3: ("n", 10), 4: ("n", 20), 5: ("m", 20)}
    heat = heat_map(found, places)
    assert (heat.models, heat.prompts) == (["m", "n"], [10, 20])
    assert [[f.value for f in line] for line in heat.fields] == [[0.5, 0.9], [0.8, 0.6]]  # the better of two in a field
    assert [[f.best for f in line] for line in heat.fields] == [[False, True], [True, False]]
    assert [[f.shade for f in line] for line in heat.fields] == [[0, 100], [75, 25]]
    fewer = heat_map(found, places, "edits")
    assert [[f.best for f in line] for line in fewer.fields] == [[False, True], [True, False]]
    assert heat_map(found, {1: ("m", None)}) is None


def test_what_a_change_gained_and_lost(made, trip):
    rows = {r.name: r.pk for r in made.rows.all()}
    three, five = rows["kept 3 · variant a"], rows["kept 5 · variant a"]
    index = index_of(made)
    found = outcome(index, three, five)
    assert (found.n_better, found.n_worse, found.n_same, found.judged) == (20, 0, 0, 20)
    assert {change for _, change in found.better} == {-2.0}
    assert found.lost == []
    assert sum(m.images for m in found.gained) == 40
    assert all(m.right == m.images and not m.wrong for m in found.gained)
    back = outcome(index, five, three)
    assert (back.n_better, back.n_worse, back.gained) == (0, 20, [])
    wrong = outcome(index, five, rows["kept 5 · variant b"])
    assert all(m.wrong for m in wrong.gained)


def test_pages(person, made, trip, django_assert_max_num_queries):
    board(made)
    with django_assert_max_num_queries(40):
        page = person.get(reverse("judging:curves", args=[made.pk])).content.decode()
    assert "What kept does" in page
    assert page.count("<circle") >= 5 * 6
    rows = {r.name: r.pk for r in made.rows.all()}
    a, b = rows["kept 3 · variant a"], rows["kept 5 · variant a"]
    page = person.get(reverse("judging:sides", args=[made.pk]) + f"?a={a}&b={b}").content.decode()
    assert re.search(r"<b>20</b> need fewer edits", page)
    assert "<del>3</del>" in page
    assert "<ins>5</ins>" in page
    same = person.get(reverse("judging:sides", args=[made.pk]) + f"?a={a}&b={a}")
    assert "Choose two different recipes" in same.content.decode()
    assert person.get(reverse("judging:sides", args=[made.pk]) + "?a=x&b=99999").status_code == 200
    assert person.get(reverse("judging:curves", args=[made.pk]) + "?axis=none&metric=none").status_code == 200
