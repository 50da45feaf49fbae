"""What a judge and people said of the same tags, side by side.

Only what people decided counts: tags on images that a judge settled are left out, and so are tags whose last decision
was a judge's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from django.db.models import OuterRef, Subquery

from tagging.actions.settle import DOOR
from tagging.models import ImageAsset, ImageTag, TagEdit

from ..judges.statistics import Confusion, Interval, corrected_mean, in_holdout, kappa_interval
from ..models import Calibration, JudgedTag, JudgeProfileVersion

Role = JudgedTag.Role
Word = JudgedTag.Word


class Decision(NamedTuple):
    """One tag on which a judge and people have spoken."""

    judged: int
    image: int
    tag: int
    sha256: str
    category: str
    word: int
    p_ok: float
    right: bool


def decisions(version: JudgeProfileVersion) -> list[Decision]:
    """Every tag of which this version has a verdict and people a decision, once each (the newest verdict)."""
    truth = ImageTag.objects.filter(image=OuterRef("image"), tag=OuterRef("tag"))
    last = TagEdit.objects.filter(image=OuterRef("image"), tag=OuterRef("tag"), kind=TagEdit.Kind.TAG).order_by("-id")
    rows = (
        JudgedTag.objects.filter(
            version=version, role=Role.CANDIDATE, image__review_state=ImageAsset.Review.REVIEWED, tag__isnull=False
        )
        .annotate(truth=Subquery(truth.values("state")[:1]), door=Subquery(last.values("door")[:1]))
        .filter(truth__in=ImageTag.TRUTH)
        .exclude(door=DOOR)
        .order_by("pk")
    )
    names = ("pk", "image_id", "image__sha256", "tag_id", "category", "word", "p_ok", "truth")
    found: dict[tuple[int, int], Decision] = {}
    for pk, image, sha256, tag, category, word, p_ok, state in rows.values_list(*names).iterator(chunk_size=5000):
        found[image, tag] = Decision(pk, image, tag, sha256, category, word, p_ok, state in ImageTag.POSITIVE)
    return list(found.values())


@dataclass(slots=True)
class Compared:
    confusion: Confusion
    kappa: Interval | None
    images: int
    badge: str = "off"
    why: str = ""
    figures: dict[str, Any] = field(default_factory=dict)
    decisions: int | None = None  # of kinds whose decisions are no tags

    def row(self, version: JudgeProfileVersion, category: str) -> Calibration:
        c = self.confusion
        return Calibration(
            version=version,
            category=category,
            decisions=c.n if self.decisions is None else self.decisions,
            images=self.images,
            matrix={"caught": c.caught, "alarm": c.alarm, "missed": c.missed, "agreed": c.agreed},
            kappa=self.kappa.value if self.kappa else None,
            kappa_low=self.kappa.low if self.kappa else None,
            kappa_high=self.kappa.high if self.kappa else None,
            badge=self.badge,
            why=self.why[:300],
            figures=self.figures,
        )


def cell_of(d: Decision, too_general: str) -> int | None:
    """Which cell of (caught, alarm, missed, agreed) a decision falls in; None where the judge abstained."""
    if d.word == Word.UNVERIFIABLE:
        return None
    wrong = d.word == Word.WRONG or (d.word == Word.TOO_GENERAL and too_general == "wrong")
    return (1 if d.right else 0) if wrong else (3 if d.right else 2)


def counts_of(judged: Iterable[Decision], too_general: str) -> tuple[dict[int, list[int]], int]:
    """Image → its row of the matrix; and how often the judge abstained."""
    per_image: dict[int, list[int]] = {}
    abstained = 0
    for d in judged:
        cell = cell_of(d, too_general)
        if cell is None:
            abstained += 1
        else:
            per_image.setdefault(d.image, [0, 0, 0, 0])[cell] += 1
    return per_image, abstained


def compare(judged: Sequence[Decision], too_general: str) -> Compared:
    per_image, abstained = counts_of(judged, too_general)
    caught, alarm, missed, agreed = (sum(row[i] for row in per_image.values()) for i in range(4))
    confusion = Confusion(caught, alarm, missed, agreed)
    figures = {
        "precision": triple(confusion.precision),
        "recall": triple(confusion.recall),
        "prevalence": confusion.prevalence,
        "agreement": confusion.agreement,
        "abstained": abstained / len(judged) if judged else None,
    }
    return Compared(confusion, kappa_interval(list(per_image.values())), len(per_image), figures=figures)


def triple(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [round(v, 4) for v in (interval.value, interval.low, interval.high)]


def split(judged: Sequence[Decision], too_general: str) -> dict[str, Any]:
    """κ on the images that examples and wording come from, and on those that nobody fits on."""
    found = {}
    for name, held in (("fit", False), ("held", True)):
        part = [d for d in judged if in_holdout(d.sha256) == held]
        compared = compare(part, too_general)
        found[name] = {"decisions": compared.confusion.n, "images": compared.images, "kappa": triple(compared.kappa)}
    return found


def corrected(version: JudgeProfileVersion, judged: Sequence[Decision], too_general: str) -> dict[str, Any] | None:
    """The share of right tags per image: as the judge says it of all, corrected by what people said of some."""
    said: dict[int, list[float]] = {}
    rows = JudgedTag.objects.filter(version=version, role=Role.CANDIDATE, image__isnull=False).order_by()
    for image, word in rows.values_list("image_id", "word").iterator(chunk_size=5000):
        if word != Word.UNVERIFIABLE:
            wrong = word == Word.WRONG or (word == Word.TOO_GENERAL and too_general == "wrong")
            said.setdefault(image, []).append(0.0 if wrong else 1.0)
    people: dict[int, list[float]] = {}
    own: dict[int, list[float]] = {}
    for d in judged:
        cell = cell_of(d, too_general)
        if cell is not None:
            people.setdefault(d.image, []).append(float(d.right))
            own.setdefault(d.image, []).append(float(cell >= 2))
    images = sorted(people)
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    found = corrected_mean(
        [mean(v) for v in said.values()], [mean(own[i]) for i in images], [mean(people[i]) for i in images]
    )
    if found is None:
        return None
    names = ("raw", "corrected", "low", "high", "n_all", "n_reviewed")
    return {name: getattr(found, name) for name in names}
