"""The pairwise judge: which of two tag sets describes the image better, asked in both orders."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from tagging.policy.text import tag_key

from .content import as_json, check_tag, check_text
from .replies import Answer, read
from .spec import PairwiseSpec
from .statistics import percent

Seat = Literal["first", "second", "tie"]
Outcome = Literal["a", "b", "tie"]
SEATS: tuple[Seat, ...] = ("first", "second", "tie")
_MOST_TAGS = 60


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sets without what they share. `refused` tags are on neither side: they may not be sent."""

    a: tuple[str, ...]
    b: tuple[str, ...]
    shared: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Nothing to compare."""
        return not self.a and not self.b

    def calls(self) -> tuple[Call, Call]:
        """Both orders; the second with the sides swapped."""
        return Call(self.a, self.b, self.shared), Call(self.b, self.a, self.shared)


@dataclass(frozen=True, slots=True)
class Call:
    first: tuple[str, ...]
    second: tuple[str, ...]
    shared: tuple[str, ...]

    def payload(self) -> str:
        """The sides by seat: nothing says whose they are. Shared tags stand once, for context."""
        return as_json({"first": list(self.first), "second": list(self.second), "in_both": list(self.shared)})

    def schema(self) -> dict[str, Any]:
        properties = {
            "evidence": {"type": "string", "maxLength": 600},
            "winner": {"type": "string", "enum": list(SEATS)},
        }
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }


def pair(a: Iterable[str], b: Iterable[str]) -> Pair:
    """Two sets with their shared tags collapsed; each side sorted, so that no order gives its source away."""
    refused: dict[str, str] = {}
    left, right = _sendable(a, refused), _sendable(b, refused)
    both = sorted(left.keys() & right.keys())
    return Pair(
        tuple(left[key] for key in sorted(left.keys() - right.keys())[:_MOST_TAGS]),
        tuple(right[key] for key in sorted(right.keys() - left.keys())[:_MOST_TAGS]),
        tuple(left[key] for key in both[:_MOST_TAGS]),
        tuple(refused.values()),
    )


def _sendable(names: Iterable[str], refused: dict[str, str]) -> dict[str, str]:
    found = {}
    for name in names:
        checked = check_tag(name)
        if checked.refused:
            refused[tag_key(name)] = name
        else:
            found[tag_key(name)] = checked.text
    return found


class PairReply(Answer):
    evidence: str = Field(max_length=8000)
    winner: Seat


def read_call(text: str) -> PairReply:
    """InvalidReply where no winner, or none of the three words, is named."""
    return read(text, PairReply)


@dataclass(frozen=True, slots=True)
class PairVerdict:
    """`flip`: the two orders disagree, so that the outcome is a tie. `seats`: what was answered, in order of asking."""

    outcome: Outcome
    flip: bool
    seats: tuple[Seat, Seat] | tuple[()]
    evidence: tuple[str, ...] = ()


def decide(straight: PairReply, swapped: PairReply) -> PairVerdict:
    """A win only where both orders agree on it."""
    one: Outcome = {"first": "a", "second": "b", "tie": "tie"}[straight.winner]  # type: ignore[assignment]
    two: Outcome = {"first": "b", "second": "a", "tie": "tie"}[swapped.winner]  # type: ignore[assignment]
    evidence = tuple(check_text(reply.evidence, 600).text for reply in (straight, swapped))
    return PairVerdict(one if one == two else "tie", one != two, (straight.winner, swapped.winner), evidence)


SAME = PairVerdict("tie", False, ())


@dataclass(frozen=True, slots=True)
class Steadiness:
    """How far a judge can be used for pairs. `usable` is None with too few pairs to say."""

    pairs: int
    flip_rate: float | None
    first_share: float | None  # of the answers that named a seat, how many named the first
    usable: bool | None
    why: str


def steadiness(verdicts: Iterable[tuple[bool, Sequence[str]]], spec: PairwiseSpec | None = None) -> Steadiness:
    """From (flip, seats answered) of many pairs; pairs that were not asked (no seats) do not count."""
    flips, seats = [], []
    for flip, answered in verdicts:
        if answered:
            flips.append(flip)
            seats += [seat for seat in answered if seat != "tie"]
    return from_counts(len(flips), sum(flips), seats.count("first"), len(seats), spec)


def from_counts(pairs: int, flips: int, first: int, decisive: int, spec: PairwiseSpec | None = None) -> Steadiness:
    """The same from counts: pairs asked, those flipped, answers for the first seat, answers for any seat."""
    spec = spec or PairwiseSpec.model_validate({})
    rate = flips / pairs if pairs else None
    share = first / decisive if decisive else None
    if pairs < spec.min_pairs or rate is None:
        return Steadiness(pairs, rate, share, None, f"only {pairs} pairs so far, {spec.min_pairs} are needed")
    reasons = []
    if rate > spec.max_flip_rate:
        reasons.append(f"flips on {percent(rate)} of the pairs, more than {percent(spec.max_flip_rate)}")
    if share is not None and max(share, 1 - share) > spec.max_seat_share:
        seat = "first" if share > 0.5 else "second"
        reasons.append(
            f"names the {seat} seat in {percent(max(share, 1 - share))}, more than {percent(spec.max_seat_share)}"
        )
    return Steadiness(pairs, rate, share, not reasons, "; ".join(reasons) or "steady")
