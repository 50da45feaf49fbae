"""A judge compared with people: from ordinary review decisions, in the background, kept as history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Count, Max, Q, QuerySet
from django.utils import timezone

from tagging import queue
from tagging.models import TagEdit

from ..judges import jury
from ..judges.statistics import (
    badge,
    percent,
    wilson,
)
from ..models import Calibration, Gate, JudgedTag, JudgeProfile, JudgeProfileVersion, JudgeVerdict
from . import pair_votes
from .compared import Compared, compare, corrected, decisions, split
from .gate_figures import curve, drift, settled
from .people import people_agreement

CALIBRATE = "judging.tasks.calibrate"
#: the figures are made anew at most this often while people review
PAUSE = timedelta(minutes=10)
CATEGORIES = 40
Role = JudgedTag.Role
Word = JudgedTag.Word


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


# -- one version ------------------------------------------------------------------------------------------------------
def calibrate(version: JudgeProfileVersion) -> Calibration:
    """Compare a version with people now, and keep the figures: for all tags, and for each category."""
    judged = decisions(version)
    too_general = version.rules.get("too_general", "correct")
    drifted = drift(version)
    decoys = decoy_rates(version)
    whole = compare(judged, too_general)
    people = people_agreement(sorted({d.image for d in judged}), _collections(version))
    whole.figures |= {
        "decoys": decoys.get("", {}),
        "drift": drifted,
        "people": people,
        "split": split(judged, too_general),
        "curve": curve(judged),
        "settled": settled(version),
        "corrected": corrected(version, judged, too_general),
        "edit": TagEdit.objects.aggregate(n=Max("pk"))["n"] or 0,
    }
    _of_kind(version, whole)
    _badge(whole, decoys.get("", {}), bool(drifted.get("below")))
    by_category = Counter(d.category for d in judged)
    rows = [whole.row(version, "")]
    for category, _ in by_category.most_common(CATEGORIES):
        part = compare([d for d in judged if d.category == category], too_general)
        part.figures["decoys"] = decoys.get(category, {})
        part.figures["people"] = people["categories"].get(category, {})
        _badge(part, decoys.get(category, {}), bool(drifted.get("below")))
        rows.append(part.row(version, category))
    with transaction.atomic():
        for row in rows:
            row.save()
        if drifted.get("below"):
            right = percent(drifted["precision"])
            why = f"Of the last {drifted['audits']} audited images {right} of the tags were right."
            Gate.objects.filter(version=version, closed_why="", enabled=True).update(closed_why=why[:300])
    return rows[0]


def _collections(version: JudgeProfileVersion) -> set[int]:
    """Where the images are that it judged."""
    rows = JudgedTag.objects.filter(version=version, image__isnull=False).order_by()
    return set(rows.values_list("image__collection", flat=True).distinct())


def _badge(found: Compared, decoys: Mapping[str, Any], drifted: bool) -> None:
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


def _of_kind(version: JudgeProfileVersion, found: Compared) -> None:
    """What other kinds are measured by."""
    kind = version.profile.kind
    if JudgeProfile.Kind.PAIRWISE in (kind, version.rules.get("of")):
        pair_votes.measure(version, found)
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
