"""Any ONNX image classifier that a small manifest describes: layout, size, normalisation, activation, labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt

from . import model_files, onnx_manifest, onnx_session
from .base import About, AdapterOptions, LabelSet, ModelUnavailable
from .folders import Guess, ModelFolder
from .model_files import Found, Wanted
from .onnx_manifest import NAMES, Manifest
from .onnx_tagger import OnnxTagger, Sheet, TaggerOptions, tagger_capabilities, threshold_field
from .preparation import Framing, Norm

#: Where neither the manifest nor an option says.
USUAL = 0.5


class OnnxClassifier(OnnxTagger):
    """One classifier from a local folder, a name in the models folders, or a hub id."""

    key = "onnx"
    label = "ONNX classifier with a manifest"
    capabilities = tagger_capabilities(categories=("general",))
    about = About(
        summary="Any image classifier or tagger in ONNX with fixed labels, described by a manifest of a dozen lines; a "
        "label of the category rating becomes the content rating.",
        weights="A folder (or a name in IWTAG_MODELS_DIRS, or a hub id) with the model and iwtag-model.yaml or "
        "iwtag-model.json, which names the model file, its input, its output and its labels.",
        licence="The model's own: write it into the manifest's `licence`, so that it stays with the model.",
        memory="The size of the ONNX file and about 200 MiB more.",
        tested="Manifests of all kinds over photo-lite's real weights (its answers within 0.03 of photo-lite's own) "
        "and over graphs built by the tests, both layouts and colour orders, all activations; every fault.",
        notes=(
            "The manifest is part of a prediction's identity: changing how pixels are prepared runs the model again.",
        ),
    )
    preparation: ClassVar[str] = "manifest 1: draft 2 (pad, squash), 2.5 (crop), white below transparency"
    wanted = Wanted("An ONNX classifier", (NAMES,))
    not_probabilities = "the manifest's `output.activation` is not the right one."

    class Options(TaggerOptions):
        threshold: float | None = threshold_field(
            None,  # type: ignore[arg-type]
            "Threshold",
            "Labels at or above it are proposed; empty: as the manifest says (0.5 where it says nothing).",
        )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._manifest: Manifest | None = None

    @classmethod
    def recognises(cls, folder: ModelFolder) -> Guess | None:
        name = next((name for name in NAMES if folder.has(name)), None)
        return Guess(f"{name}, the manifest of a generic ONNX classifier", 95) if name else None

    def _files(self, *, download: bool) -> Found | None:
        """The manifest, and the files that it names beside it."""
        if self._found is None:
            found = model_files.find(self.config, self.wanted, download=download)
            if found is None:
                return None
            manifest = onnx_manifest.read(found[NAMES[0]])
            named = [manifest.model, *([manifest.labels] if isinstance(manifest.labels, str) else [])]
            more = Wanted(self.wanted.family, tuple((name,) for name in named))
            beside = model_files.find(self.config, more, download=download)
            if beside is None:
                return None
            self._manifest, self._found = manifest, {**beside, **found}
        return self._found

    @property
    def manifest(self) -> Manifest:
        """ModelUnavailable when it cannot be read or followed."""
        self._files(download=True)
        assert self._manifest is not None
        return self._manifest

    def _model_file(self, found: Found) -> Path:
        return found[self.manifest.model]

    @property
    def label_file(self) -> Path:
        found = self._files(download=True) or {}
        labels = self.manifest.labels
        return found[labels] if isinstance(labels, str) else found[NAMES[0]]

    def read_sheet(self, found: Found) -> Sheet:
        names, categories = onnx_manifest.read_labels(self.manifest, found[NAMES[0]].parent)
        ratings = np.array([c == "rating" for c in categories])
        kept = np.flatnonzero(~ratings)
        published = {"categories": self.manifest.thresholds} if self.manifest.thresholds else {}
        if not len(kept):
            raise ModelUnavailable(f"{found[NAMES[0]]}: all labels are ratings, none is a tag. Correct the manifest.")
        try:
            labels = LabelSet(tuple(names[i] for i in kept), tuple(categories[i] for i in kept), (), published)
        except ValueError as error:
            raise ModelUnavailable(f"{self.label_file}: {error}.") from error
        at = np.flatnonzero(ratings)
        return Sheet(labels, len(names), kept=kept, ratings=tuple(names[i] for i in at), rating_outputs=at)

    def input_of(self, found: Found, model: onnx_session.OnnxModel | None) -> tuple[Framing, Norm]:
        return self.manifest.input.framing(), self.manifest.input.norm()

    def verify(self, found: Found, model: onnx_session.OnnxModel) -> None:
        wanted = self.manifest.output.name
        if wanted and wanted not in model.outputs:
            raise ModelUnavailable(
                f"{found[NAMES[0]]}: {model.path.name} has no output {wanted!r}; it has {', '.join(model.outputs)}."
            )

    def wanted_outputs(self) -> Sequence[str]:
        return (self.manifest.output.name,) if self.manifest.output.name else ()

    def activation(self, output: str) -> str:
        return self.manifest.output.activation

    def told_input(self) -> Mapping[str, Any]:
        given = self.manifest
        return {
            "framing": given.input.framing().as_dict(),
            "norm": given.input.norm().as_dict(),
            "output": given.output.model_dump(),
        }

    # -- selection among stored scores ------------------------------------------------------------------------------
    @classmethod
    def thresholds(
        cls, labels: LabelSet, probabilities: npt.NDArray[np.float32], options: AdapterOptions
    ) -> dict[str, float]:
        chosen = cast(OnnxClassifier.Options, options).threshold
        published = labels.published.get("categories", {})
        return {c: float(published.get(c, USUAL)) if chosen is None else chosen for c in labels.category_index}

    @classmethod
    def thresholds_vary(cls, options: AdapterOptions) -> bool:
        return False
