"""Combine rules: what several channels said, made into one. And what of a merging model's answer is believed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagging.policy import merging
from tagging.policy.combine import (
    ChannelOutput,
    CombineError,
    CombineSpec,
    check_combine,
    combine,
    disagreement,
    sources,
    sure,
)
from tagging.policy.pipeline import compile_policy
from tagging.policy.spec import Candidate
from tagging.policy.text import tag_key

from .strategies import PIECES, WORDS

NAMES = ("a", "b", "c", "d", "e")


def out(name, *tags, **more):
    rows = [Candidate(t, "general", None, name) if isinstance(t, str) else Candidate(*t, source=name) for t in tags]
    return ChannelOutput(name, rows, **more)


def names(combined):
    return [t.name for t in combined.tags]


WD = out("wd", ("dog", "general", 0.9), ("miku", "character", 0.8), ("sea", "general", 0.4), caption="")
QWEN = out("qwen", "Dog", "red sky", caption="A dog under a red sky.")
RAM = out("ram", ("dog", "general", 0.7), ("sky", "general", 0.6), caption="dog")


def rule(**given):
    return check_combine(given, ["wd", "qwen", "ram"])


def test_union_and_its_sources():
    found = combine(rule(rule="union"), [WD, QWEN, RAM])
    assert names(found) == ["dog", "miku", "sky", "sea", "red sky"]
    assert found.tags[0] == Candidate("dog", "general", 0.9, "qwen, ram, wd")
    assert sources(found.tags[0].source) == ["qwen", "ram", "wd"]
    assert found.votes["dog"] == 3
    assert found.caption == "A dog under a red sky."


def test_votes_and_intersection_say_why():
    found = combine(rule(rule="votes", votes=2), [WD, QWEN, RAM])
    assert names(found) == ["dog"]
    assert {f.name: f.reason for f in found.left_out}["sky"] == "said by 1 of 3 channels, 2 needed"
    assert names(combine(rule(rule="intersection"), [WD, QWEN, RAM])) == ["dog"]


def test_a_channel_without_an_answer_has_no_vote():
    failed = ChannelOutput("ram", state="error", note="broken")
    assert names(combine(rule(rule="intersection"), [WD, QWEN, failed])) == ["dog"]
    assert names(combine(rule(rule="votes", votes=3), [WD, QWEN, failed])) == ["dog"]
    empty = ChannelOutput("ram", state="empty")
    assert names(combine(rule(rule="intersection"), [WD, QWEN, empty])) == []


def test_weights_by_category():
    spec = rule(rule="weighted", trust={"wd": {"character": 1.0, "*": 0.5}, "qwen": {"character": 0}}, at_least=0.2)
    found = {t.name: t.score for t in combine(spec, [WD, QWEN, RAM]).tags}
    assert found["dog"] == pytest.approx((0.5 * 0.9 + 1.0 + 0.7) / 2.5)
    assert found["miku"] == pytest.approx(0.8 / 2)
    assert "sea" not in found
    left = {f.name: f.reason for f in combine(spec, [WD, QWEN, RAM]).left_out}
    assert left["sea"] == "weighted 0.08, below 0.20"


def test_no_trust_at_all_drops():
    spec = rule(rule="weighted", trust={n: {"*": 0} for n in ("wd", "qwen", "ram")})
    found = combine(spec, [WD, QWEN, RAM])
    assert found.tags == []
    assert {f.reason for f in found.left_out} == {"no trust in who says it"}


def test_priority_by_category_and_caption_from_a_channel():
    spec = rule(rule="priority", priority={"character": ["wd"], "*": ["qwen", "ram"]}, caption="ram")
    found = combine(spec, [WD, QWEN, RAM])
    assert names(found) == ["miku", "Dog", "red sky"]
    assert found.caption == "dog"
    assert {f.name: f.reason for f in found.left_out}["sky"] == "general: taken from qwen"
    silent = ChannelOutput("qwen", state="empty")
    assert names(combine(spec, [WD, silent, RAM])) == ["miku", "dog", "sky"]
    nobody = rule(rule="priority", priority={"meta": ["ram"]})
    assert set(names(combine(nobody, [WD, QWEN, RAM]))) == {"dog", "miku", "sea", "red sky", "sky"}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"rule": "votes", "votes": 4}, "cannot be had from 3"),
        ({"rule": "single"}, "does not go with 3"),
        ({"rule": "union", "trust": {"x": {}}}, "no channel 'x'"),
        ({"rule": "union", "nope": 1}, "nope"),
        ({"rule": "priority"}, "name the channels"),
        ({"rule": "priority", "priority": {"*": ["x"]}}, "no channel 'x'"),
        ({"rule": "weighted", "at_least": 2}, "at_least"),
    ],
)
def test_bad_rules(given, text):
    with pytest.raises(CombineError, match=text):
        check_combine(given, ["wd", "qwen", "ram"])


def test_a_rule_survives_storing():
    spec = rule(rule="votes", votes=3, order="cascade", cascade={"by": "count", "fewer": 2})
    assert check_combine(spec.stored(), ["wd", "qwen", "ram"]) == spec
    assert check_combine({"rule": "single"}, ["wd"]).stored() == {"rule": "single"}


# -- properties -------------------------------------------------------------------------------------------------------
words = st.one_of(st.sampled_from(WORDS), st.lists(st.sampled_from(PIECES), min_size=1, max_size=3).map("".join))
scores = st.one_of(st.none(), st.floats(0, 1))
categories = st.sampled_from(["general", "character", "meta"])
states = st.sampled_from(["ok", "ok", "ok", "empty", "error", "skipped"])


@st.composite
def outputs(draw):
    n = draw(st.integers(2, 5))
    found = []
    for name in NAMES[:n]:
        state = draw(states)
        tags = draw(st.lists(st.tuples(words, categories, scores), max_size=6)) if state == "ok" else []
        caption = draw(st.sampled_from(["", "A view.", "{{ x }}"])) if state == "ok" else ""
        rating = draw(st.sampled_from([None, ("safe", 0.9), ("explicit", 0.9)])) if state == "ok" else None
        rows = [Candidate(t, c, s, name) for t, c, s in tags]
        found.append(ChannelOutput(name, rows, caption, rating, state))
    return found


def plain(combined):
    return (
        [(t.name, t.category, t.score, frozenset(sources(t.source))) for t in combined.tags],
        {(f.name, f.reason, f.source) for f in combined.left_out},
        combined.rating,
    )


@settings(max_examples=300, deadline=None)
@given(found=outputs(), data=st.data())
def test_rules_do_not_depend_on_the_order_of_the_channels(found, data):
    kind = data.draw(st.sampled_from(["union", "intersection", "votes", "weighted"]))
    trust = {o.name: {"*": data.draw(st.floats(0, 5))} for o in found}
    spec = CombineSpec(rule=kind, votes=data.draw(st.integers(1, len(found))), trust=trust)
    shuffled = data.draw(st.permutations(found))
    assert plain(combine(spec, found)) == plain(combine(spec, shuffled))


@settings(max_examples=300, deadline=None)
@given(found=outputs(), data=st.data())
def test_votes_are_within_bounds_and_nothing_vanishes(found, data):
    kind = data.draw(st.sampled_from(["union", "intersection", "votes", "weighted", "priority", "llm_merge"]))
    needed = data.draw(st.integers(1, len(found)))
    priority = {"*": [found[0].name], "character": [o.name for o in found[::-1]]}
    spec = CombineSpec(rule=kind, votes=needed, priority=priority)
    combined = combine(spec, found)
    answered = [o for o in found if o.answered]
    said = {tag_key(t.name) for o in answered for t in o.tags}
    assert {tag_key(t.name) for t in combined.tags} | {tag_key(f.name) for f in combined.left_out} == said
    assert not {tag_key(t.name) for t in combined.tags} & {tag_key(f.name) for f in combined.left_out}
    for tag in combined.tags:
        who = {o.name for o in answered for t in o.tags if tag_key(t.name) == tag_key(tag.name)}
        assert set(sources(tag.source)) == who
        assert 1 <= combined.votes.get(tag.name, len(who)) <= len(answered)
        if kind == "votes":
            assert len(who) >= min(needed, len(answered))
        if kind == "intersection":
            assert len(who) == len(answered)
        assert tag.score is None or 0 <= tag.score <= 1
    assert all(f.state == "dropped" and f.reason for f in combined.left_out)
    if kind == "union":
        assert not combined.left_out


@settings(max_examples=150, deadline=None)
@given(found=outputs())
def test_stricter_rules_keep_less(found):
    kept = [
        {tag_key(t.name) for t in combine(CombineSpec(rule=r, votes=v), found).tags}
        for r, v in (("intersection", 1), ("votes", 3), ("votes", 2), ("union", 1))
    ]
    assert kept[1] <= kept[2] <= kept[3]
    assert kept[0] <= kept[3]


@settings(max_examples=150, deadline=None)
@given(found=outputs(), data=st.data())
def test_nothing_banned_comes_out_and_no_limit_is_exceeded(found, data):
    policy = compile_policy({"banned": ["cat", "mood"], "max_tags": 3})
    spec = CombineSpec(
        rule=data.draw(st.sampled_from(["union", "votes", "weighted", "priority"])), priority={"*": ("a",)}
    )
    combined = combine(spec, found, key=lambda n, c: policy.words.of(n, c).key)
    kept = [f.name for f in policy.apply(combined.tags, caption=combined.caption).tags if f.state != "dropped"]
    assert len(kept) <= 3
    assert not [n for n in kept if {"cat", "mood"} & set(tag_key(n).split())]


@settings(max_examples=100, deadline=None)
@given(found=outputs())
def test_disagreement_is_a_share(found):
    answered = [o for o in found if o.answered]
    assert 0 <= disagreement(answered) <= 1
    assert disagreement([answered[0], answered[0]] if answered else []) == 0


# -- cascade ----------------------------------------------------------------------------------------------------------
def cascade(**given):
    return CombineSpec(rule="union", order="cascade", cascade=given)


@pytest.mark.parametrize(
    ("given", "before", "why"),
    [
        ({"by": "score", "below": 0.95}, [WD], ""),
        ({"by": "score", "below": 0.9}, [WD], "wd: highest score 0.90, not below 0.90"),
        ({"by": "margin", "below": 0.2}, [WD], ""),
        ({"by": "margin", "below": 0.05}, [WD], "wd: margin 0.10, not below 0.05"),
        ({"by": "count", "fewer": 3}, [WD], "wd has 3 tags"),
        ({"by": "count", "fewer": 4}, [WD], ""),
        ({"by": "count", "fewer": 1, "more": 2}, [WD], ""),
        ({"by": "score", "below": 0.1}, [QWEN], ""),  # it gives no scores: unsure
        ({"by": "score", "below": 0.1}, [ChannelOutput("wd", state="error", note="x")], ""),
        ({"by": "score", "below": 0.1}, [ChannelOutput("wd", state="empty")], ""),
        ({"by": "score"}, [WD, ChannelOutput("ram", state="skipped", note="x")], "wd was sure"),
        ({"by": "disagreement", "above": 0.5}, [WD, RAM], ""),
        ({"by": "disagreement", "above": 0.8}, [WD, RAM], "disagreement 0.75, not above 0.80"),
    ],
)
def test_when_the_next_channel_is_asked(given, before, why):
    assert sure(cascade(**given), before, True) == why


def test_a_disagreement_concerns_the_last_channel_only():
    assert sure(cascade(by="disagreement", above=1), [WD, RAM], False) == ""


# -- merging ----------------------------------------------------------------------------------------------------------
SPEC = CombineSpec(rule="llm_merge")


def said(*items, caption=""):
    return json.dumps({"tags": [{"tag": t, "sources": s, "evidence": e} for t, s, e in items], "caption": caption})


def test_a_citation_is_found_by_channel_or_by_word():
    text = said(("hound", ["wd: dog", "qwen: dog"], ""), ("sky", ["Sky"], ""), ("x", ["ram:nothing"], ""))
    found = merging.merged(SPEC, [WD, QWEN, RAM], text, "merge")
    assert [(t.name, t.score, t.source) for t in found.tags] == [("hound", 0.9, "qwen, wd"), ("sky", 0.6, "ram")]
    assert {f.name for f in found.left_out} == {"x", "miku", "sea", "red sky"}
    assert found.caption == "A dog under a red sky."


def test_a_caption_without_a_word_is_none():
    found = merging.merged(SPEC, [WD, QWEN], said(("dog", ["dog"], ""), caption="…"), "merge")
    assert found.caption == "A dog under a red sky."
    nothing = merging.merged(SPEC, [WD], said(caption="An empty room."), "merge")  # an answer all the same
    assert (nothing.tags, nothing.caption) == ([], "An empty room.")


def test_fenced_and_chatty_answers_are_read():
    text = "Here you are:\n```json\n" + said(("dog", ["dog"], "")) + "\n```"
    assert names(merging.merged(SPEC, [WD], text, "merge")) == ["dog"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty"),
        ("no", "not JSON"),
        ("[1]", "not JSON"),
        ('{"tags": "dog"}', 'no list "tags"'),
        ('{"tags": ["dog"]}', 'has no "tag"'),
        ('{"tags": [{"tag": "dog", "sources": "wd"}]}', "no list of texts"),
        ('{"tags": [{"tag": "dog", "sources": [], "evidence": 1}]}', "no text"),
        ('{"tags": [], "caption": 1}', '"caption" is no text'),
        (said(("ghost", [], "")), "no tag of it"),
        (said(("…", ["…"], ""), caption="…"), "no tag of it"),  # the form of the answer, copied
        (said(("ghost", [], ""), caption="A ghost."), "no tag of it"),
        (said(), "no tag of it"),
    ],
)
def test_what_cannot_be_used(text, problem):
    with pytest.raises(merging.MergeProblem, match=problem):
        merging.merged(SPEC, [WD, QWEN], text, "merge")


@settings(max_examples=300, deadline=None)
@given(found=outputs(), text=st.one_of(st.text(max_size=200), st.lists(st.sampled_from(PIECES)).map("".join)))
def test_hostile_answers_are_a_problem_or_a_result(found, text):
    for answer in (text, said((text, [text], text), caption=text), said((text, [], ""))):
        try:
            combined = merging.merged(SPEC, found, answer, "merge")
        except merging.MergeProblem:
            continue
        assert all(t.name and t.source for t in combined.tags)


@settings(max_examples=200, deadline=None)
@given(found=outputs())
def test_what_the_model_is_shown_is_one_line_of_json(found):
    shown = merging.shown(found)
    assert "\n" not in shown
    data = json.loads(shown)
    assert [c["model"] for c in data["channels"]] == [o.name for o in found if o.answered]
    everything = [(c["model"], t["tag"]) for c in data["channels"] for t in c["tags"]]
    assert everything == [(o.name, t.name) for o in found if o.answered for t in o.tags]
    # an answer that cites all of it loses nothing
    cited = said(*[(t["tag"], [t["cite"]], "") for c in data["channels"] for t in c["tags"] if t["tag"].strip()])
    if everything and all(tag.strip() for _, tag in everything):
        try:
            combined = merging.merged(SPEC, found, cited, "merge")
        except merging.MergeProblem:
            return
        assert not [f for f in combined.left_out if f.reason == "left out by merge" and tag_key(f.name)]
