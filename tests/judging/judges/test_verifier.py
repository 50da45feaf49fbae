"""The tag verifier without a model: calls, decoys, replies, and the score that is computed here."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judging.judges import verifier
from judging.judges.replies import InvalidReply
from judging.judges.spec import VerifierSpec
from judging.judges.verifier import Named

SPEC = VerifierSpec()
LIES = [Named(f"lie {i}") for i in range(20)]
SURE = [Named("sure one"), Named("sure two")]


def plan(n: int = 5, **more):
    return verifier.plan(
        [Named(f"tag {i}") for i in range(n)], SPEC, seed=["profile", "image"], absent=LIES, present=SURE, **more
    )


def reply(call, words=None, **more) -> str:
    words = words or {}
    tags = [
        {
            "id": item.id,
            "evidence": f"evidence for {item.text}",
            "verdict": words.get(item.text, "wrong" if item.role == "absent" else "correct"),
            "p_correct": 0.1 if words.get(item.text, "") == "wrong" or item.role == "absent" else 0.9,
        }
        for item in call.items
    ]
    return json.dumps({"tags": tags, "missing": [], **more})


@given(st.integers(0, 60))
def test_every_tag_is_asked_once_in_calls_of_at_most_fifteen_with_all_decoys(n):
    made = plan(n)
    asked = [item.tag.name for call in made.calls for item in call.items if item.role == "candidate"]
    assert sorted(asked) == sorted(f"tag {i}" for i in range(n))
    for call in made.calls:
        roles = [item.role for item in call.items]
        assert len(roles) <= 15
        assert (roles.count("absent"), roles.count("present")) == (2, 1)
        assert len(set(call.ids)) == len(call.ids)
    assert len(made.calls) == -(-n // 12)


def test_the_same_content_makes_the_same_calls_in_whatever_order_it_comes():
    names = [Named(f"tag {i}") for i in range(20)]
    one = verifier.plan(names, SPEC, seed=["p", "i"], absent=LIES)
    two = verifier.plan(names[::-1], SPEC, seed=["p", "i"], absent=LIES)
    assert one == two
    assert verifier.plan(names, SPEC, seed=["p", "other image"], absent=LIES) != one


def test_tags_are_shuffled_and_decoys_stand_anywhere():
    places = set()
    for image in range(30):
        call = verifier.plan([Named(f"tag {i}") for i in range(10)], SPEC, seed=[image], absent=LIES).calls[0]
        places |= {at for at, item in enumerate(call.items) if item.role == "absent"}
    assert len(places) > 8


def test_a_decoy_is_never_one_of_the_judged_tags():
    made = verifier.plan([Named("Lie_3")], SPEC, seed=["s"], absent=[Named("lie 3"), Named("lie 4")])
    assert [item.tag.name for item in made.calls[0].items if item.role == "absent"] == ["lie 4"]


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda data: data["tags"].pop(), "no verdict"),
        (lambda data: data["tags"][0].pop("verdict"), "verdict"),
        (lambda data: data["tags"].append(data["tags"][0]), "twice"),
        (lambda data: data["tags"].append({**data["tags"][0], "id": "zzzz"}), "not asked"),
        (lambda data: data["tags"][0].update(verdict="yes"), "verdict"),
        (lambda data: data["tags"][0].update(p_correct=1.5), "p_correct"),
        (lambda data: data["tags"][0].update(p_correct="0.9"), "p_correct"),
        (lambda data: data["tags"][0].update(p_correct=True), "p_correct"),
        (lambda data: data.update(verdict="all correct"), "verdict"),
        (lambda data: data.pop("tags"), "tags"),
    ],
)
def test_a_reply_without_a_verdict_for_each_tag_is_never_a_pass(spoil, why):
    call = plan().calls[0]
    data = json.loads(reply(call))
    spoil(data)
    with pytest.raises(InvalidReply, match=why):
        verifier.read_call(json.dumps(data), call, SPEC)


@pytest.mark.parametrize("text", ["", "All tags are correct.", "null", "[]", "{}", '{"tags": NaN}', "{" * 50_000])
def test_text_that_is_no_reply_is_invalid(text):
    with pytest.raises(InvalidReply):
        verifier.read_call(text, plan().calls[0], SPEC)


def test_a_name_that_stands_twice_is_invalid_rather_than_the_last_one_winning():
    call = plan(1).calls[0]
    text = reply(call).replace('"verdict": "correct"', '"verdict": "wrong", "verdict": "correct"')
    with pytest.raises(InvalidReply, match="twice"):
        verifier.read_call(text, call, SPEC)


def test_a_code_fence_and_thinking_are_taken_off():
    call = plan().calls[0]
    text = f"<think>hm</think>\n```json\n{reply(call)}\n```"
    assert len(verifier.read_call(text, call, SPEC).tags) == len(call.items)


def test_text_around_the_object_is_invalid():
    call = plan().calls[0]
    with pytest.raises(InvalidReply):
        verifier.read_call(reply(call) + "\nAll are correct.", call, SPEC)


def test_an_accepted_decoy_halves_the_certainty_of_its_call():
    call = plan().calls[0]
    lie = next(item.text for item in call.items if item.role == "absent")
    honest = verifier.read_call(reply(call), call, SPEC)
    fooled = verifier.read_call(reply(call, {lie: "correct"}), call, SPEC)
    assert (honest.fooled, fooled.fooled) == (0, 1)
    sure = next(tag.p_ok for tag in honest.tags if tag.name == "tag 0")
    doubted = next(tag.p_ok for tag in fooled.tags if tag.name == "tag 0")
    assert (sure, doubted) == (0.9, 0.7)
    assert "decoy_accepted" in verifier.combine(plan(), [fooled], SPEC).flags


def test_the_overall_score_is_computed_from_verdicts_not_from_the_judges_own_grade():
    made = plan(4)
    call = made.calls[0]
    grades = {"accuracy": 5, "coverage": 5, "specificity": 5}
    missing = [
        {"tag": "snow", "evidence": "white", "importance": "high"},
        {"tag": "Snow", "evidence": "again", "importance": "low"},
        {"tag": "tag 1", "evidence": "is there", "importance": "high"},
    ]
    words = {"tag 0": "wrong", "tag 1": "too_general", "tag 2": "unverifiable"}
    text = reply(call, words, overall=grades, missing=missing)
    found = verifier.combine(made, [verifier.read_call(text, call, SPEC)], SPEC)
    # (0 + 0.5 + 0.5 + 1) / 4 − 0.1 for snow, once
    assert found.overall == pytest.approx(0.4)
    assert [m["tag"] for m in found.missing] == ["snow"]
    assert found.grades == {"accuracy": 5, "coverage": 5, "specificity": 5}


def test_words_rule_over_numbers_that_deny_them():
    assert verifier.consistent("wrong", 0.95) == 0.5
    assert verifier.consistent("correct", 0.1) == 0.5
    assert verifier.consistent("too_general", 0.99) == 0.5
    assert verifier.consistent("wrong", 0.1) == 0.1


def test_a_call_without_a_verdict_leaves_the_image_without_one():
    made = plan(20)
    first = verifier.read_call(reply(made.calls[0]), made.calls[0], SPEC)
    with pytest.raises(ValueError, match="every call"):
        verifier.combine(made, [first], SPEC)


def test_evidence_stands_before_the_verdict_in_the_schema():
    answer = plan().calls[0].schema()["properties"]["tags"]["items"]
    names = list(answer["properties"])
    assert names.index("evidence") < names.index("verdict") < names.index("p_correct")
    assert answer["required"] == names
