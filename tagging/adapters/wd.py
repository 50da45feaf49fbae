"""WD taggers: any ONNX tagger in the layout of the WD v2 and v3 models (`model.onnx` + `selected_tags.csv`).

Input float32 NHWC, BGR, 0 to 255, the picture on white and padded to a white square; output one probability per line
of the label file. Layout after the models' own pages and the label file; the rating is a field of the reply, never a
tag; every score above the floor is kept, so that thresholds change later with no new inference.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
from pydantic import Field

from . import onnx_session, wd_files
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
from .preparation import Pixels, padded_square

#: A character is never proposed below this, however the gap falls: MCut always finds one, also among noise.
MCUT_CHARACTER_MINIMUM = 0.15
#: How far outside 0..1 an output may be before it is no probability.
TOLERANCE = 1e-3


class WdTagger(Adapter):
    """One WD tagger from a local folder, a name in the models folders, or a hub id."""

    key = "wd"
    label = "WD tagger (ONNX, v2/v3 layout)"
    capabilities = Capabilities(
        outputs=frozenset({"tags", "rating"}),
        scores=True,
        images_per_call=onnx_session.DEVICE_BATCH,
        threshold_categories=("general", "character"),
        devices=onnx_session.DEVICES,
    )
    about = About(
        summary="Anime and illustration taggers of the WD v2 and v3 layout: general tags, characters and a content "
        "rating from a fixed list of Danbooru tags, a probability for each.",
        weights="model.onnx and selected_tags.csv in a folder, a name in IWTAG_MODELS_DIRS, or a hub id such as "
        "SmilingWolf/wd-vit-tagger-v3 (downloaded at its first use).",
        licence="Apache-2.0 for SmilingWolf's v3 models as published; look at the page of the one you take.",
        memory="The size of model.onnx and about 200 MiB more (a ViT-B/16 at 448 pixels: 379 MB on disk).",
        tested="A WD-shaped ONNX with photo-lite's real weights inside, against a plain session and preparation (equal "
        "to 1e-4); wrong files, labels and layouts. The published weights were not at hand.",
        notes=(
            "A folder of a pixai or Camie model is refused: their files look alike, their input is another.",
            "The rating is a field of the reply, never a tag.",
        ),
    )
    preparation: ClassVar[str] = "wd 1: draft 2, white, padded square, bicubic"

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
            0.35,
            ge=0,
            le=1,
            title="General threshold",
            description="General tags at or above this probability are proposed.",
            json_schema_extra={"selection": True},
        )
        character_threshold: float = Field(
            0.85,
            ge=0,
            le=1,
            title="Character threshold",
            description="Character names at or above this probability are proposed.",
            json_schema_extra={"selection": True},
        )
        general_mcut: bool = Field(
            False,
            title="MCut for general tags",
            description="Per image, cut at the largest gap between two scores instead of at the general threshold.",
            json_schema_extra={"selection": True, "advanced": True},
        )
        character_mcut: bool = Field(
            False,
            title="MCut for characters",
            description=f"The same for characters, never below {MCUT_CHARACTER_MINIMUM}.",
            json_schema_extra={"selection": True, "advanced": True},
        )

    def __init__(self, config: AdapterConfig | None = None) -> None:
        super().__init__(config)
        self._files: wd_files.Files | None = None
        self._labels: LabelSet | None = None
        self._model: onnx_session.OnnxModel | None = None
        self._side = 0

    # -- cheap ------------------------------------------------------------------------------------------------------
    def check(self) -> list[Problem]:
        found = onnx_session.check_device(self.config.device)
        if runtime := onnx_session.missing_runtime():
            found.append(runtime)
        if self.config.quantization != "none":
            found.append(Problem("A WD tagger is used as its file is.", "Set its quantization to 'none'."))
        try:
            if self._find(download=False):
                self._read_labels()
            else:
                message = f"{self.config.source} is not on this machine yet."
                mend = f"It is downloaded at its first use. Without a connection: {wd_files.how_to_get(self.config)}"
                found.append(Problem(message, mend, fatal=False))
        except ModelUnavailable as error:
            found.append(Problem(error.message, "Correct the adapter's source, or put the files there."))
        return found

    def identity(self) -> dict[str, Any]:
        files = self._find(download=True)
        return {
            "file_sha256": onnx_session.file_digest(files.model) if files else "",
            "labels": self._read_labels().digest,
            "quantization": "none",
        }

    def _find(self, *, download: bool) -> wd_files.Files | None:
        if self._files is None:
            self._files = wd_files.find(self.config, download=download)
        return self._files

    def _read_labels(self) -> LabelSet:
        if self._labels is None:
            files = cast(wd_files.Files, self._find(download=True))
            self._labels = wd_files.read_labels(files.tags)
        return self._labels

    @property
    def label_set(self) -> LabelSet | None:
        """None while a hub model is not on this machine."""
        return self._read_labels() if self._find(download=False) else None

    # -- life -------------------------------------------------------------------------------------------------------
    def load(self) -> None:
        if self._model:
            return
        labels = self._read_labels()
        files = cast(wd_files.Files, self._find(download=True))
        model = onnx_session.OnnxModel(files.model, self.config.device)
        try:
            self._side = _side(model)
            width = model.output_shape[-1]
            if not isinstance(width, int):  # free in the graph: ask the model
                width = model.run(np.zeros((1, self._side, self._side, 3), np.float32)).shape[-1]
            if width != len(labels.names):
                raise ModelUnavailable(
                    f"{files.tags} has {len(labels.names)} tags but {files.model.name} has {width} outputs: "
                    "they belong to different models. Download both from the same place."
                )
        except Exception:
            model.close()
            raise
        self._model = model

    def unload(self) -> None:
        if self._model:
            self._model.close()
        self._model = None

    @property
    def provider(self) -> str:
        return self._model.provider if self._model else ""

    @property
    def batch_size(self) -> int:
        return self._model.batch_size if self._model else 1

    # -- work -------------------------------------------------------------------------------------------------------
    def prepare(self, image: ImageInput, request: Request) -> Pixels:
        """uint8 BGR of shape (side, side, 3)."""
        if not self._side:
            raise AdapterError("The WD tagger is not loaded: call load() before prepare()")
        return np.ascontiguousarray(padded_square(image, self._side)[:, :, ::-1])

    def infer(self, batch: Sequence[Pixels], request: Request) -> Iterator[Reply | AdapterError]:
        if not self._model:
            raise AdapterError("The WD tagger is not loaded: call load() first")
        if not batch:
            return
        labels, options = self._read_labels(), cast(WdTagger.Options, request.options)
        start = time.perf_counter()
        scores = self._model.run(np.stack(batch).astype(np.float32))
        seconds = (time.perf_counter() - start) / len(batch)
        ratings = labels.category_index.get("rating", np.zeros(0, np.intp))
        for row in scores:
            if row.min(initial=0) < -TOLERANCE or row.max(initial=0) > 1 + TOLERANCE:
                text = f"{self._model.path.name} answers with values outside 0 to 1: it is not in the WD layout."
                yield AdapterError(text, permanent=True)
                continue
            row = row.astype(np.float32)
            rating = None
            if len(ratings):
                best = int(ratings[row[ratings].argmax()])
                rating = (labels.names[best], float(row[best]))
                row[ratings] = 0
            yield Reply(scores=PackedScores.pack(row, options.score_floor), rating=rating, seconds=seconds)

    # -- selection among stored scores ------------------------------------------------------------------------------
    @classmethod
    def thresholds(
        cls, labels: LabelSet, probabilities: npt.NDArray[np.float32], options: AdapterOptions
    ) -> dict[str, float]:
        chosen = cast(WdTagger.Options, options)
        cuts = {"general": chosen.general_threshold, "character": chosen.character_threshold}
        index = labels.category_index
        if chosen.general_mcut and "general" in index:
            cuts["general"] = mcut(probabilities[index["general"]], chosen.score_floor)
        if chosen.character_mcut and "character" in index:
            cut = mcut(probabilities[index["character"]], chosen.score_floor)
            cuts["character"] = max(cut, MCUT_CHARACTER_MINIMUM)
        return cuts


def mcut(probabilities: npt.NDArray[np.float32], floor: float) -> float:
    """Maximum cut thresholding (Largeron, Moulin and Géry, IDA 2012): the middle of the largest gap between two
    neighbouring scores in descending order.

    Scores below `floor` are unknown, so the last known one is compared with the floor itself. With nothing above the
    floor the answer is 1: nothing passes.
    """
    known = np.sort(probabilities[probabilities >= floor])[::-1]
    if not len(known):
        return 1.0
    steps = np.append(known, np.float32(floor))
    gap = int(np.argmax(steps[:-1] - steps[1:]))
    return float((steps[gap] + steps[gap + 1]) / 2)


def _side(model: onnx_session.OnnxModel) -> int:
    """The side of the square input; ModelUnavailable when the graph is not in the WD layout."""
    shape = model.input_shape
    square = len(shape) == 4 and isinstance(shape[1], int) and shape[1] == shape[2] and shape[3] == 3
    if not square or model.input_type != "tensor(float)":
        raise ModelUnavailable(
            f"{model.path} takes {model.input_type} of shape {shape}; a WD tagger takes float (n, side, side, 3). "
            "It is a model of another family: use the adapter for that family."
        )
    return cast(int, shape[1])
