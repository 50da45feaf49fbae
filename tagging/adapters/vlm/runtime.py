"""torch and transformers, imported when a model is loaded and never before: devices, formats, quantisation, mends.

Nothing here is called in a process that forks afterwards: the first CUDA call is in `load()`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Iterator
from typing import Any

from ..base import AdapterError, ModelUnavailable, OutOfMemory, Problem
from . import memory
from .source import Folder, first_line, stored_dtype

#: What a row may say; "cuda:1" is the second card.
DEVICES = ("auto", "cpu", "cuda", "cuda:0", "cuda:1", "cuda:2", "cuda:3", "mps")
QUANTIZATIONS = ("none", "8bit", "4bit")
INSTALL = "Install the extra for local vision-language models: .venv/bin/pip install '.[vlm]' in iwtag's folder"
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,2})?")
_OUT_OF_MEMORY = (
    "out of memory", "not enough memory", "cannot allocate memory", "can't allocate memory", "bad alloc", "bad_alloc",
    "alloc_failed", "failed to allocate",
)  # fmt: skip


# -- before anything is imported --------------------------------------------------------------------------------------


def missing_packages() -> list[Problem]:
    """Problems with the packages, found without importing them."""
    lacking = [name for name in ("torch", "transformers") if not importlib.util.find_spec(name)]
    if lacking:
        return [Problem(f"{' and '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not installed.", INSTALL)]
    version = importlib.metadata.version("transformers")
    if int(version.partition(".")[0]) < 5:
        return [Problem(f"transformers {version} is too old: 5 or newer is needed.", INSTALL)]
    return []


def check_device(device: str) -> list[Problem]:
    """Is the device a word that can be used? Whether it exists here shows when the model is loaded."""
    if _DEVICE.fullmatch(device):
        return []
    return [Problem(f"Unknown device {device!r}.", "Use auto, cpu, mps, cuda or cuda:N (cuda:1 is the second card).")]


def check_quantization(quantization: str, device: str) -> list[Problem]:
    """Can this quantisation be had on this device, as far as can be told without it?"""
    if quantization == "none":
        return []
    if quantization not in QUANTIZATIONS:
        return [Problem(f"Unknown quantization {quantization!r}.", f"Use one of {', '.join(QUANTIZATIONS)}.")]
    if device in ("cpu", "mps"):
        return [
            Problem(
                f"Quantization {quantization} needs an NVIDIA card, not the device {device!r}.",
                "Set the quantization to 'none', or the device to 'cuda'.",
            )
        ]
    if not importlib.util.find_spec("bitsandbytes"):
        return [
            Problem(
                f"Quantization {quantization} needs bitsandbytes, which is not installed.",
                "pip install bitsandbytes, or set the quantization to 'none'.",
            )
        ]
    return []


# -- the two libraries ------------------------------------------------------------------------------------------------


def libraries() -> tuple[Any, Any]:
    """(torch, transformers). ModelUnavailable names the missing one and the mend."""
    for problem in missing_packages():
        raise ModelUnavailable(f"{problem.message} {problem.mend}")
    try:
        import torch

        without_broken_torchvision()
        import transformers
    except (ImportError, OSError, RuntimeError) as error:
        raise ModelUnavailable(f"torch or transformers is broken ({first_line(error)}). {INSTALL}") from error
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return torch, transformers


def without_broken_torchvision() -> None:
    """A torchvision made for another torch raises on import, and would take every processor of transformers with it:
    it is then treated as absent, and the processors work with Pillow. Only possible before transformers is imported.
    """
    if "torchvision" in sys.modules or not importlib.util.find_spec("torchvision"):
        return
    try:
        import torchvision  # noqa: F401
    except Exception:  # whatever its binary part raises
        for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules["torchvision"] = None  # type: ignore[assignment]  # the import system's word for "not there"


def has_torchvision() -> bool:
    return sys.modules.get("torchvision") is not None


def choose_device(torch: Any, wanted: str) -> str:
    """ "cuda:0", "mps" or "cpu". ModelUnavailable when a named device is not here."""
    for problem in check_device(wanted):
        raise ModelUnavailable(f"{problem.message} {problem.mend}")
    if wanted == "cpu":
        return "cpu"
    if wanted == "mps" or (wanted == "auto" and not torch.cuda.is_available() and _mps(torch)):
        if not _mps(torch):
            raise ModelUnavailable("The device 'mps' is not here: it exists on Apple machines. Use auto or cpu.")
        return "mps"
    if not torch.cuda.is_available():
        if wanted == "auto":
            return "cpu"
        build = torch.version.cuda or torch.version.hip
        why = "no usable card or driver" if build else "this torch is a build for processors only"
        raise ModelUnavailable(
            f"The device {wanted!r} cannot be used: {why}. Check `nvidia-smi`, install torch for CUDA, or choose "
            "the device 'auto' or 'cpu'."
        )
    index = int(wanted.partition(":")[2] or 0)
    count = torch.cuda.device_count()
    if index >= count:
        raise ModelUnavailable(
            f"There is no card {index}: this machine has {count}, counted from 0. Correct the device."
        )
    return f"cuda:{index}"


def _mps(torch: Any) -> bool:
    backend = getattr(torch.backends, "mps", None)
    return bool(backend and backend.is_available())


def choose_dtype(torch: Any, wanted: str, device: str, *, preferred: str = "bf16") -> Any:
    """The torch dtype. auto: `preferred` on a card that computes in it, else fp16; fp32 on the processor."""
    names = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    if wanted != "auto":
        return names[wanted]
    if device == "cpu":
        return torch.float32
    if device == "mps":
        return torch.float16
    return names[preferred] if preferred != "bf16" or torch.cuda.is_bf16_supported() else torch.float16


def dtype_name(torch: Any, dtype: Any) -> str:
    return {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, "fp32")


def quantization_settings(transformers: Any, quantization: str, device: str, dtype: Any, keep: list[str]) -> Any:
    """transformers' settings for bitsandbytes; None for "none". `keep` names modules that stay as they are."""
    for problem in check_quantization(quantization, device):
        raise ModelUnavailable(f"{problem.message} {problem.mend}")
    if quantization == "none":
        return None
    if quantization == "8bit":
        return transformers.BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=keep or None)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=keep or None,
    )


