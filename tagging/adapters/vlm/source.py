"""Where a transformers model is (local folder, models folder, hub cache or hub), what its files say, and their digest.

Reads JSON and the beginnings of files; imports neither torch nor transformers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..base import AdapterConfig, ModelUnavailable
from ..model_files import is_hub_id, local_folder

CONFIG = "config.json"
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
#: What a model folder needs: text files, weights, and code only where the curator trusts it.
PATTERNS = ["*.json", "*.jinja", "*.txt", "*.model", "*.safetensors", "*.tiktoken"]
_BLOB = re.compile(r"[0-9a-f]{64}")
#: Files up to this size are digested wholly; of larger ones, so many blocks of so many bytes, evenly spread, with the
#: ends and the length. Training changes every layer, so that two models differ in far more than one block.
WHOLE = 64 << 20
BLOCKS, BLOCK = 128, 1 << 18


@dataclass(frozen=True, slots=True)
class Folder:
    """A model on this machine. `model` and `revision` are the hub's names for it, empty for a folder of one's own."""

    path: Path
    model: str = ""
    revision: str = ""

    def json(self, name: str) -> dict[str, Any]:
        """A JSON file of the folder; empty when there is none. ModelUnavailable names a broken one."""
        path = self.path / name
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise ModelUnavailable(f"{path} cannot be read ({error}). Download the file again.") from error
        return found if isinstance(found, dict) else {}

    @property
    def config(self) -> dict[str, Any]:
        return self.json(CONFIG)

    @property
    def weights(self) -> list[Path]:
        """The weight files, safetensors preferred, in the order of their names."""
        for pattern in ("*.safetensors", "pytorch_model*.bin"):
            found = sorted(self.path.glob(pattern))
            if found:
                return found
        return []

    @property
    def missing(self) -> list[str]:
        """Names of files that should be here and are not."""
        if not (self.path / CONFIG).is_file():
            return [CONFIG]
        for index in INDEXES:
            shards = self.json(index).get("weight_map", {})
            lost = sorted({name for name in shards.values() if not (self.path / name).is_file()})
            if shards:
                return lost
        return [] if self.weights else ["model.safetensors"]

    @property
    def remote_code(self) -> bool:
        """Does the model come with Python of its own?"""
        return bool(self.config.get("auto_map"))


def find(config: AdapterConfig, *, download: bool, code: bool = False) -> Folder | None:
    """The model's folder; None for a hub model that is not wholly here, when `download` is off.

    `code` also fetches the model's own Python. ModelUnavailable says what is missing or what to download, and the mend.
    """
    if not config.source:
        raise ModelUnavailable("This adapter needs a source: a folder with config.json and weights, or a hub id.")
    path = local_folder(config)
    if path:
        folder = Folder(path)
        if lost := folder.missing:
            raise ModelUnavailable(
                f"{path} has no {', '.join(lost[:3])}: it is not a whole transformers model. Download it again."
            )
        return folder
    if not is_hub_id(config.source):
        raise ModelUnavailable(f"No folder {config.source!r}, and it is no hub id (owner/name). Correct the source.")
    return cached(config) or (fetch(config, code=code) if download else None)


def cached(config: AdapterConfig) -> Folder | None:
    """A hub model that was wholly downloaded before; asks nobody."""
    from huggingface_hub import snapshot_download

    try:
        path = snapshot_download(config.source, revision=config.revision or None, local_files_only=True)
    except Exception:  # the hub client has many classes for "not here"
        return None
    folder = Folder(Path(path), config.source, Path(path).name)
    return None if folder.missing else folder


def fetch(config: AdapterConfig, *, code: bool = False) -> Folder:
    """Download from the hub. ModelUnavailable with the mend when that fails."""
    from huggingface_hub import constants, snapshot_download

    if constants.HF_HUB_OFFLINE:
        raise ModelUnavailable(
            f"{config.source} is not on this machine, and the hub is switched off. {how_to_get(config)}"
        )
    patterns = [*PATTERNS, "*.py"] if code else PATTERNS
    try:
        path = snapshot_download(config.source, revision=config.revision or None, allow_patterns=patterns)
    except Exception as error:
        raise ModelUnavailable(f"{_hub_error(config, error)} {how_to_get(config)}") from error
    folder = Folder(Path(path), config.source, Path(path).name)
    if lost := folder.missing:
        raise ModelUnavailable(
            f"{config.source} has no {', '.join(lost[:3])}: it is not a transformers model with safe weights "
            "(.safetensors). Choose a repository that has them."
        )
    return folder


def _hub_error(config: AdapterConfig, error: Exception) -> str:
    """The hub's refusal in words, with what to do."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    revision = config.revision or "main"
    if "GatedRepoError" in kinds:
        return (
            f"{config.source} is gated: accept its licence at https://huggingface.co/{config.source}, then set "
            "HF_TOKEN in the environment of the workers."
        )
    if "RevisionNotFoundError" in kinds:
        return f"{config.source} has no revision {revision!r}. Correct the revision (a branch, tag or commit)."
    if "RepositoryNotFoundError" in kinds:
        return f"The hub has no model {config.source!r}, or it is private. Correct the source, or set HF_TOKEN."
    return f"{config.source} cannot be fetched from the hub ({first_line(error)})."


