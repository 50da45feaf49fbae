"""Asking one loaded model many things: prepared ahead in threads, then in batches or, where the model streams, many at
once in any order. Knows nothing of runs, chunks or where answers are kept."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, NamedTuple, TypeVar

from django.db import DatabaseError, InterfaceError

from ..adapters.base import Adapter, AdapterError, ImageInput, ModelUnavailable, OutOfMemory, Reply, Request
from . import residency
from .leases import LeaseLost
from .process import stopping

log = logging.getLogger(__name__)

#: Things asked at once at most: results are written together.
LARGEST = 256
THREADS = int(os.environ.get("IWTAG_PREFETCH", "0")) or min(8, os.cpu_count() or 2)

H = TypeVar("H")
#: what was answered, by whom it was asked for; None: nothing has come for a while
Answer = tuple[H, Reply | Exception] | None


class Asked(NamedTuple, Generic[H]):
    """One question. `handle` is whatever the asker knows it by."""

    handle: H
    image: ImageInput
    request: Request


@dataclass(slots=True)
class Room:
    """How many images fit on the device at once; None until a larger batch did not."""

    largest: int | None = None

    def not_for(self, n: int) -> None:
        """The device had no room for `n` at once."""
        self.largest = max(1, n // 2)


@cache
def threads() -> ThreadPoolExecutor:
    """Those that prepare. Made after the fork, on first use."""
    return ThreadPoolExecutor(THREADS, thread_name_prefix="prepare")


def answers(
    adapter: Adapter,
    asked: Sequence[Asked[H]],
    request: Request,
    *,
    room: Room,
    go_on: Callable[[], bool],
    careful: bool = False,
    before: Callable[[H], None] | None = None,
) -> Generator[Answer[H], None, None]:
    """The answers as they come, at most one for each question; an error belongs to its question alone.

    `request` is what all share. Ends early once `go_on()` is false: what was not answered then was not asked. Yields
    None now and then while nothing comes. `careful`: one at a time, each named to `before` first. Raises
    ModelUnavailable, and whatever `go_on` raises.
    """
    with residency.MODELS.using(adapter):
        if adapter.streams and not careful:
            asked = yield from _stream(adapter, asked, request, go_on)
            careful = True  # what is left met a fault of the adapter: one by one, so that the question is found
        yield from _batches(adapter, asked, request, room, go_on, careful, before)


def _stream(
    adapter: Adapter, asked: Sequence[Asked[H]], request: Request, go_on: Callable[[], bool]
) -> Generator[Answer[H], None, Sequence[Asked[H]]]:
    """Returns what the adapter left unanswered by a fault of its own."""
    unanswered = dict(enumerate(asked))
    failed: deque[tuple[int, Exception]] = deque()
    stream = adapter.infer_stream(_feed(adapter, asked, failed, go_on), request)
    try:
        for answer in stream:
            while failed:
                number, error = failed.popleft()
                yield unanswered.pop(number).handle, error
            if answer is None:
                yield None
            else:
                number, outcome = answer
                yield unanswered.pop(number).handle, outcome
            if stopping():
                return ()
        while failed:
            number, error = failed.popleft()
            yield unanswered.pop(number).handle, error
    except (ModelUnavailable, LeaseLost, DatabaseError, InterfaceError):
        raise
    except Exception:
        log.exception("%s failed in the middle of its answers", adapter.label)
        return [unanswered[number] for number in sorted(unanswered)] if go_on() else ()
    finally:
        stream.close()  # type: ignore[attr-defined]
    return ()


def _feed(
    adapter: Adapter, asked: Sequence[Asked[H]], failed: deque[tuple[int, Exception]], go_on: Callable[[], bool]
) -> Iterator[tuple[int, Any]]:
    """Questions by their number with what was prepared of them; those that cannot be prepared go to `failed`."""
    waiting = deque(enumerate(asked))
    ahead: deque[tuple[int, Future[Any]]] = deque()
    try:
        while (waiting or ahead) and go_on():
            while waiting and len(ahead) < max(adapter.batch_size, THREADS + 1):
                number, one = waiting.popleft()
                ahead.append((number, threads().submit(adapter.prepare, one.image, one.request)))
            number, future = ahead.popleft()
            try:
                prepared = future.result()
            except Exception as e:
                failed.append((number, e))
            else:
                yield number, prepared
    finally:
        for _, future in ahead:
            future.cancel()


def _batches(
    adapter: Adapter,
    asked: Sequence[Asked[H]],
    request: Request,
    room: Room,
    go_on: Callable[[], bool],
    careful: bool,
    before: Callable[[H], None] | None,
) -> Generator[Answer[H], None, None]:
    size = 1 if careful else max(1, min(adapter.batch_size, room.largest or LARGEST, LARGEST))
    waiting = deque(asked)
    ahead: deque[tuple[H, Future[Any]]] = deque()
    try:
        while (waiting or ahead) and go_on():
            while waiting and len(ahead) < max(2 * size, THREADS + 1):
                one = waiting.popleft()
                ahead.append((one.handle, threads().submit(adapter.prepare, one.image, one.request)))
            ready: list[tuple[H, Any]] = []
            while ahead and len(ready) < size:
                handle, future = ahead.popleft()
                try:
                    ready.append((handle, future.result()))
                except Exception as e:
                    yield handle, e
            if careful and before and ready:
                before(ready[0][0])
            yield from run_batch(adapter, ready, request, room.not_for)
            size = min(size, room.largest or size)
    finally:
        for _, future in ahead:
            future.cancel()


def run_batch(
    adapter: Any, batch: Sequence[tuple[H, Any]], request: Any, no_room: Callable[[int], None]
) -> Iterator[tuple[H, Reply | Exception]]:
    """Infer a batch; when it fails as a whole, its halves, down to the single image at fault."""
    if not batch:
        return
    try:
        outcomes = list(adapter.infer([prepared for _, prepared in batch], request))
        if len(outcomes) != len(batch):
            raise AdapterError(f"The model gave {len(outcomes)} answers for {len(batch)} images")
    except ModelUnavailable:
        raise
    except Exception as e:
        if isinstance(e, OutOfMemory | MemoryError):
            if residency.MODELS.relieve(adapter):  # with its neighbours gone, the batch may fit
                yield from run_batch(adapter, batch, request, no_room)
                return
            no_room(len(batch))
        if len(batch) == 1:
            yield batch[0][0], e
            return
        half = len(batch) // 2
        yield from run_batch(adapter, batch[:half], request, no_room)
        yield from run_batch(adapter, batch[half:], request, no_room)
        return
    for (handle, _), outcome in zip(batch, outcomes, strict=True):
        yield handle, outcome


def explain(error: BaseException) -> str:
    """An error as a person reads it."""
    if isinstance(error, AdapterError):
        return error.message
    text = str(error) or "no further word"
    return f"{type(error).__name__}: {text}"
