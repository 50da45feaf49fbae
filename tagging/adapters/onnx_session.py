"""One ONNX model: where its file is, what it wants, and fast, concurrent calls of it.

On a processor the fastest way measured is one thread per call and as many calls at once as there are cores, each with
one image (a ViT-B/16 at 448: two such calls 2.0 x, one call with two threads 1.6 x, batches of 8 0.8 x); on a device
one call per batch. onnxruntime is imported in `load` only, so that naming an adapter costs nothing.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .base import AdapterError, ModelUnavailable, OutOfMemory, Problem

Floats = npt.NDArray[np.float32]

#: Device option → execution provider and the package that brings it.
PROVIDERS = {
    "tensorrt": ("TensorrtExecutionProvider", "onnxruntime-gpu"),
    "cuda": ("CUDAExecutionProvider", "onnxruntime-gpu"),
    "rocm": ("ROCMExecutionProvider", "onnxruntime-rocm"),
    "directml": ("DmlExecutionProvider", "onnxruntime-directml"),
    "coreml": ("CoreMLExecutionProvider", "onnxruntime, on macOS"),
    "cpu": ("CPUExecutionProvider", "onnxruntime"),
}
#: Tried in this order for "auto". TensorRT is only used by name: it compiles for minutes at the first start.
AUTO = ("cuda", "rocm", "directml", "coreml")
DEVICES = ("auto", *PROVIDERS)
#: Images per call on a device; the engine halves it when the device's memory is full.
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

    def __init__(self, path: Path, device: str = "auto") -> None:
        """Load `path` on `device`. ModelUnavailable names the file or the device, and the mend."""
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
        self._refuse_fallback(device, wanted)
        self._input, self._output = self._session.get_inputs()[0], self._session.get_outputs()[0]
        self._pool: ThreadPoolExecutor | None = None
        if self.on_cpu and cores() > 1:
            self._pool = ThreadPoolExecutor(cores(), thread_name_prefix="onnx")

    def _refuse_fallback(self, device: str, wanted: Sequence[Any]) -> None:
        """onnxruntime falls back to the processor in silence; whoever named a device must be told."""
        name = wanted[0][0] if isinstance(wanted[0], tuple) else wanted[0]
        if device != "auto" and self.provider != name:
            raise ModelUnavailable(
                f"{self.path.name} runs on {self.provider}, not on {device!r}: the device or its driver is not usable. "
                "Check the driver and the CUDA version that onnxruntime asks for, or choose the device 'auto' or 'cpu'."
            )

    @property
    def on_cpu(self) -> bool:
        return self.provider == "CPUExecutionProvider"

    @property
    def batch_size(self) -> int:
        """How many images keep the device busy: two rounds of every core, or one call."""
        if self.on_cpu:
            return 2 * cores()
        return self.input_shape[0] if isinstance(self.input_shape[0], int) else DEVICE_BATCH

    @property
    def input_shape(self) -> list[int | str | None]:
        """As in the file: an int, or a name or None where the size is free."""
        return list(self._input.shape)

    @property
    def input_type(self) -> str:
        return str(self._input.type)

    @property
    def output_shape(self) -> list[int | str | None]:
        return list(self._output.shape)

    def run(self, batch: Floats) -> Floats:
        """Input (n, ...) → first output (n, ...). OutOfMemory, or AdapterError when the call fails."""
        try:
            if not self._one_by_one(len(batch)):
                return self._call(batch)
            singles = [batch[i : i + 1] for i in range(len(batch))]
            return np.concatenate(list(self._pool.map(self._call, singles) if self._pool else map(self._call, singles)))
        except MemoryError as error:
            raise OutOfMemory(f"{self.path.name}: no memory for {len(batch)} images") from error
        except Exception as error:  # see above
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            if any(word in str(error).lower() for word in _OUT_OF_MEMORY):
                raise OutOfMemory(f"{self.path.name}: no memory for {len(batch)} images ({text})") from error
            raise AdapterError(f"{self.path.name} failed on {len(batch)} images: {text}") from error

    def _one_by_one(self, count: int) -> bool:
        return count > 1 and (self.on_cpu or self.input_shape[0] == 1)

    def _call(self, images: Floats) -> Floats:
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
    settings: dict[str, str] = {}
    if index:
        settings["device_id"] = index
    if chosen == "cuda":
        settings["arena_extend_strategy"] = "kSameAsRequested"
    return [(provider, settings), "CPUExecutionProvider"]


def _load_error(path: Path, error: Exception) -> AdapterError:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, MemoryError) or any(word in str(error).lower() for word in _OUT_OF_MEMORY):
        return OutOfMemory(f"No memory to load {path.name}: {text}")
    return ModelUnavailable(f"{path} is not an ONNX model that can be loaded ({text}). Download the file again.")
