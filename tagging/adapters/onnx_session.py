"""One ONNX model: where its file is, what it wants, and fast, concurrent calls of it.

Which device computes is the `device` option's choice; "auto" takes the best that this onnxruntime has and the machine
can start, and says so where it fell back. On a processor the fastest way measured is one thread per call and as many
calls at once as there are cores, each with one image (a ViT-B/16 at 448: two such calls 2.0 x, one call with two
threads 1.6 x, batches of 8 0.8 x); on a device one call per batch. onnxruntime is imported in `load` only, so that
naming an adapter costs nothing.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import batching
from .base import AdapterError, ModelUnavailable, OutOfMemory, Problem

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]

#: Device option → execution provider and the package that brings it.
PROVIDERS = {
    "tensorrt": ("TensorrtExecutionProvider", "onnxruntime-gpu"),
    "cuda": ("CUDAExecutionProvider", "onnxruntime-gpu"),
    "rocm": ("ROCMExecutionProvider", "onnxruntime-rocm"),
    "migraphx": ("MIGraphXExecutionProvider", "onnxruntime-migraphx"),
    "directml": ("DmlExecutionProvider", "onnxruntime-directml"),
    "coreml": ("CoreMLExecutionProvider", "onnxruntime, on macOS"),
    "openvino": ("OpenVINOExecutionProvider", "onnxruntime-openvino"),
    "cpu": ("CPUExecutionProvider", "onnxruntime"),
}
#: Tried in this order for "auto". TensorRT is only used by name, as it compiles for minutes at the first start, and
#: OpenVINO too, as its scores on a processor may differ in the third digit.
AUTO = ("cuda", "migraphx", "rocm", "directml", "coreml")
#: What a provider hands on to what it cannot compute itself, before the processor.
NEXT = {"tensorrt": "cuda"}
DEVICES = ("auto", *PROVIDERS)
#: What forms are told of images per call; the size really used is found while working (see batching.py).
DEVICE_BATCH = 16
_OUT_OF_MEMORY = ("out of memory", "failed to allocate", "bad allocation", "bad_alloc", "cudaerrormemoryallocation")


def missing_runtime() -> Problem | None:
    """A problem when onnxruntime is not installed; imports nothing."""
    if importlib.util.find_spec("onnxruntime"):
        return None
    return Problem("onnxruntime is not installed.", "Install it: pip install onnxruntime")


def check_device(device: str) -> list[Problem]:
    """Is the device a known word? Whether it can really be used shows only when the model is loaded."""
    name = device.partition(":")[0]
    if name in DEVICES:
        return []
    return [Problem(f"Unknown device {device!r}.", f"Use one of {', '.join(DEVICES)}; cuda:1 is the second card.")]


def file_digest(path: Path) -> str:
    """sha256 (hex) of a file, remembered while its size and time stay the same. ModelUnavailable when unreadable."""
    try:
        stat = path.stat()
        return _digest(str(path), stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise ModelUnavailable(f"{path} cannot be read: {error.strerror}. Restore the file.") from error


@lru_cache(maxsize=64)
def _digest(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cores() -> int:
    """Processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


