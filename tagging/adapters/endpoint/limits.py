"""How many requests one endpoint gets at once: more while it answers, half when it says it is too much.

One `Limiter` is shared by everything in this process that asks the same server with the same key. The number in flight
is halved at a 429 (once a burst, not once a reply) and raised by one after a few successes in a row; while the server
wants a pause nobody asks. Requests and tokens per minute are counted over the last 60 seconds and never exceeded.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

#: Successes in a row after which one more request may be in flight, at most; while few are allowed, as many as those.
SUSTAINED = 5
#: Longest pause between two tries, and the first one; seconds.
LONGEST_PAUSE = 60.0
FIRST_PAUSE = 0.5
#: Below this share of the server's own quota, fewer requests are sent before it has to refuse any.
LOW_QUOTA = 0.1
MINUTE = 60.0


class Closed(Exception):
    """Whoever waited is no longer wanted."""


@dataclass(slots=True)
class Ticket:
    """A request that may be sent now."""

    began: float
    tokens: int
    entry: list[float]


class Limiter:
    """Thread-safe. `most` is the highest number in flight; the limits per minute are 0 where there are none."""

    def __init__(self, most: int, per_minute: int = 0, tokens_per_minute: int = 0) -> None:
        self._changed = threading.Condition()
        self.most, self.per_minute, self.tokens_per_minute = most, per_minute, tokens_per_minute
        self.limit = most
        self.in_flight = 0
        self.cuts = 0
        self._successes = 0
        self._refusals = 0  # in a row
        self._cut_at = -1.0
        self._not_before = 0.0
        self._mean_tokens = 0.0
        self._log: deque[list[float]] = deque()  # [time, tokens] of the last minute's requests
        self._logged_tokens = 0.0

    def configure(self, most: int, per_minute: int, tokens_per_minute: int) -> None:
        """Other limits from now on; what was learnt stays, as far as it fits."""
        with self._changed:
            if self.limit == self.most or self.limit > most:
                self.limit = most
            self.most, self.per_minute, self.tokens_per_minute = most, per_minute, tokens_per_minute
            self._changed.notify_all()

    def acquire(self, tokens: int, closed: Callable[[], bool]) -> Ticket:
        """Wait until a request of about that many tokens may be sent. Raises Closed once `closed` says so."""
        with self._changed:
            while True:
                if closed():
                    raise Closed
                now = time.monotonic()
                wait = self._wait(now, tokens)
                if wait <= 0:
                    break
                self._changed.wait(min(wait, 0.5))
            self.in_flight += 1
            guess = float(max(tokens, self._mean_tokens))
            entry = [now, guess]
            self._log.append(entry)
            self._logged_tokens += guess
            return Ticket(now, tokens, entry)

    def _wait(self, now: float, tokens: int) -> float:
        """Seconds until it is worth looking again; 0: go."""
        if self.in_flight >= self.limit:
            return 0.5
        if now < self._not_before:
            return self._not_before - now
        while self._log and now - self._log[0][0] >= MINUTE:
            self._logged_tokens -= self._log.popleft()[1]
        if not self._log:
            self._logged_tokens = 0.0
            return 0.0
        oldest = max(0.01, self._log[0][0] + MINUTE - now)
        if self.per_minute and len(self._log) >= self.per_minute:
            return oldest
        needed = max(tokens, self._mean_tokens)
        if self.tokens_per_minute and self._logged_tokens + needed > self.tokens_per_minute:
            return oldest
        return 0.0

    def _leave(self, ticket: Ticket) -> None:
        self.in_flight -= 1
        self._changed.notify_all()

    def succeeded(self, ticket: Ticket, tokens: int = 0, remaining: float | None = None) -> None:
        """It was answered, with that many tokens in all. `remaining`: the share of the server's quota that is left."""
        with self._changed:
            if tokens:
                self._logged_tokens += tokens - ticket.entry[1]
                ticket.entry[1] = float(tokens)
                self._mean_tokens = tokens if not self._mean_tokens else 0.9 * self._mean_tokens + 0.1 * tokens
            self._refusals = 0
            if remaining is not None and remaining < LOW_QUOTA:
                self._cut(ticket)
            elif self.limit < self.most:
                self._successes += 1
                if self._successes >= min(self.limit, SUSTAINED):
                    self._successes, self.limit = 0, self.limit + 1
            self._leave(ticket)

    def refused(self, ticket: Ticket, retry_after: float | None = None) -> None:
        """The server said 429 (or 503 with a time): half as many from now on, and none before that time is over."""
        with self._changed:
            now = time.monotonic()
            if self._cut(ticket):
                self._refusals += 1
            pause = retry_after if retry_after is not None else backoff(self._refusals)
            self._not_before = max(self._not_before, now + pause)
            self._leave(ticket)

    def failed(self, ticket: Ticket) -> None:
        """It came to nothing for another reason."""
        with self._changed:
            self._successes = 0
            self._leave(ticket)

    def _cut(self, ticket: Ticket) -> bool:
        """Halve, unless this request was sent before the last cut: then it belongs to the same burst."""
        self._successes = 0
        if ticket.began <= self._cut_at:
            return False
        self._cut_at = time.monotonic()
        self.limit = max(1, self.limit // 2)
        self.cuts += 1
        return True


def backoff(tries: int) -> float:
    """Seconds to wait after that many failures: doubling, with jitter so that many do not come back at once."""
    return float(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** max(0, min(tries, 20) - 1)) * random.uniform(0.5, 1.0))


_LIMITERS: dict[tuple[str, str], Limiter] = {}
_LOCK = threading.Lock()


def limiter(address: str, key_digest: str, most: int, per_minute: int, tokens_per_minute: int) -> Limiter:
    """The limiter of a server and key in this process."""
    with _LOCK:
        found = _LIMITERS.get((address, key_digest))
        if found is None:
            found = _LIMITERS[(address, key_digest)] = Limiter(most, per_minute, tokens_per_minute)
        else:
            found.configure(most, per_minute, tokens_per_minute)
        return found


def forget() -> None:
    """Nothing was learnt (tests)."""
    with _LOCK:
        _LIMITERS.clear()
