"""PixAI taggers, and others in the layout of their ONNX export: `model.onnx`, `selected_tags.csv`, `preprocess.json`.

The file names are WD's but the input is not: RGB, channels first, resized and normalised as preprocess.json says. It is
that file which tells the two apart. Thresholds by category come from `thresholds.csv` where there is one, thresholds of
single tags from the column `best_threshold` of the label file where it has one.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np
import numpy.typing as npt
from pydantic import Field

from . import onnx_session, stages, wd_files
from .base import About, AdapterOptions, LabelCuts, LabelSet, ModelUnavailable, Thresholds
from .folders import Guess, ModelFolder
from .model_files import Found, Wanted
from .onnx_tagger import OnnxTagger, Sheet, TaggerOptions, tagger_capabilities, threshold_field
from .preparation import Framing, Norm

PREPROCESS, CATEGORY_CUTS = "preprocess.json", "thresholds.csv"
#: Where thresholds.csv does not name a category.
FALLBACK = 0.4


class PixaiTagger(OnnxTagger):
    """One tagger from a local folder, a name in the models folders, or a hub id."""

    key = "pixai"
    label = "PixAI tagger (ONNX with preprocess.json)"
    capabilities = tagger_capabilities(categories=("general", "character"))
    about = About(
        summary="Anime taggers with about 13,500 Danbooru tags and names of characters, a probability for each; also "
        "other taggers exported the same way (a rating where their label file has one).",
        weights="model.onnx, selected_tags.csv and preprocess.json in a folder, a name in IWTAG_MODELS_DIRS, or a hub "
        "id such as deepghs/pixai-tagger-v0.9-onnx; thresholds.csv is used where it is there.",
        licence="Apache-2.0 for PixAI v0.9 as published; look at the page of the one you take.",
        memory="The size of model.onnx (v0.9: 1.3 GB) and about 200 MiB more.",
        tested="ONNX graphs in this layout, built by the tests, with both kinds of output, against a plain session and "
        "plain Pillow; each stage of preprocess.json; wrong files. The published weights were not at hand.",
        notes=(
            "preprocess.json tells it from a WD tagger; each adapter refuses the other's folder.",
            "The output `prediction` is used as it is; where there is only `logits`, a sigmoid is applied.",
        ),
    )
    preparation: ClassVar[str] = "stages 1: draft 2 (fit), 2.5 (crop), white, as preprocess.json says"
    hub_files = (wd_files.MODEL, wd_files.TAGS, PREPROCESS, CATEGORY_CUTS)
    wanted = Wanted("A PixAI tagger", ((wd_files.MODEL,), (wd_files.TAGS,), (PREPROCESS,)), ((CATEGORY_CUTS,),))
    output_names = ("prediction", "output", "logits")
    not_probabilities = "its output is no probability; a graph with `prediction` or `logits` is expected."

    class Options(TaggerOptions):
        thresholds_from: Literal["file", "tags", "options"] = Field(
            "file",
            title="Thresholds from",
            description="The model's thresholds.csv by category (0.4 where it names none), the label file's best "
            "threshold of each tag, or the two thresholds below.",
            json_schema_extra={
                "selection": True,
                "group": "Thresholds",
                "labels": {"file": "thresholds.csv", "tags": "each tag's best", "options": "the values below"},
            },
        )
        general_threshold: float = threshold_field(
            0.3, "General threshold", "General tags at or above this probability; for 'the values below' only."
        )
        character_threshold: float = threshold_field(
            0.85, "Character threshold", "Character names at or above it; for 'the values below' only."
        )

    @classmethod
    def recognises(cls, folder: ModelFolder) -> Guess | None:
        if folder.has(wd_files.MODEL, wd_files.TAGS, PREPROCESS) and not folder.has("threshold.json"):
            return Guess("preprocess.json beside model.onnx and selected_tags.csv", 90)
        return None

    def refuse(self, found: Found) -> None:
        if (found[wd_files.MODEL].parent / "threshold.json").is_file():
            raise ModelUnavailable(
                f"{found[wd_files.MODEL].parent / 'threshold.json'} belongs to a Camie tagger. Use the adapter 'camie'."
            )

    def read_sheet(self, found: Found) -> Sheet:
        names, categories = wd_files.read_rows(found[wd_files.TAGS])
        published: dict[str, Any] = {}
        if path := found.get(CATEGORY_CUTS):
            published["categories"] = read_category_cuts(path)
        if cuts := _best_thresholds(found[wd_files.TAGS], len(names)):
            published["tags"] = cuts
        try:
            labels = LabelSet(tuple(names), tuple(categories), (), published)
        except ValueError as error:
            raise ModelUnavailable(f"{found[wd_files.TAGS]}: {error}.") from error
        ratings = labels.category_index.get("rating", np.zeros(0, np.intp))
        return Sheet(
            labels,
            len(names),
            ratings=tuple(names[i] for i in ratings),
            rating_outputs=ratings,
            masked=ratings,
        )

    def input_of(self, found: Found, model: onnx_session.OnnxModel | None) -> tuple[Framing, Norm]:
        return stages.read(found[PREPROCESS])

    def told_input(self) -> Mapping[str, Any]:
        found = self._files(download=True)
        assert found is not None
        framing, norm = stages.read(found[PREPROCESS])
        return {"framing": framing.as_dict(), "norm": norm.as_dict()}

    def activation(self, output: str) -> str:
        return "sigmoid" if output == "logits" else "none"

    # -- selection among stored scores ------------------------------------------------------------------------------
    @classmethod
    def thresholds(
        cls, labels: LabelSet, probabilities: npt.NDArray[np.float32], options: AdapterOptions
    ) -> dict[str, float]:
        chosen = cast(PixaiTagger.Options, options)
        if chosen.thresholds_from == "options":
            return {"general": chosen.general_threshold, "character": chosen.character_threshold}
        by_category = labels.published.get("categories", {})
        cuts = {category: float(by_category.get(category, FALLBACK)) for category in labels.category_index}
        if chosen.thresholds_from == "tags" and "tags" in labels.published:
            own = labels.published["tags"]
            return Thresholds(
                cuts, LabelCuts.cached(labels, "tags", lambda: [np.nan if v is None else float(v) for v in own])
            )
        return cuts

    @classmethod
    def thresholds_vary(cls, options: AdapterOptions) -> bool:
        return False


def read_category_cuts(path: Path) -> dict[str, float]:
    """`category` (Danbooru's number or a name) → `threshold`. ModelUnavailable names the file and the line."""
    found: dict[str, float] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            rows = csv.DictReader(lines)
            if missing := {"category", "threshold"} - set(rows.fieldnames or ()):
                raise ModelUnavailable(f"{path} has no column {', '.join(sorted(missing))}. Download the file again.")
            for row in rows:
                try:
                    value = float(row["threshold"])
                except (TypeError, ValueError):
                    value = -1.0
                if not 0 <= value <= 1 or not row["category"]:
                    raise ModelUnavailable(f"{path}, line {rows.line_num}: a category and a threshold 0 to 1 expected.")
                number = row["category"].strip()
                found[wd_files.CATEGORIES.get(number, number)] = value
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ModelUnavailable(f"{path} cannot be read ({error}). Download the file again.") from error
    return found


def _best_thresholds(path: Path, count: int) -> list[float | None]:
    """The column `best_threshold` of a label file; [] without it. Values that are none become None."""
    values: list[float | None] = []
    with path.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv.DictReader(lines)
        if "best_threshold" not in (rows.fieldnames or ()):
            return []
        for row in rows:
            try:
                value = float(row["best_threshold"])
            except (TypeError, ValueError):
                value = -1.0
            values.append(round(value, 6) if 0 < value <= 1 else None)
    return values if len(values) == count else []
