"""What a policy claims, held against hostile words and rules."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from tagging.policy.parse import parse
from tagging.policy.pipeline import CompiledPolicy, compile_policy
from tagging.policy.spec import Candidate, Outcome, PolicyError, WordList
from tagging.policy.text import clean, tag_key

from . import strategies as s

relaxed = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
THRESHOLDS = {"general": 0.25, "character": 0.5}


def compiled(spec: dict, lists: tuple[WordList, ...]) -> CompiledPolicy:
    """The policy, or a draw that is passed over where its rules contradict themselves."""
    try:
        return compile_policy(spec, lists)
    except PolicyError:
        assume(False)
        raise AssertionError from None


def again(outcome: Outcome) -> list[Candidate]:
    return [Candidate(f.name, f.category, f.score, f.source) for f in outcome.kept]


@relaxed
@given(s.specs, s.lists, s.candidates)
def test_applying_a_policy_to_its_own_result_changes_nothing(spec, lists, candidates):
    policy = compiled(spec, lists)
    first = policy.apply(candidates, thresholds=THRESHOLDS)
    second = policy.apply(again(first), thresholds=THRESHOLDS)
    assert second.names == first.names
    assert [f for f in second.tags if f.state == "dropped"] == []


@relaxed
@given(s.specs, s.lists, s.scored_candidates, st.randoms(use_true_random=False))
def test_scored_tags_may_come_in_any_order(spec, lists, candidates, rng):
    policy = compiled(spec, lists)
    shuffled = candidates[:]
    rng.shuffle(shuffled)
    one = policy.apply(candidates, thresholds=THRESHOLDS)
    other = policy.apply(shuffled, thresholds=THRESHOLDS)
    assert one.kept == other.kept


@relaxed
@given(s.specs, s.lists, s.candidates)
def test_limits_forced_words_triggers_and_names_hold(spec, lists, candidates):
    policy = compiled(spec, lists)
    outcome = policy.apply(candidates, thresholds=THRESHOLDS)
    names = outcome.names
    if policy.spec.max_tags is not None:
        assert len(names) <= policy.spec.max_tags
    keys = [tag_key(name) for name in names]
    assert len(keys) == len(set(keys))
    assert {tag_key(word) for word in ("cat", "Photo", "1girl") if any(word in x.entries for x in lists[3:])} <= set(
        keys
    )
    triggers = list(dict.fromkeys(spec.get("triggers", [])))
    if triggers:
        place = names[: len(triggers)] if policy.spec.trigger_position == "first" else names[-len(triggers) :]
        assert place == triggers
    for name, key in zip(names, keys, strict=True):
        assert name == clean(name)
        assert 0 < len(name) <= 200
        assert len(key) <= 220


@relaxed
@given(s.specs, s.lists, s.candidates, st.text(max_size=200), st.lists(s.words, max_size=8))
@example(
    {}, (WordList("bans", "banned", ["cat"]),), [Candidate("black cat", "general", 0.9)], "The cat. Cat-like cat!", []
)
def test_nothing_banned_comes_out_of_tags_or_caption(spec, lists, candidates, caption, more):
    policy = compiled(spec, lists)
    text = f"{caption} {' '.join(more)}"
    for action in ("remove", "sentence"):
        policy = compile_policy({**spec, "caption": {"banned_action": action}}, lists)
        outcome = policy.apply(candidates, caption=text, thresholds=THRESHOLDS)
        for name in outcome.names:
            assert policy.words.banned.find(name) is None, name
        assert policy.words.banned_in_text.spans(outcome.caption) == []
        assert policy.apply([], caption=outcome.caption).caption == outcome.caption


@relaxed
@given(s.specs, s.lists, s.candidates)
def test_every_candidate_has_a_fate_with_a_reason(spec, lists, candidates):
    outcome = compiled(spec, lists).apply(candidates, thresholds=THRESHOLDS)
    said = [f for f in outcome.tags if f.source == "m"]
    assert sorted(f.original for f in said) == sorted(c.name for c in candidates)
    for fate in outcome.tags:
        assert fate.reason or fate.state == "kept", fate


def test_ten_thousand_hostile_strings_through_parse_and_policy():
    rng = random.Random(4)
    bans = WordList("bans", "banned", ["mood", {"text": "*汽*", "match": "wildcard"}, {"text": "{+", "match": "regex"}])
    policy = compile_policy(
        {"max_tags": 5, "forced": ["photo"], "triggers": ["ohwx"], "vocabulary": "prefer", "similarity": 0.9}, [bans]
    )
    rules = ["auto", "comma", "newline", "json", "sentences", "caption"]
    for i in range(10_000):
        text = s.hostile_text(rng)
        parsed = parse(text, rules[i % len(rules)])
        outcome = policy.apply([*parsed.tags, Candidate(text, "general", rng.random())], caption=text)
        names = outcome.names
        assert len(names) <= 5
        assert names[0] == "ohwx"
        assert "photo" in names
        for out in (*names, outcome.caption):
            folded = out.casefold()
            assert policy.words.banned.find(out) is None
            assert "汽" not in folded
            assert "{" not in folded


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(a|aa)+$", r"(.*)*x", r"^(\w+\s?)*$"])
def test_regular_expressions_that_would_run_for_ever_are_stopped(pattern):
    import time

    bans = WordList("bans", "banned", [{"text": pattern, "match": "regex"}])
    policy = compile_policy({}, [bans])
    evil = "a" * 150 + "!"
    start = time.perf_counter()
    for i in range(20):
        policy.apply([Candidate(f"{evil}{i}", "general", 0.5)], caption=evil)
    assert time.perf_counter() - start < 2
    assert len(policy.problems) <= 1
