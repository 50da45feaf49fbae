"""The manifest of a generic ONNX classifier: `iwtag-model.yaml` or `.json` beside the model, said and checked.

model: model.onnx
name: bird classifier
licence: MIT
input: {layout: NCHW, width: 224, height: 224, colour: RGB, resize: crop, shorter_side: 256, interpolation: bicubic,
        scale: 0.00392156862745098, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}
output: {name: logits, activation: softmax}
labels: labels.txt                      # one a line, or a list here, or a CSV/JSON file
categories: {bird: general, safe: rating}   # by label; or a column `category` in the CSV
thresholds: {general: 0.3}
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from .base import ModelUnavailable
from .preparation import Framing, Norm, resample

NAMES = ("iwtag-model.yaml", "iwtag-model.yml", "iwtag-model.json")
Side = Annotated[int, Field(ge=8, le=4096)]
Three = tuple[float, float, float]
Probability = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Input(_Strict):
    """How pixels become the input. `scale` is applied to 0..255 first, then mean and std, in the order of `colour`."""

    layout: Literal["NCHW", "NHWC"] = "NCHW"
    width: Side
    height: Side
    colour: Literal["RGB", "BGR"] = "RGB"
    resize: Literal["squash", "pad", "crop"] = "crop"
    shorter_side: Side | None = Field(None, description="With crop: what the shorter side is resized to first.")
    border: tuple[int, int, int] = Field((255, 255, 255), description="With pad: the colour around the picture.")
    interpolation: str = "bicubic"
    scale: float = Field(1 / 255, gt=0)
    mean: Three = (0.0, 0.0, 0.0)
    std: Three = (1.0, 1.0, 1.0)

    @field_validator("interpolation")
    @classmethod
    def _known(cls, value: str) -> str:
        resample(value)
        return value

    @field_validator("std")
    @classmethod
    def _not_zero(cls, value: Three) -> Three:
        if not all(value):
            raise ValueError("holds a zero")
        return value

    @field_validator("border")
    @classmethod
    def _colour(cls, value: tuple[int, int, int]) -> tuple[int, int, int]:
        if not all(0 <= v <= 255 for v in value):
            raise ValueError("three numbers from 0 to 255")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Input:
        if self.shorter_side is not None and self.resize != "crop":
            raise ValueError("shorter_side goes with resize: crop")
        if self.resize == "crop" and (self.shorter_side or max(self.width, self.height)) < max(self.width, self.height):
            raise ValueError("shorter_side is smaller than the input")
        return self

    def framing(self) -> Framing:
        how: Any = {"squash": "squash", "pad": "fit", "crop": "cover"}[self.resize]
        short = (self.shorter_side or max(self.width, self.height)) if self.resize == "crop" else 0
        return Framing(how, self.width, self.height, resample(self.interpolation), self.border, short)

    def norm(self) -> Norm:
        return Norm(self.scale, self.mean, self.std, self.layout, self.colour)


class Output(_Strict):
    """Which output is used, and what makes probabilities of it."""

    name: str = Field("", description="The graph's first one where it is left out.")
    activation: Literal["none", "sigmoid", "softmax"] = "none"


class Manifest(_Strict):
    """A generic classifier."""

    model: str = "model.onnx"
    name: str = Field("", max_length=120)
    licence: str = Field("", max_length=200)
    input: Input
    output: Output = Field(default_factory=lambda: Output(name=""))
    labels: str | list[str]
    categories: dict[str, str] = Field({}, description="Category by label; the others are general.")
    thresholds: dict[str, Probability] = Field({}, description="By category; 0.5 where it is left out.")

    @field_validator("model", "labels")
    @classmethod
    def _inside(cls, value: Any) -> Any:
        if isinstance(value, str) and (Path(value).is_absolute() or ".." in Path(value).parts):
            raise ValueError("a file in the same folder")
        return value


def read(path: Path) -> Manifest:
    """ModelUnavailable names the file, the field and the fault."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text) if path.suffix == ".json" else _yaml(path, text)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ModelUnavailable(f"{path} cannot be read ({error}). Correct the file.") from error
    if not isinstance(content, dict):
        raise ModelUnavailable(f"{path} holds no manifest: a mapping of model, input, output, labels is expected.")
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg']}" for e in error.errors()[:5])
        raise ModelUnavailable(f"{path}: {faults}. Correct the manifest.") from error


def _yaml(path: Path, text: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise ModelUnavailable(f"{path} needs the package PyYAML; write it as iwtag-model.json instead.") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def read_labels(manifest: Manifest, folder: Path) -> tuple[list[str], list[str]]:
    """Names and categories in the order of the outputs. ModelUnavailable names the file and the line."""
    if isinstance(manifest.labels, list):
        names = [str(name).strip() for name in manifest.labels]
        categories: dict[str, str] = {}
        where = "labels of the manifest"
    else:
        path = folder / manifest.labels
        where = str(path)
        try:
            names, categories = _from_file(path)
        except (OSError, UnicodeDecodeError, ValueError, csv.Error) as error:
            raise ModelUnavailable(f"{path} cannot be read ({error}). Correct the file.") from error
    empty = next((i for i, name in enumerate(names, 1) if not name), None)
    if empty is not None or not names:
        raise ModelUnavailable(f"{where}, label {empty or 1}: a name is missing.")
    if unknown := set(manifest.categories) - set(names):
        raise ModelUnavailable(f"{where} has no label {sorted(unknown)[0]!r}, which `categories` names.")
    given = {**categories, **manifest.categories}
    return names, [given.get(name, "general") for name in names]


def _from_file(path: Path) -> tuple[list[str], dict[str, str]]:
    """A text file (one a line), a CSV with `name` and perhaps `category`, or JSON (a list, or number → name)."""
    if path.suffix == ".json":
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        if isinstance(content, dict):
            content = [content.get(str(i), "") for i in range(len(content))]
        if not isinstance(content, list):
            raise ValueError("a list of names, or a mapping of numbers to names")
        return [str(name).strip() for name in content], {}
    with path.open(encoding="utf-8-sig", newline="") as lines:
        if path.suffix != ".csv":
            return [line.strip() for line in lines.read().splitlines()], {}
        rows = list(csv.DictReader(lines))
    if rows and "name" not in rows[0]:
        raise ValueError("there is no column `name`")
    names = [(row["name"] or "").strip() for row in rows]
    return names, {n: row["category"].strip() for n, row in zip(names, rows, strict=True) if row.get("category")}
