"""Judges at work are watched: the lease is kept while answers come, and a call that hangs is noticed and given back."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType

from django.db import connection

from tagging.engine import heartbeat, leases

log = logging.getLogger(__name__)

#: what a death that nobody could tell of (another host's) costs at the most; renewed long before
LEASE = timedelta(seconds=2 * leases.LEASE)
#: seconds without an answer after which a call counts as hung; loading a model may take as long as in a run
HANG = float(os.environ.get("IWTAG_JUDGE_HANG_SECONDS", "240"))


class Watch:
    """While a stage works: `renew` is called in time (False: the job is no longer ours), `hung` once, with the seconds
    of silence, when no progress was told for too long. Both in a thread of their own."""

    def __init__(self, renew: Callable[[], bool], hung: Callable[[float], None]) -> None:
        self._renew, self._hung = renew, hung
        self._over = threading.Event()
        self._mark, self._limit = time.monotonic(), HANG
        self._thread = threading.Thread(target=self._run, daemon=True, name="judge watch")

    def progress(self, loading: bool = False) -> None:
        self._mark, self._limit = time.monotonic(), max(HANG, heartbeat.STALL) if loading else HANG

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        step = min(LEASE.total_seconds() / 3, HANG / 3)
        try:
            while not self._over.wait(step):
                silent = time.monotonic() - self._mark
                if silent > self._limit:
                    self._hung(silent)
                    return
                try:
                    if not self._renew():
                        return
                except Exception as error:
                    log.warning("the lease of a judge could not be renewed: %s", error)
                    connection.close()  # the next try gets a fresh connection
        finally:
            connection.close()
