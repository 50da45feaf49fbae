"""System checks: what is wrong with the settings, said at start with its mend rather than as a 500 later."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.files.storage import InvalidStorageError, storages


def writable(folder: Path) -> str:
    """Why nothing can be written into `folder`; empty when it can. Really tries: mode bits say little on mounts."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".iwtag-check-"):
            return ""
    except OSError as e:
        return e.strerror or str(e)


@register()
def check_data_folder(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    if why := writable(Path(settings.DATA_DIR)):
        hint = "Give the user that runs iwtag the right to write there, or set IWTAG_DATA_DIR to another folder."
        return [Error(f"The data folder {settings.DATA_DIR} cannot be written: {why}.", hint=hint, id="iwtag.E001")]
    return []


@register(Tags.security)
def check_secret_key(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    if len(settings.SECRET_KEY) < 32:
        hint = "Unset it (one is generated into the data folder) or set 50 random characters."
        found.append(Warning("IWTAG_SECRET_KEY is shorter than 32 characters.", hint=hint, id="iwtag.W001"))
    path = Path(settings.DATA_DIR) / "secret_key"
    if not os.environ.get("IWTAG_SECRET_KEY") and path.exists() and os.name == "posix" and path.stat().st_mode & 0o077:
        found.append(Warning(f"Others can read {path}.", hint=f"Run: chmod 600 {path}", id="iwtag.W002"))
    return found


@register(Tags.files)
def check_storage(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    try:
        storage = storages["default"]
    except (InvalidStorageError, ImportError, TypeError) as e:
        hint = "IWTAG_STORAGE is the dotted path of a Django storage class, IWTAG_STORAGE_OPTIONS its options as JSON."
        return [Error(f"The storage for thumbnails and uploads cannot be made: {e}", hint=hint, id="iwtag.E002")]
    location = getattr(storage, "location", "")  # only file storages of this machine have one
    if location and Path(location).is_absolute() and (why := writable(Path(location))):
        hint = "Thumbnails, uploads and exports go there: make it writable."
        return [Error(f"The storage folder {location} cannot be written: {why}.", hint=hint, id="iwtag.E003")]
    return []


@register(Tags.compatibility)
def check_packages(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    if settings.BROKER_URL and not settings.BROKER_URL.startswith(("redis://", "rediss://", "unix://")):
        hint = "Write it as redis://host:6379/0, or unset it: then the queue lies in the database."
        found.append(Error("IWTAG_BROKER_URL is not an address of Redis.", hint=hint, id="iwtag.E004"))
    elif settings.BROKER_URL and find_spec("redis") is None:
        hint = 'Install it: pip install "redis>=6.4", or unset IWTAG_BROKER_URL: then the queue lies in the database.'
        found.append(Error("IWTAG_BROKER_URL is set, but the package redis is missing.", hint=hint, id="iwtag.E005"))
    return found


@register(Tags.compatibility)
def check_folders(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for name in ("IWTAG_MODELS_DIRS", "IWTAG_INGEST_ROOTS"):
        for folder in getattr(settings, name):
            if not Path(folder).is_dir():
                hint = "Make it or take it out of the list; it was left aside."
                found.append(Warning(f"{name} names {folder}, which is no folder.", hint=hint, id="iwtag.W003"))
    return found
