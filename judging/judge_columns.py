"""What judges say of each recipe, beside the leaderboard and never in it: captions against the reviewed text, tags as
the judge sees them, and, where people trust the judge, corrected by what people decided."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from django.db.models import Count, OuterRef, Q, Subquery

from tagging.models import ImageTag

from .judges.statistics import Z95, corrected_mean
from .models import (
    Calibration,
    Experiment,
    ExperimentRecipe,
    ExperimentRun,
    JudgedTag,
    JudgeProfile,
    JudgeProfileVersion,
    JudgeVerdict,
    RunVerdict,
)

Word = JudgedTag.Word
_STEP = 500


@dataclass(frozen=True, slots=True)
class Score:
    """A mean over images with a normal 95 % interval; values are from 0 to 1."""

    value: float
    low: float
    high: float
    images: int


@dataclass(slots=True)
class Line:
    """One recipe as one judge sees it. `own_family`: its model is the judge's kin. `same`: of captions, how far they
    say what the reviewed text says. `corrected`: only of a trusted judge."""

    row: ExperimentRecipe
    overall: Score | None = None
    same: Score | None = None
    corrected: Score | None = None
    own_family: bool = False


@dataclass(slots=True)
class Column:
    """A version of a judge with its badge now. An advisory or untrusted judge is shown and corrects nothing."""

    version: JudgeProfileVersion
    badge: str
    calibration: Calibration | None
    captions: bool
    lines: list[Line] = field(default_factory=list)


def columns(experiment: Experiment) -> list[Column]:
    """One for each judge that looked at what the recipes proposed. About five queries and one for 500 verdicts."""
    rows = list(experiment.rows.order_by("position"))
    row_of: dict[int, int] = dict(ExperimentRun.objects.filter(row__in=rows).values_list("run_id", "row_id"))
    given = RunVerdict.objects.filter(run__in=list(row_of), verdict__state=JudgeVerdict.State.OK)
    said: dict[int, dict[int, list[tuple[int, int, float | None, bool]]]] = defaultdict(lambda: defaultdict(list))
    fields = ("version_id", "run_id", "image_id", "verdict_id", "verdict__overall", "own_family")
    for version, run, image, verdict, overall, own in given.order_by("pk").values_list(*fields).iterator(2000):
        said[version][row_of[run]].append((image, verdict, overall, own))
    versions = JudgeProfileVersion.objects.filter(pk__in=said).select_related("profile").order_by("profile__name", "pk")
    found = []
    for version in versions:
        if version.profile.kind not in (JudgeProfile.Kind.VERIFIER, JudgeProfile.Kind.CAPTION, JudgeProfile.Kind.JURY):
            continue
        last = Calibration.objects.filter(version=version, category="").order_by("-pk").first()
        badge = str(last.badge) if last else str(Calibration.Badge.OFF)
        captions = version.profile.kind == JudgeProfile.Kind.CAPTION
        column = Column(version, badge, last, captions)
        for row in rows:
            if mine := said[version.pk].get(row.pk):
                column.lines.append(_line(row, mine, captions, trusted=badge == Calibration.Badge.TRUSTED))
        found.append(column)
    return found


def _line(
    row: ExperimentRecipe, said: Sequence[tuple[int, int, float | None, bool]], captions: bool, *, trusted: bool
) -> Line:
    image_of = {verdict: image for image, verdict, *_ in said}
    line = Line(row, own_family=any(own for *_, own in said))
    line.overall = _score([(image, overall) for image, _, overall, _ in said if overall is not None])
    if captions:
        line.same = _score(_references(image_of))
    elif trusted and not line.own_family:
        line.corrected = _corrected(image_of)
    return line


def _by_image(values: Sequence[tuple[int, float]]) -> dict[int, float]:
    """Samples of an image are one value: their mean."""
    parts: dict[int, list[float]] = defaultdict(list)
    for image, value in values:
        parts[image].append(value)
    return {image: sum(part) / len(part) for image, part in parts.items()}


def _score(values: Sequence[tuple[int, float]]) -> Score | None:
    means = list(_by_image(values).values())
    if not means:
        return None
    n = len(means)
    mean = sum(means) / n
    spread = math.sqrt(sum((v - mean) ** 2 for v in means) / (n - 1) / n) if n > 1 else 0.0
    return Score(mean, max(0.0, mean - Z95 * spread), min(1.0, mean + Z95 * spread), n)


def _parts(ids: Sequence[int]) -> list[Sequence[int]]:
    return [ids[at : at + _STEP] for at in range(0, len(ids), _STEP)]


def _references(image_of: dict[int, int]) -> list[tuple[int, float]]:
    """(image, 0..1): how far the caption says the same as the reviewed text, where there is one."""
    found = []
    for part in _parts(sorted(image_of)):
        for pk, result in JudgeVerdict.objects.filter(pk__in=part).values_list("pk", "result"):
            value = result.get("reference") if isinstance(result, dict) else None
            if isinstance(value, int | float):
                found.append((image_of[pk], float(value)))
    return found


def _corrected(image_of: dict[int, int]) -> Score | None:
    """The share of right tags: the judge's on all images, corrected by people on the tags that they decided on
    (`corrected_mean`)."""
    truth = ImageTag.objects.filter(image=OuterRef("image"), tag=OuterRef("tag"), state__in=ImageTag.TRUTH)
    good, seen = Q(word__in=(Word.CORRECT, Word.TOO_GENERAL)), Q(truth__isnull=False)
    said: list[tuple[int, float]] = []
    own: list[tuple[int, float]] = []
    people: list[tuple[int, float]] = []
    for part in _parts(sorted(image_of)):
        judged = JudgedTag.objects.filter(verdict__in=part, role=JudgedTag.Role.CANDIDATE)
        judged = judged.exclude(word=Word.UNVERIFIABLE).annotate(truth=Subquery(truth.values("state")[:1]))
        counted = judged.order_by().values("verdict").annotate(
            n=Count("pk"), good=Count("pk", filter=good), seen=Count("pk", filter=seen),
            own=Count("pk", filter=good & seen),
            right=Count("pk", filter=Q(truth__in=ImageTag.POSITIVE)),
        )  # fmt: skip
        for row in counted:
            image = image_of[row["verdict"]]
            said.append((image, row["good"] / row["n"]))
            if row["seen"]:
                own.append((image, row["own"] / row["seen"]))
                people.append((image, row["right"] / row["seen"]))
    mine, theirs = _by_image(own), _by_image(people)
    found = corrected_mean(list(_by_image(said).values()), [mine[i] for i in mine], [theirs[i] for i in mine])
    if found is None:
        return None
    return Score(found.corrected, max(0.0, found.low), min(1.0, found.high), len(mine))
