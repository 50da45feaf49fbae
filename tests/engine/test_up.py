"""`up` and `qworker` from outside: what one signal, two signals, and the death of any of them do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

import psutil
import pytest
from django.core.management import CommandError, call_command

from .installation import Installation, allowance, family, kill, roles, until

pytestmark = pytest.mark.cluster


@pytest.fixture
def port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=10).close()
    except urllib.error.HTTPError:
        return True  # unhealthy, but there
    except OSError:
        return False
    return True


def whole(up: subprocess.Popen[bytes]) -> dict[str, psutil.Process]:
    """The children of `up` by name, once each cluster is complete."""

    def look() -> dict[str, psutil.Process]:
        found = {}
        for child in psutil.Process(up.pid).children():
            command = child.cmdline()
            name = command[command.index("manage.py") + 1]
            found[command[command.index("qworker") + 1] if name == "qworker" else name] = child
        clusters = [name for name in found if name != "web"]
        return found if len(found) == 4 and all(roles(found[name].pid) for name in clusters) else {}

    return until(look, "everything is up")


def gone(processes: list[psutil.Process], seconds: float) -> bool:
    return not psutil.wait_procs([p for p in processes if p.is_running()], timeout=seconds)[1]


def test_up_serves_restarts_what_dies_and_ends_in_mid_run(sqlite: Installation, port):
    up = sqlite.start("up", f"127.0.0.1:{port}")
    children = whole(up)
    until(lambda: f"iwtag is at http://127.0.0.1:{port}/" in sqlite.log.read_text(), "the address is printed")
    assert answers(port)
    # a child that dies comes back, and takes what it left behind with it
    below = family(children["gpu"].pid)
    kill(children["web"].pid, children["gpu"].pid)
    assert gone(below, 10)
    until(lambda: answers(port), "the web server is back")
    whole(up)
    run = sqlite.run(3000, image_ms=20)
    until(lambda: sqlite.done(run) > 0, "the run has begun")
    everything = family(up.pid)
    assert len(everything) >= 14
    began = time.monotonic()
    up.send_signal(signal.SIGINT)
    assert up.wait(30) == 0
    assert gone(everything, max(0.1, began + allowance(5) - time.monotonic())), "not all gone within 5 s of Ctrl-C"
    assert sqlite.state(run) == "running"  # it goes on at the next start
    assert sqlite.value("SELECT COUNT(*) FROM tagging_chunk WHERE state = 1") == 0  # given back, not left to expire
    assert "Traceback" not in sqlite.log.read_text()


def test_a_second_signal_kills_at_once_and_nothing_outlives_a_killed_up(sqlite: Installation, port):
    up = sqlite.start("up", f"127.0.0.1:{port}")
    whole(up)
    run = sqlite.run(20, hang=["00003.jpg"])  # no polite request reaches this worker
    until(lambda: (sqlite.calls.parent / "calls.log.hung").exists(), "the model hangs")
    everything = family(up.pid)
    began = time.monotonic()
    up.send_signal(signal.SIGINT)
    time.sleep(0.3)
    up.send_signal(signal.SIGINT)
    up.wait(10)
    assert gone(everything, allowance(2))
    assert time.monotonic() - began < allowance(3)
    up = sqlite.start("up", f"127.0.0.1:{port}")
    whole(up)
    sqlite.wait(run)  # what was cut off went on by itself
    assert sqlite.state(run) == "done"
    assert sqlite.done(run) == 20
    everything = family(up.pid)
    kill(up.pid)
    up.wait(10)
    assert gone(everything, 5)


def test_a_port_in_use_and_a_wrong_word_are_refused_before_anything_is_started():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for command in ("up", "web"):
            with pytest.raises(CommandError, match=r"is in use\. Stop what uses it, or choose another: IWTAG_PORT="):
                call_command(command, address)
    for command in ("up", "web"):
        with pytest.raises(CommandError, match="'nowhere' is not an address"):
            call_command(command, "nowhere")
    with pytest.raises(CommandError, match="There is no queue 'x'; the queues are default, gpu, io"):
        call_command("up", "0", queues="gpu,x")
    with pytest.raises(CommandError, match="There is no queue 'x'"):
        call_command("qworker", "x")


def test_a_database_out_of_reach_is_one_line(tmp_path):
    site = Installation(tmp_path, "postgres://postgres@127.0.0.1:1/none")
    up = site.start("up", "127.0.0.1:0")
    assert up.wait(60) == 1
    text = site.log.read_text()
    assert text.startswith("CommandError: The database cannot be reached:")
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize("how", ["two at once", "whole group", "hangup"])
def test_a_cluster_ends_whatever_way_it_is_asked(sqlite: Installation, how):
    """Two signals in quick succession, and a signal to every process of the group, hang a plain cluster for ever."""
    cluster = sqlite.worker()
    until(lambda: roles(cluster.pid), "the cluster is up")
    everything = family(cluster.pid)
    if how == "two at once":
        os.kill(cluster.pid, signal.SIGINT)
        os.kill(cluster.pid, signal.SIGTERM)
    elif how == "whole group":
        os.killpg(cluster.pid, signal.SIGTERM)
    else:
        os.kill(cluster.pid, signal.SIGHUP)
    assert cluster.wait(20) == 0
    assert gone(everything, 5)


def test_work_that_does_not_end_is_cut_off_after_the_grace(sqlite: Installation):
    cluster = sqlite.start("qworker", "gpu", "--grace", "1")
    until(lambda: roles(cluster.pid), "the cluster is up")
    sqlite.run(5, hang=["00001.jpg"])
    until(lambda: (sqlite.calls.parent / "calls.log.hung").exists(), "the model hangs")
    everything = family(cluster.pid)
    cluster.send_signal(signal.SIGTERM)
    assert cluster.wait(15) == 0
    assert gone(everything, 5)
    assert "is cut off" in sqlite.log.read_text()
