"""A recipe of several channels in this process: what each said of an image, and how that becomes one proposal."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, cast

from prompts.values import TagValue

from ..adapters.base import ModelUnavailable, PackedScores, Reply, ScoredTag
from ..models import Channel, ChannelResult, Run
from ..policy import combine, merging
from ..policy.combine import ChannelOutput, Combined, CombineSpec, check_combine
from ..policy.pipeline import CompiledPolicy
from .contexts import Said, Sayings
from .propose import Proposed, Proposer, propose_combined, stored_labels
from .stage import Stage, stage_of
from .store import FALLBACK

State = ChannelResult.State


class Stored(NamedTuple):
    """What a channel came to on one image, with the prediction it rests on, as plain values."""

    image_id: int
    stage: int
    state: str
    note: str
    prediction_id: int | None
    labels: str | None
    scores: bytes | memoryview | None
    tags: Any
    caption: str | None
    rating: str | None
    rating_score: float | None
    text: str | None
    flags: Any

    def reply(self) -> Reply:
        return Reply(
            scores=PackedScores.from_bytes(bytes(self.scores)) if self.scores is not None else None,
            tags=tuple(ScoredTag(*t) for t in self.tags or ()),
            caption=self.caption or None,
            rating=(self.rating, self.rating_score or 0.0) if self.rating else None,
            text=self.text or "",
            flags=tuple(self.flags or ()),
        )


#: image → channel position → what it came to
Results = dict[int, dict[int, Stored]]

_COLUMNS = (
    "image_id stage state note prediction_id prediction__labels_id prediction__scores prediction__tags "
    "prediction__caption prediction__rating prediction__rating_score prediction__text prediction__flags"
).split()


def results_of(run_id: int, image_ids: Sequence[int], before: int) -> Results:
    """What the channels up to stage `before` (exclusive) came to on these images: one query for at most a thousand."""
    found: Results = {}
    for lo in range(0, len(image_ids), 1000):
        rows = ChannelResult.objects.filter(run=run_id, stage__lt=before, image__in=image_ids[lo : lo + 1000])
        for row in rows.values_list(*_COLUMNS):
            stored = Stored(*row)
            found.setdefault(stored.image_id, {})[stored.stage] = stored
    return found


class Plan:
    """The stages of a recipe: its channels in order, then the one that combines them. Not for several threads.

    `merge` is the merging model's own stage, whose number is that of the combining one; None without one.
    """

    def __init__(
        self,
        run: Run,
        *,
        policy: CompiledPolicy | None = None,
        rule: Mapping[str, Any] | None = None,
    ) -> None:
        """`policy` and `rule`: others than the recipe's (a recompute). ModelUnavailable when a model is unknown here;
        CombineError for a rule that does not go with the channels."""
        roles = dict(
            Channel.objects.filter(recipe_id=run.recipe_id).order_by("position").values_list("position", "role")
        )
        stages = {position: stage_of(run, position) for position in roles}
        self.stages = [stages[p] for p, role in roles.items() if role == Channel.Role.ASKED]
        merging_stages = [stages[p] for p, role in roles.items() if role == Channel.Role.MERGE]
        self.merge = merging_stages[0] if merging_stages else None
        self.last = len(self.stages)
        self.several = self.last > 1 or self.merge is not None
        self.policy = policy or self.stages[0].policy
        self.spec = check_combine(rule or run.recipe.combine, self.names) if self.several else CombineSpec()
        self._proposers = [
            s.proposer if policy is None else Proposer(s.adapter_class, s.options, policy, source=s.channel.source)
            for s in self.stages
        ]

    @property
    def names(self) -> list[str]:
        return [stage.channel.source for stage in self.stages]

    @property
    def problems(self) -> list[str]:
        return self.policy.problems

    def key(self, name: str, category: str) -> str:
        """What makes tags of two channels the same one: what the policy makes of their words."""
        return self.policy.words.of(name, category).key

    # -- outputs ----------------------------------------------------------------------------------------------------
    def output(self, position: int, stored: Stored | None, *, by_policy: bool) -> ChannelOutput:
        """What a channel says of an image. Without `by_policy` the policy's thresholds do not count."""
        name = self.names[position]
        if stored is None or (stored.prediction_id is None and stored.state in (State.OK, State.EMPTY)):
            return ChannelOutput(name, state="error", note="its answer is gone")
        if stored.state in (State.ERROR, State.SKIPPED):
            state = cast(Literal["error", "skipped"], stored.state)
            return ChannelOutput(name, state=state, note=stored.note)
        labels = stored_labels(stored.labels) if stored.labels else None
        return self._proposers[position].output(stored.reply(), labels, by_policy=by_policy)

    def outputs(
        self, results: Mapping[int, Stored], *, before: int | None = None, by_policy: bool = True
    ) -> list[ChannelOutput]:
        """What the channels (those up to `before`) say of one image, in order."""
        last = self.last if before is None else before
        return [self.output(position, results.get(position), by_policy=by_policy) for position in range(last)]

    def sayings(self, run: Run, image_ids: Sequence[int], before: int) -> dict[str, Callable[[], Sayings]]:
        """What earlier channels said, by name, for the prompts of a later one; read when it is asked for."""
        loaded: list[Results] = []

        def said(position: int) -> Sayings:
            if not loaded:
                loaded.append(results_of(run.pk, image_ids, before))
            found = {}
            for image_id, results in loaded[0].items():
                output = self.output(position, results.get(position), by_policy=False)
                tags = tuple(TagValue(t.name, t.score, t.category) for t in output.tags)
                found[image_id] = Said(tags, output.caption)
            return found

        return {name: partial(said, position) for position, name in enumerate(self.names[:before])}

    def sure(self, results: Mapping[int, Stored], position: int) -> str:
        """Why a channel of a cascade need not be asked about an image; empty: ask it."""
        if self.spec.order != "cascade" or position == 0:
            return ""
        before = self.outputs(results, before=position, by_policy=False)
        return combine.sure(self.spec, before, position == self.last - 1, key=self.key)

    # -- proposals --------------------------------------------------------------------------------------------------
    def propose(self, results: Mapping[int, Stored]) -> Proposed | str:
        """What is proposed of one image by a rule without a model; the error where no channel answered."""
        outputs = self.outputs(results)
        if problem := self.all_failed(outputs):
            return problem
        combined = combine.combine(self.spec, outputs, key=self.key)
        return propose_combined(self.policy, combined, self.flags(results))

    def propose_merged(self, results: Mapping[int, Stored], text: str) -> Proposed:
        """What is proposed of the merging model's answer. MergeProblem when it cannot be used."""
        assert self.merge is not None
        # what the model was shown: the policy's thresholds had no part in it
        outputs = self.outputs(results, by_policy=False)
        combined = merging.merged(self.spec, outputs, text, self.merge.channel.source, key=self.key)
        return propose_combined(self.policy, combined, self.flags(results))

    def fallback(self, results: Mapping[int, Stored], why: str) -> Proposed:
        """The weighted union in place of a merge that came to nothing."""
        combined: Combined = combine.combine(self.spec, self.outputs(results), key=self.key)
        return propose_combined(self.policy, combined, [*self.flags(results), FALLBACK, f"merge: {why}"[:200]])

    def repropose(self, results: Mapping[int, Stored]) -> Proposed | str:
        """What is proposed of everything that is stored, the merging model's answer included."""
        stored = results.get(self.last)
        if self.spec.rule != "llm_merge" or stored is None:
            return self.propose(results)
        if stored.state != State.OK or stored.prediction_id is None:
            return self.fallback(results, stored.note or "its answer is gone")
        try:
            return self.propose_merged(results, stored.text or "")
        except merging.MergeProblem as problem:
            return self.fallback(results, str(problem))

    def all_failed(self, outputs: Sequence[ChannelOutput]) -> str:
        """The error of an image that no channel answered; empty where one did."""
        if any(o.answered for o in outputs):
            return ""
        notes = dict.fromkeys(o.note for o in outputs if o.state == "error")
        if len(notes) == 1:
            return next(iter(notes))
        return "; ".join(f"{o.name}: {o.note}" for o in outputs if o.state == "error") or "No channel was asked."

    def flags(self, results: Mapping[int, Stored]) -> list[str]:
        """What a person should know of how the channels fared."""
        found = []
        for position, name in enumerate(self.names):
            stored = results.get(position)
            if stored is None or stored.state == State.ERROR:
                found.append(f"failed:{name}")
            elif stored.flags:
                found += [f"{flag}:{name}" for flag in stored.flags]
        return found

    def first_prediction(self, results: Mapping[int, Stored]) -> int | None:
        """The prediction of the first channel that answered."""
        ids = [results[p].prediction_id for p in range(self.last) if p in results]
        return next((i for i in ids if i is not None), None)


_PLANS: OrderedDict[int, Plan] = OrderedDict()


def plan_of(run: Run) -> Plan:
    """The plan of a run's recipe, made once per process (the last few are kept). ModelUnavailable."""
    found = _PLANS.get(run.recipe_id)
    if found is None or found.stages[0] is not stage_of(run, 0):  # the stages were made anew
        try:
            found = _PLANS[run.recipe_id] = Plan(run)
        except combine.CombineError as e:
            raise ModelUnavailable(f"The recipe cannot be run: {e}") from e
        while len(_PLANS) > 8:
            _PLANS.popitem(last=False)
    _PLANS.move_to_end(run.recipe_id)
    return found


def stage_for(run: Run, number: int) -> Stage | None:
    """The stage of that number; None for one that only combines."""
    plan = plan_of(run)
    return plan.stages[number] if number < plan.last else plan.merge
