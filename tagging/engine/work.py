"""One claim of a chunk: what is done with its images, and how that is written.

`Work` is a recipe's only channel: its answers become proposals at once. `stages.py` has the others.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.utils import timezone

from prompts.rendering import PromptError

from ..adapters.base import Adapter, ModelUnavailable, Reply, Request
from ..models import Chunk, ImageAsset, Prediction, Proposal, Run
from . import inferring, store
from .contexts import Sayings
from .heartbeat import Heart
from .identity import kept_under
from .inferring import LARGEST, Asked, explain
from .leases import LeaseLost
from .process import stopping
from .purse import Purse, pause_when_spent
from .stage import Stage, reply_of
from .store import Batch, Inflight, Result

#: Seconds between two commits of results.
FLUSH = float(os.environ.get("IWTAG_FLUSH_SECONDS", "1"))
#: Seconds between two looks at whether the run was paused, while answers are awaited.
LOOK = 0.5
#: Deaths on one image, tried alone, that make it the image's fault.
POISON = 2


class Work:
    """One claim of a chunk."""

    several = False  # is it one channel of several?

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
        return self._ask(self._render(todo))

    def _ask(self, images: list[ImageAsset]) -> bool:
        """Find or get the answers to what was rendered; True when none is missing."""
        self.sources = {image.pk: self.stage.source(image) for image in images}
        keys = {image.pk: self.stage.key(image, self.requests[image.pk], self.sources[image.pk]) for image in images}
        left = self._cached(images, keys)
        self._flush(force=bool(self.batch))
        if left and self.running and not stopping():
            left = self._infer(left, keys)
        return not left and self.running

    # -- what needs no model ----------------------------------------------------------------------------------------
    def _todo(self) -> list[ImageAsset]:
        """The images without a result. Rows that were deleted since the run began are counted, so that it can end."""
        ids = list(self.chunk.images)
        have = self._done(ids)
        rows = ImageAsset.objects.select_related("collection").in_bulk([i for i in ids if i not in have])
        counted = sum(Chunk.objects.values_list("n_ok", "n_empty", "n_error", "n_skipped").get(pk=self.chunk.pk))
        self.batch.gone = max(0, self.chunk.hi - self.chunk.lo - counted - len(rows))
        return [rows[i] for i in ids if i in rows]

    def _done(self, ids: list[int]) -> set[int]:
        """Those that have their result."""
        return set(Proposal.objects.filter(run=self.run, image_id__in=ids).values_list("image_id", flat=True))

    def _unreadable(self, images: list[ImageAsset]) -> list[ImageAsset]:
        usable = []
        for image in images:
            if image.state == ImageAsset.State.ERROR or not image.sha256:
                self._failed(image.pk, f"The file cannot be read: {image.error or 'not indexed yet'}")
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
            self._failed(suspect.pk, f"The worker died on this image, {POISON} times.")
            self.careful, self.tried = True, 0
            return others
        self.careful, self.tried = True, self.chunk.inflight_n
        return [suspect, *others]

    def _render(self, images: list[ImageAsset]) -> list[ImageAsset]:
        """What is asked of each image; one whose prompt cannot be written has its result already."""
        self.requests: dict[int, Request] = {}
        channels = self._sayings(images)
        rendered = self.stage.requests(self.run, images, channels=channels, threads=inferring.threads())
        for pk, request in rendered.items():
            if isinstance(request, PromptError):
                self._failed(pk, f"The prompt cannot be written for this image: {request}")
            else:
                self.requests[pk] = request
        return [image for image in images if image.pk in self.requests]

    def _sayings(self, images: list[ImageAsset]) -> Mapping[str, Callable[[], Sayings]]:
        """What earlier channels said, for the prompts."""
        return {}

    def _cached(self, images: list[ImageAsset], keys: dict[int, str]) -> list[ImageAsset]:
        """Take what was answered before; what is left needs the model."""
        found = {p.key: p for p in Prediction.objects.filter(key__in=set(keys.values()))}
        left = []
        for image in images:
            prediction = found.get(keys[image.pk])
            if prediction is None:
                left.append(image)
                continue
            self._answered(image, prediction.key, reply_of(prediction), prediction.pk)
        return left

    # -- the model --------------------------------------------------------------------------------------------------
    def _infer(self, images: list[ImageAsset], keys: dict[int, str]) -> list[ImageAsset]:
        """Ask the model; the images that are left when the time is over or the run is stopped."""
        adapter = self._load()
        unanswered = {image.pk: image for image in images}
        asked = [Asked(i.pk, self.stage.input(i, self.sources[i.pk]), self.requests[i.pk]) for i in images]
        purse = Purse(self.run, self.stage.mean_cost)
        self.flushed = time.monotonic()
        stream = inferring.answers(
            adapter,
            asked,
            self._shared(),
            room=self.stage.room,
            go_on=lambda: self._may_go_on() and purse.may_ask(),
            careful=self.careful,
            before=self._name,
        )
        try:
            for answer in stream:
                if answer is not None:
                    pk, outcome = answer
                    image = unanswered.pop(pk)
                    if isinstance(outcome, Exception):
                        self._failed(pk, explain(outcome))
                    else:
                        self._answered(image, keys[pk], outcome)
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

    def _shared(self) -> Request:
        """What is the same for all images."""
        return self.stage.request(self.run)

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
        provider, seconds = resident.adapter.provider, resident.load_seconds
        said = Run.objects.values_list("provider", flat=True).get(pk=self.run.pk)
        if self.several and said and provider not in said.split(" + "):
            provider = f"{said} + {provider}"
        Run.objects.filter(pk=self.run.pk).update(
            phase="", phase_since=None, provider=provider[:120], load_seconds=seconds
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

    # -- what is made of it -----------------------------------------------------------------------------------------
    def _answered(self, image: ImageAsset, key: str, reply: Reply, prediction_id: int | None = None) -> None:
        """The reply to an image; `prediction_id` where it was stored before."""
        proposed = self.stage.proposer.propose(reply, self.stage.labels)
        flags = [*self._flags(image, reply.flags), *(f for f in proposed.flags if f not in reply.flags)]
        self._add(Result(image.pk, proposed, **self._stored(image, key, reply, prediction_id), flags=flags))

    def _flags(self, image: ImageAsset, said: Sequence[str]) -> list[str]:
        """What the reply was flagged with, and that an original was read for want of its proxy."""
        missing = self.stage.read == "proxy" and self.stage.sees and self.sources[image.pk] != "proxy"
        return [*said, *(["original_read"] if missing else [])]

    def _stored(self, image: ImageAsset, key: str, reply: Reply, prediction_id: int | None) -> dict[str, Any]:
        """The part of a Result that says where its reply is: in the cache, or new."""
        if prediction_id is not None:
            return {"key": key, "prediction_id": prediction_id}
        sha256 = image.sha256 if self.stage.sees else ""
        kept = kept_under(key, reply)
        return {"key": kept, "sha256": sha256, "reply": reply, "source": self.sources[image.pk]}

    def _failed(self, image_id: int, error: str) -> None:
        self._add(Result(image_id, error=error))

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
