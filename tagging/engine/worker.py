"""Claim, prefetch, infer, store: what a worker does with a drain token.

A token says "work for a while, then ring again". Chunks are taken one after the other; images are decoded ahead in
threads, inferred in batches, and written about once a second. A kill at any moment costs what was not yet written.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence

from django.db import DatabaseError, InterfaceError, OperationalError, close_old_connections
from django.utils import timezone

from prompts.rendering import PromptError

from .. import queue as queue_
from ..adapters.base import Adapter, ModelUnavailable, Reply, Request
from ..models import Chunk, ImageAsset, Prediction, Proposal, Run
from . import inferring, leases, residency, store
from .heartbeat import HEART, Heart
from .inferring import LARGEST, Asked, explain
from .leases import LeaseLost
from .owners import owner_id
from .process import stopping
from .purse import Purse, pause_when_spent
from .stage import Stage, reply_of, stage_of
from .store import Batch, Inflight, Result

log = logging.getLogger(__name__)

#: Seconds a drain token lasts.
BUDGET = float(os.environ.get("IWTAG_DRAIN_SECONDS", "20"))
#: Seconds between two commits of results.
FLUSH = float(os.environ.get("IWTAG_FLUSH_SECONDS", "1"))
#: Seconds between two looks at whether the run was paused, while answers are awaited.
LOOK = 0.5
#: Deaths on one image, tried alone, that make it the image's fault.
POISON = 2


def drain(queue: str) -> bool:
    """Work on the queue's chunks until the time is over; True when work may be left: somebody must ring again."""
    me, failures, end = owner_id(), 0, time.monotonic() + BUDGET
    while time.monotonic() < end and not stopping():
        try:
            chunk = leases.claim(queue, me, residency.MODELS.preferred())
        except DatabaseError as e:
            log.warning("the database does not answer (%s); trying again", _line(e))
            close_old_connections()
            time.sleep(1)
            continue
        if chunk is None:
            residency.MODELS.rest()
            return False
        try:
            process(chunk, end)
        except residency.Tired as e:
            log.warning("%s", e)
            _give_back(chunk, failed=False)
            queue_.replace_worker()
            return not stopping()
        except LeaseLost:
            log.warning("%s is no longer this worker's: it was taken over, or deleted", chunk)
        except (OperationalError, InterfaceError) as e:
            log.warning("%s: the database failed (%s); what was not written is done again", chunk, _line(e))
            failures += 1
            _give_back(chunk, failed=False)
        except Exception:
            log.exception("%s", chunk)
            failures += 1
            _give_back(chunk, failed=True)
        if failures > 2:
            break
    return not stopping()


def _give_back(chunk: Chunk, *, failed: bool) -> None:
    """Release it, with a new connection if need be; when the database stays away, the lease runs out by itself."""
    for seconds in (0, 1, 2):
        time.sleep(seconds)
        close_old_connections()
        try:
            leases.release(chunk, done=False, failed=failed)
            return
        except DatabaseError as e:
            log.warning("%s could not be given back (%s)", chunk, _line(e))


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def process(chunk: Chunk, end: float) -> None:
    """Work on one claimed chunk until it is done or the time `end` (monotonic) has come.

    A model that cannot be loaded fails the run. Raises LeaseLost.
    """
    run = Run.objects.select_related("recipe").get(pk=chunk.run_id)
    if chunk.attempts > leases.ATTEMPTS:
        fail(
            run, f"Workers died or failed {leases.ATTEMPTS} times in a row on it: too little memory, or a broken model."
        )
        leases.release(chunk, done=False)
        return
    with HEART.holding(chunk, f"{run} [{chunk.lo}, {chunk.hi})") as heart:
        try:
            work = Work(chunk, run, stage_of(run, chunk.stage), heart, end)
            complete = work.go()
        except ModelUnavailable as e:
            fail(run, e.message)
            complete = False
    leases.release(chunk, done=complete)


def fail(run: Run, message: str) -> None:
    """The run cannot go on; `message` names the mend."""
    log.error("%s failed: %s", run, message)
    Run.objects.filter(pk=run.pk, state=Run.State.RUNNING).update(
        state=Run.State.FAILED, error=message, finished_at=timezone.now(), phase=""
    )
    leases.tell_ended(run.pk)


