"""Who works on a job: "host|pid|start time"."""

from __future__ import annotations

import os
import socket


def owner_id() -> str:
    return f"{socket.gethostname()}|{os.getpid()}|0"


def owner_alive(owner: str) -> bool:
    """False only when the process is surely gone."""
    host, pid, _ = owner.split("|")
    if host != socket.gethostname():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
