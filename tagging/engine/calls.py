"""A configured model in this process: its code, effective options, identity, labels, and where it is loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from django.conf import settings
from django.core.files.storage import default_storage

from ..adapters import registry
from ..adapters.base import (
    NO_IMAGE,
    Adapter,
    AdapterConfig,
    AdapterError,
    ImageInput,
    LabelSet,
    ModelUnavailable,
    Request,
    terms_digest,
)
from ..imaging.thumbnails import PROXY
from ..models import ImageAsset, ModelAdapter
from . import identity, residency
from .inferring import Room
from .mending import why_not_loaded
from .store import store_labels

log = logging.getLogger(__name__)


class Call:
    """A model and its options. Cheap to make; `key` reads files the first time, `load` loads weights."""

    def __init__(
        self,
        slug: str,
        label: str,
        config: Mapping[str, Any],
        options: Mapping[str, Any] | None = None,
        *,
        extras: Mapping[str, Any] | None = None,
    ) -> None:
        """`config`: kind, source, revision, device, quantization as a Channel keeps them. `extras` join the identity of
        what it answers. Raises ModelUnavailable when the adapter is unknown here or refuses its options."""
        self.slug, self.label = slug, label
        self.config = AdapterConfig(
            source=config.get("source", ""),
            revision=config.get("revision", ""),
            device=config.get("device", "auto"),
            quantization=config.get("quantization", "none"),
            options=dict(options or {}),
            models_dirs=tuple(Path(p) for p in settings.IWTAG_MODELS_DIRS),
        )
        try:
            self.adapter_class = registry.adapter_class(config["kind"])
            self.cold = self.adapter_class(self.config)
            self.options = self.cold.options()
        except (LookupError, ImportError, ValueError) as e:
            raise ModelUnavailable(f"{label} cannot be used here: {e}") from e
        self.model_key = identity.loading_key(self.adapter_class, config, dict(options or {}))
        self.room = Room()
        self.read = config.get("read", "original")
        self._extras = dict(extras or {})
        self._identity: dict[str, Any] | None = None
        self._labels: LabelSet | None = None

    @property
    def sees(self) -> bool:
        """Is the image part of the question?"""
        return self.cold.sees

    @property
    def labels(self) -> LabelSet | None:
        """The label set of the model, stored so that scores can name it. ModelUnavailable."""
        if self._labels is None:
            self._labels = self.cold.label_set
            if self._labels is not None:
                store_labels(self._labels)
        return self._labels

    def source(self, image: ImageAsset | None) -> str:
        """Which pixels are read of this image: "proxy" where that is wanted and there is one, else "original"."""
        if self.read != "proxy" or image is None or not self.sees:
            return "original"
        return "proxy" if default_storage.exists(image.thumbnail_name(PROXY)) else "original"

    def key(self, image: ImageAsset | None, request: Request, source: str = "original") -> str:
        """The key of the prediction that answers this from the pixels of `source`. ModelUnavailable."""
        if self._identity is None:
            self._identity = {**identity.call_identity(self.cold, self.options), **self._extras}
        return identity.prediction_key(
            image.sha256 if image is not None and self.sees else "",
            self._identity,
            source=source,
            system=request.system,
            prompt=request.prompt,
            schema=request.schema,
            sample=request.sample,
            terms=terms_digest(request.terms),
        )

    def input(self, image: ImageAsset | None, source: str = "original") -> ImageInput:
        """The image as the adapter takes it. Its `open` is called in other threads and touches no database."""
        if image is None or not self.sees:
            return NO_IMAGE
        if source == "proxy":
            name = image.thumbnail_name(PROXY)
            return ImageInput(
                image.path, image.sha256, lambda: cast(BinaryIO, default_storage.open(name, "rb")), source
            )
        return ImageInput(name=image.path, sha256=image.sha256, open=image.open)

    def load(self, doing: Callable[[str], None] | None = None) -> residency.Resident:
        """The loaded model; `doing` is told what takes time. ModelUnavailable with the mend, whatever goes wrong; Tired
        when this process has to be replaced first."""
        tell = doing or (lambda text: None)
        if self.model_key in residency.MODELS:
            return self._loaded()
        tell(f"loading {self.label}")
        try:
            resident = self._loaded(lambda owner: tell(f"waiting for the card to load {self.label}"))
        except residency.Tired:
            raise
        except ModelUnavailable as e:
            self._remember(e.message)
            raise
        except Exception as e:
            if not isinstance(e, AdapterError):
                log.exception("loading %s", self.label)
            message = why_not_loaded(e, self.label, self.cold)
            self._remember(message)
            raise ModelUnavailable(message) from e
        self._remember("")
        self._learn_labels(resident.adapter)
        return resident

    def _loaded(self, busy: Callable[[str], None] | None = None) -> residency.Resident:
        return residency.MODELS.get(self.model_key, self.slug, lambda: self.adapter_class(self.config), busy)

    def _remember(self, error: str) -> None:
        """What the last load came to, for the page of models."""
        ModelAdapter.objects.filter(slug=self.slug).exclude(last_error=error).update(last_error=error)

    def _learn_labels(self, adapter: Adapter) -> None:
        """Labels that are known only once the weights are there."""
        if self._labels is None and adapter.label_set is not None:
            self._labels = adapter.label_set
            store_labels(self._labels)
