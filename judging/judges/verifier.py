"""The tag verifier: an image and a few shuffled tags with decoys among them; a verdict on each, or none at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from tagging.policy.text import tag_key

from .content import as_json, check_tag, check_text, opaque_ids, seeded, shuffled
from .replies import Answer, exactly, read
from .spec import VerifierSpec

Word = Literal["correct", "wrong", "too_general", "unverifiable"]
Role = Literal["candidate", "absent", "present"]
WORDS: tuple[Word, ...] = ("correct", "wrong", "too_general", "unverifiable")
_MOST_MISSING = 20
#: characters of evidence that are asked for: a few words, so that a reply with fifteen of them stays short
EVIDENCE = 160


@dataclass(frozen=True, slots=True)
class Named:
    """A tag. `sure`: of a present decoy, that a person accepted it (else models agreed on it)."""

    name: str
    category: str = "general"
    sure: bool = True


@dataclass(frozen=True, slots=True)
class Item:
    """One tag of one call: what is sent of it is id and text."""

    id: str
    text: str
    tag: Named
    role: Role


@dataclass(frozen=True, slots=True)
class Call:
    """One question to the judge: at most 15 tags in an order that says nothing of where they come from."""

    items: tuple[Item, ...]

    @property
    def ids(self) -> list[str]:
        return [item.id for item in self.items]

    def payload(self) -> str:
        """The items as a prompt writes them. Only ids and texts: no score, category, source or role."""
        return as_json([{"id": item.id, "tag": item.text} for item in self.items])

    def schema(self, missing: int = 10) -> dict[str, Any]:
        """JSON schema of the reply: evidence comes before the verdict it is for. `missing`: how many at the most."""
        answer = _object(
            id={"type": "string", "enum": self.ids},
            evidence={"type": "string", "maxLength": EVIDENCE},
            verdict={"type": "string", "enum": list(WORDS)},
            p_correct={"type": "number", "minimum": 0, "maximum": 1},
        )
        lacking = _object(
            tag={"type": "string", "maxLength": 80},
            evidence={"type": "string", "maxLength": EVIDENCE},
            importance={"type": "string", "enum": ["high", "low"]},
        )
        grade = {"type": "integer", "minimum": 1, "maximum": 5}
        n = len(self.items)
        fields: dict[str, Any] = {"tags": {"type": "array", "items": answer, "minItems": n, "maxItems": n}}
        if missing:
            fields["missing"] = {"type": "array", "items": lacking, "maxItems": missing}
        return _object(**fields, overall=_object(accuracy=grade, coverage=grade, specificity=grade))


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


@dataclass(frozen=True, slots=True)
class Plan:
    """The calls for one image, and the tags that are not sent, each with the reason."""

    calls: tuple[Call, ...]
    refused: Mapping[str, tuple[Named, str]] = field(default_factory=dict)


def plan(
    tags: Sequence[Named],
    spec: VerifierSpec,
    *,
    seed: Sequence[Any],
    absent: Sequence[Named] = (),
    present: Sequence[Named] = (),
) -> Plan:
    """Tags in calls of nearly equal size, decoys added to each, all shuffled. The seed (profile, image content, sample)
    and the tags decide everything. Decoys are drawn from the given ones; where there are too few, fewer are used."""
    refused: dict[str, tuple[Named, str]] = {}
    sent: list[tuple[Named, str]] = []
    for tag in {tag_key(t.name): t for t in sorted(tags, key=lambda t: (tag_key(t.name), t.name))}.values():
        checked = check_tag(tag.name)
        if checked.refused:
            refused[tag_key(tag.name)] = (tag, checked.refused)
        else:
            sent.append((tag, checked.text))
    if not sent:
        return Plan((), refused)
    seed = [*seed, [text for _, text in sent]]
    sent = shuffled(sent, *seed, "tags")
    room = spec.tags_per_call - spec.absent - spec.present
    n_calls = -(-len(sent) // room)
    taken = {tag_key(tag.name) for tag, _ in sent}
    lies, truths = _usable(absent, taken), _usable(present, set())
    calls = []
    for at in range(n_calls):
        own = sent[at::n_calls]
        keys = {tag_key(tag.name) for tag, _ in own}
        decoys = [*_draw(lies, spec.absent, "absent", keys, *seed, at)]
        decoys += _draw(truths, spec.present, "present", keys, *seed, at)
        mixed: list[tuple[Named, str, Role]] = [*((tag, text, "candidate") for tag, text in own), *decoys]
        mixed = shuffled(mixed, *seed, at, "mixed")
        ids = opaque_ids(len(mixed), *seed, at)
        calls.append(Call(tuple(Item(i, text, tag, role) for i, (tag, text, role) in zip(ids, mixed, strict=True))))
    return Plan(tuple(calls), refused)


def _usable(tags: Sequence[Named], taken: set[str]) -> list[tuple[Named, str]]:
    """Decoys that can be sent and are not themselves judged."""
    found: dict[str, tuple[Named, str]] = {}
    for tag in tags:
        checked = check_tag(tag.name)
        key = tag_key(tag.name)
        if not checked.refused and key not in taken:
            found.setdefault(key, (tag, checked.text))
    return list(found.values())


def _draw(
    pool: Sequence[tuple[Named, str]], n: int, role: Role, keys: set[str], *seed: Any
) -> list[tuple[Named, str, Role]]:
    free = [pair for pair in pool if tag_key(pair[0].name) not in keys]
    chosen = seeded("decoys", role, *seed).sample(free, min(n, len(free)))
    return [(tag, text, role) for tag, text in chosen]


# -- the reply --------------------------------------------------------------------------------------------------------
class TagAnswer(Answer):
    id: str
    evidence: str = Field(max_length=4000)
    verdict: Word
    p_correct: float = Field(ge=0, le=1)


class MissingAnswer(Answer):
    tag: str
    evidence: str = ""
    importance: Literal["high", "low"] = "low"


class Grades(Answer):
    accuracy: int = Field(ge=1, le=5)
    coverage: int = Field(ge=1, le=5)
    specificity: int = Field(ge=1, le=5)


class VerifierReply(Answer):
    tags: list[TagAnswer]
    missing: list[MissingAnswer] = []
    overall: Grades | None = None


@dataclass(frozen=True, slots=True)
class TagVerdict:
    """What the judge said of one tag. `p_ok` is its probability made consistent with its word and with how its call
    treated the decoys; what a gate compares with thresholds."""

    name: str
    category: str
    role: Role
    word: Word
    p_ok: float
    evidence: str = ""
    sure: bool = True


@dataclass(frozen=True, slots=True)
class CallVerdict:
    """A valid reply to one call."""

    tags: tuple[TagVerdict, ...]
    missing: tuple[MissingAnswer, ...]
    grades: Grades | None
    fooled: int  # absent decoys taken for true
    contradictions: int  # words that the judge's own probability denies


def read_call(text: str, call: Call, spec: VerifierSpec) -> CallVerdict:
    """The verdicts of one reply. InvalidReply unless each tag that was sent has exactly one."""
    reply = read(text, VerifierReply)
    exactly(call.ids, [answer.id for answer in reply.tags])
    answers = {answer.id: answer for answer in reply.tags}
    fooled = sum(1 for item in call.items if item.role == "absent" and _accepted(answers[item.id].verdict))
    weight = spec.decoy_weight if fooled else 1.0
    tags = tuple(_verdict(item, answers[item.id], weight) for item in call.items)
    at_odds = sum(1 for a in answers.values() if (a.verdict == "correct") != (a.p_correct >= 0.5) and _sided(a.verdict))
    return CallVerdict(tags, tuple(reply.missing[:_MOST_MISSING]), reply.overall, fooled, at_odds)


def _sided(word: Word) -> bool:
    return word in ("correct", "wrong")


def _accepted(word: Word) -> bool:
    return word in ("correct", "too_general")


def _verdict(item: Item, answer: TagAnswer, weight: float) -> TagVerdict:
    evidence = check_text(answer.evidence, 300).text
    p = consistent(answer.verdict, answer.p_correct, weight)
    return TagVerdict(item.tag.name, item.tag.category, item.role, answer.verdict, p, evidence, item.tag.sure)


def consistent(word: Word, p: float, weight: float = 1.0) -> float:
    """The probability that a tag is right, given word and number: only "correct" can be above a half, only "wrong" and
    the doubtful words at or below; `weight` draws it towards a half."""
    if word == "correct":
        p = max(p, 0.5)
    else:
        p = min(p, 0.5)
    return round(0.5 + (p - 0.5) * weight, 4)


# -- together ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class ImageVerdict:
    """All calls for one image together. `overall` in 0..1 is computed here; `grades` are the judge's own 1 to 5, kept
    to compare with. `weight` is 1, or less where a call took a lie for true."""

    tags: tuple[TagVerdict, ...]
    decoys: tuple[TagVerdict, ...]
    missing: tuple[dict[str, str], ...]
    overall: float
    grades: dict[str, float]
    weight: float
    flags: tuple[str, ...]


def combine(plan: Plan, calls: Sequence[CallVerdict], spec: VerifierSpec, known: Sequence[str] = ()) -> ImageVerdict:
    """One verdict out of those of all calls of the plan. Tags that were not sent are unverifiable and worth 0, so that
    a person sees them. `known`: names on the image already, never missing. ValueError when a call has no verdict."""
    if len(calls) != len(plan.calls):
        raise ValueError("every call needs a verdict")
    said = [tag for call in calls for tag in call.tags]
    tags = [tag for tag in said if tag.role == "candidate"]
    for tag, reason in plan.refused.values():
        tags.append(TagVerdict(tag.name, tag.category, "candidate", "unverifiable", 0.0, f"Not sent: {reason}."))
    on_image = {tag_key(name) for name in [*known, *(tag.name for tag in said if tag.role != "absent")]}
    missing = _missing(calls, on_image)
    overall = _overall(tags, missing, spec)
    grades = _grades([call.grades for call in calls if call.grades])
    flags = []
    fooled = sum(call.fooled for call in calls)
    if fooled:
        flags.append("decoy_accepted")
    if any(tag.role == "present" and tag.sure and tag.word == "wrong" for tag in said):
        flags.append("sure_tag_rejected")
    if plan.refused:
        flags.append("not_sent")
    if any(call.contradictions for call in calls):
        flags.append("word_against_number")
    if grades and abs((grades["accuracy"] - 1) / 4 - _accuracy(tags, spec)) > 0.5:
        flags.append("grade_against_verdicts")
    weights = [spec.decoy_weight if call.fooled else 1.0 for call in calls] or [1.0]
    return ImageVerdict(
        tags=tuple(sorted(tags, key=lambda t: tag_key(t.name))),
        decoys=tuple(tag for tag in said if tag.role != "candidate"),
        missing=tuple(missing),
        overall=overall,
        grades=grades,
        weight=round(sum(weights) / len(weights), 4),
        flags=tuple(flags),
    )


def _missing(calls: Sequence[CallVerdict], on_image: set[str]) -> list[dict[str, str]]:
    """Each missing tag once, important ones first; a tag of another call is not missing."""
    found: dict[str, dict[str, str]] = {}
    for answer in sorted((m for call in calls for m in call.missing), key=lambda m: m.importance != "high"):
        checked = check_tag(answer.tag)
        key = tag_key(checked.text)
        if checked.refused or not key or key in on_image or key in found:
            continue
        evidence = check_text(answer.evidence, 300).text
        found[key] = {"tag": checked.text, "evidence": evidence, "importance": answer.importance}
    return list(found.values())[:_MOST_MISSING]


def _accuracy(tags: Sequence[TagVerdict], spec: VerifierSpec) -> float:
    worth = {
        "correct": spec.weight_correct,
        "too_general": spec.weight_too_general,
        "unverifiable": spec.weight_unverifiable,
        "wrong": 0.0,
    }
    return sum(worth[tag.word] for tag in tags) / len(tags) if tags else 0.0


def _overall(tags: Sequence[TagVerdict], missing: Sequence[Mapping[str, str]], spec: VerifierSpec) -> float:
    off = sum(spec.missing_high if m["importance"] == "high" else spec.missing_low for m in missing)
    return round(max(0.0, _accuracy(tags, spec) - min(off, spec.missing_most)), 4)


def _grades(grades: Sequence[Grades]) -> dict[str, float]:
    """Means over the calls."""
    if not grades:
        return {}
    names = ("accuracy", "coverage", "specificity")
    return {name: round(sum(getattr(g, name) for g in grades) / len(grades), 2) for name in names}
