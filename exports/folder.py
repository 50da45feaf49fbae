"""A dataset written into a new folder: each file whole or not at all, and a manifest with every SHA-256 last."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagging.models import Collection

from .exporters.base import ExportError
from .exporters.dataset import MANIFEST, DatasetExporter, Manifest, Member, Original
from .safe_write import PREFIX, draft


@dataclass(frozen=True)
class FolderWritten:
    """What was written. `left_out` counts files whose original could not be read: the manifest names them."""

    files: int
    size: int
    linked: int
    left_out: int


def check_folder(folder: Path, exporter: DatasetExporter[Any], *, force: bool) -> None:
    """Could a dataset be written there? ExportError with the reason; nothing is made."""
    if folder.is_symlink():
        raise ExportError(f"{folder} is a symbolic link; name the folder itself.")
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"{folder} is a file; name a new folder.")
    if folder.is_dir() and not force and any(folder.iterdir()):
        raise ExportError(f"{folder} is not empty; name a new folder, or use --force to write into it.")
    above = folder if folder.is_dir() else folder.parent
    if not above.is_dir():
        raise ExportError(f"There is no folder {above}; make it first, or name another.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise ExportError(f"The folder {above} cannot be written to.")
    collection = exporter.selection.collection
    if collection.kind == Collection.Kind.FOLDER:
        root, target = Path(collection.root).resolve(), folder.resolve()
        if target == root or root in target.parents:
            raise ExportError(
                f"{folder} lies in the collection's own folder: what is copied there would be indexed as new images. "
                "Name another."
            )


def write_folder(exporter: DatasetExporter[Any], folder: Path, *, force: bool = False) -> FolderWritten:
    """Write all members below `folder` (made if it is not there) and the manifest last.

    A folder that is not empty is refused unless `force`; then files of the same names are replaced, others stay. Files
    appear under their name when they are whole. ExportError names what is in the way; what was written until then
    stays, without a manifest.
    """
    check_folder(folder, exporter, force=force)
    try:
        folder.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            (folder / MANIFEST).unlink()  # of an earlier export: it is no longer true
        sink = _Sink(folder.resolve(), exporter, force)
        for member in exporter.members():
            sink.put(member)
        sink.put(Member(MANIFEST, sink.manifest.pieces()), listed=False)
    except OSError as e:
        raise ExportError(f"{e.filename or folder} cannot be written: {e.strerror or e}.") from None
    return FolderWritten(sink.manifest.files, sink.manifest.size, sink.linked, sink.manifest.left_out)


class _Sink:
    def __init__(self, folder: Path, exporter: DatasetExporter[Any], force: bool) -> None:
        self.folder, self.force = folder, force
        self.link = exporter.options.files == "link"
        self.manifest = Manifest(exporter)
        self.linked = 0
        self._checked: set[Path] = set()

    def put(self, member: Member, *, listed: bool = True) -> None:
        """Write one member. An original that cannot be opened is left out and noted."""
        target = self._target(member.name)
        if not self.force and os.path.lexists(target):
            raise ExportError(f"{target} is already there: two files of the export have that name on this disk.")
        if self.link and isinstance(member.content, Original) and self._linked(member.content, target, member.name):
            return
        try:
            pieces, _ = member.pieces()
        except OSError as e:
            self.manifest.leave_out(member, e)
            return
        with draft(target) as new:
            for piece in self.manifest.watch(member.name, pieces) if listed else pieces:
                new.file.write(piece)
            new.close(fsync=not listed)  # the manifest comes last
            new.put(target, fsync=not listed)

    def _target(self, name: str) -> Path:
        """Inside the folder, whatever the name; its folder is made. ExportError for what would lead out."""
        parts = name.split("/")
        if name.startswith("/") or any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise ExportError(f"{name!r} is no name inside a folder.")
        target = self.folder.joinpath(*parts)
        if target.parent not in self._checked:
            target.parent.mkdir(parents=True, exist_ok=True)
            found = target.parent.resolve()
            if found != self.folder and self.folder not in found.parents:
                raise ExportError(f"{target.parent} is a link that leads out of {self.folder}.")
            if len(self._checked) < 10_000:
                self._checked.add(target.parent)
        return target

    def _linked(self, original: Original, target: Path, name: str) -> bool:
        """A second name for the original. False where the disk or the storage has no such thing: then it is copied."""
        path = original.path
        if path is None:
            return False
        temporary = target.with_name(f"{PREFIX}{os.getpid()}-{self.linked}.tmp")
        try:
            os.link(path, temporary, follow_symlinks=True)
        except (OSError, NotImplementedError):
            return False
        try:
            with temporary.open("rb") as f:
                sha256 = hashlib.file_digest(f, "sha256").hexdigest()
                size = f.tell()
            os.replace(temporary, target)
        finally:
            # renaming one name of a file onto another of it leaves both
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        self.manifest.add(name, size, sha256)
        self.linked += 1
        return True
