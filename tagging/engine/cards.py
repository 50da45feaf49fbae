"""One worker on a card at a time: a lock file per card, held while one of its models is loaded there.

The clusters are set up so that each card has one worker; this is the second guard, against a second cluster started by
mistake or a worker of another service with the same data folder. Cards are named by their UUID, so that device numbers
may differ from process to process (CUDA_VISIBLE_DEVICES). Where the system has no file locks there is no guard.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from django.conf import settings

from ..adapters.base import ModelUnavailable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

#: Seconds to wait for another process to let go of a card.
WAIT = float(os.environ.get("IWTAG_GPU_WAIT_SECONDS", "300"))
_UUID = re.compile(r"GPU UUID:\s*(GPU-[0-9a-f-]+)", re.IGNORECASE)


class Cards:
    """The cards that this process holds."""

    def __init__(self, folder: Path | None = None, name_of: Callable[[str], str] | None = None) -> None:
        self._folder, self._name_of = folder, name_of or card_name
        self._held: dict[str, IO[str]] = {}

    def take(
        self,
        place: str,
        owner: str,
        *,
        busy: Callable[[str], None] = lambda owner: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Hold the card of a place ("cuda:1"); nothing happens for other places, or when it is held already.

        While another process has it, `busy` is told who about once a second, until that lets go. ModelUnavailable after
        WAIT seconds or once `stop()` is true.
        """
        if fcntl is None or not place.startswith("cuda") or place in self._held:
            return
        path = (self._folder or settings.DATA_DIR / "locks") / f"{self._name_of(place)}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("a+", encoding="utf-8")
        end = time.monotonic() + WAIT
        try:
            while not _locked(stream):
                if time.monotonic() > end or stop():
                    raise ModelUnavailable(
                        f"The card {place} is in use by another worker ({_owner(stream) or 'unknown'}) of this "
                        "installation. Stop one of the two, or give their models different devices (cuda:0, cuda:1)."
                    )
                busy(_owner(stream))
                time.sleep(min(1.0, WAIT / 10))
        except BaseException:
            stream.close()
            raise
        stream.seek(0)
        stream.truncate()
        stream.write(owner)
        stream.flush()
        self._held[place] = stream

    def leave(self, place: str) -> None:
        """Let go of it; the lock ends with the process anyway."""
        if stream := self._held.pop(place, None):
            with contextlib.suppress(OSError):
                stream.seek(0)
                stream.truncate()
            stream.close()

    @property
    def held(self) -> list[str]:
        return sorted(self._held)


def _locked(stream: IO[str]) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _owner(stream: IO[str]) -> str:
    """Who wrote that they hold it."""
    with contextlib.suppress(OSError, ValueError):
        stream.seek(0)
        return stream.read(200).strip()
    return ""


def card_name(place: str) -> str:
    """A name that all processes of this machine have for the card: its UUID, else its number."""
    index = int(place.partition(":")[2] or 0)
    visible = [v.strip() for v in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if v.strip()]
    if visible and index < len(visible):
        if not visible[index].isdecimal():
            return re.sub(r"[^\w-]", "_", visible[index])
        index = int(visible[index])
    found = uuids()
    return found[index] if index < len(found) else f"gpu-{index}"


def uuids(folder: Path = Path("/proc/driver/nvidia/gpus")) -> list[str]:
    """UUIDs of NVIDIA's cards in the order of their bus addresses; empty without its driver."""
    found = []
    for path in sorted(folder.glob("*/information")):
        with contextlib.suppress(OSError):
            if match := _UUID.search(path.read_text(encoding="utf-8", errors="replace")):
                found.append(match[1])
    return found
