"""Where a model's files are: a local folder, a name in the models folders, the hub's cache, or the hub itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .base import AdapterConfig, ModelUnavailable

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
#: Weights of a large ONNX file lie beside it under one of these names.
EXTERNAL = ("{name}_data", "{name}.data")
#: A graph without its weights is smaller than this.
_GRAPH = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Wanted:
    """The files of one family. Each entry lists the names that one file may have, the usual one first."""

    family: str  # as in "A WD tagger needs …"
    required: tuple[tuple[str, ...], ...]
    optional: tuple[tuple[str, ...], ...] = ()

    @property
    def inside(self) -> str:
        """The family within a sentence: "a WD tagger"."""
        return self.family[0].lower() + self.family[1:]

    @property
    def names(self) -> str:
        """For messages: "model.onnx and selected_tags.csv"."""
        return " and ".join(" or ".join(names) for names in self.required)


Found = dict[str, Path]


def is_hub_id(source: str) -> bool:
    """ "owner/name", and no such folder here."""
    return bool(_HUB_ID.fullmatch(source)) and not Path(source).expanduser().exists()


def local_folder(config: AdapterConfig) -> Path | None:
    """The folder that `source` names: a path, or a name (or the last part of a hub id) in one of the models folders."""
    if not config.source:
        return None
    names = [config.source, config.source.rpartition("/")[2], config.source.replace("/", "--")]
    candidates = [Path(config.source).expanduser()]
    candidates += [folder / name for folder in config.models_dirs for name in names]
    return next((folder for folder in candidates if folder.is_dir()), None)


def how_to_get(config: AdapterConfig, wanted: Wanted) -> str:
    """The mend for a hub model that cannot be fetched."""
    where = config.models_dirs[0] if config.models_dirs else Path("<a folder named in IWTAG_MODELS_DIRS>")
    page = f"https://huggingface.co/{config.source}/tree/{config.revision or 'main'}"
    name = config.source.rpartition("/")[2]
    return f"Download {wanted.names} from {page} into {where / name}, or connect this machine to the hub."


def find(config: AdapterConfig, wanted: Wanted, *, download: bool) -> Found | None:
    """The usual name of each file → where it is; None for a hub model that is not here, when `download` is off.

    ModelUnavailable names the missing file or the failed download, and the mend.
    """
    if not config.source:
        raise ModelUnavailable(f"{wanted.family} needs a source: a folder with {wanted.names}, or a hub id.")
    if folder := local_folder(config):
        return in_folder(folder, wanted)
    if not is_hub_id(config.source):
        raise ModelUnavailable(f"No folder {config.source!r}, and it is no hub id (owner/name). Correct the source.")
    return cached(config, wanted) or (fetch(config, wanted) if download else None)


def in_folder(folder: Path, wanted: Wanted) -> Found:
    """The files of a local folder. ModelUnavailable names the one that is missing."""
    found: Found = {}
    for names in (*wanted.required, *wanted.optional):
        path = next((path for path in _matching(folder, names) if path.is_file()), None)
        if path is not None:
            found[names[0]] = path
        elif names in wanted.required:
            raise ModelUnavailable(
                f"{folder / names[0]} is missing. {wanted.family} needs {wanted.names} in one folder."
            )
    return found


def _matching(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    for name in names:
        if any(sign in name for sign in "*?["):
            yield from sorted(folder.glob(name))
        else:
            yield folder / name


def cached(config: AdapterConfig, wanted: Wanted) -> Found | None:
    """The files of a hub model if they were downloaded before; asks nobody."""
    from huggingface_hub import try_to_load_from_cache

    found: Found = {}
    for names in (*wanted.required, *wanted.optional):
        for name in names:
            path = try_to_load_from_cache(config.source, name, revision=config.revision or None)
            if isinstance(path, str):
                found[names[0]] = Path(path)
                break
        else:
            if names in wanted.required:
                return None
    return found


def fetch(config: AdapterConfig, wanted: Wanted) -> Found:
    """Download from the hub. ModelUnavailable when that fails, with what to download by hand."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    found: Found = {}
    for names in (*wanted.required, *wanted.optional):
        missing: Exception | None = None
        for name in names:
            if any(sign in name for sign in "*?["):
                continue
            try:
                found[names[0]] = Path(hf_hub_download(config.source, name, revision=config.revision or None))
            except LocalEntryNotFoundError as error:  # no connection: another name would not help
                raise _not_fetched(config, wanted, error) from error
            except EntryNotFoundError as error:
                missing = error
                continue
            except Exception as error:  # the hub client and its HTTP library have many exception classes
                raise _not_fetched(config, wanted, error) from error
            _external_data(config, name, found[names[0]])
            break
        else:
            if names in wanted.required:
                raise _not_fetched(config, wanted, missing or FileNotFoundError(names[0])) from missing
    return found


def _external_data(config: AdapterConfig, name: str, path: Path) -> None:
    """A large ONNX graph names the file of its weights: it must lie beside it."""
    from huggingface_hub import hf_hub_download

    if not name.endswith(".onnx") or path.stat().st_size > _GRAPH:
        return
    graph = path.read_bytes()
    for data in (pattern.format(name=name) for pattern in EXTERNAL):
        if data.rpartition("/")[2].encode() in graph:
            try:
                hf_hub_download(config.source, data, revision=config.revision or None)
            except Exception as error:
                wanted = Wanted(f"{name} of {config.source}", ((data,),))
                raise _not_fetched(config, wanted, error) from error


def _not_fetched(config: AdapterConfig, wanted: Wanted, error: Exception) -> ModelUnavailable:
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ModelUnavailable(f"{config.source} cannot be fetched from the hub ({text}). {how_to_get(config, wanted)}")


def external_data(model: Path) -> list[Path]:
    """Files with the weights of an ONNX file, beside it."""
    beside = (model.with_name(pattern.format(name=model.name)) for pattern in EXTERNAL)
    return [path for path in beside if path.is_file()]


def bytes_of(model: Path) -> int | None:
    """What an ONNX file and its weights hold; None when it cannot be seen."""
    try:
        return sum(path.stat().st_size for path in (model, *external_data(model)))
    except OSError:
        return None
