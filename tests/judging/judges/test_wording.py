"""A new wording against the one before: measured on images that nothing was fitted on."""

from __future__ import annotations

import pytest
from django.urls import reverse

from judging.actions import wording
from judging.actions.judge_jobs import run_job, start_job
from judging.actions.judges import change
from judging.judges.statistics import in_holdout
from judging.models import JudgeJob, JudgeVerdict
from tests.tagging.pages import signed_in
from tests.tagging.world import collection, person

from .world import adapter, decide, judge, run, sha

pytestmark = pytest.mark.django_db
N = 120
GOOD = ["dog", "grass", "tree"]
SAID = {f"{i}.jpg": [*GOOD, "cat"] for i in range(N)}
TRUTH = dict.fromkeys(SAID, GOOD)
#: takes every second cat for true
LAX = {name: [*GOOD, *(["cat"] if i % 2 else [])] for i, name in enumerate(SAID)}


@pytest.fixture
def trip(db):
    made = collection()
    run(made, SAID)
    decide(made, TRUTH, person("ann", "reviewer"))
    return made


def versions(trip, first, second, **fields):
    profile = judge(truth=first)
    older = profile.current
    run_job(start_job(older, reviewed=trip).pk)
    newer = change(profile, adapter=adapter("next", truth=second), **fields)
    run_job(start_job(newer, reviewed=trip).pk)
    return older, newer


@pytest.mark.parametrize(
    ("first", "second", "word"), [(LAX, TRUTH, "better"), (TRUTH, LAX, "worse"), (TRUTH, TRUTH, "not enough")]
)
def test_the_word_comes_from_the_images_kept_to_measure_with(trip, scripted, first, second, word):
    fit, held = wording.compare(*versions(trip, first, second))
    assert held.word == word
    assert held.images == sum(in_holdout(sha(name)) for name in SAID)
    assert fit.images + held.images == N
    assert held.decisions == 4 * held.images
    if word == "better":
        assert held.newer.value == 1.0
        assert held.older.value < 0.8
        assert held.difference.low > 0


def test_a_gain_on_the_fitted_images_alone_is_no_gain(trip, scripted):
    fitted = {name: TRUTH[name] if not in_holdout(sha(name)) else LAX[name] for name in SAID}
    fit, held = wording.compare(*versions(trip, LAX, fitted))
    assert (fit.word, held.word) == ("better", "not enough")


def test_a_job_judges_one_part_of_the_images(trip, scripted):
    profile = judge(truth=TRUTH)
    client = signed_in("curator")
    at = reverse("judging:judge_ask", args=[profile.slug])
    client.post(at, {"what": "reviewed", "collection": trip.slug, "share": "100", "part": "fit"})
    run_job(JudgeJob.objects.latest("pk").pk)
    seen = set(JudgeVerdict.objects.values_list("image_sha256", flat=True))
    assert seen == {sha(name) for name in SAID if not in_holdout(sha(name))}
    client.post(at, {"what": "reviewed", "collection": trip.slug, "share": "100", "part": "held"})
    run_job(JudgeJob.objects.latest("pk").pk)
    assert JudgeVerdict.objects.count() == N
    n = JudgeJob.objects.count()
    client.post(at, {"what": "reviewed", "collection": trip.slug, "share": "100", "part": "best"})
    assert JudgeJob.objects.count() == n


def test_a_changed_rubric_lists_what_it_reopens_and_then_what_turned(trip, scripted):
    profile = judge(truth=LAX)
    older = profile.current
    run_job(start_job(older, reviewed=trip).pk)
    newer = change(profile, rubric=f"{older.rubric}\nCats count only when the whole animal is seen.")
    assert wording.changed_lines(older, newer) == [("+", "Cats count only when the whole animal is seen.")]
    assert wording.to_judge_again(older, newer).count() == 4 * N
    assert {row.name for row in wording.touched(older, newer)} == {"cat"}, "what the line speaks of comes first"
    page = signed_in("curator").get(reverse("judging:wording", args=[profile.slug])).content.decode()
    assert "480 verdicts of v2 are not yet given by v3" in page
    assert "+ Cats count only" in page
    last = change(profile, adapter=adapter("next", truth=TRUTH), rubric=newer.rubric)
    run_job(start_job(last, reviewed=trip).pk)
    assert not wording.to_judge_again(older, last).exists()
    rows = list(wording.turned(older, last))
    assert {(row.name, row.before, row.word) for row in rows} == {("cat", 1, 2)}
    assert len(rows) == N // 2
    page = signed_in("viewer").get(reverse("judging:wording", args=[profile.slug]), {"from": "2"}).content.decode()
    assert "correct → wrong" in page
    assert "better" in page


def test_the_page_says_what_it_cannot_compare(scripted, db):
    profile = judge()
    client = signed_in("viewer")
    at = reverse("judging:wording", args=[profile.slug])
    assert client.get(at).status_code == 200
    assert client.get(at, {"from": "9"}).status_code == 404
    assert client.get(at, {"from": "1", "to": "1"}).status_code == 404
