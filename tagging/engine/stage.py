"""One channel of a recipe, ready to be asked: its adapter, options, identity, labels and proposer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from django.conf import settings

from prompts.rendering import PromptError, RenderContext, names_used, render

from ..adapters import registry
from ..adapters.base import (
    Adapter,
    AdapterConfig,
    ImageInput,
    LabelSet,
    ModelUnavailable,
    PackedScores,
    Reply,
    Request,
    ScoredTag,
    terms_digest,
)
from ..models import Channel, ImageAsset, Prediction, Run
from . import identity, residency
from .contexts import PER_IMAGE, Contexts, Sayings
from .propose import Proposer, compiled_policy
from .store import store_labels


class Stage:
    """A recipe's channel in this process. Cheap to make; `key` reads files the first time, `resident` loads weights."""

    def __init__(self, run: Run, channel: Channel) -> None:
        """Raises ModelUnavailable when the adapter is unknown here or refuses its stored options."""
        self.channel = channel
        self.label = channel.adapter.label
        config = channel.adapter_config
        self.config = AdapterConfig(
            source=config.get("source", ""),
            revision=config.get("revision", ""),
            device=config.get("device", "auto"),
            quantization=config.get("quantization", "none"),
            options=channel.options,
            models_dirs=tuple(Path(p) for p in settings.IWTAG_MODELS_DIRS),
        )
        try:
            self.adapter_class = registry.adapter_class(config["kind"])
            self.cold = self.adapter_class(self.config)
            self.options = self.cold.options()
        except (LookupError, ImportError, ValueError) as e:
            raise ModelUnavailable(f"{self.label} cannot be used here: {e}") from e
        self.model_key = identity.model_key(channel)
        self.policy = compiled_policy(run.recipe.policy_version_id)
        self.proposer = Proposer(self.adapter_class, self.options, self.policy, source=channel.source)
        version = channel.prompt_version
        self.system, self.template = (version.system, version.template) if version else ("", "")
        self.schema = version.response_schema if version else None
        self.names = names_used(self.system) | names_used(self.template)
        self.terms = self._terms()
        self.largest: int | None = None  # batch that fits, once a larger one did not
        self._call: dict[str, Any] | None = None
        self._labels: LabelSet | None = None

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

    @property
    def labels(self) -> LabelSet | None:
        """The label set of the model, stored so that scores can name it. ModelUnavailable."""
        if self._labels is None:
            self._labels = self.cold.label_set
            if self._labels is not None:
                store_labels(self._labels)
        return self._labels

    def key(self, image: ImageAsset, request: Request) -> str:
        """The key of this channel's prediction for an image. ModelUnavailable."""
        if self._call is None:
            self._call = identity.call_identity(self.cold, self.options)
        return identity.prediction_key(
            image.sha256,
            self._call,
            system=request.system,
            prompt=request.prompt,
            schema=request.schema,
            sample=request.sample,
            terms=terms_digest(request.terms),
        )

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
        threads: Executor | None = None,
    ) -> dict[int, Request | PromptError]:
        """What is asked of each image, by its id; the error of one whose prompt cannot be written.

        `channels`: what earlier channels said, by name. ModelUnavailable when no prompt can be written at all.
        """
        if not self.names & PER_IMAGE:
            return dict.fromkeys([image.pk for image in images], self.request(run))
        contexts = Contexts(images, self.names, channels=channels, threads=threads, **self._shared(run))
        found: dict[int, Request | PromptError] = {}
        for image in images:
            try:
                found[image.pk] = self._rendered(run, contexts.of(image))
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

    def resident(self) -> residency.Resident:
        """The loaded model. Raises what `load()` raises."""
        return residency.MODELS.get(self.model_key, self.channel.adapter.slug, lambda: self.adapter_class(self.config))

    def loaded(self, adapter: Adapter) -> None:
        """Labels that are known only once the weights are there."""
        if self._labels is None and adapter.label_set is not None:
            self._labels = adapter.label_set
            store_labels(self._labels)


_STAGES: OrderedDict[tuple[int, int], Stage] = OrderedDict()


def stage_of(run: Run, position: int) -> Stage:
    """The stage, made once per recipe and process (the last few are kept). ModelUnavailable."""
    key = (run.recipe_id, position)
    found = _STAGES.get(key)
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


def image_input(image: ImageAsset) -> ImageInput:
    """An image as adapters take it. Its `open` is called in other threads and touches no database."""
    return ImageInput(name=image.path, sha256=image.sha256, open=image.open)


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
