"""Beside a download: how far it is, written about once a second, the lease, and whether the job is still ours."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.db import connection
from django.utils import timezone

from .actions.downloads import LEASE
from .engine import job_leases
from .engine.process import stopping
from .models import ModelDownload

log = logging.getLogger(__name__)
State = ModelDownload.State


class Stopped(Exception):
    """Cancelled, or taken over by another process."""


@dataclass
class Plan:
    """What has to come. `files` maps names to bytes, of those that are not here yet."""

    commit: str
    total: int
    here: int
    count: int
    files: dict[str, int] = field(default_factory=dict)

    @property
    def missing(self) -> int:
        return self.total - self.here


class Watch:
    """Writes how far it is about once a second, keeps the lease, and notices that the job is not ours any more."""

    def __init__(self, job: ModelDownload, report: Callable[[ModelDownload], None] | None = None) -> None:
        self.job, self.report = job, report
        self.stopped = False
        self._phase = ""
        self._place: Path | None = None
        self._here = self._before = 0
        self._total: int | None = None
        self._history: deque[tuple[float, int]] = deque()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="watch")

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join(10)

    def say(self, phase: str) -> None:
        self.check()
        self._phase = phase

    def begin(self, plan: Plan, place: Path) -> None:
        """From now on what grows below `place` is progress."""
        _drop_leftovers(place)
        self._before = _bytes(place, finished=True)
        self._here, self._total, self._place = plan.here, plan.total, place
        self._write(bytes_total=plan.total, files=plan.count, commit=plan.commit)
        self.say("downloading")

    def check(self) -> None:
        """Stopped once the job is no longer ours, or this process is to end."""
        if self.stopped or stopping():
            raise Stopped

    def meter(self) -> type[Any]:
        """A progress bar that shows nothing and stops the transfer when it should."""
        from huggingface_hub.utils import tqdm

        watch = self

        class Meter(tqdm):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                kwargs["disable"] = True
                super().__init__(*args, **kwargs)

            def update(self, n: float | None = 1) -> bool | None:
                watch.check()
                return None

        return Meter

    def finish(self, state: str, error: str = "", **more: Any) -> None:
        self._over.set()
        self._write(
            state=state,
            error=error,
            phase="",
            owner="",
            lease_until=None,
            rate=None,
            finished_at=timezone.now(),
            **more,
        )

    def _run(self) -> None:
        try:
            while not self._over.wait(0.7):
                try:
                    self._write(phase=self._phase, lease_until=timezone.now() + LEASE, **self._progress())
                except Stopped:
                    return
                except Exception as e:  # the database is away for a moment: the transfer goes on
                    log.warning("the progress could not be written: %s", e)
                    connection.close()
        finally:
            connection.close()

    def _progress(self) -> dict[str, Any]:
        if self._place is None or self._total is None:
            return {}
        now = time.monotonic()
        done = min(self._total, self._here + max(0, _bytes(self._place) - self._before))
        self._history.append((now, done))
        while len(self._history) > 2 and now - self._history[0][0] > 10:
            self._history.popleft()
        since, then = self._history[0]
        rate = (done - then) / (now - since) if now - since > 1 else None
        return {"bytes_done": done, **({"rate": max(0.0, rate)} if rate is not None else {})}

    def _write(self, **values: Any) -> None:
        """Fenced by the token: Stopped once the job is no longer ours."""
        ours = job_leases.ours(self.job, state=State.RUNNING)
        if not ours.update(**values):
            self.stopped = True
            raise Stopped
        for name, value in values.items():
            setattr(self.job, name, value)
        if self.report:
            self.report(self.job)


def _bytes(place: Path, *, finished: bool = False) -> int:
    """What the files below a folder hold; links count nothing. `finished` leaves out what is still coming."""
    total = 0
    for path in place.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_symlink() or not path.is_file() or (finished and path.suffix in (".part", ".incomplete")):
                continue
            total += path.stat().st_size
    return total


def _drop_leftovers(place: Path) -> None:
    """Temporary files of huggingface_hub that no process writes any more: it never uses them again."""
    for path in place.rglob("*.incomplete"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > 600:
                path.unlink()
