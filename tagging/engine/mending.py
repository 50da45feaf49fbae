"""Why a model could not be loaded, and what to do about it, in words for the person who waits for it."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from ..adapters.base import Adapter, OutOfMemory
from . import memory

#: Module that is missing → how to get it.
EXTRAS = {
    **dict.fromkeys(
        ("torch", "transformers", "accelerate", "sentencepiece", "num2words", "torchvision"),
        "Install the extra for local models: .venv/bin/pip install '.[vlm]' in iwtag's folder",
    ),
    "bitsandbytes": "pip install bitsandbytes (it needs an NVIDIA card), or set the model's quantization to 'none'",
    "onnxruntime": "pip install onnxruntime",
}
#: Classes of the hub client by name: importing it only to name an error would be a waste.
NOT_REACHED = {
    "LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "ConnectTimeout", "ProxyError",
    "ConnectionError", "HfHubHTTPError",
}  # fmt: skip


def why_not_loaded(error: BaseException, label: str, adapter: Adapter) -> str:
    """One or two sentences: what failed, and the mend."""
    source, revision = adapter.config.source, adapter.config.revision
    if isinstance(error, OutOfMemory | MemoryError):
        return f"{label} does not fit into the memory of its device{_said(error)}. {_smaller(adapter)}"
    for found in _chain(error):
        name = type(found).__name__
        if isinstance(found, ModuleNotFoundError) and found.name:
            package = found.name.partition(".")[0]
            return f"{label} needs the package {package!r}. {EXTRAS.get(package, f'pip install {package}')}."
        if name == "RevisionNotFoundError":
            return (
                f"{source} has no revision {revision!r}. Correct the model's revision (a branch, a tag or a commit of "
                f"the repository), or leave it empty for the newest."
            )
        if name == "GatedRepoError":
            return (
                f"{source} is given only to accounts that accepted its licence. Accept it on "
                f"https://huggingface.co/{source} and set HF_TOKEN to a token of that account."
            )
        if name == "RepositoryNotFoundError":
            return f"The hub knows no {source!r} (or not for this account: set HF_TOKEN). Correct the model's source."
        if isinstance(found, OSError) and found.errno == errno.ENOSPC:
            return f"{label} could not be fetched: the disk is full ({found.filename or 'hub cache'}). Free some space."
        if name in NOT_REACHED:
            return (
                f"{source} is not on this machine, and the hub cannot be reached. Download it on the page Models, or "
                f"put its files into a folder of IWTAG_MODELS_DIRS."
            )
    return f"{label} could not be loaded: {_line(error)}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__ or at.__context__


def _line(error: BaseException) -> str:
    message = getattr(error, "message", "") or str(error).strip().partition("\n")[0]
    plain = type(error).__module__.endswith("adapters.base")
    return message if plain and message else f"{type(error).__name__}: {message or 'no further word'}"


def _said(error: BaseException) -> str:
    text = getattr(error, "message", "") or str(error).strip().partition("\n")[0]
    return f": {text}" if text else ""


def _smaller(adapter: Adapter) -> str:
    """What the model needs, what there is, and what would take less."""
    needs, place = adapter.memory_needed(), memory.likely_place(adapter)
    free = memory.free(place)
    parts = []
    if needs:
        parts.append(f"By its files it needs about {memory.text(needs)}")
        parts[-1] += f"; {memory.text(free)} are free on {place} now." if free is not None else "."
    ways = ["take a smaller model", "free memory by unloading others (page Models)"]
    lighter = [q for q in adapter.capabilities.quantizations if q not in ("none", adapter.config.quantization)]
    if lighter and adapter.config.quantization == "none":
        ways.insert(0, f"set its quantization to {' or '.join(lighter)}")
    if place.startswith("cuda"):
        ways.append("choose another device")
    advice = f"{', '.join(ways[:-1])} or {ways[-1]}."
    return " ".join([*parts, advice[0].upper() + advice[1:]])
