"""Reading text replies."""

from __future__ import annotations

import pytest

from tagging.policy.parse import parse


@pytest.mark.parametrize(
    ("rule", "text", "names"),
    [
        ("comma", "cat, dog , , red car.", ["cat", "dog", "red car"]),
        ("comma", "Tags: cat, dog", ["cat", "dog"]),
        ("newline", "- cat\n2. dog, black\n* 'sea'\n", ["cat", "dog, black", "sea"]),
        ("auto", "1. cat\n2. dog", ["cat", "dog"]),
        ("auto", "cat, dog", ["cat", "dog"]),
        ("auto", '```json\n["cat", "dog"]\n```', ["cat", "dog"]),
        ("auto", '<think>a, b</think>{"tags": ["cat"]}', ["cat"]),
        ("json", 'Sure! {"tags": [{"name": "cat", "score": 0.9}], "caption": "A cat."} Done', ["cat"]),
        ("json", '{"keywords": "cat, dog"}', ["cat", "dog"]),
        ("json", '{"tags": {"cat": 0.8, "dog": 40}}', ["cat", "dog"]),
        ("sentences", "A cat sits. It is red.", ["A cat sits", "It is red"]),
        ("comma", "^_^, >_<, st. bernard", ["^_^", ">_<", "st. bernard"]),
        ("caption", "A cat, a dog.", []),
        ("json", "no json here", []),
        ("auto", "", []),
        ("json", "[" * 50_000, []),
    ],
)
def test_rules(rule, text, names):
    assert [c.name for c in parse(text, rule).tags] == names


def test_json_carries_scores_categories_and_the_caption():
    parsed = parse(
        '{"objects": [{"tag": "cat", "confidence": 90}, {"tag": "x", "score": true}], "Caption": " A  cat. "}'
    )
    assert [(c.name, c.category, c.score) for c in parsed.tags] == [
        ("cat", "objects", 0.9),
        ("x", "objects", None),
    ]
    assert parsed.caption == "A cat."


def test_what_is_not_json_is_said():
    assert parse("hello", "json").problem == "the reply is not JSON with tags or a caption"
    assert parse("hello", "caption").caption == "hello"
