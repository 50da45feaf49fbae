"""A judge compared with people: from ordinary review decisions, in the background, kept as history.

Only what people decided counts: tags on images that a judge settled are left out, and so are tags whose last decision
was a judge's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np
from django.db import transaction
from django.db.models import Count, Max, OuterRef, Q, QuerySet, Subquery, Sum
from django.utils import timezone

from tagging import queue
from tagging.actions.settle import DOOR
from tagging.models import ImageAsset, ImageTag, TagEdit

from ..judges import gate as bands
from ..judges import jury, pairwise
from ..judges.spec import PairwiseSpec, check_spec
from ..judges.statistics import (
    Confusion,
    Interval,
    badge,
    corrected_mean,
    in_holdout,
    kappa_interval,
    percent,
    wilson,
)
from ..models import Calibration, Gate, GateOutcome, JudgedTag, JudgeProfile, JudgeProfileVersion, JudgeVerdict

CALIBRATE = "judging.tasks.calibrate"
#: audits that a rolling window looks at
WINDOW = 50
#: the figures are made anew at most this often while people review
PAUSE = timedelta(minutes=10)
CATEGORIES = 40
Role = JudgedTag.Role
Word = JudgedTag.Word


class Decision(NamedTuple):
    """One tag on which a judge and people have spoken."""

    judged: int
    image: int
    sha256: str
    category: str
    word: int
    p_ok: float
    right: bool


def latest(version: JudgeProfileVersion, category: str = "") -> Calibration | None:
    return Calibration.objects.filter(version=version, category=category).order_by("-id").first()


def badge_of(version: JudgeProfileVersion | None) -> str:
    """The badge that counts now: off until the version was compared with people."""
    found = latest(version) if version else None
    return found.badge if found else Calibration.Badge.OFF


def with_badges(profiles: QuerySet[JudgeProfile]) -> list[JudgeProfile]:
    """The judges with their current version, its members and its newest figures (`newest`). Four queries for all."""
    related = ("current__adapter", "current__prompt_version__prompt", "current__profile")
    found = list(profiles.select_related(*related).prefetch_related("current__members__profile"))
    last = (
        Calibration.objects.filter(version__in=[p.current_id for p in found if p.current_id], category="")
        .order_by()
        .values("version")
        .annotate(last=Max("pk"))
    )
    newest = {c.version_id: c for c in Calibration.objects.filter(pk__in=[row["last"] for row in last])}
    for profile in found:
        profile.newest = newest.get(profile.current_id or 0)
    return found


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
        found[image, tag] = Decision(pk, image, sha256, category, word, p_ok, state in ImageTag.POSITIVE)
    return list(found.values())


# -- one version ------------------------------------------------------------------------------------------------------
def calibrate(version: JudgeProfileVersion) -> Calibration:
    """Compare a version with people now, and keep the figures: for all tags, and for each category."""
    judged = decisions(version)
    too_general = version.rules.get("too_general", "correct")
    drift = _drift(version)
    decoys = decoy_rates(version)
    whole = _figures(judged, too_general)
    whole.figures |= {
        "decoys": decoys.get("", {}),
        "drift": drift,
        "people": people_kappa(sorted({d.image for d in judged})),
        "split": _split(judged, too_general),
        "curve": _curve(judged),
        "settled": _settled(version),
        "corrected": _corrected(version, judged, too_general),
        "edit": TagEdit.objects.aggregate(n=Max("pk"))["n"] or 0,
    }
    _of_kind(version, whole)
    _badge(whole, decoys.get("", {}), bool(drift.get("below")))
    by_category = Counter(d.category for d in judged)
    rows = [whole.row(version, "")]
    for category, _ in by_category.most_common(CATEGORIES):
        part = _figures([d for d in judged if d.category == category], too_general)
        part.figures["decoys"] = decoys.get(category, {})
        _badge(part, decoys.get(category, {}), bool(drift.get("below")))
        rows.append(part.row(version, category))
    with transaction.atomic():
        for row in rows:
            row.save()
        if drift.get("below"):
            why = f"Of the last {drift['audits']} audited images {percent(drift['precision'])} of the tags were right."
            Gate.objects.filter(version=version, closed_why="", enabled=True).update(closed_why=why[:300])
    return rows[0]


@dataclass(slots=True)
class _Compared:
    confusion: Confusion
    kappa: Interval | None
    images: int
    badge: str = "off"
    why: str = ""
    figures: dict[str, Any] = field(default_factory=dict)

    def row(self, version: JudgeProfileVersion, category: str) -> Calibration:
        c = self.confusion
        return Calibration(
            version=version,
            category=category,
            decisions=c.n,
            images=self.images,
            matrix={"caught": c.caught, "alarm": c.alarm, "missed": c.missed, "agreed": c.agreed},
            kappa=self.kappa.value if self.kappa else None,
            kappa_low=self.kappa.low if self.kappa else None,
            kappa_high=self.kappa.high if self.kappa else None,
            badge=self.badge,
            why=self.why[:300],
            figures=self.figures,
        )


def _cell(d: Decision, too_general: str) -> int | None:
    """Which cell of (caught, alarm, missed, agreed) a decision falls in; None where the judge abstained."""
    if d.word == Word.UNVERIFIABLE:
        return None
    wrong = d.word == Word.WRONG or (d.word == Word.TOO_GENERAL and too_general == "wrong")
    return (1 if d.right else 0) if wrong else (3 if d.right else 2)


def _counts(judged: Iterable[Decision], too_general: str) -> tuple[dict[int, list[int]], int]:
    """Image → its row of the matrix; and how often the judge abstained."""
    per_image: dict[int, list[int]] = {}
    abstained = 0
    for d in judged:
        cell = _cell(d, too_general)
        if cell is None:
            abstained += 1
        else:
            per_image.setdefault(d.image, [0, 0, 0, 0])[cell] += 1
    return per_image, abstained


def _figures(judged: Sequence[Decision], too_general: str) -> _Compared:
    per_image, abstained = _counts(judged, too_general)
    caught, alarm, missed, agreed = (sum(row[i] for row in per_image.values()) for i in range(4))
    confusion = Confusion(caught, alarm, missed, agreed)
    figures = {
        "precision": _triple(confusion.precision),
        "recall": _triple(confusion.recall),
        "prevalence": confusion.prevalence,
        "agreement": confusion.agreement,
        "abstained": abstained / len(judged) if judged else None,
    }
    return _Compared(confusion, kappa_interval(list(per_image.values())), len(per_image), figures=figures)


def _triple(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [round(v, 4) for v in (interval.value, interval.low, interval.high)]


def _badge(found: _Compared, decoys: Mapping[str, Any], drifted: bool) -> None:
    if found.why:  # the kind has a badge of its own
        return
    accepted = decoys.get("absent", {}).get("rate")
    n = found.confusion.n
    found.badge = badge(found.kappa, n, decoys_accepted=accepted, drifted=drifted)
    if accepted is not None and accepted > 0.5:
        found.why = f"takes {percent(accepted)} of the tags for true that are not there"
    elif n < 200:
        found.why = f"{n} decisions to compare with, 200 are needed"
    elif found.kappa is None:
        found.why = "people found all tags right, or all wrong: nothing to compare"
    elif drifted:
        found.why = "the last audits lie below what it promised"
    else:
        found.why = f"agreement κ {found.kappa.value:.2f} ({found.kappa.low:.2f} to {found.kappa.high:.2f})"


def _of_kind(version: JudgeProfileVersion, found: _Compared) -> None:
    """What other kinds are measured by."""
    kind = version.profile.kind
    if JudgeProfile.Kind.PAIRWISE in (kind, version.rules.get("of")):
        steady = steadiness(version)
        found.figures["pairs"] = {
            "pairs": steady.pairs,
            "flip_rate": steady.flip_rate,
            "first_share": steady.first_share,
            "usable": steady.usable,
            "why": steady.why,
        }
        found.badge = Calibration.Badge.ADVISORY if steady.usable else Calibration.Badge.OFF
        found.why = steady.why if steady.usable else f"not usable for pairs: {steady.why}"
    elif JudgeProfile.Kind.CAPTION in (kind, version.rules.get("of")):
        found.why = "people do not decide sentence by sentence: nothing to compare with"
    elif kind == JudgeProfile.Kind.RULES:
        found.why = "rules are what they say"
    if kind == JudgeProfile.Kind.JURY:
        found.figures["alpha"] = jury_alpha(version)


# -- parts ------------------------------------------------------------------------------------------------------------
def decoy_rates(version: JudgeProfileVersion) -> dict[str, dict[str, Any]]:
    """Category ("" for all) → how often absent decoys were taken for true and present ones denied. One query."""
    rows = (
        JudgedTag.objects.filter(version=version)
        .exclude(role=Role.CANDIDATE)
        .order_by()
        .values("category", "role")
        .annotate(
            n=Count("pk"),
            accepted=Count("pk", filter=Q(word__in=(Word.CORRECT, Word.TOO_GENERAL))),
            rejected=Count("pk", filter=Q(word=Word.WRONG)),
        )
    )
    counted: dict[str, Counter[str]] = {}
    for row in rows:
        name = {Role.ABSENT: "absent", Role.PRESENT: "present", Role.PRESUMED: "presumed"}[Role(row["role"])]
        hits = row["accepted"] if name == "absent" else row["rejected"]
        for category in {"", row["category"]}:
            counted.setdefault(category, Counter()).update({f"{name} n": row["n"], f"{name} hits": hits})
    return {category: _rates(counts) for category, counts in counted.items()}


def _rates(counts: Counter[str]) -> dict[str, Any]:
    found = {}
    for name in ("absent", "present", "presumed"):
        n, hits = counts[f"{name} n"], counts[f"{name} hits"]
        if (interval := wilson(hits, n)) is not None:
            found[name] = {"n": n, "hits": hits, "rate": hits / n, "low": interval.low, "high": interval.high}
    return found


def steadiness(version: JudgeProfileVersion) -> pairwise.Steadiness:
    """How a pairwise judge treats the two seats, over all of its verdicts that were asked. One query."""
    spec = check_spec(JudgeProfile.Kind.PAIRWISE, version.rules if version.profile.kind == "pairwise" else {})
    assert isinstance(spec, PairwiseSpec)
    asked = JudgeVerdict.objects.filter(version=version, state=JudgeVerdict.State.OK).exclude(predictions=[])
    sums = asked.aggregate(
        pairs=Count("pk"), flips=Count("pk", filter=Q(flip=True)), first=Sum("first_seats"), seats=Sum("seats")
    )
    return pairwise.from_counts(sums["pairs"], sums["flips"], sums["first"] or 0, sums["seats"] or 0, spec)


def jury_alpha(version: JudgeProfileVersion, most: int = 5000) -> float | None:
    """Krippendorff's alpha of the jurors' words on the newest verdicts."""
    names = [str(member) for member in version.members.select_related("profile")]
    verdicts = JudgeVerdict.objects.filter(version=version, state=JudgeVerdict.State.OK).order_by("-pk")
    units: list[list[str | None]] = []
    for result in verdicts.values_list("result", flat=True)[:most]:
        trace = result.get("trace") or {}
        if trace and not isinstance(next(iter(trace.values())), dict):
            trace = {"": trace}
        traces = [*trace.values(), *(claim.get("trace", {}) for claim in result.get("claims") or ())]
        units += [[words.get(name) for name in names] for words in traces]
    return jury.krippendorff_alpha(units)


def _split(judged: Sequence[Decision], too_general: str) -> dict[str, Any]:
    """κ on the images that examples and wording come from, and on those that nobody fits on."""
    found = {}
    for name, held in (("fit", False), ("held", True)):
        part = [d for d in judged if in_holdout(d.sha256) == held]
        compared = _figures(part, too_general)
        found[name] = {"decisions": compared.confusion.n, "images": compared.images, "kappa": _triple(compared.kappa)}
    return found


def _curve(judged: Sequence[Decision]) -> dict[str, Any]:
    curve = bands.curve(bands.Judged(d.image, d.p_ok, d.right) for d in judged)
    chosen = bands.choose(curve)
    return {
        "accept": [[p.threshold, p.n, _triple(p.precision)] for p in curve.accept],
        "reject": [[p.threshold, p.n, _triple(p.precision)] for p in curve.reject],
        "chosen": {"accept": chosen.accept, "reject": chosen.reject, "target": bands.TARGET},
        "needed": bands.decisions_needed(),
    }


def _settled(version: JudgeProfileVersion) -> dict[str, Any]:
    """How many of all judged images each pair of thresholds settles: rows by accept threshold, columns by reject
    threshold, the first for a closed reject band."""
    accept, reject = np.array(bands.STEPS), np.array(bands.REJECT_STEPS)
    counts = np.zeros((len(accept), len(reject) + 1), dtype=np.int64)
    n, image, values = 0, None, list[float]()
    rows = JudgedTag.objects.filter(version=version, role=Role.CANDIDATE).order_by("verdict_id")
    for verdict, p_ok in rows.values_list("verdict_id", "p_ok").iterator(chunk_size=5000):
        if verdict != image and values:
            _add_settled(counts, np.sort(np.array(values)), accept, reject)
            n, values = n + 1, []
        image = verdict
        values.append(p_ok)
    if values:
        _add_settled(counts, np.sort(np.array(values)), accept, reject)
        n += 1
    return {"images": n, "counts": counts.tolist()}


def _add_settled(counts: Any, p: Any, accept: Any, reject: Any) -> None:
    """Settled where no tag lies between the thresholds: the highest below `accept` is at or below `reject`."""
    below = np.searchsorted(p, accept - 1e-9)
    highest = np.where(below > 0, p[np.maximum(below - 1, 0)], -1.0)
    counts[:, 0] += below == 0
    counts[:, 1:] += highest[:, None] <= reject[None, :] + 1e-9


def _corrected(version: JudgeProfileVersion, judged: Sequence[Decision], too_general: str) -> dict[str, Any] | None:
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
        cell = _cell(d, too_general)
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


def _drift(version: JudgeProfileVersion) -> dict[str, Any]:
    """The last audited images that people have reviewed: how many of the accepted tags were right. `below`: a full
    window, and less than the lower bound that the gate was opened with."""
    reviewed = GateOutcome.objects.filter(
        version=version, audit=True, image__review_state=ImageAsset.Review.REVIEWED
    ).order_by("-id")
    window = list(reviewed.select_related("job__gate").values_list("image_id", "verdict_id", "job__gate_id")[:WINDOW])
    if not window:
        return {"audits": 0}
    gates = {gate.pk: gate for gate in Gate.objects.filter(pk__in={g for _, _, g in window if g})}
    tags = JudgedTag.objects.filter(verdict__in=[v for _, v, _ in window], role=Role.CANDIDATE, tag__isnull=False)
    truth = {
        (row.image_id, row.tag_id): row.state
        for row in ImageTag.objects.filter(image__in=[i for i, _, _ in window], state__in=ImageTag.TRUTH)
    }
    of = {verdict: (image, gates.get(gate)) for image, verdict, gate in window}
    right = n = 0
    low = None
    for verdict, tag, p_ok in tags.values_list("verdict_id", "tag_id", "p_ok"):
        image, gate = of[verdict]
        state = truth.get((image, tag))
        if state is None or p_ok < (gate.accept_at if gate and gate.accept_at is not None else 0.5):
            continue
        n += 1
        right += state in ImageTag.POSITIVE
        low = gate.precision_low if gate and gate.precision_low is not None else low
    if not n:
        return {"audits": len(window)}
    precision = right / n
    below = len(window) >= WINDOW and low is not None and precision < low
    return {"audits": len(window), "tags": n, "precision": precision, "low": low, "below": below}


# -- two people -------------------------------------------------------------------------------------------------------
def people_kappa(image_ids: Sequence[int]) -> dict[str, Any]:
    """How far people agree with each other: the ceiling for a judge. Images that two different people reviewed, one
    after the other: what each left as right and wrong when they were done."""
    per_image: list[list[int]] = []
    for at in range(0, len(image_ids), 500):
        edits = TagEdit.objects.filter(image__in=image_ids[at : at + 500]).exclude(door=DOOR)
        edits = edits.filter(kind__in=(TagEdit.Kind.TAG, TagEdit.Kind.REVIEW)).order_by("image_id", "id")
        history: dict[int, list[tuple[str, int | None, Any, int | None]]] = {}
        for image, kind, tag, after, by in edits.values_list("image_id", "kind", "tag_id", "after", "by_id"):
            history.setdefault(image, []).append((kind, tag, after, by))
        per_image += [row for changes in history.values() if (row := _two_people(changes))]
    found = kappa_interval(per_image)
    return {"images": len(per_image), "decisions": sum(map(sum, per_image)), "kappa": _triple(found)}


def _two_people(changes: Sequence[tuple[str, int | None, Any, int | None]]) -> list[int] | None:
    """(both wrong, only first, only second, neither) over the tags that both left decided; None with one reviewer."""
    states: dict[int, int] = {}
    left: dict[int, dict[int, int]] = {}
    for kind, tag, after, by in changes:
        if kind == TagEdit.Kind.TAG and tag is not None:
            if after in ImageTag.TRUTH:
                states[tag] = after
            else:
                states.pop(tag, None)
        elif kind == TagEdit.Kind.REVIEW and by is not None and after and after["state"] == ImageAsset.Review.REVIEWED:
            left.setdefault(by, dict(states))
    if len(left) < 2:
        return None
    first, second = list(left.values())[:2]
    row = [0, 0, 0, 0]
    for tag in first.keys() & second.keys():
        a, b = (state == ImageTag.State.REJECTED for state in (first[tag], second[tag]))
        row[0 if a and b else 1 if a else 2 if b else 3] += 1
    return row if sum(row) else None


# -- when -------------------------------------------------------------------------------------------------------------
def sweep() -> None:
    """Ring for the judges in use about which people have decided more since the last look."""
    newest = TagEdit.objects.aggregate(n=Max("pk"))["n"] or 0
    for profile in JudgeProfile.objects.filter(enabled=True, current__isnull=False).select_related("current"):
        assert profile.current is not None
        before = latest(profile.current)
        if before is None:
            due = JudgedTag.objects.filter(version=profile.current).exists()
        else:
            due = before.figures.get("edit", 0) < newest and before.at < timezone.now() - PAUSE
        if due:
            queue.defer(CALIBRATE, profile.current.pk)
