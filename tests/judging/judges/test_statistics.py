"""How far a judge can be trusted, in figures that others publish or that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from judging.judges import gate
from judging.judges.gate import Judged, Thresholds
from judging.judges.statistics import (
    Interval,
    badge,
    cohen_kappa,
    corrected_mean,
    in_holdout,
    kappa_interval,
    wilson,
)


def test_wilson_as_published():
    """17/20 and 5/5 as in facts of other harnesses: 64.0–94.8 % and 56.6–100 %."""
    some, all_right = wilson(17, 20), wilson(5, 5)
    assert some is not None
    assert (round(some.low, 3), round(some.high, 3)) == (0.640, 0.948)
    assert all_right is not None
    assert (round(all_right.low, 3), all_right.high) == (0.566, 1.0)
    assert wilson(0, 0) is None


def test_kappa_as_published():
    """The 50 grant proposals of the usual example: 20, 5, 10, 15 → κ = 0.4."""
    assert cohen_kappa(20, 5, 10, 15) == pytest.approx(0.4)
    assert cohen_kappa(0, 0, 0, 0) is None
    assert cohen_kappa(0, 0, 0, 9) is None


def test_the_interval_of_kappa_is_wider_when_errors_come_by_image():
    spread = [(1, 0, 0, 7), (1, 1, 0, 6), (1, 0, 1, 6), (2, 0, 0, 6)] * 25
    lumped = [(5, 0, 0, 3)] * 20 + [(0, 5, 0, 3)] * 5 + [(0, 0, 5, 3)] * 5 + [(0, 0, 0, 8)] * 70
    even, uneven = kappa_interval(spread), kappa_interval(lumped)
    assert even is not None
    assert uneven is not None
    assert even.low < even.value < even.high
    assert uneven.high - uneven.low > even.high - even.low
    assert kappa_interval(spread) == even  # seeded
    assert kappa_interval([]) is None


@pytest.mark.parametrize(
    ("value", "low", "n", "more", "expected"),
    [
        (0.61, 0.51, 200, {}, "trusted"),
        (0.61, 0.49, 200, {}, "advisory"),
        (0.59, 0.55, 900, {}, "advisory"),
        (0.39, 0.30, 900, {}, "off"),
        (0.90, 0.85, 199, {}, "off"),
        (0.90, 0.85, 900, {"drifted": True}, "advisory"),
        (0.50, 0.45, 900, {"drifted": True}, "off"),
        (0.90, 0.85, 900, {"decoys_accepted": 1.0}, "off"),
    ],
)
def test_the_badge_follows_its_stated_cut_offs(value, low, n, more, expected):
    assert badge(Interval(value, low, 1.0), n, **more) == expected
    assert badge(None, n) == "off"


def test_the_corrected_mean_takes_a_generous_judges_bias_away_and_covers_the_truth():
    """A judge that says 0.127 too much on average, as the 88 % agreement of facts §4 did: reviewed images mend it."""
    source, covered = np.random.default_rng(7), 0
    for _ in range(300):
        truth = source.uniform(0.4, 0.9, 600)
        judge = truth + 0.127 + source.normal(0, 0.1, 600)
        found = corrected_mean(judge, judge[:120], truth[:120])
        assert found is not None
        assert found.raw - 0.65 > 0.09
        covered += found.low <= 0.65 <= found.high
    assert 0.92 <= covered / 300 <= 0.98


def test_the_holdout_is_a_stable_third_of_the_images():
    import hashlib

    names = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(40_000)]
    held = [name for name in names if in_holdout(name)]
    assert 0.29 < len(held) / len(names) < 0.31
    assert held == [name for name in names if in_holdout(name)]


# -- thresholds -------------------------------------------------------------------------------------------------------
def judged(n: int = 3000, seed: int = 1) -> list[Judged]:
    source = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        p = float(source.beta(4, 1))
        rows.append(Judged(i // 6, round(p, 3), bool(source.random() < p)))
    return rows


def test_the_chosen_threshold_keeps_the_target_and_is_the_widest_that_does():
    curve = gate.curve(judged())
    chosen = gate.choose(curve, 0.90)
    assert chosen.accept is not None
    at = next(p for p in curve.accept if p.threshold == chosen.accept)
    below = [p for p in curve.accept if p.threshold < chosen.accept]
    assert at.precision is not None
    assert at.precision.low >= 0.90
    assert all(p.precision is None or p.precision.low < 0.90 for p in below)


def test_too_few_decisions_open_no_band():
    few = [Judged(0, 0.99, True)] * (gate.decisions_needed() - 1)
    assert gate.choose(gate.curve(few)) == Thresholds(None, None)
    enough = [Judged(0, 0.99, True)] * gate.decisions_needed()
    assert gate.choose(gate.curve(enough)).accept is not None
    assert gate.decisions_needed() == 73


def test_an_image_is_settled_only_where_no_tag_is_in_doubt():
    bands = Thresholds(accept=0.9, reject=0.1)
    assert gate.band_of_image([0.95, 0.05], bands) == "accept"
    assert gate.band_of_image([0.95, 0.5], bands) == "review"
    assert gate.band_of_image([0.05, 0.02], bands) == "reject"
    assert gate.band_of_image([], bands) == "review"
    assert gate.band_of_image([0.99], Thresholds()) == "review"


def test_the_promise_is_told_in_words():
    images = {i: [0.95] for i in range(62)} | {i: [0.6] for i in range(62, 100)}
    rows = [Judged(0, 0.95, True)] * 970 + [Judged(0, 0.95, False)] * 30
    found = gate.promise(images, rows, Thresholds(accept=0.9))
    assert found.text() == "saves 62 % of reviews, lets 3 % of bad tags through (2.1–4.3 %)"


def test_about_a_twentieth_is_audited_and_always_the_same():
    import hashlib

    names = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(4000)]
    one = {n for n in names if gate.audited(n, "gate 1")}
    assert 0.04 < len(one) / len(names) < 0.06
    assert one == {n for n in names if gate.audited(n, "gate 1")}
    assert one != {n for n in names if gate.audited(n, "gate 2")}


def test_what_a_decision_is_worth():
    assert gate.doubt([0.99, 0.98]) < gate.doubt([0.99, 0.5])
    assert gate.disagreement([frozenset("ab"), frozenset("ab")]) == 0
    assert gate.disagreement([frozenset("ab"), frozenset("cd")]) == 1
    assert gate.rarity([1, 900], 1000) == 1.0
    assert gate.rarity([1000], 1000) == 0.0
    assert gate.worth(doubt=1, disagreement=1, rarity=1) == 1000
    assert gate.worth(doubt=0, disagreement=0, rarity=0) == 0
