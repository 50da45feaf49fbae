"""Where a WD tagger's two files are (local folder, models folder, hub cache or hub), and what its label file says."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from .base import AdapterConfig, LabelSet, ModelUnavailable

MODEL, TAGS = "model.onnx", "selected_tags.csv"
#: Danbooru's category numbers; the WD label files use 0, 4 and 9 of them.
CATEGORIES = {"0": "general", "1": "artist", "3": "copyright", "4": "character", "5": "meta", "9": "rating"}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Files:
    """The two files of one model."""

    model: Path
    tags: Path


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


def how_to_get(config: AdapterConfig) -> str:
    """The mend for a hub model that cannot be fetched."""
    where = config.models_dirs[0] if config.models_dirs else Path("<a folder named in IWTAG_MODELS_DIRS>")
    page = f"https://huggingface.co/{config.source}/tree/{config.revision or 'main'}"
    name = config.source.rpartition("/")[2]
    return f"Download {MODEL} and {TAGS} from {page} into {where / name}, or connect this machine to the hub."


def cached(config: AdapterConfig) -> Files | None:
    """The files of a hub model if they were downloaded before; asks nobody."""
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(config.source, name, revision=config.revision or None) for name in (MODEL, TAGS)]
    model, tags = (Path(path) if isinstance(path, str) else None for path in found)
    return Files(model, tags) if model and tags else None


def find(config: AdapterConfig, *, download: bool) -> Files | None:
    """The model's files; None for a hub model that is not here, when `download` is off.

    ModelUnavailable names the missing file or the failed download, and the mend.
    """
    if not config.source:
        raise ModelUnavailable(
            "A WD tagger needs a source: a folder with model.onnx and selected_tags.csv, or a hub id."
        )
    folder = local_folder(config)
    if folder:
        files = Files(folder / MODEL, folder / TAGS)
        for path in (files.model, files.tags):
            if not path.is_file():
                raise ModelUnavailable(f"{path} is missing. A WD tagger needs {MODEL} and {TAGS} in one folder.")
        return files
    if not is_hub_id(config.source):
        raise ModelUnavailable(f"No folder {config.source!r}, and it is no hub id (owner/name). Correct the source.")
    return cached(config) or (fetch(config) if download else None)


def fetch(config: AdapterConfig) -> Files:
    """Download from the hub. ModelUnavailable when that fails, with what to download by hand."""
    from huggingface_hub import hf_hub_download

    try:
        model, tags = (
            Path(hf_hub_download(config.source, name, revision=config.revision or None)) for name in (MODEL, TAGS)
        )
    except Exception as error:  # the hub client and its HTTP library have many exception classes
        text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelUnavailable(
            f"{config.source} cannot be fetched from the hub ({text}). {how_to_get(config)}"
        ) from error
    return Files(model, tags)


def read_labels(path: Path) -> LabelSet:
    """The columns `name` and `category` of selected_tags.csv, in file order, which is the order of the outputs.

    Names stay as written, underscores included. ModelUnavailable names the file, the line and the fault.
    """
    names, categories = [], []
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            rows = csv.DictReader(lines)
            missing = {"name", "category"} - set(rows.fieldnames or ())
            if missing:
                raise ModelUnavailable(f"{path} has no column {', '.join(sorted(missing))}: not a WD label file.")
            for row in rows:
                category = (row["category"] or "").strip()
                if not row["name"] or not category.isdigit():
                    raise ModelUnavailable(f"{path}, line {rows.line_num}: a tag needs a name and a category number.")
                names.append(row["name"])
                categories.append(CATEGORIES.get(category, f"category {category}"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ModelUnavailable(f"{path} cannot be read ({error}). Download the file again.") from error
    if not names:
        raise ModelUnavailable(f"{path} has no tags. Download the file again.")
    try:
        return LabelSet(tuple(names), tuple(categories))
    except ValueError as error:
        raise ModelUnavailable(f"{path}: {error}.") from error
