"""WD taggers: any ONNX tagger in the layout of the WD v2 and v3 models (`model.onnx` + `selected_tags.csv`).

Input float32 NHWC, BGR, 0 to 255, the picture on white and padded to a white square; output one probability per line
of the label file. Layout after the models' own pages and the label file; the rating is a field of the reply, never a
tag; every score above the floor is kept, so that thresholds change later with no new inference.
"""

from __future__ import annotations

from typing import ClassVar, cast

import numpy as np
import numpy.typing as npt
from pydantic import Field

from . import onnx_session, wd_files
from .base import About, AdapterOptions, ImageInput, LabelSet, ModelUnavailable
from .folders import Guess, ModelFolder
from .model_files import Found, Wanted
from .onnx_tagger import OnnxTagger, Sheet, TaggerOptions, tagger_capabilities, threshold_field
from .preparation import Framing, Norm, Pixels, padded_square

#: A character is never proposed below this, however the gap falls: MCut always finds one, also among noise.
MCUT_CHARACTER_MINIMUM = 0.15
#: Files beside model.onnx and selected_tags.csv that only another family has.
FOREIGN = {"preprocess.json": "pixai", "thresholds.csv": "pixai", "threshold.json": "camie"}


class WdTagger(OnnxTagger):
    """One WD tagger from a local folder, a name in the models folders, or a hub id."""

    key = "wd"
    label = "WD tagger (ONNX, v2/v3 layout)"
    capabilities = tagger_capabilities(categories=("general", "character"))
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
    hub_files = (wd_files.MODEL, wd_files.TAGS)
    wanted = Wanted("A WD tagger", ((wd_files.MODEL,), (wd_files.TAGS,)))
    not_probabilities = "it is not in the WD layout."

    class Options(TaggerOptions):
        general_threshold: float = threshold_field(
            0.35, "General threshold", "General tags at or above this probability are proposed."
        )
        character_threshold: float = threshold_field(
            0.85, "Character threshold", "Character names at or above this probability are proposed."
        )
        general_mcut: bool = Field(
            False,
            title="MCut for general tags",
            description="Per image, cut at the largest gap between two scores instead of at the general threshold.",
            json_schema_extra={"selection": True, "advanced": True, "group": "Thresholds"},
        )
        character_mcut: bool = Field(
            False,
            title="MCut for characters",
            description=f"The same for characters, never below {MCUT_CHARACTER_MINIMUM}.",
            json_schema_extra={"selection": True, "advanced": True, "group": "Thresholds"},
        )

    @classmethod
    def recognises(cls, folder: ModelFolder) -> Guess | None:
        if not folder.has(wd_files.MODEL, wd_files.TAGS) or any(folder.has(name) for name in FOREIGN):
            return None
        if folder.has("sw_jax_cv_config.json"):
            return Guess("model.onnx, selected_tags.csv and sw_jax_cv_config.json of SmilingWolf's taggers", 90)
        return Guess("model.onnx beside selected_tags.csv, and nothing of another family", 75)

    def refuse(self, found: Found) -> None:
        folder = found[wd_files.MODEL].parent
        for name, key in FOREIGN.items():
            if (folder / name).is_file():
                raise ModelUnavailable(
                    f"{folder / name} says that this is no WD tagger: it would answer wrong tags here. "
                    f"Use the adapter {key!r}."
                )

    def read_sheet(self, found: Found) -> Sheet:
        labels = wd_files.read_labels(found[wd_files.TAGS])
        ratings = labels.category_index.get("rating", np.zeros(0, np.intp))
        names = tuple(labels.names[i] for i in ratings)
        return Sheet(labels, len(labels.names), ratings=names, rating_outputs=ratings, masked=ratings)

    def input_of(self, found: Found, model: onnx_session.OnnxModel | None) -> tuple[Framing, Norm]:
        side = _side(model) if model else 448
        return Framing("fit", side, side), Norm(scale=1, layout="NHWC", order="BGR")

    def frame(self, image: ImageInput, framing: Framing) -> Pixels:
        return padded_square(image, framing.width)

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

    @classmethod
    def thresholds_vary(cls, options: AdapterOptions) -> bool:
        chosen = cast(WdTagger.Options, options)
        return chosen.general_mcut or chosen.character_mcut


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
            "It is a model of another family (pixai and Camie take channels first): use the adapter for that family."
        )
    return cast(int, shape[1])