# -- memory -----------------------------------------------------------------------------------------------------------


def free_bytes(torch: Any, device: str) -> int | None:
    """Free memory of the device; None where it cannot be asked."""
    if device.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info(torch.device(device))
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + cached)
    return memory.free_ram()


def check_room(folder: Folder, estimate: memory.Estimate, free: int | None, device: str) -> None:
    """Refuse weights that cannot fit before minutes are spent on loading them. ModelUnavailable with the estimate."""
    if free is None or estimate.weights <= free:
        return
    raise ModelUnavailable(
        f"{folder.model or folder.path.name} needs {estimate.text()}, and {device} has "
        f"{memory.gigabytes(free)} free. {less_memory(device)}"
    )


def less_memory(device: str) -> str:
    if device.startswith("cuda"):
        return "Set the quantization to 8bit or 4bit, choose a smaller model, or unload what else is on the card."
    return "Choose the number format bf16, a smaller model, or a machine with more memory."


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _OUT_OF_MEMORY)


@contextlib.contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Whatever a library raises for want of memory becomes OutOfMemory; other surprises become AdapterError."""
    try:
        yield
    except AdapterError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise OutOfMemory(f"No memory for {what} ({first_line(error)}).") from error
        raise AdapterError(f"The model failed on {what}: {type(error).__name__}: {first_line(error)}") from error


# -- what went wrong --------------------------------------------------------------------------------------------------


def load_error(folder: Folder, error: BaseException, estimate: memory.Estimate | None, device: str) -> AdapterError:
    """A failed load as an error with its mend."""
    name, text = folder.model or folder.path.name, first_line(error)
    whole = str(error).lower()
    if is_out_of_memory(error):
        needs = f" It needs {estimate.text()}." if estimate else ""
        return ModelUnavailable(f"No memory to load {name} on {device}.{needs} {less_memory(device)}")
    kind = folder.config.get("model_type", "unknown")
    if "trust_remote_code" in whole:
        return ModelUnavailable(
            f"{name} is not part of transformers and brings its own Python. Read that code; if you trust it, pin the "
            "revision and tick 'Run code that comes with the model'."
        )
    if "does not recognize this architecture" in whole or "unrecognized configuration class" in whole:
        version = importlib.metadata.version("transformers")
        return ModelUnavailable(
            f"{name} has the architecture {kind!r}, which this transformers ({version}) does not know as a "
            "vision-language model. Upgrade transformers, or choose the adapter for its family."
        )
    if "flash" in whole and "attn" in whole:
        return ModelUnavailable(
            f"{name} was asked to use flash_attention_2, which is not usable here ({text}). Install flash-attn for "
            "this card, or set the attention code to auto."
        )
    if "torchvision" in whole:
        return ModelUnavailable(
            f"{name} prepares its pictures with torchvision, which is missing or does not fit this torch ({text}). "
            "Install the torchvision of the same release as torch: "
            ".venv/bin/pip install '.[vlm]' in iwtag's folder"
        )
    if isinstance(error, ImportError):
        return ModelUnavailable(f"{name} needs another package: {text}. {INSTALL}, or the package that is named.")
    if "safetensor" in type(error).__name__.lower() or "header" in whole:
        return ModelUnavailable(f"The weights of {name} are damaged ({text}). Download them again.")
    return ModelUnavailable(f"{name} ({kind}) could not be loaded: {type(error).__name__}: {text}")


def preferred_dtype(folder: Folder) -> str:
    """fp16 where the weights are stored so, else bf16: a model made in bf16 overflows in fp16."""
    return "fp16" if stored_dtype(folder) == "F16" else "bf16"
