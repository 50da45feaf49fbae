from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS, connections

from tagging.engine import process

log = logging.getLogger("tagging.qworker")

#: A cluster that lived this long, in seconds, is not part of a series of deaths.
SETTLED = 5.0
#: So many deaths in series are answered at once (an image may kill its worker more than once); then it gets slower.
PATIENCE = 10


class Command(BaseCommand):
    help = (
        "Runs one worker cluster. Its processes die together; after an unplanned death of any of them the cluster "
        "starts anew. One SIGTERM or Ctrl-C ends it gracefully."
    )
    requires_system_checks = []  # they import every view: the web server runs them

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("queue", nargs="?", help=f"one of {', '.join(queues())} (default: {DEFAULT})")
        parser.add_argument(
            "--grace",
            type=float,
            default=30,
            metavar="SECONDS",
            help="how long running work may take to end when asked to stop (%(default)s)",
        )

    def handle(self, *args: Any, queue: str | None = None, grace: float = 30, **options: Any) -> None:
        if queue:
            serve_queue(queue)
        process.die_with_named_parent()
        refuse_unsafe_fork()
        run(grace)


#: What the default cluster is called here and in `up`.
DEFAULT = "default"


def queues() -> list[str]:
    """The clusters that can be run."""
    return [DEFAULT, *settings.Q_CLUSTER["ALT_CLUSTERS"]]


def environment_of(queue: str) -> str | None:
    """The value of Q_CLUSTER_NAME under which a process serves `queue`. CommandError when there is no such cluster."""
    if queue in (DEFAULT, settings.Q_CLUSTER["name"]):
        return None
    if queue not in settings.Q_CLUSTER["ALT_CLUSTERS"]:
        raise CommandError(f"There is no queue {queue!r}; the queues are {', '.join(queues())}.")
    return queue


def serve_queue(queue: str) -> None:
    """The queue's configuration is read once, when django-q2 is imported: where it is another's, start afresh."""
    wanted = environment_of(queue)
    if os.environ.get("Q_CLUSTER_NAME") == wanted:
        return
    if wanted is None:
        del os.environ["Q_CLUSTER_NAME"]
    else:
        os.environ["Q_CLUSTER_NAME"] = wanted
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def refuse_unsafe_fork() -> None:
    """Workers are forked: a device or thread pool that is in use before would be broken in all of them."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        raise CommandError(
            "CUDA was initialised before the workers were forked. Something imported by the settings or an app uses "
            "the device while it is imported: move that into the adapter's load()."
        )
    for name in sorted({"torch", "onnxruntime", "tensorflow"} & set(sys.modules)):
        log.warning("%s is imported before the workers are forked; import it in the adapter's load() instead", name)


def run(grace: float) -> None:
    """Keep one cluster alive until asked to stop; then end it, gracefully for at most `grace` seconds."""
    process.bind_children()
    keep_memory_flat()
    cluster_class = harden()
    signal.signal(signal.SIGHUP, lambda *_: process.request_stop())
    deaths = 0
    while not process.stopping():
        wait_until_reachable()
        if process.stopping():
            return
        began = time.monotonic()
        cluster = cluster_class()
        try:
            cluster.start()
        except RuntimeError as e:
            log.error("%s", e)
        while cluster.sentinel.is_alive() and not process.stopping():
            cluster.sentinel.join(0.2)
        if process.stopping():
            end(cluster, grace)
            return
        deaths = deaths + 1 if time.monotonic() - began < SETTLED else 1
        log.error("the cluster ended (code %s) and starts anew", cluster.sentinel.exitcode)
        pause(0.2 if deaths <= PATIENCE else min(10.0, 2.0 ** (deaths - PATIENCE)))


def keep_memory_flat() -> None:
    """Pages of a mapped database file count into a process's memory, and a writer gains nothing by them (measured)."""
    connection = connections[DEFAULT_DB_ALIAS]
    if connection.vendor == "sqlite":
        options = connection.settings_dict["OPTIONS"]
        options["init_command"] = f"{options.get('init_command', '')} PRAGMA mmap_size=0;"


def wait_until_reachable() -> None:
    """Return when the database and the broker answer, or when asked to stop. Leaves no connection to be inherited."""
    from django_q.brokers import get_broker

    said, seconds = "", 0.5
    while not process.stopping():
        try:
            connections[DEFAULT_DB_ALIAS].ensure_connection()
            get_broker().ping()
            return
        except Exception as e:  # each broker has errors of its own
            what = str(e).strip().partition("\n")[0] or type(e).__name__
            if what != said:
                log.error("the database or the broker cannot be reached, trying again: %s", what)
            said, seconds = what, min(5.0, seconds * 1.5)
            pause(seconds)
        finally:
            connections.close_all()


def pause(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not process.stopping():
        time.sleep(0.1)


def end(cluster: Any, grace: float) -> None:
    """Stop gracefully, and kill what has not ended after `grace` seconds.

    Cluster.stop() waits for ever on an event whose other side was killed (SIGTERM to the whole group), so it is called
    beside and the sentinel is looked at here.
    """
    limit = time.monotonic() + grace
    threading.Thread(target=cluster.stop, daemon=True, name="stop").start()
    while cluster.sentinel.is_alive():
        if time.monotonic() > limit:
            log.warning("work did not end within %g s and is cut off; what it stored is safe", grace)
            cluster.sentinel.kill()  # and with it everything below
            cluster.sentinel.join(5)
            return
        time.sleep(0.05)


def harden() -> Any:
    """django-q2's Cluster with what makes it safe: see the class comments. Returns the class to start.

    A process that dies while it reads or writes one of the cluster's queues leaves that queue locked for ever, and
    django-q2's replacement of it waits on the lock; so any unplanned death ends the sentinel, with it (`bind_children`)
    everything below, and `run` starts anew.
    """
    from django_q import cluster as django_q_cluster

    class FailFast(django_q_cluster.Sentinel):
        def guard(self) -> None:
            threading.Thread(target=self.watch, daemon=True, name="watch").start()
            super().guard()

        def watch(self) -> None:
            """Sees a death at once, and also when the guard itself waits on a lock that the dead one held."""
            from multiprocessing.connection import wait

            while not process.stopping():
                members = {p.sentinel: p for p in (*self.pool, self.monitor, self.pusher)}
                for handle in wait(list(members), 0.5):
                    if not process.stopping() and not planned(members[handle]):
                        give_up(members[handle])
                    time.sleep(0.1)

        def reincarnate(self, member: Any) -> None:
            if not planned(member):
                give_up(member)
            super().reincarnate(member)

    class FlagOnly(django_q_cluster.Cluster):
        def sig_handler(self, signum: int, frame: Any) -> None:
            """Only sets a flag: Event.set() in a handler deadlocks when a second signal comes."""
            process.request_stop()

    django_q_cluster.Sentinel = FailFast
    return FlagOnly


def planned(member: Any) -> bool:
    """A worker that ended by itself to be replaced (django-q2 marks it with -2). Reads without the lock."""
    timer = getattr(member, "timer", None)
    return timer is not None and int(timer.get_obj().value) == -2


def give_up(member: Any) -> None:
    log.critical("a process of the cluster died (code %s)", member.exitcode)
    os._exit(75)
