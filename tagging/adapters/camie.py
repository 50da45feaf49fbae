"""Camie taggers, v1 and v2: about 70,000 Danbooru tags in seven categories, thresholds by mode and category.

Three layouts are known by their files: the author's v2 (`camie-tagger-v2.onnx` and its metadata: grey border, ImageNet
normalisation), the author's v1 (`model_initial.onnx` and flat metadata: black border, 0 to 1) and the export with
`selected_tags.csv`, `preprocess.json` and `threshold.json`. The author's graphs give logits, the export probabilities;
each has an output before and, in the full models, one after refinement.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field

from . import onnx_session, stages, wd_files
from .base import About, AdapterOptions, LabelSet, ModelUnavailable
from .folders import Guess, ModelFolder
from .model_files import Found, Wanted
from .onnx_tagger import OnnxTagger, Sheet, TaggerOptions, tagger_capabilities, threshold_field
from .preparation import IMAGENET, Framing, Norm

MODELS = ("camie-tagger-v2.onnx", "model_refined.onnx", "model_initial.onnx", "model.onnx")
LABELS = (
    "camie-tagger-v2-metadata.json",
    "model_refined_metadata.json",
    "model_initial_metadata.json",
    "metadata.json",
    "selected_tags.csv",
)
PREPROCESS, CUTS = "preprocess.json", ("thresholds.json", "threshold.json")
MODES = ("balanced", "high_precision", "high_recall", "micro_opt", "macro_opt")
CATEGORIES = ("general", "character", "copyright", "artist", "meta", "year")
#: A stored reply names at most this many labels; all of Camie's are 70,527.
MOST = 65_535
REFINED = ("refined_predictions", "refined_logits", "output", "logits")
INITIAL = ("initial_predictions", "initial_logits", "initial/output", "initial/logits")
#: Outputs that are probabilities already.
PROBABILITIES = ("output", "initial/output")
_GREY = (124, 116, 104)


class CamieTagger(OnnxTagger):
    """One Camie tagger from a local folder, a name in the models folders, or a hub id."""

    key = "camie"
    label = "Camie tagger (ONNX, v1 and v2)"
    capabilities = tagger_capabilities(categories=CATEGORIES)
    about = About(
        summary="Anime taggers with 70,527 Danbooru tags: general, character, copyright, artist, meta, year and a "
        "rating, with thresholds by mode and category.",
        weights="A folder, a name in IWTAG_MODELS_DIRS, or a hub id such as Camais03/camie-tagger-v2 "
        "(camie-tagger-v2.onnx, camie-tagger-v2-metadata.json), Camais03/camie-tagger (model_initial.onnx and its "
        "metadata), or an export with model.onnx, selected_tags.csv, preprocess.json and threshold.json.",
        licence="GPL-3.0 for the published weights: look at their page before you pass results or weights on.",
        memory="The size of the ONNX file (v2: 789 MB) and about 200 MiB more.",
        tested="ONNX graphs in all three layouts, built by the tests, against a plain session and plain Pillow; every "
        "mode; wrong files. The layouts follow public code that reads them; the published weights were not at hand.",
        notes=(
            "A stored reply names at most 65,535 labels, so that one of artists and copyrights is left out.",
            "Without thresholds.json or threshold.json in the folder only the option `threshold` counts.",
            "General tags, characters and the rating are accurate; artist, meta and year less so, says the author.",
        ),
    )
    preparation: ClassVar[str] = "camie 1: draft 2, white below transparency, fit with border, lanczos"
    load_options: ClassVar[frozenset[str]] = frozenset({"predictions"})
    hub_files = (*MODELS, *LABELS, PREPROCESS, *CUTS)
    wanted = Wanted("A Camie tagger", (MODELS, LABELS), ((PREPROCESS,), CUTS))
    not_probabilities = "the used output is no probability."

    class Options(TaggerOptions):
        predictions: Literal["best", "refined", "initial"] = Field(
            "best",
            title="Predictions",
            description="Of a full model: after refinement, or before. 'best' is refined where the model has it.",
            json_schema_extra={"advanced": True},
        )
        categories: Literal["without_artists", "without_copyrights"] = Field(
            "without_artists",
            title="Categories",
            description="What is left out where the model has more labels than a stored reply can name (65,535).",
            json_schema_extra={
                "advanced": True,
                "labels": {"without_artists": "all but artists", "without_copyrights": "all but copyrights"},
            },
        )
        mode: Literal["balanced", "high_precision", "high_recall", "micro_opt", "macro_opt", "options"] = Field(
            "balanced",
            title="Threshold mode",
            description="Which of the model's own thresholds count; 'options': the threshold below, for everything.",
            json_schema_extra={"selection": True, "group": "Thresholds"},
        )
        scope: Literal["category", "overall"] = Field(
            "category",
            title="Threshold scope",
            description="The mode's threshold of each category, or its one threshold for all.",
            json_schema_extra={"selection": True, "advanced": True, "group": "Thresholds"},
        )
        threshold: float = threshold_field(
            0.5, "Threshold", "For the mode 'options', and where the model brings no thresholds."
        )

    # -- which files ------------------------------------------------------------------------------------------------
    @classmethod
    def recognises(cls, folder: ModelFolder) -> Guess | None:
        if not any(folder.has(name) for name in MODELS):
            return None
        if folder.has("camie-tagger-v2.onnx", "camie-tagger-v2-metadata.json"):
            return Guess("camie-tagger-v2.onnx beside its metadata", 95)
        for name in LABELS[1:-1]:
            if folder.has(name) and any(sign in folder.head(name) for sign in ('"idx_to_tag"', '"dataset_info"')):
                return Guess(f"an ONNX model beside {name}, which maps numbers to tags", 85)
        if folder.has("model.onnx", "selected_tags.csv", PREPROCESS, "threshold.json"):
            return Guess("threshold.json with modes beside model.onnx and selected_tags.csv", 90)
        return None

    def refuse(self, found: Found) -> None:
        labels = found[LABELS[0]]
        if labels.suffix == ".csv" and (PREPROCESS not in found or CUTS[0] not in found):
            raise ModelUnavailable(
                f"{labels.parent} has neither Camie's metadata nor threshold.json beside selected_tags.csv: it is "
                "another family's. Use the adapter 'pixai' where there is a preprocess.json, else 'wd'."
            )

    # -- labels -----------------------------------------------------------------------------------------------------
    def read_sheet(self, found: Found) -> Sheet:
        self.refuse(found)
        path = found[LABELS[0]]
        if path.suffix == ".csv":
            names, categories = wd_files.read_rows(path)
        else:
            names, categories = read_metadata(path)
        options = cast(CamieTagger.Options, self.options())
        is_rating = np.array([c == "rating" for c in categories])
        kept = ~is_rating
        if np.count_nonzero(kept) > MOST:
            out = "artist" if options.categories == "without_artists" else "copyright"
            kept &= np.array([c != out for c in categories])
        kept_at = np.flatnonzero(kept)
        published = {}
        if cuts := found.get(CUTS[0]):
            published["modes"] = read_modes(cuts, "initial" if options.predictions == "initial" else "refined")
        try:
            labels = LabelSet(tuple(names[i] for i in kept_at), tuple(categories[i] for i in kept_at), (), published)
        except ValueError as error:
            raise ModelUnavailable(f"{path}: {error}.") from error
        at = np.flatnonzero(is_rating)
        ratings = tuple(names[i].removeprefix("rating_").removeprefix("rating:") for i in at)
        return Sheet(labels, len(names), kept=kept_at, ratings=ratings, rating_outputs=at)

    # -- input and output -------------------------------------------------------------------------------------------
    def input_of(self, found: Found, model: onnx_session.OnnxModel | None) -> tuple[Framing, Norm]:
        if found[LABELS[0]].suffix == ".csv":
            return stages.read(found[PREPROCESS])
        side, second = _side(found[LABELS[0]], model), _is_v2(found[LABELS[0]])
        colour = _GREY if second else (0, 0, 0)
        framing = Framing("fit", side, side, Image.Resampling.LANCZOS, colour, truncate=True)
        return framing, IMAGENET if second else Norm()

    def told_input(self) -> Mapping[str, Any]:
        found = self._files(download=True)
        assert found is not None
        if found[LABELS[0]].suffix == ".csv":
            framing, norm = stages.read(found[PREPROCESS])
            return {"framing": framing.as_dict(), "norm": norm.as_dict()}
        return {"layout": "v2" if _is_v2(found[LABELS[0]]) else "v1"}

    def wanted_outputs(self) -> Sequence[str]:
        chosen = cast(CamieTagger.Options, self.options()).predictions
        return INITIAL if chosen == "initial" else REFINED if chosen == "refined" else (*REFINED, *INITIAL)

    def verify(self, found: Found, model: onnx_session.OnnxModel) -> None:
        chosen = cast(CamieTagger.Options, self.options()).predictions
        if chosen != "best" and model.output_name not in self.wanted_outputs():
            raise ModelUnavailable(
                f"{model.path} has no {chosen} predictions (its outputs: {', '.join(model.outputs)}). "
                "Set the option 'predictions' to 'best', or take the full model."
            )

    def activation(self, output: str) -> str:
        return "none" if output in PROBABILITIES else "sigmoid"

    # -- selection among stored scores ------------------------------------------------------------------------------
    @classmethod
    def thresholds(
        cls, labels: LabelSet, probabilities: npt.NDArray[np.float32], options: AdapterOptions
    ) -> dict[str, float]:
        chosen = cast(CamieTagger.Options, options)
        modes = labels.published.get("modes", {})
        found: dict[str, float] = {}
        for category in labels.category_index:
            own = modes.get(category if chosen.scope == "category" else "overall", {})
            value = own.get(chosen.mode, modes.get("overall", {}).get(chosen.mode))
            found[category] = chosen.threshold if value is None else float(value)
        return found

    @classmethod
    def thresholds_vary(cls, options: AdapterOptions) -> bool:
        return False


def _content(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"{path} cannot be read ({error}). Download the file again.") from error
    if not isinstance(found, dict):
        raise ModelUnavailable(f"{path} is no JSON object. Download the file again.")
    return found


def _is_v2(path: Path) -> bool:
    """v2's metadata is nested; v1's is flat."""
    return "dataset_info" in _content(path)


def _side(path: Path, model: onnx_session.OnnxModel | None) -> int:
    """The side of the square input: as the graph says, else the metadata, else 512."""
    if model and len(model.input_shape) == 4 and isinstance(side := model.input_shape[2], int):
        return side
    told = _content(path).get("model_info", {}).get("img_size", 512)
    return told if isinstance(told, int) and 0 < told <= 4096 else 512


def read_metadata(path: Path) -> tuple[list[str], list[str]]:
    """Names and categories in the order of the outputs. ModelUnavailable names the file and what it lacks."""
    content = _content(path)
    content = content.get("dataset_info", content)
    content = content.get("tag_mapping", content)
    numbers, categories = content.get("idx_to_tag"), content.get("tag_to_category")
    if not isinstance(numbers, dict) or not isinstance(categories, dict) or not numbers:
        raise ModelUnavailable(f"{path} has no idx_to_tag and tag_to_category: not Camie's metadata.")
    names: list[str] = []
    for i in range(len(numbers)):
        name = numbers.get(str(i))
        if not isinstance(name, str) or not name:
            raise ModelUnavailable(f"{path} names no tag for output {i}. Download the file again.")
        names.append(name)
    return names, [str(categories.get(name, "general")) for name in names]


def read_modes(path: Path, stage: str) -> dict[str, dict[str, float]]:
    """Category or "overall" → mode → threshold. ModelUnavailable names the file and the fault."""
    content = _content(path)
    content = content.get(stage, content.get("initial", content))
    found: dict[str, dict[str, float]] = {}
    for category, modes in content.items():
        if not isinstance(modes, dict):
            continue
        for mode in MODES:
            given = modes.get(mode)
            value = given.get("threshold") if isinstance(given, dict) else given
            if value is None:
                continue
            if not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ModelUnavailable(f"{path}: the threshold of {category}, {mode} is {value!r}, not 0 to 1.")
            found.setdefault(category, {})[mode] = float(value)
    if not found:
        raise ModelUnavailable(f"{path} has no thresholds by category and mode. Remove it, or download it again.")
    return found
