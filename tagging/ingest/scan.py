"""One look at a collection: walk, compare, read what is new in threads, store, mark what vanished.

The caller's thread walks, compares and writes the database; threads read and decode. Never more than a few hundred
files are in hand, and no transaction is open while a file is touched.
"""

from __future__ import annotations

import logging
import os
import posixpath
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice

from django.db import transaction
from django.utils import timezone

from ..engine import process
from ..imaging.walk import Cursor, Found, Tree
from ..models import ImageAsset
from .jobs import Ledger
from .reading import Known, Outcome, examine

log = logging.getLogger(__name__)

#: Paths per comparison with the database: many while nothing is new, few while there is something to read, because
#: a slice can only end between two comparisons.
BATCH, READING_BATCH = 512, 32
#: Images per transaction at most.
STORE = 256
#: Seconds after which results are stored even when they are few.
STORE_SECONDS = 1.0
#: Clocks of file servers are not ours. A change further ahead than this was stamped by a clock that was wrong.
SKEW_NS = 3600 * 1_000_000_000
#: Rows per step of the search for vanished files; each may have to be asked for on a slow disk.
SWEEP = 1000


def default_threads() -> int:
    """Decoding is all CPU and releases the GIL: a thread for each core that we may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
    return max(2, min(16, cores))


class SeenIds:
    """A set of row ids, one bit each."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}

    def add(self, n: int) -> None:
        page = self._pages.get(n >> 16)
        if page is None:
            page = self._pages[n >> 16] = bytearray(8192)
        page[(n & 0xFFFF) >> 3] |= 1 << (n & 7)

    def __contains__(self, n: int) -> bool:
        page = self._pages.get(n >> 16)
        return page is not None and bool(page[(n & 0xFFFF) >> 3] & (1 << (n & 7)))


