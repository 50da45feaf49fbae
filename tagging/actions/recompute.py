"""Recompute: a policy version applied to what a run predicted, in the background, resumable, with a summary.

Old proposals stay as history (`ProposalRevision`), reviewed truth is never touched, nothing is inferred.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from operator import itemgetter
from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone

from .. import queue
from ..adapters.base import ModelUnavailable
from ..engine import job_leases, reproposing, rewriting, vocabulary
from ..engine.propose import compiled_policy
from ..engine.reproposing import Reproposer
from ..models import Channel, Collection, PolicyVersion, Proposal, RecomputeJob, Run
from ..policy.combine import CombineError, check_combine
from .runs import NotNow

State = RecomputeJob.State
TASK = "tagging.tasks.recompute"
#: a task works this long, then rings again, so that other work gets its turn
SLICE_SECONDS = 20.0
LEASE = timedelta(seconds=90)
#: how many tags a summary keeps: the most frequent
SUMMARY_TAGS = 2000


def start_recompute(
    run: Run,
    policy_version: PolicyVersion,
    *,
    combine: Mapping[str, Any] | None = None,
    by: AbstractBaseUser | None = None,
) -> RecomputeJob:
    """Queue a policy version for all proposals of a run; the open job where the same is under way.

    `combine`: another rule than the recipe's for the channels of a run that has several; what they said is stored. A
    merging model is asked nothing: llm_merge takes what it said in this run. ValidationError keyed by "combine"; NotNow
    while the run still works, or while another policy or rule is being applied to it.
    """
    run.refresh_from_db(fields=["state"])
    rule = _checked_rule(run, combine) if combine is not None else None
    if run.state == Run.State.RUNNING:
        raise NotNow(f"{run} is still running: wait until it is done, or pause it.")
    try:
        with transaction.atomic():
            job = RecomputeJob.objects.create(
                run=run,
                policy_version=policy_version,
                combine=rule,
                n_total=Proposal.objects.filter(run=run).count(),
                created_by=by,  # type: ignore[misc]
            )
    except IntegrityError:
        found = RecomputeJob.objects.filter(run=run, state__in=RecomputeJob.OPEN).first()
        if found is None:
            raise
        if (found.policy_version_id, found.combine) != (policy_version.pk, rule):
            raise NotNow(f"{found.policy_version} is being applied to {run}: wait or cancel it.") from None
        job = found
    queue.defer(TASK, job.pk)
    return job


def _checked_rule(run: Run, given: Mapping[str, Any]) -> dict[str, Any]:
    """The rule as it is stored, with the order in which the channels were asked."""
    own = run.recipe.combine
    rows = Channel.objects.filter(recipe=run.recipe_id, role=Channel.Role.ASKED).select_related("adapter")
    names = [row.source for row in rows.order_by("position")]
    if len(names) < 2:
        raise ValidationError({"combine": f"{run} has a single channel: there is nothing to combine."})
    if given.get("rule") == "llm_merge" and own["rule"] != "llm_merge":
        raise ValidationError({"combine": f"No model has merged in {run}: a new run has to."})
    kept = {name: own[name] for name in ("order", "cascade") if name in own}
    try:
        return check_combine({**given, **kept}, names).stored()
    except CombineError as error:
        raise ValidationError({"combine": str(error)}) from None


def cancel_recompute(job: RecomputeJob) -> None:
    """Stop after the slice in work; what was recomputed stays. NotNow when it is over."""
    over = RecomputeJob.objects.filter(pk=job.pk, state__in=RecomputeJob.OPEN).update(
        state=State.CANCELLED, token=F("token") + 1, owner="", lease_until=None, finished_at=timezone.now()
    )
    if not over:
        raise NotNow("This recompute is over already.")
    job.refresh_from_db()


def run_recompute(
    job_id: int, *, seconds: float | None = None, report: Callable[[RecomputeJob], None] | None = None
) -> RecomputeJob:
    """Do the work of a job, or of the first `seconds` of what is left; the job as it is then.

    Nothing happens when it is over or another process works on it.
    """
    job = _claim(job_id)
    if job is None:
        return RecomputeJob.objects.get(pk=job_id)
    end = None if seconds is None else time.monotonic() + seconds
    try:
        policy = compiled_policy(job.policy_version_id)
        reproposer = Reproposer(job.run, policy, job.combine)
    except (ModelUnavailable, ValueError) as error:
        _finish(job, State.FAILED, str(error))
        return job
    if not job.n_done:
        job.n_total = Proposal.objects.filter(run=job.run).count()
    watch = _Watch()
    while True:
        with _without_collector():
            more = _step(job, reproposer, watch)
        if not more:
            break
        if report:
            report(job)
        if end is not None and time.monotonic() >= end:
            _held(job).update(owner="", lease_until=None)
            break
    job.refresh_from_db()
    return job


@contextmanager
def _without_collector() -> Iterator[None]:
    """A slice makes a hundred thousand small objects and no circles among them, and drops them all: looking for circles
    meanwhile costs a fifth of the work (measured)."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def _held(job: RecomputeJob) -> Any:
    """The job's row as long as it is ours."""
    return job_leases.ours(job, state=State.RUNNING)