def how_to_get(config: AdapterConfig) -> str:
    """The mend for a hub model that cannot be fetched: what, how large, where to."""
    where = config.models_dirs[0] if config.models_dirs else Path("<a folder named in IWTAG_MODELS_DIRS>")
    page = f"https://huggingface.co/{config.source}/tree/{config.revision or 'main'}"
    size = download_size(config)
    named = f" ({size / 1e9:.1f} GB)" if size else ""
    target = where / config.source.rpartition("/")[2]
    return f"Download its .json, .jinja, tokenizer and .safetensors files{named} from {page} into {target}."


def download_size(config: AdapterConfig) -> int | None:
    """Bytes that a download would fetch, asked of the hub; None when it does not answer or is switched off."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return None
    try:
        info = HfApi().model_info(config.source, revision=config.revision or None, files_metadata=True, timeout=10)
    except Exception:
        return None
    endings = tuple(pattern[1:] for pattern in PATTERNS)
    return sum(f.size or 0 for f in info.siblings or () if f.rfilename.endswith(endings)) or None


def first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


# -- identity ---------------------------------------------------------------------------------------------------------


def chat_template(folder: Folder) -> str:
    """The chat template as its files hold it; empty when there is none."""
    path = folder.path / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        found = folder.json(name).get("chat_template")
        if found:
            return found if isinstance(found, str) else json.dumps(found, sort_keys=True)
    return ""


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


def folder_digest(folder: Folder, *, code: bool = False) -> str:
    """sha256 (hex) of the folder's content: every small file wholly, the weights as `file_digest` reads them.

    Weights in the hub's cache are named by their sha256 there; then that is taken. Remembered while sizes and times
    stay the same. ModelUnavailable when a file cannot be read.
    """
    small = [p for p in sorted(folder.path.glob("*")) if p.suffix in (".json", ".jinja", ".txt", ".model", ".tiktoken")]
    if code:
        small += sorted(folder.path.glob("*.py"))
    parts = []
    for path in [*small, *folder.weights]:
        if path.name.endswith(".index.json") or path.name == "README.json":
            continue
        parts.append([path.name, file_digest(path)])
    return digest(json.dumps(parts))


def file_digest(path: Path) -> str:
    """sha256 (hex) of a file up to 64 MiB; of a larger one a digest of its length, ends and evenly spread blocks."""
    try:
        target = path.resolve()
        if _BLOB.fullmatch(target.name) and target.parent.name == "blobs":
            return target.name
        stat = target.stat()
        return _digest(str(target), stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise ModelUnavailable(f"{path} cannot be read: {error.strerror}. Restore the file.") from error


@lru_cache(maxsize=1024)
def _digest(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb", buffering=0) as stream:
        if size <= WHOLE:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        found = hashlib.sha256(f"{size}:{BLOCKS}:{BLOCK}:".encode())
        step = (size - BLOCK) / (BLOCKS - 1)
        for i in range(BLOCKS):
            stream.seek(round(i * step))
            found.update(_exactly(stream, BLOCK))
    return "sampled-" + found.hexdigest()


def _exactly(stream: Any, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        piece = stream.read(count - len(parts))
        if not piece:
            break
        parts += piece
    return bytes(parts)


# -- size -------------------------------------------------------------------------------------------------------------


def parameter_count(folder: Folder) -> int:
    """Number of weights, from the safetensors headers; from the files' sizes where there are none.

    Packed 4-bit weights count as stored.
    """
    total = 0
    for path in folder.weights:
        if path.suffix != ".safetensors":
            return sum(p.stat().st_size for p in folder.weights) // 2
        for entry in safetensors_header(path).values():
            count = 1
            for size in entry["shape"]:
                count *= size
            total += count
    return total


def stored_dtype(folder: Folder) -> str:
    """The commonest number format of the stored weights: "BF16", "F16", "F32"…; empty when unknown."""
    for path in folder.weights[:1]:
        if path.suffix == ".safetensors":
            kinds = [entry["dtype"] for entry in safetensors_header(path).values()]
            return max(set(kinds), key=kinds.count, default="")
    return ""


@lru_cache(maxsize=64)
def _header(path: str, mtime_ns: int) -> dict[str, Any]:
    with open(path, "rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > 100 << 20:
            raise ValueError("its header is too long")
        found = json.loads(stream.read(length))
    found.pop("__metadata__", None)
    return dict(found)


def safetensors_header(path: Path) -> dict[str, Any]:
    """Tensor name → {"dtype", "shape", "data_offsets"}. ModelUnavailable when the file is cut or foreign."""
    try:
        return _header(str(path), os.stat(path).st_mtime_ns)
    except (OSError, ValueError, struct.error) as error:
        raise ModelUnavailable(f"{path} is not a whole safetensors file ({error}). Download it again.") from error
