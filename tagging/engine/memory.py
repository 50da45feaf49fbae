"""How much memory a device has free, and what a process still holds of it after its models are gone.

torch is asked only where an adapter has imported it; a process without it knows of cards nothing but that they exist.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from pathlib import Path
from typing import Any

from ..adapters.base import Adapter

#: What a process may still hold of a card, or have grown by, after its models are gone, before it counts as a leak.
TOLERATED = 512 << 20


def likely_place(adapter: Adapter) -> str:
    """Where the adapter will load: its own word, "auto" resolved by what this machine has."""
    place = adapter.place
    if place != "auto":
        return place
    return "cuda:0" if _cuda() or Path("/dev/nvidia0").exists() else "cpu"


def real_place(adapter: Adapter) -> str:
    """Where a loaded adapter computes: what its provider says, else where it was to go."""
    said = adapter.provider.lower()
    if not adapter.place or not said:
        return adapter.place
    if said.startswith("cpu"):
        return "cpu"
    if "cuda" in said or "tensorrt" in said:
        index = adapter.place.partition(":")[2] or said.partition("cuda:")[2] or "0"
        return f"cuda:{index}" if index.isdecimal() else "cuda:0"
    return likely_place(adapter)


def _cuda() -> Any:
    """torch with a usable card, if this process has imported it; else None."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and hasattr(torch, "cuda") and torch.cuda.is_available() else None


def free(place: str) -> int | None:
    """Bytes that could be had at this place now; None where that cannot be told."""
    name, _, index = place.partition(":")
    if name == "cpu":
        return free_ram()
    torch = _cuda() if name == "cuda" else None
    if torch is None or int(index or 0) >= torch.cuda.device_count():
        return None
    return int(torch.cuda.mem_get_info(int(index or 0))[0])


def free_ram() -> int | None:
    """Bytes of this machine's memory that a process could get, containers' limits regarded; None where unknown."""
    found = [value for value in (_meminfo(), _cgroup()) if value is not None]
    return min(found) if found else None


def _meminfo() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _cgroup() -> int | None:
    """What is left below the limit of a container (cgroup v2); None without a limit."""
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
        return max(0, int(limit) - used) if limit != "max" else None
    except (OSError, ValueError):
        return None


def own(place: str) -> int | None:
    """Bytes that this process holds there; None where that cannot be told."""
    name, _, index = place.partition(":")
    if name == "cpu":
        try:
            return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, IndexError):
            return None
    torch = _cuda() if name == "cuda" else None
    if torch is None or int(index or 0) >= torch.cuda.device_count():
        return None
    return int(torch.cuda.memory_reserved(int(index or 0)))


def give_back() -> None:
    """Return freed memory to the device and to the system."""
    gc.collect()
    if torch := _cuda():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # a C library that is not glibc
            ctypes.CDLL(None).malloc_trim(0)


def text(count: float) -> str:
    """Bytes for people: 17.0 GB, 350 MB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