class Scan:
    """`run` does the work, or `seconds` of it. Raises jobs.Stopped when the job is no longer ours, and OSError when the
    storage cannot be written."""

    def __init__(self, ledger: Ledger, tree: Tree, *, seconds: float | None = None, threads: int | None = None) -> None:
        self.ledger, self.tree, self.tally = ledger, tree, ledger.tally
        self.collection = ledger.job.collection
        self.seconds = seconds
        self.threads = threads or default_threads()
        self._seen = SeenIds()
        self._back: list[int] = []
        self._results: list[Outcome] = []
        self._pending: set[Future[Outcome]] = set()
        self._stored_at = time.monotonic()
        self._skipped = self.tally.skipped  # before this slice, and files that vanished in its hands
        self._again = 0  # files that an earlier slice had counted in the folder where it was cut
        self._cut = ""  # that folder
        self._until: float | None = None
        self._settle_ns = ledger.job.settle_seconds * 1_000_000_000
        newest = ImageAsset.objects.filter(collection=self.collection).order_by("-id").values_list("id", flat=True)
        self._last_id = newest.first() or 0

    def run(self) -> Cursor | None:
        """None when everything was looked at; where to go on when the time was over."""
        walk = self.ledger.job.cursor.get("walk")
        cursor = Cursor(**walk) if walk else None
        if cursor:
            self._again, self._cut = cursor.files, cursor.folder
        with ThreadPoolExecutor(self.threads, thread_name_prefix="ingest") as self._pool:
            try:
                files = self.tree.walk(cursor)
                size = READING_BATCH
                while batch := list(islice(files, size)):
                    size = BATCH if self._compare(batch) else READING_BATCH
                    self.tally.skipped = self._skipped + self.tree.skipped
                    self.ledger.beat()
                    if self._time_is_up():
                        self._settle()
                        return cursor if self._again and cursor else self.tree.cursor
                self._settle()
                self.tally.skipped = self._skipped + self.tree.skipped
            except BaseException:
                self._pool.shutdown(wait=False, cancel_futures=True)
                raise
        self._mark_missing()
        return None

    def _time_is_up(self) -> bool:
        """The clock starts when the place is passed where the last slice was cut: every slice gets on."""
        if self.seconds is None:
            return False
        if process.stopping():
            return True
        if self._again:
            return False
        if self._until is None:
            self._until = time.monotonic() + self.seconds
            return False
        return time.monotonic() >= self._until

    # -- comparing --------------------------------------------------------------------------------------------------
    def _compare(self, batch: list[Found]) -> bool:
        """Hand what is new to the threads. True when nothing was."""
        new = 0
        known = self._known([f.path for f in batch])
        for found in batch:
            if self._again and found.folder != self._cut:
                self._again = 0  # files that were counted have gone since
            row = known.get(found.path)
            if row is not None:
                self._seen.add(row.id)
                read = row.sha256 or self._again  # without a hash it could not be read: once a job is enough
                if read and (found.size < 0 or (row.size == found.size and row.mtime_ns == found.mtime_ns)):
                    self._unchanged(row)
                    continue
            if self._growing(found):
                self._leave(found)
                continue
            self._submit(found, row)
            new += 1
        if self._due():
            self._store()
        return not new

    def _growing(self, found: Found) -> bool:
        """Changed within the settle time: somebody may still be writing it."""
        if not self._settle_ns or not found.changed_ns:
            return False
        return -SKEW_NS <= time.time_ns() - found.changed_ns < self._settle_ns

    def _leave(self, found: Found) -> None:
        """For the next look. Counted as left out, once."""
        self.ledger.note(f"{found.path}: left for the next look, it changed just now.")
        if self._again:
            self._again -= 1
            return
        self.tally.seen += 1
        self._skipped += 1

    def _known(self, paths: list[str]) -> dict[str, Known]:
        rows = ImageAsset.objects.filter(collection=self.collection, path__in=paths).values_list(
            "path", "id", "size", "mtime_ns", "sha256", "state", "missing_since"
        )
        return {
            path: Known(id, size, mtime_ns, sha256, state == ImageAsset.State.ERROR, missing is not None)
            for path, id, size, mtime_ns, sha256, state, missing in rows
        }

    def _unchanged(self, row: Known) -> None:
        if row.missing:
            self._back.append(row.id)
        if self._again:
            self._again -= 1
            return
        self.tally.seen += 1
        self.tally.unchanged += 1

    # -- reading ----------------------------------------------------------------------------------------------------
    def _submit(self, found: Found, row: Known | None) -> None:
        while len(self._pending) >= 3 * self.threads:
            self._collect()
        self._pending.add(self._pool.submit(examine, self.tree, found, row))

    def _collect(self) -> None:
        """Wait a moment for results; store them when there are many or it is time."""
        done, self._pending = wait(self._pending, timeout=0.5, return_when=FIRST_COMPLETED)
        for future in done:
            self._results.append(future.result())
        if self._due():
            self._store()
        self.ledger.beat()

    def _settle(self) -> None:
        while self._pending:
            self._collect()
        self._store()

    # -- storing ----------------------------------------------------------------------------------------------------
    def _due(self) -> bool:
        if len(self._results) >= STORE or len(self._back) >= STORE:
            return True
        return bool(self._results or self._back) and time.monotonic() - self._stored_at >= STORE_SECONDS

    def _store(self) -> None:
        """Everything in hand, counters and lease included, in one short transaction for each STORE results."""
        results, self._results = self._results, []
        back, self._back = self._back, []
        for start in range(0, len(results), STORE):
            self._store_some(results[start : start + STORE])
        for start in range(0, len(back), STORE):
            with transaction.atomic():
                ImageAsset.objects.filter(pk__in=back[start : start + STORE]).update(missing_since=None)
                self.ledger.write()
        self._stored_at = time.monotonic()

    def _store_some(self, results: list[Outcome]) -> None:
        present = [r for r in results if not r.gone]
        moved = self._moves([r for r in present if r.known is None and r.sha256])
        new = [self._row(r) for r in present if r.known is None and r.found.path not in moved]
        tally = self.tally
        tally.seen += len(results)
        self._skipped += len(results) - len(present)
        tally.failed += sum(1 for r in present if r.error)
        tally.moved += len(moved)
        tally.added += len(new)
        for r in present:
            if r.error:
                self.ledger.note(f"{r.found.path}: {r.error}")
            if r.known is not None and r.same:
                tally.unchanged += 1
            elif r.known is not None:
                tally.changed += 1
        with transaction.atomic():
            for r in present:
                if r.known is not None:
                    ImageAsset.objects.filter(pk=r.known.id).update(**self._columns(r))
                elif (id := moved.get(r.found.path)) is not None:
                    ImageAsset.objects.filter(pk=id).update(path=r.found.path, **self._columns(r))
            created = ImageAsset.objects.bulk_create(new)
            self.ledger.write()
        for id in [*moved.values(), *(image.pk for image in created)]:
            self._seen.add(id)

    def _columns(self, r: Outcome) -> dict[str, object]:
        stat: dict[str, object] = {"size": r.size, "mtime_ns": r.found.mtime_ns, "missing_since": None}
        return stat if r.same else {**stat, "sha256": r.sha256, **r.fields}

    def _row(self, r: Outcome) -> ImageAsset:
        columns = {"sha256": r.sha256, "size": r.size, "mtime_ns": r.found.mtime_ns, **r.fields}
        return ImageAsset(collection=self.collection, path=r.found.path, **columns)

    def _moves(self, new: list[Outcome]) -> dict[str, int]:
        """New path → the row it takes over: one with the same content whose own file is no longer there.

        A row with the same file name goes first, then one that was reviewed, then the oldest.
        """
        if not new:
            return {}
        rows: dict[str, list[tuple[int, str, str]]] = {}
        # what this scan stored or came by is there; with many equal files that spares asking for each of them
        same = ImageAsset.objects.filter(
            collection=self.collection, sha256__in={r.sha256 for r in new}, id__lte=self._last_id
        )
        for id, path, sha256, review in same.order_by("id").values_list("id", "path", "sha256", "review_state"):
            if id not in self._seen and not self._there(path):
                rows.setdefault(sha256, []).append((id, path, review))
        moved: dict[str, int] = {}
        for r in new:
            candidates = rows.get(r.sha256)
            if candidates:
                name = posixpath.basename(r.found.path)
                best = min(
                    candidates,
                    key=lambda c: (posixpath.basename(c[1]) != name, c[2] != ImageAsset.Review.REVIEWED, c[0]),
                )
                candidates.remove(best)
                moved[r.found.path] = best[0]
        return moved

    def _there(self, path: str) -> bool:
        return self.tree.has(path)

    # -- what vanished ----------------------------------------------------------------------------------------------
    def _mark_missing(self) -> None:
        """Rows that the walk did not come by, and whose file is not there when asked for. Never deleted."""
        for rows in self._present_rows():
            gone = [id for id, path in rows if id not in self._seen and not self._there(path)]
            for start in range(0, len(gone), STORE):
                some = gone[start : start + STORE]
                self.tally.missing += len(some)
                with transaction.atomic():
                    ImageAsset.objects.filter(pk__in=some).update(missing_since=timezone.now())
                    self.ledger.write()
            self.ledger.beat()

    def _present_rows(self) -> Iterator[list[tuple[int, str]]]:
        last = 0
        while True:
            rows = list(
                ImageAsset.objects.filter(collection=self.collection, missing_since=None, id__gt=last)
                .order_by("id")
                .values_list("id", "path")[:SWEEP]
            )
            if not rows:
                return
            yield rows
            last = rows[-1][0]


class Counter:
    """Counts the files of a second walk in a thread, so that the time left can be told."""

    def __init__(self, tree: Tree, ledger: Ledger) -> None:
        self._tree, self._ledger = tree, ledger
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._count, name="ingest-count", daemon=True)

    def __enter__(self) -> Counter:
        if self._ledger.total is None:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()

    def _count(self) -> None:
        try:
            self._ledger.total = self._tree.count(self._stop)
        except Exception as error:  # the walk that does the work will say what is wrong
            log.debug("counting stopped: %s", error)
