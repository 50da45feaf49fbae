"""Standings tell the truth as often as they say: simulated recipes whose real quality is known."""

from __future__ import annotations

import numpy as np
import pytest

from judging.ranking import compare, detectable, holm_adjusted
from judging.ranking_votes import Votes, bradley_terry, next_pair

TAGS = 8


def recipes(rng, n, rates, *, shared=0.7, wrong=2.3):
    """num and den of F1 of each image: a recipe finds a tag when its difficulty, partly the tag's own and partly the
    recipe's, lies below its rate."""
    difficulty = rng.normal(0, 1, (n, TAGS))
    num, den = [], []
    for rate in rates:
        own = rng.normal(0, 1, (n, TAGS))
        found = (np.sqrt(shared) * difficulty + np.sqrt(1 - shared) * own < rate).sum(axis=1)
        false = rng.poisson(wrong, n)
        num.append(2 * found)
        den.append(found + false + TAGS)
    return np.array(num, float), np.array(den, float)


def real_f1(rate):
    num, den = recipes(np.random.default_rng(1), 400_000, [rate])
    return num.sum() / den.sum()


@pytest.mark.parametrize("n", [30, 200])
def test_intervals_hold_the_truth_as_often_as_they_say(n):
    rng = np.random.default_rng(20)
    truth = real_f1(0.75) - real_f1(0.6)
    held = 0
    for seed in range(500):
        standing = compare(*recipes(rng, n, [0.6, 0.75]), 0, seed=seed, draws=1000)[1]
        held += standing.delta_low <= truth <= standing.delta_high
    assert 465 <= held <= 485, held  # 93 to 97 %


def test_identical_recipes_are_not_separable():
    rng = np.random.default_rng(3)
    words = [compare(*recipes(rng, 200, [0.6, 0.6, 0.6]), 0, seed=seed)[1:] for seed in range(200)]
    told = sum(any(s.word in ("better", "worse") for s in standings) for standings in words)
    assert told <= 10  # 5 % of 200, for two challengers together


def test_the_very_same_output_is_equivalent():
    num, den = recipes(np.random.default_rng(0), 100, [0.6])
    standing = compare(np.vstack([num, num]), np.vstack([den, den]), 0)[1]
    assert (standing.word, standing.delta, standing.delta_low, standing.delta_high) == ("equivalent", 0, 0, 0)


def test_a_recipe_better_by_a_twentieth_is_found_on_200_images():
    better = next(rate for rate in np.arange(0.6, 1.2, 0.01) if real_f1(rate) - real_f1(0.6) >= 0.05)
    rng = np.random.default_rng(4)
    words = [compare(*recipes(rng, 200, [0.6, better]), 0, seed=seed)[1].word for seed in range(200)]
    assert words.count("better") >= 190


def test_fewer_is_better_for_edits():
    rng = np.random.default_rng(5)
    edits = np.vstack([rng.poisson(4, 100), rng.poisson(2, 100)]).astype(float)
    standing = compare(edits, np.ones((2, 100)), 0, more_is_better=False)[1]
    assert standing.word == "better"
    assert standing.delta > 0
    assert standing.p_best > 0.99


def test_few_images_say_so_and_how_many_more():
    rng = np.random.default_rng(6)
    few = compare(*recipes(rng, 5, [0.6, 1.5]), 0)[1]
    assert few.word == "not enough images"
    some = compare(*recipes(rng, 30, [0.6, 0.62]), 0, margin=0.01)[1]
    assert some.word == "not enough images"
    assert some.more > 30


def test_no_interval_of_shares_reaches_beyond_one():
    num, den = np.array([[4.0, 0, 3, 0], [0, 5, 1, 4]]), np.array([[6.0, 7, 4, 5], [5, 6, 5, 6]])
    wide = compare(num, den, 0, seed=1)[1]
    assert wide.delta_high > 1  # what the bootstrap says of four images
    shares = compare(num, den, 0, seed=1, shares=True)[1]
    assert -1 <= shares.delta_low <= shares.delta <= shares.delta_high <= 1
    assert (shares.delta, shares.word) == (wide.delta, wide.word)


def test_the_same_input_gives_the_same_standings():
    num, den = recipes(np.random.default_rng(0), 50, [0.6, 0.8])
    assert compare(num, den, 0, seed=7) == compare(num, den, 0, seed=7)
    assert compare(num, den, 0, seed=7) != compare(num, den, 0, seed=8)


def test_holm():
    assert holm_adjusted([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm_adjusted([]).tolist() == []


def test_more_images_see_smaller_differences():
    assert detectable(30) > detectable(120) == pytest.approx(detectable(30) / 2)


# -- votes -------------------------------------------------------------------------------------------------------------
def votes(rng, strengths, m, *, tie=0.1, pull=0.0):
    a = rng.integers(0, len(strengths), m)
    b = (a + rng.integers(1, len(strengths), m)) % len(strengths)
    tags = rng.integers(2, 14, (2, m))
    z = (tags[0] - tags[1]) / tags.sum(axis=0)
    chance = 1 / (1 + np.exp(-(strengths[a] - strengths[b] + pull * z)))
    outcome = (rng.random(m) < chance).astype(float)
    outcome[rng.random(m) < tie] = 0.5
    return Votes.of(a, b, outcome, rng.integers(0, 300, m), *tags)


def test_strengths_are_found_and_ranks_are_ranges():
    real = np.linspace(-1, 1, 6)
    found, _ = bradley_terry(votes(np.random.default_rng(0), real, 3000), 6)
    assert np.argsort([s.rating for s in found]).tolist() == list(range(6))
    for place, strength in enumerate(reversed(found), 1):
        assert strength.rank_low <= place <= strength.rank_high
    assert all(s.low <= s.rating <= s.high for s in found)


def test_equal_players_share_their_ranks():
    found, _ = bradley_terry(votes(np.random.default_rng(1), np.zeros(4), 400), 4)
    assert all(s.rank_high - s.rank_low >= 1 for s in found)


def test_the_pull_of_longer_lists_is_taken_out():
    rng = np.random.default_rng(2)
    m, pull = 6000, 3.0
    a, b = np.zeros(m, int), np.ones(m, int)
    tags = np.vstack([rng.integers(8, 14, m), rng.integers(2, 8, m)])  # a is no better, only longer
    z = (tags[0] - tags[1]) / tags.sum(axis=0)
    outcome = (rng.random(m) < 1 / (1 + np.exp(-pull * z))).astype(float)
    given = Votes.of(a, b, outcome, np.arange(m), *tags)
    plain, _ = bradley_terry(given, 2)
    fair, beta = bradley_terry(given, 2, control_length=True)
    assert plain[0].rating - plain[1].rating > 150
    assert abs(fair[0].rating - fair[1].rating) < 60
    assert beta == pytest.approx(pull, abs=0.5)


def test_who_won_everything_stays_finite_and_who_never_played_is_open():
    given = Votes.of(np.zeros(20, int), np.ones(20, int), np.ones(20), np.arange(20), np.full(20, 5), np.full(20, 5))
    found, _ = bradley_terry(given, 3)
    assert 1000 < found[0].rating < 3000
    assert (found[2].rank_low, found[2].rank_high, found[2].votes) == (1, 3, 0)
    assert 2 in next_pair(found)


def test_no_votes():
    found, _ = bradley_terry(
        Votes.of(*(np.array([], int) for _ in range(2)), np.array([]), *([np.array([], int)] * 3)), 2
    )
    assert [s.rating for s in found] == [1000, 1000]
