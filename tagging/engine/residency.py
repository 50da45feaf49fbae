"""Which models are loaded in this worker process. The least recently used goes when room is needed.

Models are counted per place (a card, the processor's memory). Where a model's need and the free memory are known, as
many stay as fit; else as many as IWTAG_RESIDENT_MODELS says (1). What nobody has used for a while goes as well.

The worker's main thread loads and uses models; its heartbeat calls `tidy`, which touches only those not in use.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from ..adapters.base import Adapter, OutOfMemory
from . import memory
from .cards import Cards
from .owners import owner_id
from .process import stopping

log = logging.getLogger(__name__)

#: Models that may be loaded at once in one place where memory says nothing, and where it decides.
CAPACITY, MOST = 1, 8
#: Connections to endpoints kept: they take no memory here.
REMOTE = 16
#: Seconds for which the loaded model is preferred when claiming, so that a long run cannot starve another model.
AFFINITY = 300.0
#: Seconds without use after which a model is unloaded; 0 keeps it for ever.
IDLE = float(os.environ.get("IWTAG_MODEL_IDLE_SECONDS", "600"))
#: Free memory that is wanted beside what a model says it needs.
MARGIN = 1.05
#: Seconds after its last use in which a model is not taken for unused: it may have been fetched to be used now.
REST = 1.0


class Tired(Exception):
    """The process still holds the memory of models that are gone: it has to be replaced before the next one fits."""


@dataclass
class Resident:
    """A loaded model. `place` is where it computes; `needs` bytes as its adapter estimates, None when unknown."""

    key: str
    slug: str
    adapter: Adapter
    load_seconds: float
    place: str = ""
    needs: int | None = None
    since: float = field(default_factory=time.monotonic)  # its share of time began
    used: float = field(default_factory=time.monotonic)
    users: int = 0

    @property
    def idle(self) -> float:
        """Seconds since it was last used; 0 while it is in use."""
        return 0.0 if self.users else time.monotonic() - self.used

    def as_dict(self) -> dict[str, object]:
        return {
            "key": self.key,
            "slug": self.slug,
            "provider": self.adapter.provider,
            "place": self.place,
            "needs": self.needs,
            "load_seconds": round(self.load_seconds, 2),
            "in_use": self.users > 0,
        }


class Residency:
    """The loaded models of one process, least recently used first. One thread loads and uses; `tidy` may be called by
    another, `summary` by any."""

    def __init__(
        self,
        capacity: int | None = None,
        *,
        idle: float | None = None,
        free: Callable[[str], int | None] = memory.free,
        own: Callable[[str], int | None] = memory.own,
        cards: Cards | None = None,
    ) -> None:
        """`capacity` models in one place, whatever memory says; None: see above. The rest stands in for the device."""
        self.capacity, self.idle = capacity, IDLE if idle is None else idle
        self.tired = False
        self._free, self._own, self._cards = free, own, cards or Cards()
        self._models: OrderedDict[str, Resident] = OrderedDict()
        self._lock = threading.RLock()
        self._before: dict[str, int | None] = {}  # place → what this process held there before its first model

    # -- the worker's thread ----------------------------------------------------------------------------------------
    def get(
        self, key: str, slug: str, build: Callable[[], Adapter], busy: Callable[[str], None] | None = None
    ) -> Resident:
        """The model of that key, loaded; room is made first. Whatever `load()` raises goes through, nothing is kept.

        `busy` is told who holds the card while it is waited for. Raises Tired when memory stays taken by what is gone.
        """
        with self._lock:
            found = self._models.get(key)
            if found:
                self._models.move_to_end(key)
                found.used = time.monotonic()
                return found
            adapter = build()
            place, needs = memory.likely_place(adapter), adapter.memory_needed()
            self._before.setdefault(place, self._own(place))
            self._make_room(place, needs)
        # other threads may look meanwhile; nobody but this one adds models
        self._cards.take(place, owner_id(), busy=busy or (lambda owner: None), stop=stopping)
        began = time.monotonic()
        try:
            self._load(adapter, place, needs)
        except BaseException:
            adapter.unload()
            memory.give_back()
            self._leave(place)
            raise
        found = Resident(key, slug, adapter, time.monotonic() - began, memory.real_place(adapter), needs)
        with self._lock:
            self._models[key] = found
        if found.place != place:
            self._leave(place)
        log.info("loaded %s on %s in %.1f s", slug, adapter.provider or "its device", found.load_seconds)
        return found

    def _load(self, adapter: Adapter, place: str, needs: int | None) -> None:
        """Load it; when there is no room, once more with everything else of the place gone."""
        free = self._free(place)
        if place == "cpu" and needs and free is not None and needs > free:
            # the system would kill the process, and with it what it could have said
            raise OutOfMemory(f"it needs about {memory.text(needs)}, and {memory.text(free)} of memory are free")
        try:
            adapter.load()
        except OutOfMemory:
            if not self.evict(place=place):
                raise
            adapter.load()

    @contextlib.contextmanager
    def using(self, adapter: Adapter) -> Iterator[None]:
        """While it is asked: nobody unloads it."""
        with self._lock:
            found = next((m for m in self._models.values() if m.adapter is adapter), None)
            if found:
                found.users += 1
        try:
            yield
        finally:
            if found:
                with self._lock:
                    found.users -= 1
                    found.used = time.monotonic()

    def relieve(self, adapter: Adapter) -> bool:
        """The device had no room while this model was asked: unload its neighbours; True if there were any."""
        with self._lock:
            found = next((m for m in self._models.values() if m.adapter is adapter), None)
            gone = self._drop([m for m in self._at(found.place) if m is not found]) if found else 0
        memory.give_back()
        return bool(gone)

    def _make_room(self, place: str, needs: int | None) -> None:
        """Unload the least recently used of the place until another one fits. Tired when that did not free memory."""
        gone = 0
        while (here := self._at(place)) and not self._fits(place, needs, len(here)):
            gone += self._drop([here[0]])
        if gone and not self._at(place) and self._leaks(place) and self._short(place, needs):
            self.tired = True
            raise Tired(f"{place} is not free again after its models were unloaded: the worker is replaced")

    def _fits(self, place: str, needs: int | None, here: int) -> bool:
        if not place:
            return here < REMOTE
        if self.capacity is not None:
            return here < self.capacity
        free = self._free(place) if needs else None
        if needs is None or free is None:
            return here < CAPACITY
        return here < MOST and free >= needs * MARGIN

    def _at(self, place: str) -> list[Resident]:
        return [m for m in self._models.values() if m.place == place]

    def _leaks(self, place: str) -> bool:
        """More is held than before the first model came, although none is left."""
        before, now = self._before.get(place), self._own(place)
        return before is not None and now is not None and now - before > memory.TOLERATED

    def _short(self, place: str, needs: int | None) -> bool:
        """There is too little for the next one; where that cannot be told, a card is taken to be short."""
        free = self._free(place)
        return free < needs * MARGIN if needs and free is not None else place != "cpu"

    # -- unloading --------------------------------------------------------------------------------------------------
    def evict(self, keep: int = 0, place: str | None = None) -> int:
        """Unload the least recently used, of one place or of all, until `keep` are left; how many went."""
        with self._lock:
            here = [m for m in self._models.values() if place is None or m.place == place]
            return self._drop(here[: max(0, len(here) - keep)])

    def _drop(self, models: Iterable[Resident]) -> int:
        gone = 0
        for model in list(models):
            log.info("unloading %s", model.slug)
            self._models.pop(model.key, None)
            model.adapter.unload()
            self._leave(model.place)
            gone += 1
        if gone:
            del model
            memory.give_back()
        return gone

    def _leave(self, place: str) -> None:
        """The card is free for others once no model of ours is on it."""
        if not self._at(place):
            self._cards.leave(place)

    def tidy(self, unwanted: Iterable[str] = ()) -> list[str]:
        """Unload what has not been used for a while, and of `unwanted` keys ("" stands for all) what is not in use now.

        The keys that went. Never waits: while the other thread holds the models, nothing happens.
        """
        if not self._models or not self._lock.acquire(blocking=False):
            return []
        try:
            wanted_gone = set(unwanted)
            gone = [
                m
                for m in self._models.values()
                if not m.users
                and (
                    (self.idle and m.idle > self.idle)
                    or ((m.key in wanted_gone or "" in wanted_gone) and m.idle > REST)
                )
            ]
            self._drop(gone)
            return [m.key for m in gone]
        finally:
            self._lock.release()

    # -- looking ----------------------------------------------------------------------------------------------------
    def __contains__(self, key: str) -> bool:
        return key in self._models

    def __len__(self) -> int:
        return len(self._models)

    def preferred(self) -> list[str]:
        """The keys of the models to go on with, the last used first, while they have not had their share of time."""
        now = time.monotonic()
        return [key for key, model in reversed(self._models.items()) if now - model.since < AFFINITY]

    def rest(self) -> None:
        """Nobody else waits: every model's share of time begins anew."""
        for model in list(self._models.values()):
            model.since = time.monotonic()

    def summary(self) -> list[dict[str, object]]:
        return [model.as_dict() for model in list(self._models.values())]


def free_memory() -> None:
    """Give memory back to the device."""
    memory.give_back()


_given = os.environ.get("IWTAG_RESIDENT_MODELS", "")
#: This process's models.
MODELS = Residency(int(_given) if _given else None)
