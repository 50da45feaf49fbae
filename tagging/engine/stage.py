"""One channel of a recipe, ready to be asked: its adapter, options, identity, labels and proposer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

from prompts.rendering import PromptError, names_used, render
from prompts.values import RenderContext

from ..adapters.base import ModelUnavailable, PackedScores, Reply, Request, ScoredTag
from ..models import Channel, ImageAsset, ModelAdapter, Prediction, Run
from .calls import Call
from .contexts import PER_IMAGE, Contexts, Sayings
from .propose import Proposer, compiled_policy


class Stage(Call):
    """A recipe's channel in this process: the call, what is asked of each image, and what becomes of the answers."""

    def __init__(self, run: Run, channel: Channel) -> None:
        """Raises ModelUnavailable when the adapter is unknown here or refuses its stored options."""
        options = channel.adapter.settled(channel.options)
        super().__init__(channel.adapter.slug, channel.adapter.label, channel.adapter_config, options)
        self.channel = channel
        self.policy = compiled_policy(run.recipe.policy_version_id)
        self.proposer = Proposer(self.adapter_class, self.options, self.policy, source=channel.source)
        version = channel.prompt_version
        self.system, self.template = (version.system, version.template) if version else ("", "")
        self.schema = version.response_schema if version else None
        self.names = names_used(self.system) | names_used(self.template)
        self.terms = self._terms()
        self.mean_cost = 0.0  # of an answer, as far as is known

    def settings_changed(self) -> bool:
        """The configured model got another key, or the like, since this was made."""
        now = ModelAdapter.objects.filter(pk=self.channel.adapter_id).values_list("options", flat=True).first()
        if now == self.channel.adapter.options:
            return False
        row = ModelAdapter.objects.filter(pk=self.channel.adapter_id).first()
        return row is not None and row.settled(self.channel.options) != self.channel.adapter.settled(
            self.channel.options
        )

    def _terms(self) -> tuple[str, ...]:
        """The policy's vocabulary, in its order, for a model that is to be held to it."""
        if not self.adapter_class.capabilities.vocabulary or getattr(self.options, "vocabulary", "") != "only":
            return ()
        terms = sorted(self.policy.words.vocabulary.terms.values(), key=lambda term: term.position)
        if not terms:
            raise ModelUnavailable(
                f"{self.label} is to answer from a vocabulary, but the policy has none: add a vocabulary list to it."
            )
        return tuple(term.name for term in terms)

    def request(self, run: Run) -> Request:
        """What is the same for all images of a run; texts that differ from image to image are empty."""
        if self.names & PER_IMAGE:
            return Request(options=self.options, schema=self.schema, sample=run.sample, terms=self.terms)
        try:
            return self._rendered(run, Contexts([], (), **self._shared(run)).nothing())
        except PromptError as e:
            raise ModelUnavailable(f"The prompt of {self.label} cannot be used: {e}") from e

    def requests(
        self,
        run: Run,
        images: Sequence[ImageAsset],
        *,
        channels: Mapping[str, Callable[[], Sayings]] | None = None,
        variables_of: Callable[[ImageAsset], Mapping[str, str]] | None = None,
        threads: Executor | None = None,
    ) -> dict[int, Request | PromptError]:
        """What is asked of each image, by its id; the error of one whose prompt cannot be written.

        `channels`: what earlier channels said, by name. `variables_of`: free variables of each image.
        ModelUnavailable when no prompt can be written at all.
        """
        if not self.names & PER_IMAGE and variables_of is None:
            return dict.fromkeys([image.pk for image in images], self.request(run))
        contexts = Contexts(images, self.names, channels=channels, threads=threads, **self._shared(run))
        found: dict[int, Request | PromptError] = {}
        for image in images:
            try:
                context = contexts.of(image, variables_of(image) if variables_of else {})
                found[image.pk] = self._rendered(run, context)
            except PromptError as e:
                found[image.pk] = e
        return found

    def _shared(self, run: Run) -> dict[str, Any]:
        return {
            "lists": run.wordlists,
            "variables": self.channel.variables,
            "max_tags": self.policy.spec.max_tags,
        }

    def _rendered(self, run: Run, context: RenderContext) -> Request:
        text = render(self.system, self.template, context)
        return Request(self.options, text.system, text.prompt, self.schema, run.sample, self.terms)


_STAGES: OrderedDict[tuple[int, int], Stage] = OrderedDict()


def stage_of(run: Run, position: int) -> Stage:
    """The stage, made once per recipe and process (the last few are kept). ModelUnavailable."""
    key = (run.recipe_id, position)
    found = _STAGES.get(key)
    if found is not None and found.settings_changed():
        found = None
    if found is None:
        channel = Channel.objects.select_related("adapter", "prompt_version").get(
            recipe_id=run.recipe_id, position=position
        )
        found = _STAGES[key] = Stage(run, channel)
        while len(_STAGES) > 16:
            _STAGES.popitem(last=False)
    else:
        _STAGES.move_to_end(key)
    return found


def forget() -> None:
    """Make every stage anew (tests; files of a model that were replaced)."""
    _STAGES.clear()
    compiled_policy.cache_clear()


def reply_of(prediction: Prediction) -> Reply:
    """A stored prediction as the reply it was."""
    scores = PackedScores.from_bytes(bytes(prediction.scores)) if prediction.scores is not None else None
    rating = (prediction.rating, prediction.rating_score or 0.0) if prediction.rating else None
    return Reply(
        scores=scores,
        tags=tuple(ScoredTag(*t) for t in prediction.tags or ()),
        caption=prediction.caption or None,
        rating=rating,
        text=prediction.text,
        tokens_in=prediction.tokens_in,
        tokens_out=prediction.tokens_out,
        finish_reason=prediction.finish_reason,
        seconds=prediction.seconds,
        flags=tuple(prediction.flags),
    )
