"""Two versions of a judge beside each other: fitted on 70 % of the images, reported on the 30 % that nobody fits on;
and which verdicts a changed rubric re-opens."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from django.db.models import Exists, F, OuterRef, Q, QuerySet, Subquery

from ..judges.statistics import Interval, in_holdout, kappa_difference, kappa_interval
from ..models import JudgedTag, JudgeProfileVersion
from .compared import Decision, cell_of, decisions

Word = Literal["better", "worse", "not enough"]
SHOWN = 24
#: words of a changed line that are looked for in tags
WORDS = 16


@dataclass(frozen=True, slots=True)
class Side:
    """Both versions on the same decisions of one part of the images. `difference`: κ of the newer minus the older."""

    images: int
    decisions: int
    older: Interval | None
    newer: Interval | None
    difference: Interval | None

    @property
    def word(self) -> Word:
        if self.difference is None or self.difference.low <= 0 <= self.difference.high:
            return "not enough"
        return "better" if self.difference.low > 0 else "worse"


def compare(older: JudgeProfileVersion, newer: JudgeProfileVersion) -> tuple[Side, Side]:
    """(the 70 % that wording and examples come from, the 30 % kept to measure with): only decisions on which both
    versions spoke."""
    before, after = ({(d.image, d.tag): d for d in decisions(v)} for v in (older, newer))
    both = sorted(before.keys() & after.keys())
    found = []
    for held in (False, True):
        keys = [key for key in both if in_holdout(before[key].sha256) == held]
        found.append(_side([before[k] for k in keys], [after[k] for k in keys], older, newer))
    return found[0], found[1]


def _side(
    before: Sequence[Decision], after: Sequence[Decision], older: JudgeProfileVersion, newer: JudgeProfileVersion
) -> Side:
    rows: dict[int, list[int]] = {}
    n = 0
    for one, other in zip(before, after, strict=True):
        cells = [cell_of(d, v.rules.get("too_general", "correct")) for d, v in ((one, older), (other, newer))]
        if cells[0] is None or cells[1] is None:
            continue
        row = rows.setdefault(one.image, [0] * 8)
        row[cells[0]] += 1
        row[4 + cells[1]] += 1
        n += 1
    per_image = list(rows.values())
    return Side(
        len(per_image),
        n,
        kappa_interval([row[:4] for row in per_image]),
        kappa_interval([row[4:] for row in per_image]),
        kappa_difference(per_image),
    )


# -- criteria drift ---------------------------------------------------------------------------------------------------
def changed_lines(older: JudgeProfileVersion, newer: JudgeProfileVersion) -> list[tuple[str, str]]:
    """("+" or "−", line) of what differs in the rubric."""
    lines = difflib.ndiff(older.rubric.splitlines(), newer.rubric.splitlines())
    return [("+" if line[0] == "+" else "−", line[2:]) for line in lines if line[0] in "+-" and line[2:].strip()]


def to_judge_again(older: JudgeProfileVersion, newer: JudgeProfileVersion) -> QuerySet[JudgedTag]:
    """What the older version said and the newer one has not: verdicts that a change re-opens."""
    again = JudgedTag.objects.filter(version=newer, image=OuterRef("image"), tag=OuterRef("tag"))
    return JudgedTag.objects.filter(
        version=older, role=JudgedTag.Role.CANDIDATE, image__isnull=False, tag__isnull=False
    ).exclude(Exists(again))


def touched(older: JudgeProfileVersion, newer: JudgeProfileVersion, n: int = SHOWN) -> list[JudgedTag]:
    """Of these, those whose tag a changed line speaks of come first; then what the judge was least sure of."""
    waiting = to_judge_again(older, newer).select_related("image", "tag")
    text = " ".join(line for _, line in changed_lines(older, newer)).casefold()
    words = sorted(set(re.findall(r"\w{4,}", text)))[:WORDS]
    named: list[JudgedTag] = []
    if words:
        about = Q()
        for word in words:
            about |= Q(name__icontains=word.removesuffix("s")) | Q(category__iexact=word)
        named = list(waiting.filter(about).order_by("certainty", "pk")[:n])
    if len(named) < n:
        rest = waiting.exclude(pk__in=[row.pk for row in named]).order_by("certainty", "pk")
        named += rest[: n - len(named)]
    return named


def turned(older: JudgeProfileVersion, newer: JudgeProfileVersion) -> QuerySet[JudgedTag]:
    """What both said, and the newer one otherwise; `before` is the older word. The surest first."""
    old = JudgedTag.objects.filter(
        version=older, image=OuterRef("image"), tag=OuterRef("tag"), role=JudgedTag.Role.CANDIDATE
    ).order_by("-pk")
    rows = JudgedTag.objects.filter(version=newer, role=JudgedTag.Role.CANDIDATE, tag__isnull=False)
    rows = rows.annotate(before=Subquery(old.values("word")[:1])).filter(before__isnull=False)
    return rows.exclude(before=F("word")).select_related("image", "tag").order_by("-certainty", "pk")
