"""Smaller forms of an ONNX tagger: made by `manage.py quantize_model`, chosen by the adapter's quantization.

A variant lies beside its original (`model.int8.onnx`), or in `.iwtag-variants` of a models folder where the original's
folder cannot be written. A JSON file of the same name says what it was made of and how far its scores are from the
original's; it has an identity of its own, so that its results are never mixed with the original's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .base import ModelUnavailable
from .onnx_session import file_digest

#: What a variant is, for people.
KINDS = {
    "int8": "weights and activations of matrix products in 8 bits: for processors",
    "fp16": "16-bit floats: for GPUs; no gain on a processor",
}
SHELF = ".iwtag-variants"
MAKE = "manage.py quantize_model"


def beside(model: Path, kind: str) -> Path:
    """Where a variant lies beside its original."""
    return model.with_name(f"{model.stem}.{kind}.onnx")


def shelved(model: Path, kind: str, folder: Path) -> Path:
    """Where it lies in a models folder, named by the original's content. ModelUnavailable."""
    return folder / SHELF / f"{file_digest(model)[:24]}.{kind}.onnx"


def find(model: Path, kind: str, models_dirs: Sequence[Path] = ()) -> Path:
    """The file of this variant of `model`. ModelUnavailable when it was not made, or was made of another file."""
    places = [beside(model, kind), *(shelved(model, kind, folder) for folder in models_dirs)]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise ModelUnavailable(
            f"There is no {kind} variant of {model.name} yet. Make it with {MAKE}, or set the quantization to 'none'."
        )
    made_of = manifest(path).get("original", {}).get("sha256")
    if made_of != file_digest(model):
        raise ModelUnavailable(f"{path.name} was made of another {model.name}. Make it again with {MAKE}.")
    return path


def manifest(path: Path) -> dict[str, Any]:
    """What is written of a variant file: original, method, measured error. ModelUnavailable when it is unreadable."""
    try:
        found = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnavailable(
            f"{path.with_suffix('.json')} cannot be read ({error}). Make the variant again with {MAKE}."
        ) from error
    if not isinstance(found, dict):
        raise ModelUnavailable(f"{path.with_suffix('.json')} says nothing. Make the variant again with {MAKE}.")
    return found
