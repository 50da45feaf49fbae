"""A worker's signs of life: its row in Worker, the lease of the chunk in hand, and the end of a process that hangs."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from datetime import datetime, timedelta

from django.db import connection
from django.utils import timezone

from ..models import Chunk, UnloadRequest, Worker
from . import leases
from .owners import host, owner_alive, owner_id
from .residency import MODELS

log = logging.getLogger(__name__)

BEAT = 5.0
#: Seconds between two looks at the clock and at what people ask for.
TICK = 1.0
#: Seconds without a finished batch or load after which the process ends itself: nothing else ends a hung call.
STALL = float(os.environ.get("IWTAG_STALL_SECONDS", "600"))


class Heart:
    """One per worker process. `holding` a chunk renews its lease and watches for progress; `progress()` says there was
    some; `lost` is True when the lease turned out to be gone."""

    def __init__(self) -> None:
        self.lost = False
        self.doing = ""
        self._chunk: Chunk | None = None
        self._mark = time.monotonic()
        self._thread: threading.Thread | None = None
        self._queue = ""
        self._told = 0  # how many loaded models the row names

    def start(self, queue: str) -> None:
        """Begin to beat, in a thread of its own. Once per process, after the fork."""
        self._queue = queue
        self._thread = threading.Thread(target=self._run, daemon=True, name="heartbeat")
        self._thread.start()

    @contextlib.contextmanager
    def holding(self, chunk: Chunk, doing: str):  # type: ignore[no-untyped-def]
        """For the time of working on a chunk."""
        self.lost, self._mark, self.doing, self._chunk = False, time.monotonic(), doing, chunk
        try:
            yield self
        finally:
            self._chunk, self.doing = None, ""

    def progress(self) -> None:
        self._mark = time.monotonic()

    def _run(self) -> None:
        started = timezone.now()
        next_beat = next_renewal = 0.0
        step = min(TICK, leases.LEASE / 3, STALL / 3)
        try:
            while True:
                now = time.monotonic()
                self._check_stall(now)
                with contextlib.suppress(Exception):
                    if now >= next_renewal:
                        self._renew()
                        next_renewal = now + leases.LEASE / 3
                    if self._tidy() or now >= next_beat or len(MODELS) != self._told:
                        self._write(started)
                        next_beat = now + BEAT
                time.sleep(step)
        finally:
            connection.close()

    def _tidy(self) -> bool:
        """Unload what is idle, and what people asked to be unloaded; True when something changed."""
        if not len(MODELS):
            return False
        asked = UnloadRequest.objects.filter(owner=owner_id())
        wanted = dict(asked.values_list("pk", "model_key"))
        gone = MODELS.tidy(wanted.values())
        # an answered request goes: what it named is not here any more ("" stands for everything)
        done = [pk for pk, key in wanted.items() if (key not in MODELS if key else not len(MODELS))]
        if done:
            asked.filter(pk__in=done).delete()
        return bool(gone)

    def _check_stall(self, now: float) -> None:
        if self._chunk is not None and now - self._mark > STALL:
            log.critical("no progress for %.0f s (%s): this worker ends itself", STALL, self.doing)
            os.kill(os.getpid(), signal.SIGKILL)

    def _renew(self) -> None:
        chunk = self._chunk
        if chunk is None:
            return
        try:
            leases.renew(chunk)
        except leases.LeaseLost:
            if self._chunk is chunk:
                self.lost = True
        except Exception as e:
            log.warning("the lease could not be renewed: %s", e)
            connection.close()  # the next try gets a fresh connection
            raise

    def _write(self, started: datetime) -> None:
        summary = MODELS.summary()
        if not summary:
            UnloadRequest.objects.filter(owner=owner_id()).delete()
        try:
            Worker.objects.update_or_create(
                owner=owner_id(),
                defaults={
                    "queue": self._queue,
                    "host": host(),
                    "pid": os.getpid(),
                    "started_at": started,
                    "beat_at": timezone.now(),
                    "resident": summary,
                    "doing": self.doing[:200],
                },
            )
        except Exception as e:
            log.warning("the heartbeat could not be written: %s", e)
            connection.close()
            raise
        self._told = len(summary)


#: This process's heart.
HEART = Heart()


def remove_dead() -> int:
    """Take away the rows of workers that are gone: this host's at once, others after ten minutes of silence."""
    silent = timezone.now() - timedelta(minutes=10)
    dead = [w.owner for w in Worker.objects.all() if owner_alive(w.owner) is False or w.beat_at < silent]
    UnloadRequest.objects.exclude(owner__in=Worker.objects.values("owner")).delete()
    UnloadRequest.objects.filter(owner__in=dead).delete()
    return Worker.objects.filter(owner__in=dead).delete()[0]
