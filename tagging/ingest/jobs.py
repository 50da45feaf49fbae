"""The life of an IngestJob: claimed with a lease, kept alive by its progress, fenced by its token."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Coalesce
from django.utils import timezone

from ..engine import job_leases
from ..models import Collection, IngestJob

State = IngestJob.State
#: A job whose lease ran out belongs to nobody. It is renewed with every report, about once a second.
LEASE = timedelta(seconds=90)
MAX_NOTES = 20


class Stopped(Exception):
    """The job is no longer ours: cancelled, or taken over after we were thought dead."""


class Interrupted(Exception):
    """This process is asked to end: leave the job to the next one, which goes on where it stands."""


@dataclass(slots=True)
class Tally:
    """The counters of a job; the same names as its columns."""

    seen: int = 0
    added: int = 0
    changed: int = 0
    moved: int = 0
    unchanged: int = 0
    missing: int = 0
    failed: int = 0
    skipped: int = 0


def held(job: IngestJob, now: datetime | None = None) -> bool:
    """True while somebody who lives works on it."""
    return job.state == State.RUNNING and job_leases.alive(job, now)


def claim(job_id: int) -> IngestJob | None:
    """Take a queued or abandoned job; None when it is closed, or its collection is being worked on by another."""
    now = timezone.now()
    with transaction.atomic():
        job = IngestJob.objects.select_related("collection").filter(pk=job_id, state__in=IngestJob.OPEN).first()
        if job is None or held(job, now):
            return None
        Collection.objects.select_for_update().get(pk=job.collection_id)
        others = IngestJob.objects.filter(collection_id=job.collection_id, state=State.RUNNING).exclude(pk=job.pk)
        if any(held(o, now) or o.pk < job.pk for o in others):
            return None
        values = {"state": State.RUNNING, "started_at": Coalesce("started_at", now), "error": ""}
        taken = job_leases.take(job, LEASE, where={"state": job.state}, **values)
    if not taken:
        return None
    job.refresh_from_db()
    return job


class Ledger:
    """What a running job writes about itself. Every write renews the lease and fails with Stopped once it is lost."""

    def __init__(self, job: IngestJob, report: Callable[[IngestJob], None] | None = None) -> None:
        self.job = job
        # not the columns: what a process counted that died after the last checkpoint will be counted again
        self.tally = Tally(**job.cursor.get("tally", {}))
        self.notes: list[str] = list(job.notes)
        self.total = job.total
        self._report = report
        self._written = 0.0
        self._history: deque[tuple[float, int]] = deque([(time.monotonic(), self.tally.seen)])

    def note(self, text: str) -> None:
        """Keep the first few problems for the person who looks at the job."""
        if len(self.notes) < MAX_NOTES and text not in self.notes:
            self.notes.append(text)

    def beat(self, seconds: float = 1.0) -> None:
        """Write progress when the last write is `seconds` ago."""
        if time.monotonic() - self._written >= seconds:
            self.write()

    def write(self, **more: Any) -> None:
        """Counters, notes, lease and `more` in one fenced UPDATE, also inside the transactions that store rows."""
        now = time.monotonic()
        while len(self._history) > 1 and now - self._history[0][0] > 10:
            self._history.popleft()
        since, before = self._history[0]
        if now - since >= 0.5:
            self.job.rate = (self.tally.seen - before) / (now - since)
        if now - self._history[-1][0] >= 0.5:
            self._history.append((now, self.tally.seen))
        values: dict[str, Any] = {f.name: getattr(self.tally, f.name) for f in fields(Tally)}
        values |= {
            "notes": self.notes,
            "total": None if self.total is None else max(self.total, self.tally.seen),
            "rate": self.job.rate,
            "lease_until": timezone.now() + LEASE,
            **more,
        }
        if not job_leases.ours(self.job, state=State.RUNNING).update(**values):
            raise Stopped
        for name, value in values.items():
            setattr(self.job, name, value)
        self._written = now
        if self._report:
            self._report(self.job)

    def checkpoint(self, walk: dict[str, Any] | None = None) -> dict[str, Any]:
        """What the next process goes on from, in `cursor`: where the walk was cut, what was counted so far."""
        return {"walk": walk, "tally": asdict(self.tally)}

    def release(self, walk: dict[str, Any] | None = None) -> None:
        """End of a slice: the job stays running, but belongs to nobody until the next token is drained."""
        self.write(owner="", cursor=self.checkpoint(walk))

    def finish(self, state: str, error: str = "") -> None:
        # the rate of the whole job is what is worth keeping
        job = self.job
        seconds = (timezone.now() - job.started_at).total_seconds() if job.started_at else 0
        job.rate = self.tally.seen / seconds if seconds > 0 else None
        self._history = deque([(time.monotonic(), self.tally.seen)])
        self.write(state=state, error=error, owner="", lease_until=None, cursor={}, finished_at=timezone.now())


def abandoned() -> list[IngestJob]:
    """Open jobs on which nobody works, and for which nobody rang in the last minutes."""
    now = timezone.now()
    found = IngestJob.objects.filter(state__in=IngestJob.OPEN).order_by("id")
    return [job for job in found if not held(job, now) and _waits(job, now)]


def _waits(job: IngestJob, now: datetime) -> bool:
    """A doorbell may just have been rung: `lease_until` of a job that nobody holds is when to ring again."""
    if job.state == State.RUNNING and job.owner:
        return True  # its owner died
    rung = job.lease_until or job.created_at + timedelta(minutes=1)
    return rung <= now


def ring_again_later(job: IngestJob) -> None:
    """Remember that the doorbell rang, so that a long queue of waiting jobs is not rung for every minute."""
    job_leases.ours(job, state__in=IngestJob.OPEN).filter(Q(owner="") | Q(lease_until__lt=timezone.now())).update(
        lease_until=timezone.now() + timedelta(minutes=5)
    )
