"""What worker processes share with those that started them: a stop flag, and dying together.

Nothing here may raise, log or take a lock: it runs in signal handlers and between fork and the child's first line.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
import threading
import time

#: One byte of shared memory, inherited over fork. No lock guards it, so that no kill can leave it locked.
_stop = mmap.mmap(-1, 1)
_PR_SET_PDEATHSIG = 1
#: Environment variable that names the process with which a started one is to die.
PARENT = "IWTAG_PARENT_PID"
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None
_forking = os.getpid()  # who forks, as its child will see it


def stopping() -> bool:
    """True once this process, or the one it was forked from, was asked to stop. Work in slices and ask often."""
    return _stop[0] == 1


def request_stop() -> None:
    """Ask this process and all forked from it, before or after, to stop."""
    _stop[0] = 1


def take_back_stop() -> None:
    """Undo `request_stop`, for processes that outlive it (tests)."""
    _stop[0] = 0


def die_with_parent(parent: int) -> None:
    """From now on this process is killed as soon as process `parent`, which must be its parent, is gone."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os.kill(os.getpid(), signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True, name="parent-watch").start()


def die_with_named_parent() -> None:
    """Die with the parent that the environment names, if any. Call once, early."""
    if parent := os.environ.pop(PARENT, ""):
        die_with_parent(int(parent))


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def bind_children() -> None:
    """All processes forked from here on, and those forked from them, die with the one that forked them."""
    os.register_at_fork(before=_remember, after_in_child=_bind)


def _remember() -> None:
    global _forking
    _forking = os.getpid()


def _bind() -> None:
    die_with_parent(_forking)
