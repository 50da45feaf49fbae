"""What we lean on in django-q2 and it does not promise. When one of these fails after an upgrade, read
management/commands/qworker.py again before anything else."""

from __future__ import annotations

import inspect
import queue
import signal
from multiprocessing import Event, Value
from types import SimpleNamespace

import pytest
from django.conf import settings
from django_q import cluster
from django_q.conf import Conf
from django_q.signals import post_spawn
from django_q.worker import worker

from tagging.engine import process
from tagging.management.commands import qworker


@pytest.fixture
def signals():
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def hardened(monkeypatch):
    monkeypatch.setattr(cluster, "Sentinel", cluster.Sentinel)  # put back afterwards
    return qworker.harden()


def member(alive: bool, timer: float = -1) -> SimpleNamespace:
    return SimpleNamespace(is_alive=lambda: alive, timer=Value("f", timer), exitcode=None if alive else -9, name="x")


def guarded_once(monkeypatch, **members):
    """A sentinel that looks once at these members, and whom it wants to replace."""
    monkeypatch.setattr(cluster, "Stat", lambda _: SimpleNamespace(save=lambda: None))
    stop, replaced = Event(), []
    stop.set()

    class Once(cluster.Sentinel):
        def reincarnate(self, process):
            replaced.append(process)

        def stop(self):
            pass

    sentinel = Once(stop, Event(), SimpleNamespace(hex="0" * 32), broker=SimpleNamespace(list_key="x"), start=False)
    sentinel.pool = [members.get("worker", member(True))]
    sentinel.monitor = members.get("monitor", member(True))
    sentinel.pusher = members.get("pusher", member(True))
    sentinel.guard()
    return replaced


@pytest.mark.parametrize("who", ["worker", "monitor", "pusher"])
def test_the_guard_asks_reincarnate_to_replace_whoever_died(monkeypatch, signals, who):
    dead = member(False)
    assert guarded_once(monkeypatch, **{who: dead}) == [dead]
    assert guarded_once(monkeypatch) == []


def test_the_pool_is_forked_as_worker_monitor_pusher():
    source = inspect.getsource(cluster.Sentinel.spawn_cluster)
    assert source.index("spawn_worker") < source.index("spawn_monitor") < source.index("spawn_pusher")


def test_an_unplanned_death_ends_the_sentinel_and_a_planned_one_does_not(monkeypatch, hardened, signals):
    ended, replaced = [], []
    monkeypatch.setattr(qworker.os, "_exit", ended.append)
    monkeypatch.setattr(cluster.Sentinel.__mro__[1], "reincarnate", lambda self, p: replaced.append(p))
    sentinel = object.__new__(cluster.Sentinel)
    recycled = member(False, timer=-2)
    sentinel.reincarnate(recycled)
    assert (ended, replaced) == ([], [recycled])
    sentinel.reincarnate(member(False))
    assert ended == [75]


def test_a_signal_only_sets_the_flag(hardened, signals):
    made = hardened()
    try:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert process.stopping()
        assert made.sentinel is None  # nothing was touched
    finally:
        process.take_back_stop()


def test_post_spawn_is_sent_in_the_worker_and_max_rss_recycles_it_after_the_task(monkeypatch):
    spawned, done = [], []
    monkeypatch.setattr(Conf, "MAX_RSS", None)

    def hook(**_: object) -> None:
        spawned.append(True)

    def leave() -> None:
        done.append("first")
        Conf.MAX_RSS = 1

    monkeypatch.setattr(post_spawn, "receivers", [])  # ours would start a heartbeat in this process
    post_spawn.connect(hook)
    try:
        tasks, results, timer = queue.Queue(), queue.Queue(), Value("f", -1)
        for func in (leave, lambda: done.append("second")):
            tasks.put({"id": "1", "name": "t", "func": func, "args": (), "kwargs": {}, "sync": True})
        worker(tasks, results, timer, -1)
    finally:
        post_spawn.disconnect(hook)
    assert spawned == [True]
    assert done == ["first"]
    assert timer.value == -2
    assert qworker.planned(SimpleNamespace(timer=timer))
    assert results.qsize() == 1


def test_the_settings_hold_what_the_engine_needs():
    given = settings.Q_CLUSTER
    assert given["retry"] > given["timeout"] * (2 + (given["queue_limit"] + given["bulk"]) / given["workers"]) * 0.8
    assert isinstance(given["timeout"], int)  # a float breaks every task
    assert (0.5 / given["guard_cycle"]).is_integer()  # else the guard never sees a timer at exactly zero
    assert given["save_limit"] == -1
    assert given["recycle"] >= 10**6
    for own in given["ALT_CLUSTERS"].values():
        assert (own["workers"], own["queue_limit"]) == (1, 1)
