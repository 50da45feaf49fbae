"""The rules gate: what can be said of a proposal without asking any model."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tagging.policy.text import tag_key

from .spec import RulesSpec


@dataclass(frozen=True, slots=True)
class Proposed:
    """One proposal as the gate sees it. `tags` are those that stay: (name, category, score). `banned` are words that
    the model said and the policy dropped as banned; `flags` those of its predictions."""

    tags: Sequence[tuple[str, str, float | None]]
    state: str = "ok"
    flags: Collection[str] = ()
    finish_reason: str = ""
    banned: Sequence[str] = ()
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is amiss: a code, a line for people, the tags it is about (all tags where there are none)."""

    code: str
    text: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RulesResult:
    """`failed`: a finding that stops. Without findings the image passes the gate, which says nothing of its tags."""

    findings: tuple[Finding, ...]
    failed: bool

    @property
    def passed(self) -> bool:
        return not self.findings

    def doubted(self) -> set[str]:
        """Keys of the tags that a finding names."""
        return {tag_key(name) for finding in self.findings for name in finding.tags}


def check(proposed: Proposed, spec: RulesSpec, vocabulary: Collection[str] | None = None) -> RulesResult:
    """All findings, in a fixed order. `vocabulary` are keys (`tag_key`) of the terms there are; None: not checked."""
    findings = [*_state(proposed, spec), *_counts(proposed, spec), *_words(proposed, spec, vocabulary)]
    findings += _contradictions(proposed, spec)
    return RulesResult(tuple(findings), any(finding.code in spec.stop for finding in findings))


def _state(proposed: Proposed, spec: RulesSpec) -> list[Finding]:
    found = []
    if proposed.state == "error":
        found.append(Finding("error", "the model failed on this image"))
    elif not proposed.tags and not proposed.caption:
        found.append(Finding("empty", "nothing was proposed"))
    if "parse_failed" in proposed.flags:
        found.append(Finding("parse_failed", "the reply could not be read"))
    if "truncated" in proposed.flags or proposed.finish_reason == "length":
        found.append(Finding("truncated", "the reply was cut off"))
    return found


def _counts(proposed: Proposed, spec: RulesSpec) -> list[Finding]:
    n, found = len(proposed.tags), []
    if proposed.state == "error" or (not n and proposed.caption):
        return []
    if 0 < n < spec.min_tags:
        found.append(Finding("too_few", f"{n} tags, fewer than {spec.min_tags}"))
    if n > spec.max_tags:
        found.append(Finding("too_many", f"{n} tags, more than {spec.max_tags}"))
    scores = [score for _, _, score in proposed.tags if score is not None]
    if scores and max(scores) < spec.min_top_score:
        found.append(Finding("low_top_score", f"the best score is {max(scores):.2f}, below {spec.min_top_score:.2f}"))
    return found


def _words(proposed: Proposed, spec: RulesSpec, vocabulary: Collection[str] | None) -> list[Finding]:
    found = []
    if proposed.banned:
        found.append(
            Finding("banned", f"the model said banned words: {_some(proposed.banned)}", tuple(proposed.banned))
        )
    banned = {tag_key(word) for word in spec.banned}
    if kept := tuple(name for name, _, _ in proposed.tags if tag_key(name) in banned):
        found.append(Finding("banned", f"banned here: {_some(kept)}", kept))
    if vocabulary is not None:
        outside = tuple(name for name, _, _ in proposed.tags if tag_key(name) not in vocabulary)
        if outside:
            found.append(Finding("out_of_vocabulary", f"not in the vocabulary: {_some(outside)}", outside))
    return found


def _contradictions(proposed: Proposed, spec: RulesSpec) -> list[Finding]:
    names = {tag_key(name): name for name, _, _ in proposed.tags}
    found = []
    for group in spec.exclusive:
        both = tuple(names[key] for key in (tag_key(word) for word in group) if key in names)
        if len(both) > 1:
            found.append(Finding("contradiction", f"exclude each other: {_some(both)}", both))
    return found


def _some(words: Sequence[str], n: int = 5) -> str:
    more = f" and {len(words) - n} more" if len(words) > n else ""
    return ", ".join(words[:n]) + more
