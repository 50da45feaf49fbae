"""What models are on this machine: in the models folders, and in the hub's cache. Reads names, sizes and small JSON.

Nothing is imported that is heavy, no weights are opened; a folder that cannot be read is a line, never an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import known, registry
from .folders import Guess, ModelFolder

#: Folders looked into at most, and how deep below a models folder.
FOLDERS, DEPTH = 5000, 5
#: Files that make a folder a model's.
MARKS = (
    "config.json", "manifest.json", "selected_tags.csv", "*.onnx", "*.safetensors", "*.gguf", "*.pth", "*.pt", "*.bin",
)  # fmt: skip
#: Weights that stand alone: one file is one model.
SINGLE = (".gguf", ".pth")
GGUF = (
    "GGUF files are not loaded by iwtag itself: serve it with llama.cpp, Ollama or LM Studio and add that server as an "
    "OpenAI-compatible endpoint."
)


@dataclass(frozen=True, slots=True)
class Offer:
    """An adapter that would serve the model, and why it is thought so."""

    kind: str
    label: str
    guess: Guess


@dataclass(frozen=True, slots=True)
class Found:
    """A model on disk. `source` is what an adapter's row would say; `offers` are the best guess first; `note` says what
    else there is to know, above all why nothing is offered."""

    name: str
    source: str
    bytes: int
    offers: tuple[Offer, ...] = ()
    note: str = ""
    revision: str = ""

    @property
    def best(self) -> Offer | None:
        return self.offers[0] if self.offers else None


@dataclass(frozen=True, slots=True)
class Scan:
    """All that was found. `problems` are folders that could not be read, or that there were too many of."""

    found: list[Found] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def scan(folders: Iterable[Path]) -> Scan:
    """The models in these folders, by name. Symlinked folders are followed once."""
    result = Scan()
    seen: set[Path] = set()
    left = FOLDERS
    for top in folders:
        top = top.expanduser()
        if not top.is_dir():
            result.problems.append(f"{top} is not a folder: correct IWTAG_MODELS_DIRS.")
            continue
        for folder in _model_folders(top, result, seen, left):
            result.found.extend(_look(folder, top))
        left = FOLDERS - len(seen)
        if left <= 0:
            result.problems.append(f"{top} has more than {FOLDERS} folders: those beyond were not looked into.")
            break
    result.found.sort(key=lambda f: f.name.lower())
    return result


def _model_folders(top: Path, result: Scan, seen: set[Path], left: int) -> Iterator[ModelFolder]:
    """Folders with a mark of a model, from the top down; what lies below one belongs to it."""
    waiting: list[tuple[Path, int]] = [(top, 0)]
    while waiting and left > 0:
        path, depth = waiting.pop()
        try:
            real = path.resolve()
            if real in seen:
                continue
            seen.add(real)
            left -= 1
            entries = sorted(os.scandir(path), key=lambda e: e.name)
        except OSError as e:
            result.problems.append(f"{path} cannot be read ({e.strerror}).")
            continue
        files = {e.name: _size(e) for e in entries if not e.name.startswith(".") and _is_file(e)}
        below = [e for e in entries if not e.name.startswith(".") and _is_folder(e)]
        folder = ModelFolder(path, files)
        if path.name.startswith("models--"):
            continue  # the layout of the hub's cache: see `hub_cache`
        if depth and any(folder.has(mark) for mark in MARKS):
            yield ModelFolder(path, {**files, **_files_below(below)})
            continue
        if not depth and files:
            yield folder
        if depth < DEPTH:
            waiting.extend((Path(e.path), depth + 1) for e in reversed(below))


def _files_below(folders: list[os.DirEntry[str]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for folder in folders[:50]:
        try:
            for entry in os.scandir(folder.path):
                if _is_file(entry):
                    found[f"{folder.name}/{entry.name}"] = _size(entry)
        except OSError:
            continue
    return found


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:
        return 0


# -- whose is it -------------------------------------------------------------------------------------------------------
def _look(folder: ModelFolder, top: Path) -> Iterator[Found]:
    """The model of a folder, and single files of weights that stand for themselves."""
    single = [name for name in folder.files if name.endswith(SINGLE)]
    whole = folder.path != top and (not single or len(single) < len(folder.files))
    if whole and any(folder.has(m) for m in MARKS if m not in ("*.gguf", "*.pth")):
        yield found_in(folder, _name(folder.path, top))
        single = [name for name in single if name.endswith(".gguf")]
    for name in single:
        path = folder.path / name
        alone = ModelFolder(path.parent, {path.name: folder.files[name]})
        if name.endswith(".gguf"):
            yield Found(_name(path, top), str(path), folder.files[name], note=GGUF)
        else:
            offers = offers_for(alone)
            yield Found(_name(path, top), str(path), folder.files[name], offers, "" if offers else _note(alone))


def _name(path: Path, top: Path) -> str:
    return path.relative_to(top).as_posix().replace("--", "/", 1)


def found_in(folder: ModelFolder, name: str, source: str = "", revision: str = "") -> Found:
    """A folder with what is offered for it."""
    offers = offers_for(folder, name)
    return Found(
        name, source or str(folder.path), sum(folder.files.values()), offers, "" if offers else _note(folder), revision
    )


def offers_for(folder: ModelFolder, name: str = "") -> tuple[Offer, ...]:
    """The adapters that recognise the folder, the surest first; the tables of `known` know what adapters do not say."""
    labels = dict(registry.choices())
    found: dict[str, Guess] = {}
    for key in registry.registered():
        try:
            guess = registry.adapter_class(key).recognises(folder)
        except Exception:  # a broken package, or a third party's guess that fails: no offer
            continue
        if guess is not None:
            found[key] = guess
    by_table = known.kind_of(folder.architectures, folder.model_type, name or folder.path.name)
    if by_table is None and len(folder.files) == 1:
        low = next(iter(folder.files)).lower()
        by_table = next((known.WEIGHTS[start] for start in known.WEIGHTS if low.startswith(start)), None)
    if by_table and by_table[0] in labels:
        found.setdefault(by_table[0], Guess(by_table[1], 50))
    ranked = sorted(found.items(), key=lambda item: (-item[1].certainty, item[0]))
    return tuple(Offer(key, labels.get(key, key), guess) for key, guess in ranked)


def _note(folder: ModelFolder) -> str:
    """Why no adapter is offered, as far as can be told."""
    if folder.has("*.gguf"):
        return GGUF
    if folder.has("adapter_config.json"):
        return "A LoRA: it changes a base model and is no model of its own."
    if folder.has("model_index.json"):
        return "A diffusion pipeline: it makes pictures, it does not describe them."
    names = folder.architectures
    if names and all(name.endswith(known.TEXT_ONLY) for name in names):
        return f"{names[0]} reads text only. Served by an endpoint it can merge or judge."
    if names:
        return f"No adapter here serves {names[0]}. You can still add it and choose one."
    if folder.has("*.onnx"):
        return "An ONNX model without labels that are known: beside a manifest it can be used as a plain classifier."
    return "Nothing in it says what it is."


# -- the hub's cache ---------------------------------------------------------------------------------------------------
def cache_folder() -> Path:
    """Where the hub's client keeps what it downloads: HF_HUB_CACHE, else HF_HOME/hub, else below ~/.cache."""
    given = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if given:
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{base}/huggingface"
    return Path(home).expanduser() / "hub"


