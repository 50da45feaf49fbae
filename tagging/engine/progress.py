"""How far runs are, from their chunks' counters: one query for any number of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Count, F, Max, Q, Sum
from django.db.models.functions import Now
from django.utils import timezone

from ..models import Chunk, Run

#: Pace is taken from the chunks that were worked on within this time.
RECENT = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts of images. `ok`, `empty` and `error` add up to `done`; `cached` of them needed no inference. `rate` is
    images a second and `eta_seconds` the time left; None where nothing can be said yet."""

    total: int
    ok: int = 0
    empty: int = 0
    error: int = 0
    cached: int = 0
    rate: float | None = None
    eta_seconds: float | None = None
    workers: int = 0

    @property
    def done(self) -> int:
        return self.ok + self.empty + self.error

    @property
    def left(self) -> int:
        return max(0, self.total - self.done)

    @property
    def percent(self) -> float:
        return 100.0 * self.done / self.total if self.total else 100.0

    def as_dict(self) -> dict[str, Any]:
        return {
            "total": self.total,
            "done": self.done,
            "ok": self.ok,
            "empty": self.empty,
            "error": self.error,
            "cached": self.cached,
            "rate": self.rate,
            "eta_seconds": self.eta_seconds,
        }


def progress(runs: Sequence[Run]) -> dict[int, Progress]:
    """Run id → Progress, for each of `runs`."""
    recent = Q(touched_at__gte=Now() - RECENT) & ~Q(seconds=0)
    counted = F("n_ok") + F("n_empty") + F("n_error")
    rows = (
        Chunk.objects.filter(run__in=[r.pk for r in runs])
        .order_by()
        .values("run_id")
        .annotate(
            ok=Sum("n_ok"),
            empty=Sum("n_empty"),
            error=Sum("n_error"),
            cached=Sum("n_cached"),
            leased=Count("pk", filter=Q(state=Chunk.State.LEASED)),
            recent_images=Sum(counted, filter=recent),
            recent_seconds=Sum("seconds", filter=recent),
            last=Max("touched_at"),
        )
    )
    found: dict[int, dict[str, Any]] = {row["run_id"]: dict(row) for row in rows}
    return {run.pk: _progress(run, found.get(run.pk)) for run in runs}


def _progress(run: Run, row: dict[str, Any] | None) -> Progress:
    if row is None:
        return Progress(total=run.n_total)
    done = row["ok"] + row["empty"] + row["error"]
    rate = _rate(run, row, done)
    left = max(0, run.n_total - done)
    running = run.state == Run.State.RUNNING
    return Progress(
        total=run.n_total,
        ok=row["ok"],
        empty=row["empty"],
        error=row["error"],
        cached=row["cached"],
        rate=rate,
        eta_seconds=left / rate if rate and running else None,
        workers=row["leased"],
    )


def _rate(run: Run, row: dict[str, Any], done: int) -> float | None:
    if run.state == Run.State.RUNNING and row["recent_seconds"]:
        # pace of one worker, times the workers that are at it
        return float(row["recent_images"] / row["recent_seconds"] * max(1, row["leased"]))
    end = run.finished_at or row["last"] or timezone.now()
    if not run.started_at or not done or run.state == Run.State.RUNNING:
        return None
    seconds = (end - run.started_at).total_seconds()
    return done / seconds if seconds > 0 else None
