"""How far runs are, from their chunks' counters: one query for any number of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Count, F, Max, Q, Sum
from django.db.models.functions import Now
from django.utils import timezone

from .. import queue
from ..models import Chunk, Run

#: Pace is taken from the chunks that were worked on within this time.
RECENT = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class StageProgress:
    """One stage of a run with several channels. `rate`: images a second of its workers together, where it is known."""

    stage: int
    total: int
    done: int
    error: int = 0
    skipped: int = 0
    cached: int = 0
    rate: float | None = None
    queue: str = ""

    @property
    def left(self) -> int:
        return max(0, self.total - self.done)


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts of images. `ok`, `empty` and `error` add up to `done`; `cached` of them needed no inference. `rate` is
    images a second and `eta_seconds` the time left; None where nothing can be said yet. `fallback`: images whose
    merging model gave nothing usable. `stages`: one by one, where there are several."""

    total: int
    ok: int = 0
    empty: int = 0
    error: int = 0
    cached: int = 0
    rate: float | None = None
    eta_seconds: float | None = None
    workers: int = 0
    fallback: int = 0
    stages: tuple[StageProgress, ...] = ()

    @property
    def done(self) -> int:
        return self.ok + self.empty + self.error

    @property
    def left(self) -> int:
        return max(0, self.total - self.done)

    @property
    def percent(self) -> float:
        """Of the work: a stage of several counts as much as another."""
        if not self.total:
            return 100.0
        if self.stages:
            return 100.0 * sum(s.done for s in self.stages) / (self.total * len(self.stages))
        return 100.0 * self.done / self.total

    def as_dict(self) -> dict[str, Any]:
        return {
            "total": self.total,
            "done": self.done,
            "ok": self.ok,
            "empty": self.empty,
            "error": self.error,
            "cached": self.cached,
            "fallback": self.fallback,
            "rate": self.rate,
            "eta_seconds": self.eta_seconds,
        }


def progress(runs: Sequence[Run]) -> dict[int, Progress]:
    """Run id → Progress, for each of `runs`."""
    recent = Q(touched_at__gte=Now() - RECENT) & ~Q(seconds=0)
    counted = F("n_ok") + F("n_empty") + F("n_error") + F("n_skipped")
    rows = (
        Chunk.objects.filter(run__in=[r.pk for r in runs])
        .order_by()
        .values("run_id", "stage", "queue")
        .annotate(
            ok=Sum("n_ok"),
            empty=Sum("n_empty"),
            error=Sum("n_error"),
            skipped=Sum("n_skipped"),
            cached=Sum("n_cached"),
            fallback=Sum("n_fallback"),
            leased=Count("pk", filter=Q(state=Chunk.State.LEASED)),
            recent_images=Sum(counted, filter=recent),
            recent_seconds=Sum("seconds", filter=recent),
            all_seconds=Sum("seconds"),
            last=Max("touched_at"),
        )
    )
    found: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["run_id"], []).append(dict(row))
    return {run.pk: _progress(run, sorted(found.get(run.pk, []), key=lambda r: r["stage"])) for run in runs}


def _progress(run: Run, rows: list[dict[str, Any]]) -> Progress:
    if not rows:
        return Progress(total=run.n_total)
    row = rows[-1]  # the stage that writes proposals
    done = row["ok"] + row["empty"] + row["error"]
    left = max(0, run.n_total - done)
    running = run.state == Run.State.RUNNING
    stages = tuple(_stage(run, r) for r in rows) if len(rows) > 1 else ()
    if stages and running:
        eta = _time_left(stages)
        rate = left / eta if eta else None
    else:
        rate = _rate(run, row, done)
        eta = left / rate if rate and running else None
    return Progress(
        total=run.n_total,
        ok=row["ok"],
        empty=row["empty"],
        error=row["error"],
        cached=_cached(rows, done),
        rate=rate,
        eta_seconds=eta,
        workers=sum(r["leased"] for r in rows),
        fallback=row["fallback"],
        stages=stages,
    )


def _cached(rows: list[dict[str, Any]], done: int) -> int:
    """Images that needed no inference; with several channels as many as no stage can contradict."""
    if len(rows) == 1:
        return int(rows[0]["cached"])
    asked = [r for r in rows if r["queue"] != queue.DEFAULT]
    return min(done, *(r["cached"] + r["skipped"] for r in asked))


def _stage(run: Run, row: dict[str, Any]) -> StageProgress:
    done = row["ok"] + row["empty"] + row["error"] + row["skipped"]
    rate = None
    if row["recent_seconds"]:
        rate = row["recent_images"] / row["recent_seconds"] * max(1, row["leased"])
    elif row["all_seconds"] and done:
        rate = done / row["all_seconds"]
    return StageProgress(
        row["stage"], run.n_total, done, row["error"], row["skipped"], row["cached"], rate, row["queue"]
    )


def _time_left(stages: Sequence[StageProgress]) -> float | None:
    """Stages of one queue follow each other, queues work at the same time. None while a model's pace is not known."""
    by_queue: dict[str, float] = {}
    for stage in stages:
        if not stage.left:
            continue
        if not stage.rate:
            if stage.queue == queue.DEFAULT:  # combining alone takes next to nothing
                continue
            return None
        by_queue[stage.queue] = by_queue.get(stage.queue, 0.0) + stage.left / stage.rate
    return max(by_queue.values(), default=0.0) or None


def _rate(run: Run, row: dict[str, Any], done: int) -> float | None:
    if run.state == Run.State.RUNNING and row["recent_seconds"]:
        # pace of one worker, times the workers that are at it
        return float(row["recent_images"] / row["recent_seconds"] * max(1, row["leased"]))
    end = run.finished_at or row["last"] or timezone.now()
    if not run.started_at or not done or run.state == Run.State.RUNNING:
        return None
    seconds = (end - run.started_at).total_seconds()
    return done / seconds if seconds > 0 else None
