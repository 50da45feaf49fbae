"""Is it all running: the database, the workers' heartbeats, and work that nobody takes up."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from django.db import DatabaseError, InterfaceError, connection
from django.db.models import Min
from django.utils import timezone

from .models import Chunk, IngestJob, Run, Worker

QUEUES = ("default", "gpu", "io")
SILENT_SECONDS = 30  # a worker beats every few seconds; after this it counts as gone
FORGET_SECONDS = 3600  # workers of yesterday are no news


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    queue: str
    alive: bool
    beat_age_seconds: float
    models: int


@dataclass(frozen=True, slots=True)
class Health:
    """ok: all is well. degraded: a queue has no living worker, so that its work waits. down: no database."""

    status: Literal["ok", "degraded", "down"]
    database: str
    error: str = ""
    chunks_waiting: int = 0
    queue_age_seconds: float = 0.0
    missing_queues: list[str] = field(default_factory=list)
    workers: list[WorkerHealth] = field(default_factory=list)


def health() -> Health:
    """A look at five small tables; never raises for a database that is away."""
    try:
        connection.ensure_connection()
        return _look(timezone.now())
    except (DatabaseError, InterfaceError) as e:
        connection.close()
        return Health("down", connection.vendor, error=f"The database cannot be used ({type(e).__name__}).")


def _look(now: datetime) -> Health:
    workers = [
        WorkerHealth(
            row.queue, (age := (now - row.beat_at).total_seconds()) <= SILENT_SECONDS, round(age, 1), len(row.resident)
        )
        for row in Worker.objects.all()
        if (now - row.beat_at).total_seconds() < FORGET_SECONDS
    ]
    living = {worker.queue for worker in workers if worker.alive}
    missing = [queue for queue in QUEUES if queue not in living]
    return Health(
        "degraded" if missing else "ok",
        connection.vendor,
        chunks_waiting=Chunk.objects.filter(state=Chunk.State.PENDING, run__state=Run.State.RUNNING).count(),
        queue_age_seconds=round(_oldest_wait(now), 1),
        missing_queues=missing,
        workers=workers,
    )


def _oldest_wait(now: datetime) -> float:
    """Seconds since the oldest work was asked for that nobody has begun: an ingest, or a run."""
    waits = [
        IngestJob.objects.filter(state=IngestJob.State.QUEUED).aggregate(at=Min("created_at"))["at"],
        Run.objects.filter(state=Run.State.RUNNING, started_at=None).aggregate(at=Min("created_at"))["at"],
    ]
    return max((now - at).total_seconds() for at in (*waits, now) if at)
