"""Which models are loaded in this worker process. The least recently used goes when room is needed."""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from ..adapters.base import Adapter

log = logging.getLogger(__name__)

#: Models that may be loaded at once in one worker.
CAPACITY = int(os.environ.get("IWTAG_RESIDENT_MODELS", "1"))
#: Seconds for which the loaded model is preferred when claiming, so that a long run cannot starve another model.
AFFINITY = 300.0


@dataclass
class Resident:
    """A loaded model."""

    key: str
    slug: str
    adapter: Adapter
    load_seconds: float
    since: float = field(default_factory=time.monotonic)

    def as_dict(self) -> dict[str, object]:
        return {"slug": self.slug, "provider": self.adapter.provider, "load_seconds": round(self.load_seconds, 2)}


class Residency:
    """The loaded models of one process, least recently used first. Not for several threads."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self._models: OrderedDict[str, Resident] = OrderedDict()

    def get(self, key: str, slug: str, build: Callable[[], Adapter]) -> Resident:
        """The model of that key, loaded; room is made first. Whatever `load()` raises goes through, nothing is kept."""
        found = self._models.get(key)
        if found:
            self._models.move_to_end(key)
            return found
        self.evict(self.capacity - 1)
        began = time.monotonic()
        adapter = build()
        try:
            adapter.load()
        except BaseException:
            adapter.unload()
            free_memory()
            raise
        found = self._models[key] = Resident(key, slug, adapter, time.monotonic() - began)
        log.info("loaded %s on %s in %.1f s", slug, adapter.provider or "its device", found.load_seconds)
        return found

    def __contains__(self, key: str) -> bool:
        return key in self._models

    def evict(self, keep: int = 0) -> None:
        """Unload the least recently used until `keep` are left."""
        while len(self._models) > keep:
            _, gone = self._models.popitem(last=False)
            log.info("unloading %s", gone.slug)
            gone.adapter.unload()
            del gone
            free_memory()

    def preferred(self) -> str | None:
        """The key of the model to go on with, while it has not had its share of time."""
        for key, model in reversed(self._models.items()):
            if time.monotonic() - model.since < AFFINITY:
                return key
        return None

    def rest(self) -> None:
        """Nobody else waits: every model's share of time begins anew."""
        for model in self._models.values():
            model.since = time.monotonic()

    def summary(self) -> list[dict[str, object]]:
        return [model.as_dict() for model in list(self._models.values())]


def free_memory() -> None:
    """Give memory back to the device; torch is asked only where an adapter has imported it."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


#: This process's models.
MODELS = Residency()
