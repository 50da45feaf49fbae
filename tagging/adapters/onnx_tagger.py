"""What all ONNX taggers share: files, variants, one session, scores of a fixed list of labels, the rating apart.

A family says which files it has, what its label file means and how pixels become its input; nothing else.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from . import model_files, onnx_session, variants
from .base import (
    DEFAULT_SCORE_FLOOR,
    Adapter,
    AdapterConfig,
    AdapterError,
    AdapterOptions,
    Capabilities,
    ImageInput,
    LabelSet,
    ModelUnavailable,
    PackedScores,
    Problem,
    Reply,
    Request,
)
from .model_files import Found, Wanted
from .preparation import Framing, Norm, Pixels

#: How far outside 0..1 an output may be before it is no probability.
TOLERANCE = 1e-3
QUANTIZATIONS = ("none", *variants.KINDS)
#: What loading takes beside the weights: onnxruntime, its arena, a batch.
OVERHEAD = 200 * 2**20

Floats = npt.NDArray[np.float32]


def tagger_capabilities(*, rating: bool = True, categories: tuple[str, ...]) -> Capabilities:
    """The capabilities of a tagger with probabilities."""
    return Capabilities(
        outputs=frozenset({"tags", "rating"} if rating else {"tags"}),
        scores=True,
        images_per_call=onnx_session.DEVICE_BATCH,
        threshold_categories=categories,
        quantizations=QUANTIZATIONS,
        devices=onnx_session.DEVICES,
    )


class TaggerOptions(AdapterOptions):
    """What every tagger with stored scores takes."""

    score_floor: float = Field(
        DEFAULT_SCORE_FLOOR,
        ge=0.001,
        le=0.5,
        title="Score floor",
        description="Probabilities below this are not stored; thresholds can later move above it with no new run.",
        json_schema_extra={"advanced": True, "group": "Thresholds"},
    )


def threshold_field(default: float, title: str, description: str, **extra: Any) -> Any:
    """A threshold: it chooses among stored scores, so that moving it needs no inference."""
    return Field(
        default,
        ge=0,
        le=1,
        title=title,
        description=description,
        json_schema_extra={"selection": True, "group": "Thresholds", **extra},
    )


@dataclass(frozen=True)
class Sheet:
    """What the label file says. `labels` are scored; `kept[i]` is the output of label i (None: label i is output i).

    `outputs` is how many the graph must have. Ratings are outputs whose best one becomes the reply's rating.
    """

    labels: LabelSet
    outputs: int
    kept: npt.NDArray[np.intp] | None = None
    ratings: tuple[str, ...] = ()
    rating_outputs: npt.NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))
    #: labels that the rating stands among: never proposed as tags
    masked: npt.NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))


class OnnxTagger(Adapter):
    """Base of the families. Cheap to construct; the label file is read at first need, weights in `load`."""

    wanted: ClassVar[Wanted]
    #: names of the output to use, best first; () takes the graph's first
    output_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: AdapterConfig | None = None) -> None:
        super().__init__(config)
        self._found: Found | None = None
        self._sheet: Sheet | None = None
        self._model: onnx_session.OnnxModel | None = None
        self._ready: tuple[Framing, Norm] | None = None

    # -- what a family says ------------------------------------------------------------------------------------------
    @abstractmethod
    def read_sheet(self, found: Found) -> Sheet:
        """The label file. ModelUnavailable names the file, the line and the fault."""

    @abstractmethod
    def input_of(self, found: Found, model: onnx_session.OnnxModel | None) -> tuple[Framing, Norm]:
        """How pixels become the input; `model` is given once it is loaded. ModelUnavailable."""

    def verify(self, found: Found, model: onnx_session.OnnxModel) -> None:
        """Is the graph of this family? ModelUnavailable."""

    def refuse(self, found: Found) -> None:
        """ModelUnavailable where the files are another family's."""

    def activation(self, output: str) -> str:
        """What turns the used output into probabilities: "none", "sigmoid" or "softmax"."""
        return "none"

    def wanted_outputs(self) -> Sequence[str]:
        """Names of the output to use, best first; () takes the graph's first."""
        return self.output_names

    def told_input(self) -> Mapping[str, Any]:
        """What of the input comes from files: part of the identity."""
        return {}

    # -- cheap ------------------------------------------------------------------------------------------------------
    def check(self) -> list[Problem]:
        problems = onnx_session.check_device(self.config.device)
        if runtime := onnx_session.missing_runtime():
            problems.append(runtime)
        if self.config.quantization not in self.capabilities.quantizations:
            mend = f"Use one of {', '.join(self.capabilities.quantizations)}."
            problems.append(Problem(f"Unknown quantization {self.config.quantization!r}.", mend))
            return problems
        try:
            found = self._files(download=False)
            if found:
                self.refuse(found)
                self._read()
                self._weights(found)
            else:
                how = model_files.how_to_get(self.config, self.wanted)
                mend = f"It is downloaded at its first use. Without a connection: {how}"
                problems.append(Problem(f"{self.config.source} is not on this machine yet.", mend, fatal=False))
        except ModelUnavailable as error:
            problems.append(Problem(error.message, "Correct the adapter's source, or put the files there."))
        return problems

    def identity(self) -> dict[str, Any]:
        found = self._files(download=True)
        assert found is not None
        model = self._weights(found)
        told: dict[str, Any] = {
            "file_sha256": onnx_session.file_digest(model),
            "labels": self._read().labels.digest,
            "quantization": self.config.quantization,
        }
        if data := model_files.external_data(model):
            told["data_sha256"] = [onnx_session.file_digest(path) for path in data]
        if told_input := self.told_input():
            told["input"] = dict(told_input)
        return told

    def memory_needed(self) -> int | None:
        try:
            found = self._files(download=False)
            size = model_files.bytes_of(self._weights(found)) if found else None
        except ModelUnavailable:
            return None
        return size + OVERHEAD if size is not None else None

    def _files(self, *, download: bool) -> Found | None:
        if self._found is None:
            self._found = model_files.find(self.config, self.wanted, download=download)
        return self._found

    def _model_file(self, found: Found) -> Path:
        return found[self.wanted.required[0][0]]

    def _weights(self, found: Found) -> Path:
        """The ONNX file that is loaded: the original or its variant. ModelUnavailable."""
        original = self._model_file(found)
        if self.config.quantization == "none":
            return original
        return variants.find(original, self.config.quantization, self.config.models_dirs)

    def _read(self) -> Sheet:
        if self._sheet is None:
            found = self._files(download=True)
            assert found is not None
            self._sheet = self.read_sheet(found)
        return self._sheet

    @property
    def original(self) -> Path:
        """The ONNX file that variants are made of. Downloads. ModelUnavailable."""
        found = self._files(download=True)
        assert found is not None
        return self._model_file(found)

    @property
    def label_set(self) -> LabelSet | None:
        """None while a hub model is not on this machine."""
        return self._read().labels if self._files(download=False) else None

    # -- life -------------------------------------------------------------------------------------------------------
    def load(self) -> None:
        if self._model:
            return
        sheet, found = self._read(), self._files(download=True)
        assert found is not None
        self.refuse(found)
        norm: list[Norm] = []  # known once the graph is
        model = onnx_session.OnnxModel(
            self._weights(found),
            self.config.device,
            outputs=self.wanted_outputs(),
            convert=lambda pixels: norm[0].floats(pixels) if norm else pixels,
        )
        try:
            ready = self.input_of(found, model)
            self._fits(ready, model)
            self.verify(found, model)
            self._count_outputs(sheet, model, ready)
        except Exception:
            model.close()
            raise
        norm.append(ready[1])
        self._ready, self._model = ready, model

    def _fits(self, ready: tuple[Framing, Norm], model: onnx_session.OnnxModel) -> None:
        """The graph takes pictures of this size and layout. ModelUnavailable."""
        framing, norm = ready
        sides = (framing.height, framing.width)
        asked = (3, *sides) if norm.layout == "NCHW" else (*sides, 3)
        shape = model.input_shape
        fits = len(shape) == 4 and all(
            given == wanted or not isinstance(given, int) for given, wanted in zip(shape[1:], asked, strict=True)
        )
        if not fits or model.input_type != "tensor(float)":
            raise ModelUnavailable(
                f"{model.path} takes {model.input_type} of shape {shape}, but {self.wanted.inside} takes float "
                f"(n, {', '.join(map(str, asked))}). It is a model of another family: use the adapter for that family."
            )

    def _count_outputs(self, sheet: Sheet, model: onnx_session.OnnxModel, ready: tuple[Framing, Norm]) -> None:
        width = model.output_shape[-1]
        if not isinstance(width, int):  # free in the graph: ask the model
            framing, norm = ready
            blank = norm.arranged(np.zeros((framing.height, framing.width, 3), np.uint8))
            width = model.run(blank[None].astype(np.float32)).shape[-1]
        if width != sheet.outputs:
            raise ModelUnavailable(
                f"{self.label_file} has {sheet.outputs} tags but {model.path.name} has {width} outputs: "
                "they belong to different models. Download both from the same place."
            )

    @property
    def label_file(self) -> Path:
        found = self._files(download=True)
        assert found is not None
        return found[self.wanted.required[1][0]]

    def unload(self) -> None:
        if self._model:
            self._model.close()
        self._model = None

    @property
    def provider(self) -> str:
        return self._model.told_provider if self._model else ""

    @property
    def batch_size(self) -> int:
        return self._model.batch_size if self._model else 1

    # -- work -------------------------------------------------------------------------------------------------------
    def prepare(self, image: ImageInput, request: Request) -> Pixels:
        """One picture as uint8 in the model's layout and channel order."""
        if self._ready is None:
            raise AdapterError(f"{self.label} is not loaded: call load() before prepare()")
        framing, norm = self._ready
        return norm.arranged(self.frame(image, framing))

    def frame(self, image: ImageInput, framing: Framing) -> Pixels:
        """uint8 RGB (height, width, 3)."""
        return framing.pixels(image)

    def scores(self, batch: Sequence[Pixels]) -> Floats:
        """Probabilities of all outputs: (images, outputs). Values that are none stay as they are."""
        if not self._model:
            raise AdapterError(f"{self.label} is not loaded: call load() first")
        found = self._model.run(np.stack(batch))
        found = found.reshape(len(batch), -1).astype(np.float32, copy=False)
        return activated(found, self.activation(self._model.output_name))

    def infer(self, batch: Sequence[Pixels], request: Request) -> Iterator[Reply | AdapterError]:
        if not self._model:
            raise AdapterError(f"{self.label} is not loaded: call load() first")
        if not batch:
            return
        sheet, options = self._read(), request.options
        floor = getattr(options, "score_floor", DEFAULT_SCORE_FLOOR)
        start = time.perf_counter()
        scores = self.scores(batch)
        seconds = (time.perf_counter() - start) / len(batch)
        for row in scores:
            if row.min(initial=0) < -TOLERANCE or row.max(initial=0) > 1 + TOLERANCE:
                text = f"{self._model.path.name} answers with values outside 0 to 1: {self.not_probabilities}"
                yield AdapterError(text, permanent=True)
                continue
            rating = None
            if len(sheet.rating_outputs):
                best = int(row[sheet.rating_outputs].argmax())
                rating = (sheet.ratings[best], float(row[sheet.rating_outputs[best]]))
            own = row[sheet.kept] if sheet.kept is not None else row.copy() if len(sheet.masked) else row
            if len(sheet.masked):
                own[sheet.masked] = 0
            yield Reply(scores=PackedScores.pack(own, floor), rating=rating, seconds=seconds)

    #: how an output outside 0..1 is explained
    not_probabilities: ClassVar[str] = "it is not in this layout."


def activated(values: Floats, activation: str) -> Floats:
    """Probabilities from what a graph gives: rows of shape (n, outputs)."""
    if activation == "sigmoid":
        return np.float32(1) / (np.float32(1) + np.exp(-np.clip(values, -80, 80)))
    if activation == "softmax":
        weights = np.exp(values - values.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)
    return values
