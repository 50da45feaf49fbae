"""The only module that knows django-q2: our tables are the ledger, the queue is only the doorbell.

A queue task is a *drain token* ("claim work for a while, then ring again") or one of our jobs by its id. A lost or
doubled task is harmless: jobs are claimed by lease, and the sweeper rings each minute wherever work waits.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from django.db import connections, transaction

log = logging.getLogger(__name__)

DEFAULT, GPU, IO = "iwtag", "gpu", "io"
DRAIN = "tagging.tasks.drain"
SWEEP = "tagging.tasks.sweep"
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
    except Exception as e:
        log.error("the queue could not be reached, the sweeper will try again: %s", e)
        return False
    return True


def waiting(queue: str) -> int:
    """How many tasks wait in the broker. 0 when it cannot be reached."""
    from django_q.brokers import get_broker

    try:
        return int(get_broker(queue).queue_size())
    except Exception as e:
        log.error("the queue %s could not be reached: %s", queue, e)
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


def pass_on(queue: str) -> None:
    """A worker's own token, at the end of a drain that left work: the number of tokens is conserved, and capped."""
    from django_q.conf import Conf

    if waiting(queue) < 4 * Conf.WORKERS:
        _push(DRAIN, (queue,), queue)


def replace_worker() -> None:
    """Have this worker process end after its task and a fresh one take its place; the cluster is not disturbed."""
    from django_q.conf import Conf

    Conf.MAX_RSS = 1  # compared after each task with what the process ever held: always more


def cluster_name() -> str:
    """The queue that this process's cluster serves."""
    return os.environ.get("Q_CLUSTER_NAME") or DEFAULT


# -- in the worker process --------------------------------------------------------------------------------------------
def connect_hooks() -> None:
    """Called once by the app's ready()."""
    from django_q.signals import post_spawn

    post_spawn.connect(_on_worker_spawn, dispatch_uid="tagging.spawn")


def _on_worker_spawn(**_: object) -> None:
    """First thing in a new worker: what a dead one held goes on at once. An exception here would kill the worker."""
    from .engine import heartbeat, leases

    name = cluster_name()
    try:
        released = leases.release_dead()
        if released:
            log.warning("released %d leases of workers that died", released)
        if name == DEFAULT:
            _schedule_sweeper()
            run_sweeps()
        elif leases.claimable(name).exists():
            _push(DRAIN, (name,), name)
        heartbeat.HEART.start("default" if name == DEFAULT else name)
    except Exception:
        log.exception("starting the worker of %s", name)
    finally:
        connections.close_all()


def _schedule_sweeper() -> None:
    from django_q.models import Schedule

    Schedule.objects.update_or_create(
        name="iwtag sweeper",
        defaults={"func": SWEEP, "schedule_type": Schedule.MINUTES, "minutes": 1, "repeats": -1, "cluster": None},
    )


def sweep_runs() -> None:
    """Ring where chunks wait, close runs whose last chunk raced, forget workers that are gone."""
    from .engine import heartbeat, leases
    from .models import Chunk, Run

    leases.release_dead()
    leases.open_waiting(Chunk.objects.filter(run__state=Run.State.RUNNING))
    for name in (GPU, IO, DEFAULT):
        if leases.claimable(name).exists() and not waiting(name):
            _push(DRAIN, (name,), name)
    for pk in Run.objects.filter(state=Run.State.RUNNING).values_list("pk", flat=True):
        leases.finish(pk)
    heartbeat.remove_dead()


register_sweep(sweep_runs)
