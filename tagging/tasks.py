"""What the queue calls. Each task is thin: load by id, call the action; problems are stored, never raised."""

from __future__ import annotations

import uuid
from typing import Literal

from . import queue


def ingest(job_id: int) -> None:
    """One slice of an IngestJob; rings again while there is more to do."""
    from .actions.ingest import SLICE, run_ingest
    from .actions.watch import looked

    looked(run_ingest(job_id, seconds=SLICE))


@queue.register_sweep
def sweep_ingests() -> None:
    """Ring again for ingest jobs whose doorbell was lost or whose owner died."""
    from .actions.ingest import sweep

    sweep()


def bulk(
    collection_id: int,
    query: str,
    verb: Literal["accept", "reject", "add", "remove"],
    tags: list[str],
    min_score: float | None,
    by_id: int,
    batch: str,
) -> None:
    """A decision on all images that a filter (as a query string) lets through. A second ring finds the batch begun and
    leaves it alone: images that came since were on nobody's confirmation page."""
    from django.contrib.auth import get_user_model
    from django.http import QueryDict

    from .actions.review import bulk as decide
    from .models import Collection, TagEdit
    from .queries import ImageFilter, filtered

    collection = Collection.objects.filter(pk=collection_id).first()
    by = get_user_model().objects.filter(pk=by_id).first()
    if collection is None or by is None or TagEdit.objects.filter(batch=batch).exists():
        return
    images = filtered(collection, ImageFilter.parse(QueryDict(query)))
    decide(images, by=by, verb=verb, tag_names=tags, min_score=min_score, batch=uuid.UUID(batch))


def recompute(job_id: int) -> None:
    """One slice of a RecomputeJob; rings again while there is more to do."""
    from .actions.recompute import SLICE_SECONDS, TASK, run_recompute

    job = run_recompute(job_id, seconds=SLICE_SECONDS)
    if job.state == job.State.RUNNING and not job.owner:
        queue.defer(TASK, job_id)


@queue.register_sweep
def sweep_recomputes() -> None:
    """Ring again for recomputes whose doorbell was lost or whose owner died."""
    from .actions.recompute import sweep

    sweep()


def download(job_id: int) -> None:
    """Start the process that downloads a model."""
    from .actions.downloads import spawn

    spawn(job_id)


@queue.register_sweep
def sweep_downloads() -> None:
    """Ring again for downloads whose doorbell was lost or whose process died."""
    from .actions.downloads import sweep

    sweep()


def list_models(adapter_id: int) -> None:
    """What the server behind an adapter has. A lost ring is asked for again by whoever waits."""
    from .actions.listings import fetch_models

    fetch_models(adapter_id)


def watch(watch_id: int, force: bool = False) -> None:
    """What is due on a watched collection, now."""
    from .actions.watch import tick

    tick(watch_id, force=force)


@queue.register_sweep
def sweep_watches() -> None:
    """What is due on all watched collections."""
    from .actions.watch import sweep

    sweep()


def drain(name: str) -> None:
    """A drain token: work on the queue's chunks for a while, then ring again where work is left."""
    from .engine.worker import drain as work

    if work(name):
        queue.pass_on(name)


def sweep() -> None:
    """Each minute: queue again what a death left behind."""
    queue.run_sweeps()


def undo(batch: str, by_id: int) -> None:
    """Take a large decision back. A second ring, or one after a death in the middle, goes on with what is left."""
    from django.contrib.auth import get_user_model

    from .actions.review import NothingToUndo
    from .actions.review import undo as take_back

    by = get_user_model().objects.filter(pk=by_id).first()
    try:
        take_back(batch, by=by)
    except NothingToUndo:
        return
