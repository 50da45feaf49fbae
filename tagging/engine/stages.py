"""The stages of a recipe with several channels: each channel, and the one that combines them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from prompts.rendering import PromptError

from ..adapters.base import Reply, Request
from ..models import ChannelResult, Chunk, ImageAsset, Run
from ..policy import merging
from .combining import Plan, Results, plan_of, results_of
from .contexts import Sayings
from .heartbeat import Heart
from .inferring import LARGEST
from .process import stopping
from .stage import Stage
from .store import FALLBACK, Result, add_predictions
from .work import Work

State = ChannelResult.State


def work_on(chunk: Chunk, run: Run, heart: Heart, end: float) -> Work | CombineWork:
    """The work of a claimed chunk, by its stage. ModelUnavailable."""
    plan = plan_of(run)
    if not plan.several:
        return Work(chunk, run, plan.stages[0], heart, end)
    if chunk.stage < plan.last:
        return ChannelWork(chunk, run, plan, heart, end)
    if plan.merge:
        return MergeWork(chunk, run, plan, plan.merge, heart, end)
    return CombineWork(chunk, run, plan, heart, end)


class ChannelWork(Work):
    """One channel of several: answers become ChannelResults."""

    several = True

    def __init__(self, chunk: Chunk, run: Run, plan: Plan, heart: Heart, end: float) -> None:
        super().__init__(chunk, run, plan.stages[chunk.stage], heart, end)
        self.plan = plan
        self.waits = plan.spec.order != "parallel" and chunk.stage > 0
        self._earlier: Results | None = None

    def _done(self, ids: list[int]) -> set[int]:
        rows = ChannelResult.objects.filter(run=self.run, stage=self.chunk.stage, image__in=ids)
        return set(rows.values_list("image_id", flat=True))

    def _unreadable(self, images: list[ImageAsset]) -> list[ImageAsset]:
        """Of a cascade also without those that need no further channel."""
        readable = super()._unreadable(images)
        if self.plan.spec.order != "cascade" or not self.waits:
            return readable
        earlier = results_of(self.run.pk, [i.pk for i in readable], self.chunk.stage)
        unsure = []
        for image in readable:
            if why := self.plan.sure(earlier.get(image.pk, {}), self.chunk.stage):
                self._add(Result(image.pk, said=State.SKIPPED, error=why))
            else:
                unsure.append(image)
        return unsure

    def _sayings(self, images: list[ImageAsset]) -> Mapping[str, Callable[[], Sayings]]:
        return self.plan.sayings(self.run, [i.pk for i in images], self.chunk.stage) if self.waits else {}

    def _answered(self, image: ImageAsset, key: str, reply: Reply, prediction_id: int | None = None) -> None:
        said = State.EMPTY if reply.empty and not reply.text.strip() else State.OK
        self._add(Result(image.pk, said=said, **self._stored(image, key, reply, prediction_id)))

    def _failed(self, image_id: int, error: str) -> None:
        self._add(Result(image_id, said=State.ERROR, error=error))


class _Combining(Work):
    """What the two combining stages share: they write proposals of what the channels said."""

    plan: Plan
    several = True

    def _unreadable(self, images: list[ImageAsset]) -> list[ImageAsset]:
        """The channels have said it, each for itself."""
        self.results = results_of(self.run.pk, [i.pk for i in images], self.plan.last)
        return images

    def _combine(self, image: ImageAsset) -> None:
        """The proposal of an image by a rule without a model, or its error."""
        results = self.results.get(image.pk, {})
        proposed = self.plan.propose(results)
        if isinstance(proposed, str):
            self._add(Result(image.pk, error=proposed, flags=self.plan.flags(results)))
        else:
            first = self.plan.first_prediction(results)
            self._add(Result(image.pk, proposed, rests_on=first, flags=list(proposed.flags)))


class CombineWork(_Combining):
    """Rules without a model."""

    def __init__(self, chunk: Chunk, run: Run, plan: Plan, heart: Heart, end: float) -> None:
        super().__init__(chunk, run, plan.stages[0], heart, end)
        self.plan = plan

    def go(self) -> bool:
        todo = self._unreadable(self._todo())
        for n, image in enumerate(todo):
            if n % LARGEST == 0 and not self._may_go_on():
                break
            self._combine(image)
            self.heart.progress()
            self._flush()
        else:
            self._flush(force=bool(self.batch))
            return self.running
        self._flush(force=bool(self.batch))
        return False


class MergeWork(_Combining):
    """A language model merges the channels' outputs. An answer that cannot be used is asked for once more; then the
    weighted union stands instead, and the proposal says so."""

    def __init__(self, chunk: Chunk, run: Run, plan: Plan, stage: Stage, heart: Heart, end: float) -> None:
        super().__init__(chunk, run, stage, heart, end)
        self.plan = plan
        self.again: dict[int, str] = {}  # images whose first answer cannot be used: why
        self.second = False

    def go(self) -> bool:
        todo = self._blamed(self._unreadable(self._todo()))
        asked = self._render(todo)
        if not self._ask(asked):
            return False
        once_more = [image for image in asked if image.pk in self.again]
        if not once_more:
            return True
        self.second = True
        for image in once_more:
            request = self.requests[image.pk]
            self.requests[image.pk] = Request(
                request.options,
                request.system,
                merging.again(request.prompt, self.again[image.pk]),
                request.schema,
                request.sample,
                request.terms,
            )
        if stopping() or time.monotonic() >= self.end:
            return False
        return self._ask(once_more)

    def _render(self, images: list[ImageAsset]) -> list[ImageAsset]:
        """An image that no channel answered has its error, or one that none said anything of its empty proposal."""
        self.requests = {}
        shown: dict[int, str] = {}
        for image in images:
            outputs = self.plan.outputs(self.results.get(image.pk, {}), by_policy=False)
            if any(o.state == "ok" for o in outputs):
                shown[image.pk] = merging.shown(outputs)
            else:
                self._combine(image)
        left = [image for image in images if image.pk in shown]
        rendered = self.stage.requests(
            self.run,
            left,
            channels=self.plan.sayings(self.run, [i.pk for i in left], self.plan.last),
            variables_of=lambda image: {"channels": shown[image.pk]},
        )
        for pk, request in rendered.items():
            if isinstance(request, PromptError):
                self._failed(pk, f"the prompt cannot be written: {request}")
            else:
                self.requests[pk] = _with_schema(request)
        return [image for image in left if image.pk in self.requests]

    def _shared(self) -> Request:
        return _with_schema(Request(self.stage.options, schema=self.stage.schema, sample=self.run.sample))

    def _answered(self, image: ImageAsset, key: str, reply: Reply, prediction_id: int | None = None) -> None:
        results = self.results.get(image.pk, {})
        try:
            proposed = self.plan.propose_merged(results, reply.text)
        except merging.MergeProblem as problem:
            if not self.second:
                self.again[image.pk] = str(problem)
                self._keep(image, key, reply, prediction_id)
                return
            self._fall_back(image.pk, str(problem), **self._stored(image, key, reply, prediction_id))
            return
        flags = [*proposed.flags, *(f"{flag}:{self.stage.channel.source}" for flag in reply.flags)]
        self._add(
            self._result(image.pk, proposed, flags, merged=State.OK, **self._stored(image, key, reply, prediction_id))
        )

    def _keep(self, image: ImageAsset, key: str, reply: Reply, prediction_id: int | None) -> None:
        """The first answer is a prediction as well: it is not asked for again."""
        if prediction_id is None:
            add_predictions([Result(image.pk, **self._stored(image, key, reply, None))], None, self.run.pk)

    def _failed(self, image_id: int, error: str) -> None:
        self._fall_back(image_id, error)

    def _fall_back(self, image_id: int, why: str, **more: Any) -> None:
        proposed = self.plan.fallback(self.results.get(image_id, {}), why)
        assert FALLBACK in proposed.flags
        self._add(self._result(image_id, proposed, list(proposed.flags), merged=State.ERROR, note=why, **more))

    def _result(self, image_id: int, proposed: Any, flags: list[str], **more: Any) -> Result:
        first = self.plan.first_prediction(self.results.get(image_id, {}))
        return Result(image_id, proposed, rests_on=first, flags=flags, **more)


def _with_schema(request: Request) -> Request:
    """The answer's form is ours, unless the prompt brings its own."""
    if request.schema is not None:
        return request
    return Request(request.options, request.system, request.prompt, merging.SCHEMA, request.sample, request.terms)
