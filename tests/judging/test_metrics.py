"""Numbers from arrays, checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from judging.metrics import Said, Truth, common, measure, stability
from judging.metrics_loading import caption_distance
from judging.metrics_words import named_in

TAGS = ("cat", "dog", "tree", "sky", "made up")


def truth(n, decided, *, reviewed=None):
    """`decided`: (image, tag, right)"""
    pairs = np.array([i * len(TAGS) + TAGS.index(t) for i, t, _ in decided], np.int64)
    right = np.array([r for _, _, r in decided], bool)
    order = np.argsort(pairs)
    spoken = np.zeros(n, bool)
    spoken[[i for i, _, _ in decided]] = True
    return Truth(
        n, TAGS, ("animal", "animal", "plant", "place", "unknown"), np.array([True] * 4 + [False]),
        pairs[order], right[order], spoken if reviewed is None else np.array(reviewed, bool),
    )  # fmt: skip


def said(n, rows, *, samples=1, seen=None):
    """`rows`: (sample, image, [(tag, score)])"""
    image, tag, sample, rank, score = [], [], [], [], []
    there = np.zeros((samples, n), bool) if seen is None else np.array(seen, bool)
    for s, i, tags in rows:
        there[s, i] = True
        for at, (name, value) in enumerate(tags):
            image.append(i)
            tag.append(TAGS.index(name))
            sample.append(s)
            rank.append(at)
            score.append(np.nan if value is None else value)
    names = "seconds tokens_in tokens_out cost banned parse_failed truncated caption denied".split()
    nothing = {name: np.full((samples, n), np.nan) for name in names}
    return Said(
        np.array(image, np.int64), np.array(tag, np.int64), np.array(sample, np.int64), np.array(rank, np.int64),
        np.array(score, float), there, **nothing,
    )  # fmt: skip


def test_unjudged_counts_for_nothing_and_bounds_say_what_it_could_be():
    decided = [(0, "cat", True), (0, "tree", True), (0, "dog", False)]
    row = said(1, [(0, 0, [("cat", 0.9), ("dog", 0.8), ("sky", 0.7)])])
    v = measure(truth(1, decided), row, np.array([True])).values
    assert (v["precision"], v["recall"], v["f1"]) == (0.5, 0.5, 0.5)
    assert v["f1_low"] == pytest.approx(2 / 5)
    assert v["f1_high"] == pytest.approx(4 / 6)
    assert v["coverage"] == pytest.approx(2 / 3)
    assert (v["edits"], v["zero_edit"], v["jaccard"]) == (2, 0, pytest.approx(1 / 3))
    assert v["acceptance"] == pytest.approx(1 / 3)


def test_an_image_that_nobody_looked_at_is_left_out():
    row = said(2, [(0, 0, [("cat", None)]), (0, 1, [("dog", None)])])
    v = measure(truth(2, [(0, "cat", True)]), row, np.array([True, True])).values
    assert (v["images"], v["judged_images"], v["f1"]) == (2, 1, 1.0)


def test_an_empty_answer_misses_and_an_absent_one_does_not_count():
    decided = [(0, "cat", True), (1, "cat", True)]
    row = said(2, [(0, 0, [("cat", None)])], seen=[[True, True]])
    assert measure(truth(2, decided), row, np.array([True, True])).values["recall"] == 0.5
    row = said(2, [(0, 0, [("cat", None)])])
    assert measure(truth(2, decided), row, np.array([True, True])).values["recall"] == 1.0


def test_samples_are_averaged():
    row = said(1, [(0, 0, [("cat", None)]), (1, 0, [("dog", None)])], samples=2)
    found = measure(truth(1, [(0, "cat", True), (0, "dog", False)]), row, np.array([True]))
    assert (found.counts.right[0], found.counts.wrong[0], found.counts.missed[0]) == (0.5, 0.5, 0.5)
    assert stability(row, np.array([True])) == 0
    assert stability(said(1, [(0, 0, [("cat", None)])]), np.array([True])) is None


def test_stability_of_partly_equal_samples():
    rows = [(0, 0, [("cat", None), ("dog", None)]), (1, 0, [("dog", None), ("tree", None)])]
    assert stability(said(1, rows, samples=2), np.array([True])) == pytest.approx(1 / 3)


def test_order_and_scores():
    decided = [(0, "cat", True), (0, "dog", False), (0, "tree", True)]
    v = measure(
        truth(1, decided), said(1, [(0, 0, [("cat", 0.9), ("dog", 0.8), ("tree", 0.6)])]), np.array([True])
    ).values
    assert (v["p_at_1"], v["p_at_3"]) == (1.0, pytest.approx(2 / 3))
    assert v["map"] == pytest.approx((1 + 2 / 3) / 2)
    assert v["ece"] == pytest.approx((0.1 + 0.8 + 0.4) / 3)


def test_macro_needs_support_and_categories_are_told():
    decided = [(i, "cat", True) for i in range(6)] + [(i, "tree", True) for i in range(3)]
    row = said(6, [(0, i, [("cat", None)] if i < 4 else []) for i in range(6)])
    found = measure(truth(6, decided), row, np.ones(6, bool))
    assert (found.values["macro_tags"], found.values["macro_f1"]) == (1, pytest.approx(8 / 10))
    assert found.by_tag["cat"] == [6, 4.0, 0.0, 2.0, 0.0]
    assert found.by_category["plant"]["recall"] == 0
    assert found.by_category["animal"]["recall"] == pytest.approx(4 / 6)


def test_words_that_the_vocabulary_does_not_have():
    row = said(1, [(0, 0, [("cat", None), ("made up", None)])])
    assert measure(truth(1, []), row, np.array([True])).values["out_of_vocabulary"] == 0.5


def test_recipes_on_their_way_are_not_compared():
    full = said(10, [(0, i, []) for i in range(10)])
    most = said(10, [(0, i, []) for i in range(8)])
    begun = said(10, [(0, 0, [])])
    within, ready = common([full, most, begun])
    assert ready == [True, True, False]
    assert within.sum() == 8


def test_captions():
    assert caption_distance("A cat on a mat", "a cat  on a mat") == 0
    assert caption_distance("A cat on a mat", "a dog on a mat") == pytest.approx(1 / 5)
    assert named_in("Two dogs and a black cat.", ["dog", "black cat", "tree"]) == ["dog", "black cat"]
    assert named_in("Cattle graze", ["cat"]) == []
