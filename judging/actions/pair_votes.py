"""A pairwise judge measured: how it treats the two seats, how far it agrees with people who voted on the same pairs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

from django.db.models import Count, Q, Sum

from ..judges import pairwise
from ..judges.spec import PairwiseSpec, check_spec
from ..judges.statistics import agreement_interval, badge, classes_kappa_interval
from ..models import Calibration, JudgeProfile, JudgeProfileVersion, JudgeVerdict, Vote
from .compared import Compared, triple

#: votes of people on judged pairs that a badge needs
FEWEST_VOTES = 50
PART = 500
SIDES = ("a", "b", "tie")
Pair = tuple[int, int, int]  # image, recipe a, recipe b


def measure(version: JudgeProfileVersion, found: Compared) -> None:
    """Fill in the figures, κ and the badge of a judge of pairs, or of a jury of such."""
    steady = steadiness(version)
    found.figures["pairs"] = {
        "pairs": steady.pairs,
        "flip_rate": steady.flip_rate,
        "first_share": steady.first_share,
        "usable": steady.usable,
        "why": steady.why,
    }
    judged = _votes_of(version)
    tables, people = _tables(judged)
    found.kappa, found.images = classes_kappa_interval(list(tables.values()), len(SIDES)), len(tables)
    votes = sum(map(sum, tables.values()))
    whole = [sum(column) for column in zip(*tables.values(), strict=True)] or [0] * len(SIDES) ** 2
    found.figures["votes"] = {
        "votes": votes,
        "images": len(tables),
        "kappa": triple(found.kappa),
        "agreement": triple(agreement_interval(list(tables.values()), len(SIDES))),
        "table": [whole[i * 3 : i * 3 + 3] for i in range(3)],
        "people": triple(classes_kappa_interval(list(people.values()), len(SIDES))),
        "people_votes": sum(map(sum, people.values())),
        "needed": FEWEST_VOTES,
    }
    found.decisions = votes
    _badge(found, steady, votes)


def _badge(found: Compared, steady: pairwise.Steadiness, votes: int) -> None:
    """Unsteady: off. Steady: by agreement with people, with the cut-offs of tag judges and FEWEST_VOTES votes."""
    found.badge = Calibration.Badge.OFF
    if not steady.usable:
        found.why = steady.why if steady.usable is None else f"not usable for pairs: {steady.why}"
    elif votes < FEWEST_VOTES:
        found.why = f"steady; people voted on {votes} of its pairs, {FEWEST_VOTES} votes are needed"
    elif found.kappa is None:
        found.why = "people and judge always said the same one thing: nothing to compare"
    else:
        found.badge = badge(found.kappa, votes, fewest=FEWEST_VOTES)
        found.why = f"agreement with people κ {found.kappa.value:.2f} ({found.kappa.low:.2f} to {found.kappa.high:.2f})"


def _votes_of(version: JudgeProfileVersion) -> dict[Pair, str]:
    """What the version said of each pair; the newest vote where it voted in several experiments."""
    rows = Vote.objects.filter(judge=str(version)[:120]).order_by("pk")
    return {(i, a, b): winner for i, a, b, winner in rows.values_list("image_id", "a_id", "b_id", "winner").iterator()}


def _tables(judged: dict[Pair, str]) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """Image → judge × person, and person × person, as nine counts each: rows a, b, tie of the first."""
    with_judge: dict[int, list[int]] = {}
    among: dict[int, list[int]] = {}
    for pair, winners in _people(judged):
        for winner in winners:
            _count(with_judge, pair[0], judged[pair], winner)
        for one, other in combinations(winners, 2):
            _count(among, pair[0], one, other)
    return with_judge, among


def _people(judged: dict[Pair, str]) -> Iterator[tuple[Pair, list[str]]]:
    """Each judged pair with the newest vote of every person on it."""
    images = sorted({pair[0] for pair in judged})
    for at in range(0, len(images), PART):
        rows = Vote.objects.filter(image__in=images[at : at + PART], judge="").order_by("pk")
        found: dict[Pair, dict[Any, str]] = {}
        for pk, image, a, b, winner, by in rows.values_list("pk", "image_id", "a_id", "b_id", "winner", "by_id"):
            if (image, a, b) in judged:
                found.setdefault((image, a, b), {})[by if by is not None else ("gone", pk)] = winner
        yield from ((pair, list(by.values())) for pair, by in found.items())


def _count(tables: dict[int, list[int]], image: int, first: str, second: str) -> None:
    row = tables.setdefault(image, [0] * len(SIDES) ** 2)
    row[SIDES.index(first) * len(SIDES) + SIDES.index(second)] += 1


def steadiness(version: JudgeProfileVersion) -> pairwise.Steadiness:
    """How a pairwise judge treats the two seats, over all of its verdicts that were asked. One query."""
    spec = check_spec(JudgeProfile.Kind.PAIRWISE, version.rules if version.profile.kind == "pairwise" else {})
    assert isinstance(spec, PairwiseSpec)
    asked = JudgeVerdict.objects.filter(version=version, state=JudgeVerdict.State.OK).exclude(predictions=[])
    sums = asked.aggregate(
        pairs=Count("pk"), flips=Count("pk", filter=Q(flip=True)), first=Sum("first_seats"), seats=Sum("seats")
    )
    return pairwise.from_counts(sums["pairs"], sums["flips"], sums["first"] or 0, sums["seats"] or 0, spec)
