"""The arena: blind, sides at random, one key a vote, names afterwards; ranks as ranges."""

from __future__ import annotations

import html
import random
import re

import pytest
from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.urls import reverse

from judging.actions import arena
from judging.actions.experiments import start
from judging.models import Vote
from tagging.models import ImageAsset

from . import lab

pytestmark = pytest.mark.django_db
AXES = {"mode": "product", "adapters": ["fake"], "options": {"variant": ["a", "b", "c"]}}


@pytest.fixture
def made(fake):
    found = lab.experiment(lab.collection(12), AXES, name="Which variant?")
    start(found)
    return lab.finish(found)


@pytest.fixture
def rita():
    user = User.objects.create_user("rita")
    user.groups.add(Group.objects.get(name="reviewer"))
    return user


@pytest.fixture
def person(client, rita):
    client.force_login(rita)
    return client


def at(made, name="arena"):
    return reverse(f"judging:{name}", args=[made.pk])


def bout_of(page):
    return html.unescape(re.search(r'name="bout" value="([^"]+)"', page)[1])


def test_no_page_before_the_vote_names_a_recipe(person, made):
    page = person.get(at(made)).content.decode()
    section = page.partition('id="bout"')[2]
    for row in made.rows.all():
        assert row.name not in section
        assert f'"{row.pk}"' not in section
    assert "This one" in section


def test_a_vote_tells_the_names_and_shows_the_next(person, made, rita):
    page = person.get(at(made)).content.decode()
    answer = person.post(at(made), {"bout": bout_of(page), "verb": "left"}).content.decode()
    vote = Vote.objects.get()
    assert (vote.by, vote.judge, vote.experiment) == (rita, "", made)
    names = {row.recipe_id: row.name for row in made.rows.all()}
    won = vote.a_id if vote.winner == "a" else vote.b_id
    lost = vote.b_id if vote.winner == "a" else vote.a_id
    assert f"<b>{names[won]}</b> over {names[lost]}" in answer
    assert vote.first == vote.winner  # the left one was shown first, and won
    assert vote.tags_a == vote.tags_b == 5
    assert 0 <= vote.seconds < 60
    again = person.post(at(made), {"bout": bout_of(page), "verb": "right"}).content.decode()
    assert "voted on this pair already" in again
    assert Vote.objects.count() == 1


def test_ties_skips_and_undo(person, made):
    page = person.get(at(made)).content.decode()
    person.post(at(made), {"bout": bout_of(page), "verb": "skip"})
    assert not Vote.objects.exists()
    page = person.get(at(made)).content.decode()
    person.post(at(made), {"bout": bout_of(page), "verb": "tie"})
    assert Vote.objects.get().winner == "tie"
    person.post(at(made), {"verb": "undo"})
    assert not Vote.objects.exists()
    assert "no vote of yours" in person.post(at(made), {"verb": "undo"}).content.decode()


def test_only_what_was_shown_can_be_voted_on(person, made):
    for bout in ("", "forged:1:x", "WzEsMiwzLDRd:abc:def"):
        assert "not the pair shown" in person.post(at(made), {"bout": bout, "verb": "left"}).content.decode()
    page = person.get(at(made)).content.decode()
    assert "none of" in person.post(at(made), {"bout": bout_of(page), "verb": "love"}).content.decode()
    assert not Vote.objects.exists()


def test_every_pair_is_asked_once_and_then_it_ends(made, rita):
    draw = random.Random(1)
    seen, sides = set(), set()
    while (bout := arena.next_bout(made, rita, draw)) is not None:
        key = (bout.image, *sorted((bout.left, bout.right)))
        assert key not in seen
        seen.add(key)
        sides.add(bout.left < bout.right)
        arena.vote(made, bout, "left", by=rita)
    said = {(image.pk, v): set(lab.said(image, variant=v)) for image in ImageAsset.objects.all() for v in "abc"}
    differ = sum(said[pk, x] != said[pk, y] for pk in made.images for x, y in ("ab", "ac", "bc"))
    assert len(seen) == differ >= 30
    assert sides == {True, False}


def test_the_better_recipe_comes_first_with_ranks_as_ranges(made, rita):
    best = made.rows.get(name__contains="variant b")
    draw = random.Random(2)
    while (bout := arena.next_bout(made, rita, draw)) is not None:
        winner = (
            "left" if bout.left == best.pk else "right" if bout.right == best.pk else draw.choice(["left", "right"])
        )
        arena.vote(made, bout, winner, by=rita)
    found = arena.standings(made, "people")
    assert found["rows"][0]["name"] == best.name
    assert (found["rows"][0]["rank_low"], found["rows"][0]["rank_high"]) == (1, 1)
    assert all(row["low"] <= row["rating"] <= row["high"] for row in found["rows"])
    assert arena.standings(made, "judges")["rows"][0]["votes"] == 0
    with pytest.raises(ValidationError):
        arena.standings(made, "cats")


def test_the_ranking_page_and_its_empty_state(person, made, rita):
    assert "No votes yet" in person.get(at(made, "votes")).content.decode()
    bout = arena.next_bout(made, rita, random.Random(3))
    arena.vote(made, bout, "tie", by=rita)
    page = person.get(at(made, "votes") + "?of=people&length=1").content.decode()
    assert "1 vote of people" in page
    assert "1–3" in page


def test_by_the_api(person, made):
    base = f"/api/experiments/{made.pk}/votes"
    bout = person.get(f"{base}/next").json()
    made_vote = person.post(base, {**bout, "winner": "right", "seconds": 2.5}, content_type="application/json")
    assert made_vote.status_code == 201
    assert Vote.objects.get().seconds == 2.5
    assert person.post(base, {**bout, "winner": "right"}, content_type="application/json").status_code == 422
    wrong = {**bout, "image": ImageAsset.objects.order_by("pk").last().pk + 100, "winner": "tie"}
    assert person.post(base, wrong, content_type="application/json").status_code == 422
    assert person.get(base).json()["votes"]["people"] == 1


def test_viewers_may_look_and_not_vote(client, made):
    vera = User.objects.create_user("vera")
    vera.groups.add(Group.objects.get(name="viewer"))
    client.force_login(vera)
    assert client.get(at(made)).status_code == 403
    assert client.get(at(made, "votes")).status_code == 200
    assert client.get(f"/api/experiments/{made.pk}/votes/next").status_code == 403
