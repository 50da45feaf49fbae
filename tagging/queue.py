"""The only module that knows django-q2: our tables are the ledger, the queue is only the doorbell.

A queue task is a *drain token* ("claim work for a while, then ring again") or one of our jobs by its id. A lost or
doubled task is harmless: jobs are claimed by lease, and the sweeper rings each minute wherever work waits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.db import transaction

log = logging.getLogger(__name__)

DEFAULT, GPU, IO = "iwtag", "gpu", "io"
DRAIN = "tagging.tasks.drain"
_sweeps: list[Callable[[], object]] = []


def defer(path: str, *args: object, cluster: str | None = None) -> None:
    """Have a worker call the function at dotted `path` with `args`, once the current transaction is committed.

    A queue out of reach is logged and never breaks the caller: the ledger has the work, the sweeper will ring.
    """
    transaction.on_commit(lambda: _push(path, args, cluster), robust=True)


def _push(path: str, args: tuple[object, ...], cluster: str | None) -> bool:
    from django_q.tasks import async_task

    try:
        async_task(path, *args, cluster=cluster or DEFAULT, ack_failure=True, save=False, task_name=path[-90:])
    except Exception:
        log.exception("the queue could not be reached; the sweeper will try again")
        return False
    return True


def waiting(queue: str) -> int:
    """How many tasks wait in the broker. 0 when it cannot be reached."""
    from django_q.brokers import get_broker

    try:
        return int(get_broker(queue).queue_size())
    except Exception:
        log.exception("the queue %s could not be reached", queue)
        return 0


def kick(queue: str, n: int = 1) -> None:
    """Ring for work on `queue`, after commit: at least `n` drain tokens are waiting then."""

    def ring() -> None:
        for _ in range(max(0, n - waiting(queue))):
            if not _push(DRAIN, (queue,), queue):
                return

    transaction.on_commit(ring, robust=True)


def register_sweep(func: Callable[[], object]) -> Callable[[], object]:
    """Have `func` called each minute on the default cluster: it queues again what a death left behind."""
    if func not in _sweeps:
        _sweeps.append(func)
    return func


def run_sweeps() -> None:
    """Call all registered sweeps; one that fails does not stop the others."""
    for func in _sweeps:
        try:
            func()
        except Exception:
            log.exception("sweep %s", getattr(func, "__qualname__", func))


def connect_hooks() -> None:
    """Called once by the app's ready()."""
