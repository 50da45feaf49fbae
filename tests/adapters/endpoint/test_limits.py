"""A server that says it is too much gets less, nothing is lost, and once it answers it gets more again."""

from __future__ import annotations

import email.utils
import threading
import time
from itertools import pairwise

import pytest

from tagging.adapters.base import AdapterError, ModelUnavailable, Reply
from tagging.adapters.endpoint import limits
from tagging.adapters.endpoint.client import retry_after
from tests.fakes.lying_server import LyingServer, Say, Status

from .conftest import ask


@pytest.mark.parametrize("after", [None, "0.2"])
def test_a_burst_of_429_loses_nothing(endpoint, server, after):
    server.next(*[Say("ok") for _ in range(4)], *[Status(429, "slow down", retry_after=after) for _ in range(20)])
    server.always(Say("ok", seconds=0.02))
    adapter = endpoint(concurrency=8)
    replies = ask(adapter, 80)
    assert [r.text for r in replies if isinstance(r, Reply)] == ["ok"] * 80
    limiter = adapter._client.limiter
    assert limiter.cuts >= 1
    assert limiter.limit == 8  # and the rate is what it was
    assert limiter.in_flight == 0


def test_nobody_asks_before_the_time_that_the_server_named(endpoint, server):
    server.next(Status(429, retry_after="1"))
    ask(endpoint(concurrency=1), 2)
    assert server.asked[1].at - server.asked[0].at >= 0.99


def test_503_with_a_time_is_a_429(endpoint, server):
    server.next(Status(503, retry_after="0.3"))
    ask(endpoint(retries=0))
    assert server.asked[1].at - server.asked[0].at >= 0.29


def test_a_server_that_never_has_room_is_given_up_after_a_while(endpoint, server):
    server.always(Status(429, "slow down"))
    (error,) = ask(endpoint(patience=0.3))
    assert isinstance(error, AdapterError)
    assert not error.permanent
    assert "too many requests" in error.message


def test_a_burst_halves_once():
    limiter = limits.Limiter(16)
    tickets = [limiter.acquire(1, lambda: False) for _ in range(16)]
    for ticket in tickets:
        limiter.refused(ticket, 0.0)
    assert limiter.limit == 8
    limiter.refused(limiter.acquire(1, lambda: False), 0.0)
    assert limiter.limit == 4


def test_success_brings_one_more_at_a_time():
    limiter = limits.Limiter(16)
    limiter.refused(limiter.acquire(1, lambda: False), 0.0)
    seen = []
    for _ in range(60):
        limiter.succeeded(limiter.acquire(1, lambda: False))
        seen.append(limiter.limit)
    assert seen[:6] == [8, 8, 8, 8, 9, 9]
    assert seen[-1] == 16
    assert all(b - a in (0, 1) for a, b in pairwise(seen))


def test_it_never_falls_below_one():
    limiter = limits.Limiter(2)
    for _ in range(5):
        limiter.refused(limiter.acquire(1, lambda: False), 0.0)
    assert limiter.limit == 1


def test_fewer_are_sent_before_the_quota_is_used_up(endpoint, server):
    headers = {"x-ratelimit-limit-requests": "100", "x-ratelimit-remaining-requests": "3"}
    server.always(Say(headers=headers))
    adapter = endpoint(concurrency=16)
    ask(adapter)
    assert adapter._client.limiter.limit == 8


def test_requests_per_minute_are_never_exceeded(monkeypatch):
    monkeypatch.setattr(limits, "MINUTE", 1.0)
    limiter = limits.Limiter(100, per_minute=5)
    began = time.monotonic()
    times = []
    for _ in range(13):
        ticket = limiter.acquire(1, lambda: False)
        times.append(time.monotonic() - began)
        limiter.succeeded(ticket)
    assert all(sum(t <= u < t + 0.99 for u in times) <= 5 for t in times)


def test_tokens_per_minute_are_counted_as_they_come(monkeypatch):
    monkeypatch.setattr(limits, "MINUTE", 1.0)
    limiter = limits.Limiter(100, tokens_per_minute=1000)
    began = time.monotonic()
    for _ in range(4):
        limiter.succeeded(limiter.acquire(10, lambda: False), 450)
    assert time.monotonic() - began >= 0.9  # two fit: the estimate of 10 was corrected


def test_two_that_ask_the_same_server_with_the_same_key_share_its_room():
    one = limits.limiter("http://a", "k", 8, 0, 0)
    assert limits.limiter("http://a", "k", 8, 0, 0) is one
    assert limits.limiter("http://a", "other", 8, 0, 0) is not one
    one.refused(one.acquire(1, lambda: False), 0.0)
    assert limits.limiter("http://a", "k", 8, 0, 0).limit == 4  # what was learnt stays
    assert limits.limiter("http://a", "k", 2, 0, 0).limit == 2


def test_whoever_waits_can_be_told_to_stop():
    limiter = limits.Limiter(1)
    limiter.acquire(1, lambda: False)
    with pytest.raises(limits.Closed):
        limiter.acquire(1, lambda: True)


def test_a_stream_that_is_closed_abandons_what_is_in_flight(endpoint, server):
    from tagging.adapters.base import NO_IMAGE, Request

    server.always(Say(seconds=30))
    adapter = endpoint(concurrency=4)
    request = Request(adapter.options(), prompt="x")
    stream = adapter.infer_stream(((i, adapter.prepare(NO_IMAGE, request)) for i in range(9)), request)
    assert next(stream) is None  # it lives
    began = time.monotonic()
    stream.close()
    assert time.monotonic() - began < 5


def test_waiting_times_of_every_form():
    soon = email.utils.format_datetime(email.utils.localtime().astimezone())
    assert retry_after({}) is None
    assert retry_after({"retry-after": "2.5"}) == 2.5
    assert retry_after({"retry-after-ms": "250"}) == 0.25
    assert retry_after({"retry-after": soon}) == pytest.approx(0, abs=2)
    assert retry_after({"retry-after": "soon"}) is None


def test_pauses_grow_and_differ():
    pauses = [limits.backoff(n) for n in (1, 4, 8, 30)]
    assert pauses == sorted(pauses)
    assert pauses[-1] <= limits.LONGEST_PAUSE
    assert len({limits.backoff(5) for _ in range(5)}) > 1


def test_a_server_that_loads_its_model_is_waited_for(endpoint, server):
    began = time.monotonic()
    server.always(lambda asked: Status(503, "Loading model") if time.monotonic() - began < 0.3 else Say())
    assert [r.text for r in ask(endpoint(retries=0), 4)] == ["ok"] * 4


def test_a_server_that_goes_away_in_the_middle_is_waited_for(endpoint, server):
    adapter = endpoint(retries=1, patience=30)
    assert ask(adapter)[0].text == "ok"
    server.close()
    started: list[LyingServer] = []
    back = threading.Timer(1.0, lambda: started.append(LyingServer(server.port)))
    back.start()
    try:
        assert [r.text for r in ask(adapter, 3)] == ["ok"] * 3
    finally:
        back.join()
        for again in started:
            again.close()


def test_one_that_stays_away_fails_the_run_with_its_words(endpoint, server):
    server.always(Status(503, "Loading model"))
    with pytest.raises(ModelUnavailable, match="Loading model"):
        ask(endpoint(retries=1, concurrency=2), 4)
