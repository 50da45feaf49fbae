"""The first page: collections, running work, what waits for review, the workers' health."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Count, OuterRef, Subquery
from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone

from ..actions.access import may
from ..engine.progress import Progress, progress
from ..models import Collection, ImageAsset, IngestJob, Run, Worker
from .guard import Request, needs

STRIP = 6  # thumbnails beside a collection's name
#: Queue → what it does, in the words of the page.
QUEUES = {"gpu": "models", "default": "indexing, exports", "io": "remote models"}
FRESH = timedelta(hours=12)  # how long a failed run is news


@dataclass
class Shelf:
    """A collection with what its card shows."""

    collection: Collection
    strip: list[str]  # sha256 of the first images
    counts: Counter[str]  # by review state

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def waiting(self) -> int:
        return self.counts[ImageAsset.Review.UNREVIEWED]

    @property
    def skipped(self) -> int:
        return self.counts[ImageAsset.Review.SKIPPED]

    @property
    def reviewed(self) -> int:
        return self.counts[ImageAsset.Review.REVIEWED]

    @property
    def judged(self) -> int:
        return self.counts[ImageAsset.Review.AUTO]

    @property
    def settled(self) -> int:
        """By a person or by a judge."""
        return self.reviewed + self.judged


@dataclass
class Station:
    """One queue with the workers that serve it."""

    queue: str
    purpose: str
    workers: list[Worker]

    @property
    def resident(self) -> list[dict[str, Any]]:
        return [m for w in self.workers for m in w.resident if isinstance(m, dict)]

    @property
    def doing(self) -> str:
        return next((w.doing for w in self.workers if w.doing), "")


@needs("read")
def home(request: Request) -> HttpResponse:
    found = shelves()
    context = {
        "shelves": found,
        "waiting": sum(s.waiting for s in found),
        "may_curate": may(request.user, "curate"),
        "may_review": may(request.user, "review"),
        **live_context(),
    }
    return render(request, "tagging/home.html", context)


@needs("read")
def live(request: Request) -> HttpResponse:
    """The part of the page that changes by itself."""
    return render(request, "tagging/home.html#live", live_context())


def shelves() -> list[Shelf]:
    """All collections with their first thumbnails and counts of present images by review state: three queries."""
    first = ImageAsset.objects.filter(collection=OuterRef("pk")).usable().order_by("id").values("sha256")
    strips = {f"strip{i}": Subquery(first[i : i + 1]) for i in range(STRIP)}
    collections = list(Collection.objects.annotate(**strips))
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    images = ImageAsset.objects.order_by()
    # apart, so that each reads an index only: all of them, then the few that are gone (naming the collections makes
    # SQLite take the small index of those, which it does not do for the grouping alone)
    gone = images.filter(missing_since__isnull=False, collection__in=[c.pk for c in collections])
    for sign, some in ((1, images), (-1, gone)):
        for collection_id, state, n in some.values_list("collection_id", "review_state").annotate(n=Count("id")):
            counts[collection_id][state] += sign * n
    return [
        Shelf(c, [sha for i in range(STRIP) if (sha := getattr(c, f"strip{i}"))], counts[c.pk]) for c in collections
    ]


def live_context() -> dict[str, Any]:
    """Open runs with their progress, open ingest jobs, fresh failures, and the workers: five queries at most."""
    runs = list(
        Run.objects.listed()
        .filter(state__in=Run.OPEN)
        .select_related("collection", "recipe")
        .order_by("-priority", "id")
    )
    jobs = list(IngestJob.objects.filter(state__in=IngestJob.OPEN).select_related("collection").order_by("id"))
    failed = Run.objects.listed().filter(state=Run.State.FAILED, finished_at__gte=timezone.now() - FRESH)
    stations = workers()
    running = [r for r in runs if r.state == Run.State.RUNNING]
    return {
        "runs": with_progress(runs),
        "jobs": jobs,
        "indexing": {job.collection_id for job in jobs},
        "failed": list(failed.select_related("collection").order_by("-finished_at")[:3]),
        "stations": stations,
        "stalled": bool((running and not served(stations, "gpu", "io")) or (jobs and not served(stations, "default"))),
        "every": "2s" if runs or jobs else "15s",
    }


def with_progress(runs: Iterable[Run]) -> list[tuple[Run, Progress | None]]:
    """Each run beside its progress: one query for all."""
    runs = list(runs)
    found = progress(runs) if runs else {}
    return [(run, found.get(run.pk)) for run in runs]


def workers() -> list[Station]:
    """The three queues, each with the workers heard from lately."""
    alive = list(Worker.objects.alive())
    names = [*QUEUES, *sorted({w.queue for w in alive} - set(QUEUES))]
    return [Station(q, QUEUES.get(q, ""), [w for w in alive if w.queue == q]) for q in names]


def served(stations: Iterable[Station], *queues: str) -> bool:
    """Whether some worker is there for one of the queues."""
    return any(station.workers for station in stations if station.queue in queues)