class Work:
    """One claim of a chunk."""

    def __init__(self, chunk: Chunk, run: Run, stage: Stage, heart: Heart, end: float) -> None:
        self.chunk, self.run, self.stage, self.heart, self.end = chunk, run, stage, heart, end
        self.batch = Batch()
        self.flushed = self.looked = time.monotonic()
        self.running = True

    def go(self) -> bool:
        """True when every image of the chunk has its result."""
        todo = self._todo()
        todo = self._unreadable(todo)
        todo = self._blamed(todo)
        todo = self._render(todo)
        self.sources = {image.pk: self.stage.source(image) for image in todo}
        keys = {image.pk: self.stage.key(image, self.requests[image.pk], self.sources[image.pk]) for image in todo}
        todo = self._cached(todo, keys)
        self._flush(force=bool(self.batch))
        if todo and self.running and not stopping():
            todo = self._infer(todo, keys)
        return not todo and self.running

    # -- what needs no model ----------------------------------------------------------------------------------------
    def _todo(self) -> list[ImageAsset]:
        """The images without a result. Rows that were deleted since the run began are counted, so that it can end."""
        ids = list(self.chunk.images)
        have = set(Proposal.objects.filter(run=self.run, image_id__in=ids).values_list("image_id", flat=True))
        rows = ImageAsset.objects.select_related("collection").in_bulk([i for i in ids if i not in have])
        counted = sum(Chunk.objects.values_list("n_ok", "n_empty", "n_error").get(pk=self.chunk.pk))
        self.batch.gone = max(0, self.chunk.hi - self.chunk.lo - counted - len(rows))
        return [rows[i] for i in ids if i in rows]

    def _unreadable(self, images: list[ImageAsset]) -> list[ImageAsset]:
        usable = []
        for image in images:
            if image.state == ImageAsset.State.ERROR or not image.sha256:
                self._add(Result(image.pk, error=f"The file cannot be read: {image.error or 'not indexed yet'}"))
            else:
                usable.append(image)
        return usable

    def _blamed(self, images: list[ImageAsset]) -> list[ImageAsset]:
        """The image on which workers died comes first, to be tried alone, or gets its error row."""
        suspect = next((i for i in images if i.pk == self.chunk.inflight), None)
        if suspect is None:
            self.careful, self.tried = self.chunk.attempts > 1, 0
            return images
        others = [i for i in images if i is not suspect]
        if self.chunk.inflight_n >= POISON:
            self._add(Result(suspect.pk, error=f"The worker died on this image, {POISON} times."))
            self.careful, self.tried = True, 0
            return others
        self.careful, self.tried = True, self.chunk.inflight_n
        return [suspect, *others]

    def _render(self, images: list[ImageAsset]) -> list[ImageAsset]:
        """What is asked of each image; one whose prompt cannot be written has its result already."""
        self.requests: dict[int, Request] = {}
        for pk, request in self.stage.requests(self.run, images, threads=inferring.threads()).items():
            if isinstance(request, PromptError):
                self._add(Result(pk, error=f"The prompt cannot be written for this image: {request}"))
            else:
                self.requests[pk] = request
        return [image for image in images if image.pk in self.requests]

    def _cached(self, images: list[ImageAsset], keys: dict[int, str]) -> list[ImageAsset]:
        """Take what was answered before; what is left needs the model."""
        found = {p.key: p for p in Prediction.objects.filter(key__in=set(keys.values()))}
        left = []
        for image in images:
            prediction = found.get(keys[image.pk])
            if prediction is None:
                left.append(image)
                continue
            proposed = self.stage.proposer.propose(reply_of(prediction), self.stage.labels)
            self._add(
                Result(
                    image.pk,
                    proposed,
                    key=prediction.key,
                    prediction_id=prediction.pk,
                    flags=self._flags(image, prediction.flags),
                )
            )
        return left

    # -- the model --------------------------------------------------------------------------------------------------
    def _infer(self, images: list[ImageAsset], keys: dict[int, str]) -> list[ImageAsset]:
        """Ask the model; the images that are left when the time is over or the run is stopped."""
        adapter = self._load()
        unanswered = {image.pk: image for image in images}
        asked = [Asked(i.pk, self.stage.input(i, self.sources[i.pk]), self.requests[i.pk]) for i in images]
        self.flushed = time.monotonic()
        purse = Purse(self.run, self.stage.mean_cost)
        stream = inferring.answers(
            adapter,
            asked,
            self.stage.request(self.run),
            room=self.stage.room,
            go_on=lambda: self._may_go_on() and purse.may_ask(),
            careful=self.careful,
            before=self._name,
        )
        try:
            for answer in stream:
                if answer is not None:
                    pk, outcome = answer
                    self._keep(unanswered.pop(pk), keys[pk], outcome)
                    purse.pay(outcome.cost or 0.0 if isinstance(outcome, Reply) else 0.0)
                self.heart.progress()  # a stream that waits says so: its calls have time limits of their own
                self._flush()
                self._look()
        except ModelUnavailable:
            self._flush(force=bool(self.batch))
            raise
        finally:
            stream.close()
        self._flush(force=bool(self.batch))
        self.stage.mean_cost = purse.mean
        if purse.used_up and pause_when_spent(self.run.pk, expected=purse.mean):
            self.running = False
        return list(unanswered.values())

    def _name(self, image_id: int) -> None:
        """Write down which image is tried next, alone: if the worker dies of it, the next one knows."""
        self._flush(force=True, inflight=Inflight(image_id, self.tried + 1))
        self.tried = 0

    def _look(self) -> None:
        """Notice a pause or a cancel while no results come; LeaseLost when the claim is gone."""
        if self.heart.lost:
            raise LeaseLost(self.chunk.pk)
        if time.monotonic() - self.looked >= LOOK:
            self.looked = time.monotonic()
            state = Run.objects.filter(pk=self.run.pk).values_list("state", flat=True).first()
            self.running = state == Run.State.RUNNING

    def _load(self) -> Adapter:
        resident = self.stage.load(self._say)
        Run.objects.filter(pk=self.run.pk).update(
            phase="", phase_since=None, provider=resident.adapter.provider[:120], load_seconds=resident.load_seconds
        )
        self.heart.progress()
        return resident.adapter

    def _say(self, phase: str) -> None:
        Run.objects.filter(pk=self.run.pk).update(phase=phase[:120], phase_since=timezone.now())
        self.heart.doing = phase

    def _may_go_on(self) -> bool:
        if self.heart.lost:
            raise LeaseLost(self.chunk.pk)
        return self.running and time.monotonic() < self.end and not stopping()

    def _keep(self, image: ImageAsset, key: str, outcome: Reply | Exception) -> None:
        if isinstance(outcome, Exception):
            self._add(Result(image.pk, error=explain(outcome)))
            return
        proposed = self.stage.proposer.propose(outcome, self.stage.labels)
        flags, source = self._flags(image, outcome.flags), self.sources[image.pk]
        self._add(Result(image.pk, proposed, key=key, sha256=image.sha256, reply=outcome, source=source, flags=flags))

    def _flags(self, image: ImageAsset, said: Sequence[str]) -> list[str]:
        """What the reply was flagged with, and that an original was read for want of its proxy."""
        missing = self.stage.read == "proxy" and self.stage.sees and self.sources[image.pk] != "proxy"
        return [*said, *(["original_read"] if missing else [])]

    # -- writing ----------------------------------------------------------------------------------------------------
    def _add(self, result: Result) -> None:
        self.batch.results.append(result)

    def _flush(self, *, force: bool = False, inflight: Inflight | None = None) -> None:
        """Write what there is, once a second or when there is much of it; notices a pause or cancel. LeaseLost."""
        now = time.monotonic()
        full = len(self.batch.results) >= LARGEST
        if not (force or full or now - self.flushed >= FLUSH) or not (self.batch or inflight):
            return
        self.batch.seconds = now - self.flushed
        state = store.commit(self.chunk, self.run, self.batch, labels=self.stage.labels, inflight=inflight)
        self.running = state == Run.State.RUNNING
        self.batch, self.flushed = Batch(), time.monotonic()