class OnnxModel:
    """A loaded model with one input and one used output. `run` may be called from one thread at a time."""

    def __init__(
        self,
        path: Path,
        device: str = "auto",
        *,
        outputs: Sequence[str] = (),
        convert: Callable[[npt.NDArray[Any]], Floats] | None = None,
    ) -> None:
        """Load `path` on `device`. ModelUnavailable names the file or the device, and the mend.

        The used output is the first of `outputs` that the graph has; without any, its first one. `convert` makes floats
        of what `run` is given, in the threads that compute.
        """
        problems = [missing_runtime(), *check_device(device)]
        for problem in filter(None, problems):
            raise ModelUnavailable(f"{problem.message} {problem.mend}")
        import onnxruntime

        onnxruntime.set_default_logger_severity(3)
        self.path = path
        wanted = _providers(device, onnxruntime.get_available_providers())
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if wanted[0] == "CPUExecutionProvider":
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=wanted)
        except Exception as error:  # onnxruntime has a dozen unrelated exception classes
            raise _load_error(path, error) from error
        self.provider: str = self._session.get_providers()[0]
        self.fallback = self._fallback(device, wanted)
        there = {output.name: output for output in self._session.get_outputs()}
        self._input = self._session.get_inputs()[0]
        self._output = next((there[name] for name in outputs if name in there), self._session.get_outputs()[0])
        self.outputs = tuple(there)
        self._convert = convert
        self._sizes = batching.finder(("onnx", str(path), self.provider, device))
        self._pool: ThreadPoolExecutor | None = None
        if self.on_cpu and cores() > 1:
            self._pool = ThreadPoolExecutor(cores(), thread_name_prefix="onnx")

    def _fallback(self, device: str, wanted: Sequence[Any]) -> str:
        """onnxruntime falls back to the processor in silence: whoever named a device is refused, "auto" is told.

        The provider that did not start; "" when all is well.
        """
        name = str(wanted[0][0] if isinstance(wanted[0], tuple) else wanted[0])
        if self.provider == name:
            return ""
        if device != "auto":
            raise ModelUnavailable(
                f"{self.path.name} runs on {self.provider}, not on {device!r}: the device or its driver is not usable. "
                "Check the driver and the CUDA version that onnxruntime asks for, or choose the device 'auto' or 'cpu'."
            )
        log.warning("%s runs on %s: %s did not start", self.path.name, self.provider, name)
        return name

    @property
    def told_provider(self) -> str:
        """The provider that computes, and the one that was to and did not start: as a run records it."""
        return f"{self.provider} ({self.fallback} did not start)" if self.fallback else self.provider

    @property
    def on_cpu(self) -> bool:
        return self.provider == "CPUExecutionProvider"

    @property
    def batch_size(self) -> int:
        """How many images keep the device busy: two rounds of every core, or one call."""
        if self.on_cpu:
            return 2 * cores()
        return self.input_shape[0] if isinstance(self.input_shape[0], int) else self._sizes.size

    @property
    def input_shape(self) -> list[int | str | None]:
        """As in the file: an int, or a name or None where the size is free."""
        return list(self._input.shape)

    @property
    def output_name(self) -> str:
        """The used output's name."""
        return str(self._output.name)

    @property
    def input_type(self) -> str:
        return str(self._input.type)

    @property
    def output_shape(self) -> list[int | str | None]:
        return list(self._output.shape)

    def run(self, batch: npt.NDArray[Any]) -> Floats:
        """Input (n, ...), before `convert` → the used output (n, ...). OutOfMemory; AdapterError when a call fails."""
        try:
            if not self._one_by_one(len(batch)):
                start = time.perf_counter()
                found = self._call(batch)
                self._sizes.took(len(batch), time.perf_counter() - start)
                return found
            singles = [batch[i : i + 1] for i in range(len(batch))]
            return np.concatenate(list(self._pool.map(self._call, singles) if self._pool else map(self._call, singles)))
        except MemoryError as error:
            raise self._full(len(batch), "") from error
        except Exception as error:  # see above
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            if any(word in str(error).lower() for word in _OUT_OF_MEMORY):
                raise self._full(len(batch), f" ({text})") from error
            raise AdapterError(f"{self.path.name} failed on {len(batch)} images: {text}") from error

    def _full(self, count: int, text: str) -> OutOfMemory:
        self._sizes.full(count)
        return OutOfMemory(f"{self.path.name}: no memory for {count} images{text}")

    def _one_by_one(self, count: int) -> bool:
        return count > 1 and (self.on_cpu or self.input_shape[0] == 1)

    def _call(self, images: npt.NDArray[Any]) -> Floats:
        if self._convert is not None:
            images = self._convert(images)
        return self._session.run([self._output.name], {self._input.name: images})[0]

    def close(self) -> None:
        """Free the weights and the threads."""
        if self._pool:
            self._pool.shutdown()
        self._session = self._pool = None


def _providers(device: str, available: Sequence[str]) -> list[Any]:
    """Providers to ask for, best first, always with the processor last for what a device cannot compute."""
    name, _, index = device.partition(":")
    if name == "auto":
        chosen = next((d for d in AUTO if PROVIDERS[d][0] in available), "cpu")
    else:
        chosen = name
    provider, package = PROVIDERS[chosen]
    if provider not in available:
        raise ModelUnavailable(
            f"The device {device!r} needs {provider}, which this onnxruntime does not have. "
            f"Install it (pip install {package}) in place of onnxruntime, or choose the device 'auto' or 'cpu'."
        )
    if chosen == "cpu":
        return [provider]
    names = [chosen, *([NEXT[chosen]] if NEXT.get(chosen) and PROVIDERS[NEXT[chosen]][0] in available else [])]
    return [*((PROVIDERS[name][0], _settings(name, index)) for name in names), "CPUExecutionProvider"]


def _settings(name: str, index: str) -> dict[str, str]:
    """What a provider is told: the card, and not to double its memory when it needs a little more."""
    settings: dict[str, str] = {}
    if name == "openvino":
        return {"device_type": f"GPU.{index}" if index else "CPU"}
    if index and name != "coreml":
        settings["device_id"] = index
    if name == "cuda":
        settings["arena_extend_strategy"] = "kSameAsRequested"
    return settings


def _load_error(path: Path, error: Exception) -> AdapterError:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, MemoryError) or any(word in str(error).lower() for word in _OUT_OF_MEMORY):
        return OutOfMemory(f"No memory to load {path.name}: {text}")
    return ModelUnavailable(f"{path} is not an ONNX model that can be loaded ({text}). Download the file again.")
