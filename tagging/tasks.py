"""What the queue calls. Each task is thin: load by id, call the action; problems are stored, never raised."""

from __future__ import annotations

from . import queue
from .models import IngestJob


def ingest(job_id: int) -> None:
    """One slice of an IngestJob; rings again while there is more to do."""
    from .actions.ingest import SLICE, TASK, run_ingest

    job = run_ingest(job_id, seconds=SLICE)
    if job.state == IngestJob.State.RUNNING and not job.owner:
        queue.defer(TASK, job_id)
