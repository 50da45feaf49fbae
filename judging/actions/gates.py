"""The gate of a collection: set by a person, applied to verdicts as they come, taken back as a batch.

Truth is written by `tagging.actions.settle` alone, as the judge's own user, under the batch of the job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.db import transaction

from tagging import queue
from tagging.actions.runs import NotNow
from tagging.actions.settle import Settled, settle_many
from tagging.actions.undo import Undone, undo
from tagging.models import Collection, ImageAsset, Run, TagCount

from ..judges import gate as bands
from ..judges.content import seeded
from ..judges.gate import Thresholds
from ..judges.statistics import percent
from ..models import Gate, GateOutcome, JudgedTag, JudgeJob, JudgeProfile, JudgeVerdict
from .calibrating import CALIBRATE, badge_of, latest
from .judge_work import Draft

Band = GateOutcome.Band
#: flags of a verdict that no gate trusts
DISTRUSTED = {
    "blind": "the judge's model does not see images",
    "decoy_accepted": "the judge took a tag for true that is not there",
    "sure_tag_rejected": "the judge denied a tag that a person accepted",
    "not_sent": "a tag could not be shown to the judge",
}


# -- settings ---------------------------------------------------------------------------------------------------------
def save_gate(
    collection: Collection,
    profile: JudgeProfile,
    *,
    enabled: bool,
    accept_at: float | None = None,
    reject_at: float | None = None,
    target: float = bands.TARGET,
    audit_share: float = bands.AUDIT_SHARE,
    automatic: bool = False,
    by: AbstractBaseUser | None = None,
) -> Gate:
    """Set a collection's gate for the judge's current version. An open band must keep the target by the newest
    calibration, and the judge's badge must not be off. ValidationError keyed by field."""
    version = profile.current
    if version is None or JudgeProfile.Kind.VERIFIER not in (profile.kind, version.rules.get("of")):
        raise ValidationError(
            {"judge": f"{profile.name} does not judge tags: choose a tag verifier, or a jury of such."}
        )
    with transaction.atomic():
        Collection.objects.select_for_update(no_key=True).get(pk=collection.pk)  # two who save at once take turns
        found = Gate.objects.filter(collection=collection).first() or Gate(collection=collection)
        found.profile, found.version = profile, version
        found.enabled, found.accept_at, found.reject_at = enabled, accept_at, reject_at
        found.automatic = automatic
        found.target, found.audit_share = target, audit_share
        found.closed_why, found.precision_low = "", None
        found.changed_by = by  # type: ignore[assignment]
        found.full_clean()
        if enabled and (accept_at is not None or reject_at is not None):
            _check_promise(found)
        found.save()
    return found


def _check_promise(gate: Gate) -> None:
    calibration = latest(gate.version)
    if calibration is None or calibration.badge == calibration.Badge.OFF:
        why = calibration.why if calibration else "it was never compared with people's decisions"
        raise ValidationError(
            {"judge": f"The badge of {gate.version} is off ({why}): it cannot settle images. Both bands closed, the "
                      "gate still orders the review queue."}
        )  # fmt: skip
    errors = {}
    for name, at in (("accept", gate.accept_at), ("reject", gate.reject_at)):
        if at is None:
            continue
        low = precision_low(calibration.figures, name, at)
        if low is None or low < gate.target:
            said = "nothing is known there" if low is None else f"the lower bound of precision is {percent(low)}"
            errors[f"{name}_at"] = f"At {at:.2f} {said}; the target is {percent(gate.target)}."
        elif name == "accept":
            gate.precision_low = low
    if errors:
        raise ValidationError(errors)


def precision_low(figures: Mapping[str, Any], band: str, at: float) -> float | None:
    """The lower Wilson bound of a band's precision at a threshold, from a calibration's curve."""
    for threshold, _, interval in figures.get("curve", {}).get(band, ()):
        if abs(threshold - at) < 0.005:
            return interval[1] if interval else None
    return None


def open_for(gate: Gate) -> str:
    """Why the gate settles nothing now; empty when it does."""
    if not gate.enabled:
        return "The gate is closed."
    if gate.closed_why:
        return gate.closed_why
    if gate.version_id != gate.profile.current_id:
        return "The judge has a new version: choose the thresholds again."
    if badge_of(gate.version) == "off":
        return "The judge's badge is off."
    return ""


