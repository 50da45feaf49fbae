"""Choosing among stored scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagging.adapters.base import LabelCuts, LabelSet, PackedScores, Thresholds
from tagging.policy.bulk import BulkPolicy, fits
from tagging.policy.pipeline import compile_policy
from tagging.policy.select import candidates, label_floors, select_many
from tagging.policy.spec import WordList

LABELS = LabelSet(
    ("animal", "dog", "spaniel", "hatsune_miku", "safe", "kitty"),
    ("general", "general", "general", "character", "rating", "general"),
    (-1, 0, 1, -1, -1, 0),
)
PACKED = PackedScores.pack(np.array([0.95, 0.6, 0.2, 0.7, 0.99, 0.1], dtype=np.float32))


def names(found):
    return [c.name for c in found]


def test_only_what_is_above_its_threshold_comes_out_with_its_line_of_parents():
    found = candidates(LABELS, PACKED, {"general": 0.15, "character": 0.85}, source="wd")
    assert names(found) == ["animal", "dog", "spaniel"]
    assert found[2].parent == "dog"
    assert found[2].ancestors == ("dog", "animal")
    assert found[2].source == "wd"
    assert found[0].score == pytest.approx(0.95, abs=1e-5)


@pytest.mark.parametrize("threshold", [0.35, 0.6, 0.2, 1 / 3])
def test_a_score_on_the_threshold_counts_here_and_in_the_pipeline(threshold):
    labels = LabelSet(("x",), ("general",))
    packed = PackedScores.pack(np.array([threshold], dtype=np.float32))
    policy = compile_policy({})
    assert policy.apply(
        policy.select(labels, packed, {"general": threshold}), thresholds={"general": threshold}
    ).names == ["x"]


def test_a_tags_own_threshold_may_be_lower_or_higher_than_its_categorys():
    found = candidates(LABELS, PACKED, {"general": 0.5, "character": 0.5}, {"spaniel": 0.15, "Animal": 0.99})
    assert names(found) == ["hatsune_miku", "dog", "spaniel"]


def test_a_threshold_on_the_final_word_reaches_the_label_that_becomes_it():
    swap = WordList("s", "replacement", [{"text": "kitty", "replacement": "cat"}])
    policy = compile_policy({"tag_thresholds": {"cat": 0.08}}, [swap])
    thresholds = {"general": 0.5, "character": 0.9}
    outcome = policy.apply(policy.select(LABELS, PACKED, thresholds), thresholds=thresholds)
    assert outcome.names == ["animal", "dog", "cat"]


def test_categories_without_a_threshold_keep_all_and_hidden_ones_nothing():
    assert names(candidates(LABELS, PACKED, {"general": 0.9})) == ["animal", "hatsune_miku"]
    assert names(candidates(LABELS, PACKED, {"general": 0.9}, hidden=("character", "general"))) == ["safe"]


def test_the_fewest_tags_bring_the_best_below():
    policy = compile_policy({"min_tags": 3})
    thresholds = {"general": 0.9, "character": 0.9}
    outcome = policy.apply(policy.select(LABELS, PACKED, thresholds), thresholds=thresholds)
    assert outcome.names == ["hatsune miku", "animal", "dog"]


rows = st.lists(st.lists(st.floats(0, 1, width=32), min_size=6, max_size=6), min_size=1, max_size=6)


@settings(max_examples=100, deadline=None)
@given(rows, st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_many_images_at_once_equal_one_by_one(images, general, character, own):
    packed = [PackedScores.pack(np.array(row, dtype=np.float32)) for row in images]
    thresholds, tags = {"general": general, "character": character}, {"dog": own}
    floors = label_floors(LABELS, thresholds, tags, ("rating",))
    chosen = select_many([p.to_bytes() for p in packed], floors)
    for i, one in enumerate(packed):
        part = chosen.labels[chosen.offsets[i] : chosen.offsets[i + 1]]
        assert [LABELS.names[j] for j in part] == names(candidates(LABELS, one, thresholds, tags))


def test_a_broken_blob_is_refused():
    with pytest.raises(ValueError, match="multiple of 4"):
        select_many([b"123"], label_floors(LABELS, {}))
    assert len(select_many([b""], label_floors(LABELS, {})).labels) == 0


class TestThresholdsOfSingleLabels:
    """A model may bring a threshold for each label (RAM), which a policy's own choice goes before."""

    labels = LabelSet(("cat", "dog", "reimu", "cat"), ("general", "general", "character", "meta"))

    def kept(self, cuts, scores, spec=None):
        policy = compile_policy(spec or {})
        packed = PackedScores.pack(np.array(scores, np.float32), 0.05)
        given = Thresholds({"character": 0.9}, LabelCuts.of(self.labels, cuts))
        found = policy.select(self.labels, packed, given)
        outcome = policy.apply(found, thresholds=given)
        bulk = BulkPolicy(policy, self.labels, "").apply([packed.to_bytes()], given)[0] if fits(policy) else None
        names = [f.name for f in outcome.tags if f.state != "dropped"]
        assert bulk is None or bulk.names == names
        return names

    nan = float("nan")

    def test_each_label_has_its_own(self):
        assert self.kept([0.8, 0.3, self.nan, 1.0], [0.7, 0.4, 0.5, 0.6]) == ["dog"]
        assert self.kept([0.6, 0.5, self.nan, 1.0], [0.7, 0.4, 0.95, 0.6]) == ["reimu", "cat"]

    def test_a_policys_category_goes_before_them(self):
        spec = {"thresholds": {"general": 0.65}}
        assert self.kept([0.8, 0.3, self.nan, 1.0], [0.7, 0.4, 0.5, 0.6], spec) == ["cat"]

    def test_a_policys_tag_goes_before_them(self):
        spec = {"tag_thresholds": {"cat": 0.5}}
        assert "cat" in self.kept([0.8, 0.3, self.nan, 1.0], [0.7, 0.2, 0.5, 0.1], spec)

    def test_two_labels_of_one_name_keep_their_own(self):
        assert self.kept([0.9, 1.0, self.nan, 0.4], [0.5, 0.1, 0.1, 0.45]) == ["cat"]

    def test_the_fewest_tags_are_found_below_them(self):
        assert self.kept([0.9, 0.9, self.nan, 1.0], [0.5, 0.1, 0.1, 0.1], {"min_tags": 1}) == ["cat"]

    def test_they_are_part_of_the_label_sets_name(self):
        bare, with_cuts = LabelSet(("a",), ("general",)), LabelSet(("a",), ("general",), (), {"cut": [0.5]})
        assert bare.digest != with_cuts.digest
        with pytest.raises(ValueError, match="1 labels need as many"):
            LabelCuts.of(bare, [0.1, 0.2])
