"""The caption judge: each sentence is a claim, supported by the image or not; what is left out; the whole computed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field
from rapidfuzz.distance import Levenshtein

from .content import as_json, check_sentence, check_text, opaque_ids
from .replies import Answer, exactly, read
from .spec import CaptionSpec

Word = Literal["supported", "contradicted", "unverifiable"]
WORDS: tuple[Word, ...] = ("supported", "contradicted", "unverifiable")
_END = re.compile(r"(?:(?<=[.!?…])|(?<=[.!?…][\"')\]]))\s+(?=[\"'(\[]?[^\W\d_a-z]|\d)|\n+|(?<=[。！？])")
_SHORT = re.compile(r"(\b(mr|mrs|ms|dr|st|no|vs|approx|ca|etc|e\.g|i\.e|fig)\.|\b[A-Z]\.)$", re.IGNORECASE)


def sentences(text: str) -> list[str]:
    """A text in sentences: cut after . ! ? before a capital, and at line ends; not after common abbreviations."""
    found: list[str] = []
    for part in (" ".join(p.split()) for p in _END.split(text) if p and p.strip()):
        if not re.search(r"\w", part):
            continue
        if found and _SHORT.search(found[-1]):
            found[-1] += f" {part}"
        else:
            found.append(part)
    return found


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence. `refused`: why it is not sent."""

    id: str
    text: str
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """One question about a caption. `reference`: the text a person approved for this image, if there is one."""

    claims: tuple[Claim, ...]
    reference: str = ""
    cut: int = 0  # sentences beyond the limit

    @property
    def sent(self) -> list[Claim]:
        return [claim for claim in self.claims if not claim.refused]

    def payload(self) -> str:
        return as_json([{"id": claim.id, "claim": claim.text} for claim in self.sent])

    def reference_payload(self) -> str:
        return as_json(self.reference) if self.reference else ""

    def schema(self) -> dict[str, Any]:
        ids = [claim.id for claim in self.sent]
        text = {"type": "string", "maxLength": 300}
        claim = _object(
            id={"type": "string", "enum": ids}, evidence=text, verdict={"type": "string", "enum": list(WORDS)}
        )
        omission = _object(what=text, importance={"type": "string", "enum": ["high", "low"]})
        fields: dict[str, Any] = {
            "claims": {"type": "array", "items": claim, "minItems": len(ids), "maxItems": len(ids)},
            "omissions": {"type": "array", "items": omission, "maxItems": 10},
        }
        if self.reference:
            fields["same_meaning"] = {"type": "integer", "minimum": 0, "maximum": 100}
        return _object(**fields)


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def plan(caption: str, spec: CaptionSpec, *, seed: Sequence[Any], reference: str = "") -> Call | None:
    """The call for a caption; None when there is nothing to judge."""
    texts = sentences(caption)
    if not texts:
        return None
    kept = texts[: spec.sentences]
    ids = opaque_ids(len(kept), *seed, kept)
    claims = []
    for i, text in zip(ids, kept, strict=True):
        checked = check_sentence(text)
        claims.append(Claim(i, checked.text, checked.refused))
    flat = check_text(reference, 4000)
    return Call(tuple(claims), "" if flat.refused else flat.text, len(texts) - len(kept))


class ClaimAnswer(Answer):
    id: str
    evidence: str = Field(max_length=4000)
    verdict: Word


class Omission(Answer):
    what: str
    importance: Literal["high", "low"] = "low"


class CaptionReply(Answer):
    claims: list[ClaimAnswer]
    omissions: list[Omission] = []
    same_meaning: int | None = Field(None, ge=0, le=100)


@dataclass(frozen=True, slots=True)
class CaptionVerdict:
    """`overall` and `reference` in 0..1; `reference` is None without a reviewed text, else the mean of the judge's
    estimate of the shared meaning and nothing else; `edit_similarity` is counted, not judged."""

    claims: tuple[dict[str, str], ...]
    omissions: tuple[dict[str, str], ...]
    overall: float
    reference: float | None
    edit_similarity: float | None
    flags: tuple[str, ...]


def read_call(text: str, call: Call, spec: CaptionSpec) -> CaptionVerdict:
    """The verdict of a reply. InvalidReply unless each claim that was sent has exactly one verdict, and the meaning is
    compared where a reference was given."""
    from .replies import InvalidReply

    reply = read(text, CaptionReply)
    exactly([claim.id for claim in call.sent], [answer.id for answer in reply.claims])
    if call.reference and reply.same_meaning is None:
        raise InvalidReply("same_meaning is missing, though a reference was given")
    answers = {answer.id: answer for answer in reply.claims}
    return _verdict(call, spec, answers, reply)


def unsent(call: Call, spec: CaptionSpec) -> CaptionVerdict:
    """The verdict where no claim may be sent: a person has to look."""
    return _verdict(call, spec, {}, CaptionReply.model_validate({"claims": []}))


def _verdict(call: Call, spec: CaptionSpec, answers: dict[str, ClaimAnswer], reply: CaptionReply) -> CaptionVerdict:
    claims = []
    for claim in call.claims:
        answer = answers.get(claim.id)
        word: Word = answer.verdict if answer else "unverifiable"
        evidence = check_text(answer.evidence, 300).text if answer else f"Not sent: {claim.refused}."
        claims.append({"claim": claim.text, "verdict": word, "evidence": evidence})
    omissions = [{"what": check_text(o.what, 300).text, "importance": o.importance} for o in reply.omissions[:10]]
    worth = {"supported": 1.0, "unverifiable": spec.weight_unverifiable, "contradicted": 0.0}
    kept = sum(worth[c["verdict"]] for c in claims) / len(claims)
    off = min(spec.omissions_most, spec.omission * sum(1 for o in omissions if o["importance"] == "high"))
    flags = ["not_sent"] if any(claim.refused for claim in call.claims) else []
    flags += ["cut"] if call.cut else []
    whole = " ".join(claim.text for claim in call.claims)
    return CaptionVerdict(
        claims=tuple(claims),
        omissions=tuple(omissions),
        overall=round(max(0.0, kept - off), 4),
        reference=None if reply.same_meaning is None else reply.same_meaning / 100,
        edit_similarity=round(Levenshtein.normalized_similarity(whole, call.reference), 4) if call.reference else None,
        flags=tuple(flags),
    )