def through_gate(collection: Collection, run: Run, *, by: AbstractBaseUser | None = None, **budget: Any) -> JudgeJob:
    """Send what a run proposed through the collection's gate, in the background. ValidationError, NotNow."""
    from .judge_jobs import start_job

    gate = Gate.objects.select_related("version__profile", "profile").filter(collection=collection).first()
    if gate is None or not gate.enabled:
        raise NotNow(f"{collection} has no open gate: set one first.")
    if run.collection_id != collection.pk:
        raise ValidationError({"run": f"{run} is not a run over {collection}."})
    return start_job(gate.version, runs=[run], gate=gate, by=by, **budget)


def run_ended(run_id: int) -> None:
    """Send a run that is done through the gate of its collection, where the gate is to do so by itself. Once a run."""
    run = Run.objects.select_related("collection").filter(pk=run_id, state=Run.State.DONE, shown=True).first()
    if run is None or run.collection is None or run.purpose != Run.Purpose.TAGGING:
        return
    gate = Gate.objects.filter(collection=run.collection, enabled=True, automatic=True).first()
    if gate is None or any(run.pk in runs for runs in gate.jobs.values_list("runs", flat=True)):
        return
    try:
        through_gate(run.collection, run)
    except (NotNow, ValidationError) as error:
        Gate.objects.filter(pk=gate.pk).update(closed_why=f"{run} could not go through: {error}"[:300])


def judge_user(profile: JudgeProfile) -> AbstractBaseUser:
    """The user that stands for a judge in the history of images. Nobody can sign in as it."""
    users = get_user_model().objects
    name = f"judge:{profile.slug}"[:150]
    found = users.filter(username=name).first()
    if found is None:
        found, made = users.get_or_create(
            username=name, defaults={"is_active": False, "first_name": profile.name[:150]}
        )
        if made:
            found.set_unusable_password()
            found.save(update_fields=["password"])
    return found


# -- applied ----------------------------------------------------------------------------------------------------------
def apply(job: JudgeJob, drafts: Sequence[Draft], verdicts: Mapping[str, JudgeVerdict]) -> dict[str, int]:
    """Settle what the gate lets through and order the rest; what to add to the job's counters. Within the caller's
    transaction, after the verdicts are written."""
    gate = Gate.objects.select_related("profile", "version").filter(pk=job.gate_id or 0).first()
    if gate is None or not gate.enabled or gate.version_id != job.version_id:
        return {}
    closed = open_for(gate)
    rows = [d for d in drafts if d.subject.run_id is not None]
    _lock({d.subject.image.pk for d in rows})
    said = _said([v for v in verdicts.values() if v is not None])
    thresholds = Thresholds(gate.accept_at, gate.reject_at)
    outcomes = [_outcome(job, gate, d, verdicts.get(d.key), said, thresholds, closed) for d in rows]
    _settle(job, gate, outcomes, said, thresholds)
    _order(gate, outcomes, {d.subject.image.pk: d for d in rows}, said)
    GateOutcome.objects.bulk_create(outcomes, ignore_conflicts=True)
    bands_ = [o.band for o in outcomes]
    return {
        "n_accepted": bands_.count(Band.ACCEPT),
        "n_rejected": bands_.count(Band.REJECT),
        "n_review": bands_.count(Band.REVIEW),
        "n_audit": sum(1 for o in outcomes if o.audit),
    }


def _lock(images: set[int]) -> None:
    """All images that will be written, in the order of their ids, before any counter of tags: a person who decides on
    one of them at the same time takes the same way, and nobody waits in a circle."""
    list(ImageAsset.objects.select_for_update(no_key=True).filter(pk__in=images).order_by("pk").values_list("pk"))


def _said(verdicts: Sequence[JudgeVerdict]) -> dict[int, list[JudgedTag]]:
    found: dict[int, list[JudgedTag]] = {}
    for row in JudgedTag.objects.filter(verdict__in=verdicts, role=JudgedTag.Role.CANDIDATE):
        found.setdefault(row.verdict_id, []).append(row)
    return found


def _outcome(
    job: JudgeJob,
    gate: Gate,
    draft: Draft,
    verdict: JudgeVerdict | None,
    said: Mapping[int, Sequence[JudgedTag]],
    thresholds: Thresholds,
    closed: str,
) -> GateOutcome:
    image = draft.subject.image
    outcome = GateOutcome(
        collection_id=gate.collection_id,
        image=image,
        job=job,
        run_id=draft.subject.run_id or 0,
        version=gate.version,
        verdict=verdict,
        band=Band.REVIEW,
    )
    tags = said.get(verdict.pk, ()) if verdict else ()
    if verdict is None:
        outcome.why = draft.error or draft.nothing or "no verdict"
    elif verdict.state != JudgeVerdict.State.OK:
        outcome.why = f"the judge gave no verdict: {verdict.problem}"
    elif distrusted := next((why for flag, why in DISTRUSTED.items() if flag in verdict.flags), ""):
        outcome.why = distrusted
    elif any(tag.tag_id is None for tag in tags):
        outcome.why = "a tag is not in the vocabulary any more"
    elif closed:
        outcome.why = closed
    else:
        band = bands.band_of_image([tag.p_ok for tag in tags], thresholds)
        outcome.band = Band(band)
        if band == "review":
            doubted = [t for t in tags if thresholds.band(t.p_ok) == "review"]
            doubted.sort(key=lambda t: t.certainty)
            outcome.why = f"in doubt: {', '.join(t.name for t in doubted[:3])}" if doubted else "no tags"
        elif bands.audited(image.sha256, f"gate {gate.pk}", gate.audit_share):
            outcome.band, outcome.audit, outcome.why = Band.REVIEW, True, "drawn at random to check the judge"
    outcome.why = outcome.why[:200]
    return outcome


