"""Many questions at once: threads that outlive no stop, answers as they come."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ..base import Handle

#: Seconds after which a waiting stream shows that it lives.
TICK = 0.5


def stream(
    items: Iterator[tuple[Handle, Any]], answer: Callable[[Any, Callable[[], bool]], Any], most: int
) -> Iterator[tuple[Handle, Any] | None]:
    """(handle, answer(item, closed)) of each item as soon as it is there; None while waiting.

    `answer` runs in up to `most` threads; what it raises is raised here. `items` is asked in the caller's thread, for
    one more whenever fewer than `most` are under way. Closing the generator makes `closed()` true and abandons what is
    in flight: the threads are daemons, so that a request without end keeps no process alive.
    """
    todo: queue.SimpleQueue[tuple[Handle, Any] | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[Handle, Any, BaseException | None]] = queue.SimpleQueue()
    closing = threading.Event()

    def work() -> None:
        while (task := todo.get()) is not None and not closing.is_set():
            handle, item = task
            try:
                done.put((handle, answer(item, closing.is_set), None))
            except BaseException as error:
                done.put((handle, None, error))

    threads, under_way, more = 0, 0, True
    try:
        while more or under_way:
            while more and under_way < most:
                try:
                    task = next(items)
                except StopIteration:
                    more = False
                    break
                under_way += 1
                todo.put(task)
                if threads < under_way:
                    threads += 1
                    threading.Thread(target=work, daemon=True, name=f"endpoint-{threads}").start()
                if not done.empty():
                    break
            if not under_way:
                continue
            try:
                handle, result, error = done.get(timeout=TICK)
            except queue.Empty:
                yield None
                continue
            under_way -= 1
            if error is not None:
                raise error
            yield handle, result
    finally:
        closing.set()
        for _ in range(threads):
            todo.put(None)
