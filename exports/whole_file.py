"""A file that a person named as the target of an export: it appears whole, or not at all."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .exporters.base import ExportError
from .safe_write import draft


@dataclass(frozen=True)
class Written:
    """What was written, or would be."""

    size: int
    sha256: str


def check_target(path: Path, *, force: bool) -> None:
    """Could this file be written? ExportError with the reason; nothing is created."""
    folder = path.parent
    if not folder.is_dir():
        raise ExportError(f"There is no folder {folder}; make it first, or name another.")
    if path.is_symlink():
        raise ExportError(f"{path} is a symbolic link; name the file itself.")
    if path.exists():
        if path.is_dir():
            raise ExportError(f"{path} is a folder; name a file in it.")
        if not stat.S_ISREG(path.stat().st_mode):
            raise ExportError(f"{path} is not a plain file; use - to write to the standard output.")
        if not force:
            raise ExportError(f"{path} is already there; --force replaces it.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ExportError(f"The folder {folder} cannot be written to.")


def write_whole(path: Path, pieces: Iterable[bytes], *, force: bool) -> Written:
    """Write all pieces beside `path`, then put them there by a rename. ExportError; the old file stays until then."""
    check_target(path, force=force)
    sha256, size = hashlib.sha256(), 0
    try:
        with draft(path) as new:
            for piece in pieces:
                new.file.write(piece)
                sha256.update(piece)
                size += len(piece)
            new.close()
            check_target(path, force=force)  # somebody else may have put a file there meanwhile
            new.put(path)
    except OSError as e:
        raise ExportError(f"{path} cannot be written: {e.strerror or e}.") from None
    return Written(size, sha256.hexdigest())


def same_content(path: Path, pieces: Iterable[bytes]) -> bool:
    """Does the file hold exactly these bytes? Reads no further than to the first difference."""
    try:
        with path.open("rb") as f:
            return all(f.read(len(piece)) == piece for piece in pieces) and not f.read(1)
    except OSError:
        return False
