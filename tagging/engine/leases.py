"""Claim, renew, release: who may write the results of a chunk.

Every write is fenced by the chunk's token, which rises at each claim and each release: a worker that slept through its
lease finds that nothing it says is written any more. Times are the database's, never a host's.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from datetime import timedelta

from django.db import connection, transaction
from django.db.models import Case, Exists, F, IntegerField, OuterRef, Q, QuerySet, Value, When
from django.db.models.functions import Greatest, Now
from django.utils import timezone

from .. import queue
from ..models import Chunk, Run
from .owners import host, owner_alive

#: Seconds a claim holds without a sign of life; renewed at each commit and by the heartbeat.
LEASE = float(os.environ.get("IWTAG_LEASE_SECONDS", "30"))
#: Claims of a chunk that ended without any progress before its run is given up.
ATTEMPTS = 6


log = logging.getLogger(__name__)
#: Called with a run's number when it has ended: done, failed or cancelled. Who registers must bear being called twice.
ENDED: list[Callable[[int], object]] = []


class LeaseLost(Exception):
    """Another worker has the chunk by now; what this one computed is not written."""


def lease_end() -> object:
    """The database's time at which a lease taken now ends."""
    return Now() + Value(timedelta(seconds=LEASE))


def claimable(queue: str) -> QuerySet[Chunk]:
    """Chunks of running runs that nobody holds, or whose holder has not been heard of."""
    return Chunk.objects.filter(queue=queue, run__state=Run.State.RUNNING).filter(
        Q(state=Chunk.State.PENDING) | Q(state=Chunk.State.LEASED, lease_until__lt=Now())
    )


def claim(queue: str, owner: str, resident: Sequence[str] = ()) -> Chunk | None:
    """Take the next chunk: highest priority, then a model that is loaded, then the oldest.

    `resident` are the keys of loaded models, the preferred one first. None when there is no work.
    """
    order: list[object] = ["-run__priority"]
    if resident:
        loaded = (When(model_key=key, then=i) for i, key in enumerate(resident))
        order.append(Case(*loaded, default=len(resident), output_field=IntegerField()))
    for _ in range(5):
        with transaction.atomic():
            waiting = claimable(queue).select_related("run").order_by(*order, "run_id", "stage", "lo")  # type: ignore[arg-type]
            if connection.features.has_select_for_update_skip_locked:
                waiting = waiting.select_for_update(skip_locked=True, of=("self",))
            chunk = waiting.first()
            if chunk is None:
                return None
            taken = Chunk.objects.filter(pk=chunk.pk, token=chunk.token).update(
                state=Chunk.State.LEASED,
                token=F("token") + 1,
                owner=owner,
                lease_until=lease_end(),
                attempts=F("attempts") + 1,
            )
            if taken:
                Run.objects.filter(pk=chunk.run_id, started_at=None).update(started_at=timezone.now())
                chunk.token += 1
                chunk.attempts += 1
                chunk.state, chunk.owner = Chunk.State.LEASED, owner
                return chunk
    return None


def held(chunk: Chunk) -> QuerySet[Chunk]:
    """The chunk's row as long as this claim is the valid one; empty afterwards."""
    return Chunk.objects.filter(pk=chunk.pk, token=chunk.token, state=Chunk.State.LEASED)


def renew(chunk: Chunk) -> None:
    """A sign of life. Raises LeaseLost."""
    if not held(chunk).update(lease_until=lease_end()):
        raise LeaseLost(chunk.pk)


def release(chunk: Chunk, *, done: bool, failed: bool = False) -> bool:
    """Give the chunk back; False when the claim was no longer valid. `done` counts only when no image is missing.

    A chunk that is given back undone on purpose has not failed: the attempt is counted only with `failed`.
    """
    mine = held(chunk)
    if done:
        complete = mine.filter(hi=F("lo") + F("n_ok") + F("n_empty") + F("n_error") + F("n_skipped"))
        if complete.update(state=Chunk.State.DONE, token=F("token") + 1, owner="", lease_until=None, inflight=None):
            open_waiting(Chunk.objects.filter(run=chunk.run_id, lo=chunk.lo))
            finish(chunk.run_id)
            return True
    return bool(
        mine.update(
            state=Chunk.State.PENDING,
            token=F("token") + 1,
            owner="",
            lease_until=None,
            attempts=F("attempts") if failed else Greatest(F("attempts") - 1, 0),
            inflight=None,
        )
    )


def open_waiting(chunks: QuerySet[Chunk]) -> int:
    """Open those of the chunks that wait for stages which are done with their slice; how many. Their queues are rung.

    Safe to call at any time: of two workers that close the last two stages before at once, the later one sees both.
    """
    before = Chunk.objects.filter(run=OuterRef("run"), lo=OuterRef("lo"), stage__lt=OuterRef("stage"))
    ready = chunks.filter(~Exists(before.exclude(state=Chunk.State.DONE)), state=Chunk.State.WAITING)
    queues = dict(ready.values_list("pk", "queue"))
    if not queues:
        return 0
    opened = Chunk.objects.filter(pk__in=list(queues), state=Chunk.State.WAITING).update(state=Chunk.State.PENDING)
    if opened:
        for name in sorted(set(queues.values())):
            queue.kick(name)
    return opened


def finish(run_id: int) -> bool:
    """Close the run if nothing of it is open. Safe to call at any time."""
    open_chunks = Chunk.objects.filter(run=OuterRef("pk")).exclude(state=Chunk.State.DONE)
    closed = bool(
        Run.objects.filter(~Exists(open_chunks), pk=run_id, state=Run.State.RUNNING).update(
            state=Run.State.DONE, finished_at=timezone.now(), phase=""
        )
    )
    if closed:
        tell_ended(run_id)
    return closed


def tell_ended(run_id: int) -> None:
    """Tell those who wait for a run, once what ended it is committed. One that fails does not stop the others."""

    def tell() -> None:
        for listener in ENDED:
            try:
                listener(run_id)
            except Exception:
                log.exception("telling %s that run %s has ended", getattr(listener, "__qualname__", listener), run_id)

    transaction.on_commit(tell, robust=True)


def release_dead() -> int:
    """Give back the chunks of this host's processes that are gone, without waiting for their leases; how many."""
    leased = Chunk.objects.filter(state=Chunk.State.LEASED)
    released = 0
    for owner in set(leased.filter(owner__startswith=f"{host()}|").values_list("owner", flat=True)):
        if owner_alive(owner) is False:
            released += leased.filter(owner=owner).update(
                state=Chunk.State.PENDING, token=F("token") + 1, owner="", lease_until=None
            )
    return released
