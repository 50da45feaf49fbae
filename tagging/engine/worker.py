"""Claim, prefetch, infer, store: what a worker does with a drain token.

A token says "work for a while, then ring again". Chunks are taken one after the other; images are decoded ahead in
threads, inferred in batches, and written about once a second. A kill at any moment costs what was not yet written.
"""

from __future__ import annotations

import logging
import os
import time

from django.db import DatabaseError, InterfaceError, OperationalError, close_old_connections
from django.utils import timezone

from .. import queue as queue_
from ..adapters.base import ModelUnavailable
from ..models import Chunk, Run
from . import leases, residency
from .heartbeat import HEART
from .leases import LeaseLost
from .owners import owner_id
from .process import stopping
from .stages import work_on

log = logging.getLogger(__name__)

#: Seconds a drain token lasts.
BUDGET = float(os.environ.get("IWTAG_DRAIN_SECONDS", "20"))


def drain(queue: str) -> bool:
    """Work on the queue's chunks until the time is over; True when work may be left: somebody must ring again."""
    me, failures, end = owner_id(), 0, time.monotonic() + BUDGET
    while time.monotonic() < end and not stopping():
        try:
            chunk = leases.claim(queue, me, residency.MODELS.preferred())
        except DatabaseError as e:
            log.warning("the database does not answer (%s); trying again", _line(e))
            close_old_connections()
            time.sleep(1)
            continue
        if chunk is None:
            residency.MODELS.rest()
            return False
        try:
            process(chunk, end)
        except residency.Tired as e:
            log.warning("%s", e)
            _give_back(chunk, failed=False)
            queue_.replace_worker()
            return not stopping()
        except LeaseLost:
            log.warning("%s is no longer this worker's: it was taken over, or deleted", chunk)
        except (OperationalError, InterfaceError) as e:
            log.warning("%s: the database failed (%s); what was not written is done again", chunk, _line(e))
            failures += 1
            _give_back(chunk, failed=False)
        except Exception:
            log.exception("%s", chunk)
            failures += 1
            _give_back(chunk, failed=True)
        if failures > 2:
            break
    return not stopping()


def _give_back(chunk: Chunk, *, failed: bool) -> None:
    """Release it, with a new connection if need be; when the database stays away, the lease runs out by itself."""
    for seconds in (0, 1, 2):
        time.sleep(seconds)
        close_old_connections()
        try:
            leases.release(chunk, done=False, failed=failed)
            return
        except DatabaseError as e:
            log.warning("%s could not be given back (%s)", chunk, _line(e))


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def process(chunk: Chunk, end: float) -> None:
    """Work on one claimed chunk until it is done or the time `end` (monotonic) has come.

    A model that cannot be loaded fails the run. Raises LeaseLost.
    """
    run = Run.objects.select_related("recipe").get(pk=chunk.run_id)
    if chunk.attempts > leases.ATTEMPTS:
        fail(
            run, f"Workers died or failed {leases.ATTEMPTS} times in a row on it: too little memory, or a broken model."
        )
        leases.release(chunk, done=False)
        return
    with HEART.holding(chunk, f"{run} [{chunk.lo}, {chunk.hi})") as heart:
        try:
            complete = work_on(chunk, run, heart, end).go()
        except ModelUnavailable as e:
            fail(run, e.message)
            complete = False
    leases.release(chunk, done=complete)


def fail(run: Run, message: str) -> None:
    """The run cannot go on; `message` names the mend."""
    log.error("%s failed: %s", run, message)
    Run.objects.filter(pk=run.pk, state=Run.State.RUNNING).update(
        state=Run.State.FAILED, error=message, finished_at=timezone.now(), phase=""
    )
    leases.tell_ended(run.pk)
