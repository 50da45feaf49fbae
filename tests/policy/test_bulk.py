"""Many images at once equal the ordinary pipeline, to the letter."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tagging.adapters.base import LabelSet, PackedScores
from tagging.policy.bulk import BulkPolicy, fits
from tagging.policy.pipeline import compile_policy
from tagging.policy.spec import PolicyError

from . import strategies as s

NAMES = (*s.WORDS, "long_hair", "sea_side", "x" * 201, "汽车")
LABELS = LabelSet(NAMES, tuple(("general", "character", "copyright", "rating")[i % 4] for i in range(len(NAMES))))
rows = st.lists(st.lists(st.floats(0, 1, width=16), min_size=len(NAMES), max_size=len(NAMES)), min_size=1, max_size=5)


def as_json(outcome) -> str:
    fates = [f for f in outcome.tags if f.state != "dropped"] + [f for f in outcome.tags if f.state == "dropped"]
    return json.dumps(
        [[f.name, f.category, round(f.score, 4), f.state, f.reason, f.source, f.original] for f in fates],
        ensure_ascii=False,
    )


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(s.specs, s.lists, rows, st.one_of(st.none(), st.integers(1, 6)))
def test_every_image_equals_the_pipeline(spec, lists, images, max_tags):
    spec = {k: v for k, v in spec.items() if k not in ("triggers", "exclusive", "min_tags", "parents", "order")}
    try:
        policy = compile_policy({**spec, "max_tags": max_tags}, lists[:3])
    except PolicyError:
        assume(False)
    assert fits(policy)
    thresholds = {"general": 0.25, "character": 0.5}
    packed = [PackedScores.pack(np.array(row, dtype=np.float32)) for row in images]
    found = BulkPolicy(policy, LABELS, "wd").apply([p.to_bytes() for p in packed], thresholds)
    for one, bulk in zip(packed, found, strict=True):
        candidates = policy.select(LABELS, one, thresholds, source="wd")
        outcome = policy.apply(candidates, thresholds=thresholds)
        if bulk is None:
            keys = [policy.words.of(c.name, c.category).key for c in candidates]
            assert len(keys) > len(set(keys))
        else:
            assert bulk.tags == as_json(outcome)
            assert bulk.names == outcome.names


def test_rules_about_tags_together_do_not_fit():
    assert fits(compile_policy({"banned": ["a"], "max_tags": 3, "vocabulary": "only"}))
    for spec in (
        {"forced": ["a"]},
        {"triggers": ["a"]},
        {"parents": "drop"},
        {"exclusive": [["a", "b"]]},
        {"min_tags": 2},
    ):
        assert not fits(compile_policy(spec))
