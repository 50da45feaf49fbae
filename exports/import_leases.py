"""Who works on an import: claimed by compare-and-set on its token, every write fenced by it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db.models import F
from django.utils import timezone

from tagging import queue
from tagging.engine import job_leases

from .import_models import ImportJob

TASK = "exports.tasks.import_metadata"
LEASE = timedelta(seconds=90)  # renewed with every report
State = ImportJob.State


class Stopped(Exception):
    """The job is no longer ours: cancelled, or taken over after we were thought dead."""


def held(job: ImportJob) -> bool:
    """True while somebody who lives works on it."""
    return job_leases.alive(job)


def claim(job_id: int) -> ImportJob | None:
    """Take a queued job, or one whose owner is gone; None when it is another's or over."""
    job = ImportJob.objects.select_related("collection").filter(pk=job_id, state__in=ImportJob.OPEN).first()
    if job is None or (job.state == State.RUNNING and held(job)):
        return None
    if not job_leases.take(job, LEASE, where={"state": job.state}, state=State.RUNNING, error=""):
        return None
    job.refresh_from_db()
    return job


def report(job: ImportJob, **values: Any) -> None:
    """One fenced write; it renews the lease. Stopped once the job is lost."""
    ours = job_leases.ours(job, state=State.RUNNING)
    if not ours.update(**{"lease_until": timezone.now() + LEASE, **values}):
        raise Stopped


def release(job: ImportJob, state: str, **values: Any) -> None:
    """End the work with that state. Stopped once the job is lost."""
    report(job, state=state, owner="", lease_until=None, finished_at=timezone.now(), **values)


def start(job: ImportJob, step: str, *, ring: bool = True, **values: Any) -> bool:
    """Queue the next step of a job that nobody works on; False when its state moved meanwhile."""
    n = ImportJob.objects.filter(pk=job.pk, token=job.token, state=job.state).update(
        state=State.QUEUED, step=step, token=job.token + 1, owner="", lease_until=None, n_rows=0, error="", **values
    )
    job.refresh_from_db()
    if n and ring:
        queue.defer(TASK, job.pk)
    return bool(n)


def stop(job: ImportJob) -> bool:
    """Take a waiting or running job out of whoever's hands. False when it was over."""
    n = ImportJob.objects.filter(pk=job.pk, state__in=ImportJob.OPEN).update(
        state=State.CANCELLED, owner="", lease_until=None, token=F("token") + 1, finished_at=timezone.now()
    )
    job.refresh_from_db()
    return bool(n)


def sweep(ring: Callable[[str, int], None] | None = None) -> None:
    """Ring again for jobs whose doorbell was lost or whose owner died. Called each minute on the default cluster."""
    now = timezone.now()
    bell = ring or (lambda task, pk: queue.defer(task, pk))
    for job in ImportJob.objects.filter(state__in=ImportJob.OPEN).order_by("id"):
        mine = job_leases.ours(job, state=job.state)
        if job.state == State.RUNNING and not held(job):
            mine.update(state=State.QUEUED, owner="", lease_until=None, token=F("token") + 1)
            bell(TASK, job.pk)
        elif job.state == State.QUEUED and (job.lease_until or job.created_at + timedelta(minutes=1)) <= now:
            # lease_until remembers when to ring next, so that a long queue is not rung each minute
            mine.update(lease_until=now + timedelta(minutes=5))
            bell(TASK, job.pk)
