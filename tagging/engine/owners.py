"""Who holds a lease: a process on a host, told apart from a later one that got the same number."""

from __future__ import annotations

import os
import socket
import sys
import time
from functools import cache


def host() -> str:
    """This machine's name in owners; IWTAG_HOST_NAME where several share one."""
    return os.environ.get("IWTAG_HOST_NAME") or socket.gethostname()


def _start(pid: int) -> str | None:
    """When the process began, in the system's own unit; None when it is gone or dead but not yet reaped."""
    if sys.platform != "linux":
        return _start_elsewhere(pid)
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            fields = f.read().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


@cache
def _born() -> str:
    return str(int(time.time()))


def _start_elsewhere(pid: int) -> str | None:
    """Without /proc only our own start is known; of others, whether they live."""
    if pid == os.getpid():
        return _born()
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return "?"


def owner_id(pid: int | None = None) -> str:
    """ "host|pid|start time" of this process (or another of this host)."""
    pid = pid or os.getpid()
    return f"{host()}|{pid}|{_start(pid)}"


def owner_alive(owner: str) -> bool | None:
    """Does that process still live? None when it is on another host: only its lease can tell."""
    try:
        where, pid, start = owner.rsplit("|", 2)
        number = int(pid)
    except ValueError:
        return False
    if where != host():
        return None
    now = _start(number)
    return now is not None and now in (start, "?")