@dataclass(frozen=True, slots=True)
class Cached:
    """One revision of a hub model on disk. `refs` are the names that point to it (main, a tag); `partial`: a download
    was begun and has not ended; `found` tells what could be done with it."""

    source: str
    revision: str
    refs: tuple[str, ...]
    bytes: int
    partial: bool
    path: Path
    found: Found


def hub_cache(folder: Path | None = None) -> list[Cached]:
    """The models in a folder in the layout of the hub's cache, by name; [] without one."""
    folder = folder or cache_folder()
    try:
        repositories = sorted(p for p in folder.glob("models--*") if p.is_dir())
    except OSError:
        return []
    return [cached for path in repositories[:FOLDERS] for cached in _revisions(path)]


def _revisions(repository: Path) -> Iterator[Cached]:
    source = repository.name.removeprefix("models--").replace("--", "/", 1)
    refs: dict[str, list[str]] = {}
    for ref in sorted((repository / "refs").rglob("*")) if (repository / "refs").is_dir() else ():
        try:
            refs.setdefault(ref.read_text().strip(), []).append(ref.relative_to(repository / "refs").as_posix())
        except OSError:
            continue
    unfinished = any((repository / "blobs").glob("*.incomplete")) if (repository / "blobs").is_dir() else False
    snapshots = sorted(p for p in (repository / "snapshots").glob("*") if p.is_dir())
    for path in snapshots:
        files = _snapshot(path)
        model = ModelFolder(path, files)
        partial = unfinished or not files
        yield Cached(
            source,
            path.name,
            tuple(refs.get(path.name, ())),
            sum(files.values()),
            partial,
            path,
            found_in(model, source, source, path.name),
        )


def _snapshot(path: Path) -> dict[str, int]:
    """Files of a snapshot by name, one folder down at most; links whose blob is gone are left out."""
    found: dict[str, int] = {}
    for file in (*path.glob("*"), *path.glob("*/*")):
        try:
            if file.is_file():
                found[file.relative_to(path).as_posix()] = file.stat().st_size
        except OSError:
            continue
    return found