def _claim(job_id: int) -> RecomputeJob | None:
    job = RecomputeJob.objects.select_related("run__recipe", "policy_version").filter(pk=job_id).first()
    if job is None or job.state not in RecomputeJob.OPEN or _alive(job):
        return None
    return job if job_leases.take(job, LEASE, where={"state": job.state}, state=State.RUNNING, error="") else None


def _alive(job: RecomputeJob) -> bool:
    """Does somebody who lives work on it?"""
    return job.state == State.RUNNING and job_leases.alive(job)


class _Watch:
    """Seconds since it was last asked: what a slice's write costs is counted with the next."""

    def __init__(self) -> None:
        self._at = time.perf_counter()

    def lap(self) -> float:
        before, self._at = self._at, time.perf_counter()
        return self._at - before


def _step(job: RecomputeJob, reproposer: Reproposer, watch: _Watch) -> bool:
    """One slice, computed and then written at once with the cursor. False when the job is over or no longer ours."""
    rows = reproposer.rows(job.cursor, reproposing.SLICE)
    if not rows:
        _held(job).update(seconds=F("seconds") + watch.lap())
        _finish(job, State.DONE, "; ".join(reproposer.problems))
        return False
    part = reproposer.apply(rows)
    values = _progress(job, part)
    for attempt in range(3):
        shown = rewriting.prepare_shown(job.run, part.changes, reproposer.tag_ids)
        try:
            with transaction.atomic():
                values["seconds"] += watch.lap()
                if not _held(job).update(**values, lease_until=timezone.now() + LEASE):
                    return False
                rewriting.write(job.run, job.pk, job.policy_version_id, part, shown)
            break
        except IntegrityError:  # a tag was merged or deleted by a person meanwhile
            if attempt == 2:
                raise
            vocabulary.forget()
            reproposer.tag_ids.clear()
    for name, value in values.items():
        setattr(job, name, value)
    return True


def _progress(job: RecomputeJob, part: reproposing.Slice) -> dict[str, Any]:
    return {
        "cursor": part.last,
        "n_total": max(job.n_total, job.n_done + part.done),
        "n_done": job.n_done + part.done,
        "n_changed": job.n_changed + len(part.changes),
        "n_skipped": job.n_skipped + part.skipped,
        "tags_before": job.tags_before + part.tags_before,
        "tags_after": job.tags_after + part.tags_after,
        "gained": most_frequent(Counter(job.gained) + part.gained),
        "lost": most_frequent(Counter(job.lost) + part.lost),
        "seconds": job.seconds,
    }


def most_frequent(counts: Mapping[str, int], n: int = SUMMARY_TAGS) -> dict[str, int]:
    """The n highest counts, highest first (a database may give JSON back in any order)."""
    items = list(counts.items())
    if len(items) > n:
        least = sorted(counts.values(), reverse=True)[n - 1]
        items = [item for item in items if item[1] >= least]
    items.sort()
    items.sort(key=itemgetter(1), reverse=True)  # stable: equal counts stay in the order of their names
    return dict(items[:n])


def _finish(job: RecomputeJob, state: str, error: str = "") -> None:
    _held(job).update(state=state, error=error, owner="", lease_until=None, finished_at=timezone.now())
    job.refresh_from_db()


def sweep() -> None:
    """Ring again for jobs that wait or whose owner died."""
    fresh = timezone.now() - timedelta(minutes=1)
    for job in RecomputeJob.objects.filter(state__in=RecomputeJob.OPEN, created_at__lt=fresh).order_by("pk"):
        if not _alive(job):
            queue.defer(TASK, job.pk)


def runs_of(collection: Collection) -> list[Run]:
    """The runs of a collection that a policy can be applied to: those that are not running, newest first."""
    return list(collection.runs.listed().exclude(state=Run.State.RUNNING).order_by("-pk"))
