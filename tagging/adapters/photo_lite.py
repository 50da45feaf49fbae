"""photo-lite: the embedded default tagger. EfficientNet-Lite2, int8, 1000 ImageNet classes under a short hierarchy.

What it can and cannot see: docs/models/photo-lite.md. How its files are made: scripts/build_photo_lite.py.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
from pydantic import Field

from . import onnx_session
from .base import (
    DEFAULT_SCORE_FLOOR,
    About,
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
from .preparation import Pixels, centre_crop

EMBEDDED = Path(__file__).resolve().parents[2] / "weights" / "photo-lite"
FILES = ("model.onnx", "labels.json", "manifest.json")
MEND = "Restore weights/photo-lite from the repository (git checkout -- weights/photo-lite)."


class PhotoLite(Adapter):
    """Softmax over the classes; a parent's probability is the sum over the classes below it, so all are probabilities.

    Labels: the classes in the order of the model's output, then the parents.
    """

    key = "photo-lite"
    label = "photo-lite (embedded default)"
    capabilities = Capabilities(
        outputs=frozenset({"tags"}),
        scores=True,
        images_per_call=onnx_session.DEVICE_BATCH,
        threshold_categories=("general",),
        devices=onnx_session.DEVICES,
        hierarchy=True,
    )
    about = About(
        summary="The embedded default: one subject a photograph, out of 1,000 ImageNet classes and 180 broader "
        "keywords above them, with probabilities. Works at once, sees no people and few scenes "
        "(docs/models/photo-lite.md).",
        weights="Shipped in weights/photo-lite (7 MB); nothing to download. EfficientNet-Lite2, int8.",
        licence="Apache-2.0 (weights), Princeton WordNet licence and MIT (labels); texts beside the weights.",
        memory="About 70 MiB in the worker, onnxruntime included (measured, two cores).",
        tested="The shipped weights on the sample photographs: expected keywords, batches, damaged folders. "
        "CPU only; no other provider was at hand.",
    )
    preparation: ClassVar[str] = "photo-lite 1: draft 2.5, white, centre crop 260/292, bicubic"

    class Options(AdapterOptions):
        score_floor: float = Field(
            DEFAULT_SCORE_FLOOR,
            ge=0.001,
            le=0.5,
            title="Score floor",
            description="Probabilities below this are not stored; thresholds can later move above it with no new run.",
            json_schema_extra={"advanced": True},
        )
        general_threshold: float = Field(
            0.3,
            ge=0,
            le=1,
            title="Threshold",
            description="Tags at or above this probability are proposed.",
            json_schema_extra={"selection": True},
        )

    def __init__(self, config: AdapterConfig | None = None) -> None:
        super().__init__(config)
        self.folder = Path(self.config.source) if self.config.source else EMBEDDED
        self._model: onnx_session.OnnxModel | None = None
        self._labels: tuple[LabelSet, npt.NDArray[np.float32]] | None = None
        self._manifest: dict[str, Any] | None = None

    # -- cheap ------------------------------------------------------------------------------------------------------
    def check(self) -> list[Problem]:
        found = [Problem(f"{self.folder / f} is missing.", MEND) for f in FILES if not (self.folder / f).is_file()]
        if self.config.quantization != "none":
            found.append(Problem("photo-lite is int8 already.", "Set its quantization to 'none'."))
        runtime = onnx_session.missing_runtime()
        return found + ([runtime] if runtime else []) + onnx_session.check_device(self.config.device)

    def identity(self) -> dict[str, Any]:
        return {
            "model": "photo-lite",
            "file_sha256": onnx_session.file_digest(self.folder / "model.onnx"),
            "labels": self.label_set.digest,
            "quantization": "none",
        }

    @property
    def manifest(self) -> dict[str, Any]:
        """manifest.json: input, crop, sources, digests. ModelUnavailable when it cannot be read."""
        if self._manifest is None:
            content = self._json("manifest.json")
            if missing := {"input", "crop", "files"} - set(content):
                raise ModelUnavailable(f"{self.folder / 'manifest.json'} lacks {', '.join(sorted(missing))}. {MEND}")
            self._manifest = content
        return self._manifest

    @property
    def label_set(self) -> LabelSet:
        return self._read_labels()[0]

    def _json(self, name: str) -> dict[str, Any]:
        try:
            return cast(dict[str, Any], json.loads((self.folder / name).read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise ModelUnavailable(f"{self.folder / name} cannot be read ({error}). {MEND}") from error

    def _read_labels(self) -> tuple[LabelSet, npt.NDArray[np.float32]]:
        """The label set, and the matrix (classes, parents) with 1 where a class lies below a parent."""
        if self._labels is None:
            content = self._json("labels.json")
            try:
                self._labels = _labels(content["classes"], content["parents"])
            except (KeyError, TypeError, ValueError) as error:
                path = self.folder / "labels.json"
                raise ModelUnavailable(f"{path} is not a label file of photo-lite ({error!r}). {MEND}") from error
        return self._labels

    # -- life -------------------------------------------------------------------------------------------------------
    def load(self) -> None:
        if self._model:
            return
        path = self.folder / "model.onnx"
        recorded, found = self.manifest["files"]["model.onnx"]["sha256"], onnx_session.file_digest(path)
        if recorded != found:
            raise ModelUnavailable(f"{path} is not the file that manifest.json describes (sha256 differs). {MEND}")
        model = onnx_session.OnnxModel(path, self.config.device)
        classes = self._read_labels()[1].shape[0]
        if model.output_shape[-1] != classes:
            model.close()
            raise ModelUnavailable(f"{path} has {model.output_shape[-1]} outputs, labels.json {classes}. {MEND}")
        self._model = model

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
        """uint8 RGB of shape (3, 260, 260)."""
        pixels = centre_crop(image, self.manifest["input"]["size"], self.manifest["crop"]["padding"])
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def infer(self, batch: Sequence[Pixels], request: Request) -> Iterator[Reply | AdapterError]:
        if not self._model:
            raise AdapterError("photo-lite is not loaded: call load() first")
        if not batch:
            return
        start = time.perf_counter()
        shape = self.manifest["input"]
        images = np.stack(batch).astype(np.float32)
        images -= shape["mean"]
        images /= shape["std"]
        classes = softmax(self._model.run(images))
        scores = np.concatenate([classes, classes @ self._read_labels()[1]], axis=1)
        floor = cast(PhotoLite.Options, request.options).score_floor
        seconds = (time.perf_counter() - start) / len(batch)
        for row in scores:
            yield Reply(scores=PackedScores.pack(row, floor), seconds=seconds)

    @classmethod
    def thresholds(
        cls, labels: LabelSet, probabilities: npt.NDArray[np.float32], options: AdapterOptions
    ) -> dict[str, float]:
        return {"general": cast(PhotoLite.Options, options).general_threshold}

    @classmethod
    def thresholds_vary(cls, options: AdapterOptions) -> bool:
        return False


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rows of logits (n, classes) → probabilities that sum to 1."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def _labels(
    classes: Sequence[dict[str, Any]], parents: Sequence[dict[str, Any]]
) -> tuple[LabelSet, npt.NDArray[np.float32]]:
    names = [entry["name"] for entry in (*classes, *parents)]
    index = {name: i for i, name in enumerate(names)}
    above = [-1 if entry["parent"] is None else index[entry["parent"]] for entry in (*classes, *parents)]
    members = np.zeros((len(classes), len(parents)), np.float32)
    for i in range(len(classes)):
        parent = above[i]
        while parent >= 0:
            members[i, parent - len(classes)] = 1
            parent = above[parent]
    return LabelSet(tuple(names), ("general",) * len(names), tuple(above)), members