def _settle(
    job: JudgeJob,
    gate: Gate,
    outcomes: Sequence[GateOutcome],
    said: Mapping[int, Sequence[JudgedTag]],
    thresholds: Thresholds,
) -> None:
    """Write what is settled; what changed meanwhile goes to a person."""
    by_run: dict[int, dict[int, Settled]] = {}
    for outcome in outcomes:
        if outcome.band == Band.REVIEW or outcome.verdict_id is None:
            continue
        split: dict[str, list[int]] = {"accept": [], "reject": []}
        for tag in said[outcome.verdict_id]:
            if tag.tag_id is not None:
                split[thresholds.band(tag.p_ok)].append(tag.tag_id)
        by_run.setdefault(outcome.run_id, {})[outcome.image_id] = Settled(split["accept"], split["reject"])
    if not by_run:
        return
    user = judge_user(gate.profile)
    left: dict[int, str] = {}
    for run_id, wanted in by_run.items():
        done = settle_many(wanted, run_id=run_id, by=user, batch=job.batch)
        left |= {image_id: done.get(image_id, "was deleted") for image_id in wanted if done.get(image_id, "x")}
    for outcome in outcomes:
        if outcome.image_id in left and outcome.band != Band.REVIEW:
            outcome.band, outcome.why = Band.REVIEW, left[outcome.image_id]


def _order(
    gate: Gate,
    outcomes: Sequence[GateOutcome],
    drafts: Mapping[int, Draft],
    said: Mapping[int, Sequence[JudgedTag]],
) -> None:
    """Give images that wait for a person the priority that their decision is worth. Audited ones stand anywhere, so
    that their place does not tell what the judge thinks of them."""
    waiting = [o for o in outcomes if o.band == Band.REVIEW]
    tags = {t.tag_id for o in waiting for t in said.get(o.verdict_id or 0, ()) if t.tag_id}
    counts: dict[int, int] = {}
    if tags:
        for row in TagCount.objects.filter(collection=gate.collection_id, tag__in=tags):
            counts[row.tag_id] = row.proposed + row.accepted + row.added
    images = _size(gate.collection_id)
    changed: dict[int, list[int]] = {}
    for outcome in waiting:
        own = said.get(outcome.verdict_id or 0, ())
        draft = drafts[outcome.image_id]
        if outcome.audit:
            outcome.worth = seeded("place", draft.subject.image.sha256).randrange(1001)
        else:
            outcome.worth = bands.worth(
                doubt=bands.doubt([t.p_ok for t in own]),
                disagreement=bands.disagreement(draft.subject.said_by),
                rarity=bands.rarity([counts.get(t.tag_id or 0, 1) for t in own], images),
            )
        changed.setdefault(outcome.worth, []).append(outcome.image_id)
    for worth, ids in changed.items():
        ImageAsset.objects.filter(pk__in=ids, review_state=ImageAsset.Review.UNREVIEWED).update(priority=worth)


def _size(collection_id: int) -> int:
    """How many images the collection has, counted to ten thousand: rarity is on a logarithmic scale."""
    return ImageAsset.objects.filter(collection=collection_id).order_by().values("pk")[:10_000].count()


def after(job: JudgeJob) -> None:
    """What follows when a job is done: its judge is compared with people again."""
    queue.defer(CALIBRATE, job.version_id)


def take_back(job: JudgeJob, *, by: AbstractBaseUser | None) -> Undone:
    """Undo everything the gate decided in a job, except what a person decided on since. Raises NothingToUndo."""
    undone = undo(job.batch, by=by)
    with transaction.atomic():
        settled = GateOutcome.objects.filter(job=job).exclude(band=Band.REVIEW)
        settled.update(band=Band.REVIEW, why="taken back by a person")
    return undone
