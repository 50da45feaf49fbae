"""One channel of a recipe, ready to be asked: its adapter, options, identity, labels and proposer."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

from django.conf import settings

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
)
from ..models import Channel, ImageAsset, Prediction, Run
from . import identity, residency
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
        self.proposer = Proposer(self.adapter_class, self.options, self.policy, source=channel.adapter.slug)
        self.largest: int | None = None  # batch that fits, once a larger one did not
        self._call: dict[str, Any] | None = None
        self._labels: LabelSet | None = None

    @property
    def labels(self) -> LabelSet | None:
        """The label set of the model, stored so that scores can name it. ModelUnavailable."""
        if self._labels is None:
            self._labels = self.cold.label_set
            if self._labels is not None:
                store_labels(self._labels)
        return self._labels

    def key(self, image: ImageAsset) -> str:
        """The key of this channel's prediction for an image. ModelUnavailable."""
        if self._call is None:
            self._call = identity.call_identity(self.cold, self.options)
        request = self.request(image)
        return identity.prediction_key(
            image.sha256,
            self._call,
            system=request.system,
            prompt=request.prompt,
            schema=request.schema,
            sample=request.sample,
        )

    def request(self, image: ImageAsset | None = None) -> Request:
        """What is asked for an image; without one, what all images share."""
        return Request(options=self.options)

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
