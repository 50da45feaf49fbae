"""Make a smaller form of an ONNX tagger and measure how far its scores are from the original's. For commands only."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from . import model_files, variants
from .base import AdapterError, ImageInput, ModelUnavailable, Request
from .onnx_session import file_digest
from .onnx_tagger import OnnxTagger

#: At which probability a label counts as a tag when sets are compared.
AT = 0.35


@dataclass(frozen=True)
class Measured:
    """A variant beside its original on the same pictures. Errors are differences of probabilities."""

    images: int
    max_error: float
    mean_error: float
    same_tags: float  # mean Jaccard index of the labels at or above AT
    seconds: float  # median of one picture, alone
    original_seconds: float
    bytes: int
    original_bytes: int

    @property
    def faster(self) -> float:
        """How many times as fast, on this machine."""
        return self.original_seconds / self.seconds if self.seconds else 0.0


def place(adapter: OnnxTagger, kind: str, folder: Path | None = None) -> Path:
    """Where the variant goes: `folder`, beside the original, or the first models folder. ModelUnavailable."""
    original = adapter.original
    if folder is not None:
        return folder / variants.beside(original, kind).name
    if os.access(original.parent, os.W_OK):
        return variants.beside(original, kind)
    for models in adapter.config.models_dirs:
        if os.access(models, os.W_OK):
            return variants.shelved(original, kind, models)
    raise ModelUnavailable(
        f"{original.parent} cannot be written, and there is no models folder that can. Name one in IWTAG_MODELS_DIRS."
    )


def make(adapter: OnnxTagger, kind: str, pictures: Sequence[ImageInput]) -> tuple[Path, Measured]:
    """Write the variant with its manifest, measured on `pictures`. An old one is replaced at the end only.

    ModelUnavailable or AdapterError when it cannot be made; then nothing is left behind.
    """
    if kind not in variants.KINDS:
        raise ModelUnavailable(f"Unknown variant {kind!r}: one of {', '.join(variants.KINDS)}.")
    original, out = adapter.original, place(adapter, kind)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.stem}.part{os.getpid()}.onnx")
    try:
        method = _convert(original, part, kind)
        measured = _measure(adapter, original, part, pictures)
        told = {
            "variant": kind,
            "method": method,
            "original": {"name": original.name, "sha256": file_digest(original)},
            "sha256": file_digest(part),
            "measured": {**asdict(measured), "at": AT},
        }
        for data in model_files.external_data(part):
            raise ModelUnavailable(f"{data.name} would be needed beside it: the model is too large for one file.")
        manifest = part.with_suffix(".json")
        manifest.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        os.replace(manifest, out.with_suffix(".json"))
        os.replace(part, out)
    finally:
        for left in (part, part.with_suffix(".json"), *model_files.external_data(part)):
            with contextlib.suppress(OSError):
                left.unlink()
    return out, measured


def _convert(original: Path, out: Path, kind: str) -> str:
    """Write `out`; what was done, in words."""
    try:
        import onnx
    except ImportError as error:
        raise ModelUnavailable("Making a variant needs the package onnx: pip install onnx") from error
    import onnxruntime

    version = f"onnxruntime {onnxruntime.__version__}"
    try:
        if kind == "int8":
            from onnxruntime.quantization import QuantType, quantize_dynamic

            quantize_dynamic(
                original, out, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"], per_channel=False
            )
            return f"dynamic, signed 8-bit weights of MatMul and Gemm, {version}"
        from onnxruntime.transformers.float16 import convert_float_to_float16

        onnx.save(convert_float_to_float16(onnx.load(original), keep_io_types=True), out)
        return f"16-bit floats, input and output 32 bits, {version}"
    except Exception as error:  # both libraries raise whatever comes
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelUnavailable(f"{original.name} cannot be turned into {kind}: {text}") from error


def _measure(adapter: OnnxTagger, original: Path, variant: Path, pictures: Sequence[ImageInput]) -> Measured:
    """Both models on each picture, one after the other, so that a busy machine slows both."""
    config = replace(adapter.config, quantization="none")
    first, second = type(adapter)(config), _At(type(adapter)(config), variant)
    request = Request(first.options())
    largest = total = 0.0
    same: list[float] = []
    times: tuple[list[float], list[float]] = ([], [])
    with first, second.adapter:
        for picture in pictures:
            try:
                prepared = first.prepare(picture, request)
            except AdapterError:
                continue
            scores = []
            for one, taken in zip((first, second.adapter), times, strict=True):
                start = time.perf_counter()
                scores.append(one.scores([prepared])[0])
                taken.append(time.perf_counter() - start)
            difference = np.abs(scores[0] - scores[1])
            largest, total = max(largest, float(difference.max())), total + float(difference.mean())
            a, b = (row >= AT for row in scores)
            either = np.count_nonzero(a | b)
            same.append(float(np.count_nonzero(a & b) / either) if either else 1.0)
    if not same:
        raise AdapterError("None of the pictures could be read: give others, so that the error can be measured.")
    return Measured(
        images=len(same),
        max_error=round(largest, 6),
        mean_error=round(total / len(same), 8),
        same_tags=round(statistics.mean(same), 4),
        seconds=round(statistics.median(times[1]), 6),
        original_seconds=round(statistics.median(times[0]), 6),
        bytes=model_files.bytes_of(variant) or 0,
        original_bytes=model_files.bytes_of(original) or 0,
    )


class _At:
    """An adapter that loads this file instead of its own."""

    def __init__(self, adapter: OnnxTagger, path: Path) -> None:
        self.adapter = adapter
        adapter._weights = lambda found: path  # type: ignore[method-assign]
