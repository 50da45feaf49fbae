"""The decision rules of a judge profile, by kind: what is stored as JSON and checked here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

Kind = Literal["rules", "verifier", "caption", "pairwise", "jury"]
KINDS: tuple[Kind, ...] = ("rules", "verifier", "caption", "pairwise", "jury")
#: kinds that ask a model themselves
ASKING: frozenset[str] = frozenset({"verifier", "caption", "pairwise"})


#: how forms show what makes up the overall score
SCORE: Any = {"advanced": True, "group": "Overall score"}


class Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _groups(groups: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    if any(len(group) < 2 for group in groups):
        raise ValueError("an exclusive group has at least two tags")
    return groups


class RulesSpec(Spec):
    """Checks that cost nothing. `stop`: findings that fail the image; all others only send it to a person."""

    min_tags: int = Field(1, ge=0, le=500, description="Fewer tags than this is a finding.")
    max_tags: int = Field(60, ge=1, le=500, description="More tags than this is a finding.")
    min_top_score: float = Field(0.0, ge=0, le=1, description="A finding when the best score lies below.")
    banned: tuple[str, ...] = Field((), description="Tags that must not come up, besides those the policy bans.")
    vocabulary: str = Field("", max_length=80, description="Slug of a vocabulary list; others are a finding.")
    exclusive: Annotated[tuple[tuple[str, ...], ...], AfterValidator(_groups)] = Field(
        (), description='Groups of which one image has at most one, e.g. [["indoors", "outdoors"]].'
    )
    stop: tuple[str, ...] = Field(
        ("error", "empty", "parse_failed", "truncated", "banned"), description="Findings that fail the image."
    )

    @model_validator(mode="after")
    def _order(self) -> RulesSpec:
        if self.min_tags > self.max_tags:
            raise ValueError("min_tags is more than max_tags")
        return self


class VerifierSpec(Spec):
    """How verdicts on tags become numbers. Weights of the overall score are ours, never the judge's own."""

    tags_per_call: int = Field(15, ge=1, le=15, description="At most 15: judges lose the thread in longer lists.")
    absent: int = Field(2, ge=0, le=4, description="Decoys that surely are not in the image, in each call.")
    present: int = Field(1, ge=0, le=2, description="Decoys that surely are, in each call.")
    too_general: Literal["correct", "wrong"] = Field("correct", description="What 'too general' counts as.")
    weight_correct: float = Field(1.0, ge=0, le=1, json_schema_extra=SCORE)
    weight_too_general: float = Field(0.5, ge=0, le=1, json_schema_extra=SCORE)
    weight_unverifiable: float = Field(0.5, ge=0, le=1, json_schema_extra=SCORE)
    missing: int = Field(10, ge=0, le=20, description="Missing tags that are asked for at the most; 0: none.")
    missing_high: float = Field(
        0.1, ge=0, le=1, json_schema_extra=SCORE, description="Taken off for each important tag that is missing."
    )
    missing_low: float = Field(
        0.03, ge=0, le=1, json_schema_extra=SCORE, description="Taken off for each other tag that is missing."
    )
    missing_most: float = Field(
        0.4, ge=0, le=1, json_schema_extra=SCORE, description="Taken off for missing tags at the most."
    )
    decoy_weight: float = Field(
        0.5, ge=0, le=1, description="Weight of a call that took an absent decoy for true: its certainty is halved."
    )
    rules: RulesSpec | None = Field(None, description="Checked first, for nothing: what fails them is not asked.")

    @model_validator(mode="after")
    def _room(self) -> VerifierSpec:
        if self.tags_per_call <= self.absent + self.present:
            raise ValueError("tags_per_call leaves no room beside the decoys")
        return self


class CaptionSpec(Spec):
    """A caption judged sentence by sentence."""

    weight_unverifiable: float = Field(0.5, ge=0, le=1)
    omission: float = Field(0.1, ge=0, le=1, description="Taken off for each important omission.")
    omissions_most: float = Field(0.4, ge=0, le=1)
    sentences: int = Field(20, ge=1, le=40, description="Longer captions are judged by their first sentences.")


class PairwiseSpec(Spec):
    """Two sets side by side, always in both orders."""

    max_flip_rate: float = Field(0.35, ge=0, le=1, description="A judge that flips more often is not usable.")
    max_seat_share: float = Field(0.60, ge=0.5, le=1, description="Nor is one that prefers a seat more often.")
    min_pairs: int = Field(10, ge=1, description="Fewer pairs say nothing of the judge.")


class JurySpec(Spec):
    """Majority of several judges of the same kind; two families at least."""

    of: Literal["verifier", "caption", "pairwise"] = "verifier"
    tie: Literal["unverifiable", "wrong"] = Field("unverifiable", description="What an even vote on a tag counts as.")


SPECS: dict[str, type[Spec]] = {
    "rules": RulesSpec,
    "verifier": VerifierSpec,
    "caption": CaptionSpec,
    "pairwise": PairwiseSpec,
    "jury": JurySpec,
}


class SpecError(ValueError):
    """Decision rules that cannot be; `problems` are lines that start with the field."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


def check_spec(kind: str, given: dict[str, Any] | None) -> Spec:
    """The rules with defaults filled in. SpecError names each field."""
    if kind not in SPECS:
        raise SpecError([f"kind: {kind!r} is none of {', '.join(KINDS)}."])
    try:
        return SPECS[kind].model_validate(given or {})
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'rules'}: {e['msg']}" for e in error.errors()]
        raise SpecError(lines) from None
