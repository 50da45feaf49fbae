"""The files of a folder or of an uploaded zip, folder by folder: names first, content only where it is asked for."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from .base import ImportProblem

MOST_FILES = 2_000_000


class Listing(NamedTuple):
    """The files of one folder. `folder` is relative, with forward slashes, "" for the top."""

    folder: str
    names: list[str]

    def path(self, name: str) -> str:
        return f"{self.folder}/{name}" if self.folder else name


class Tree(Protocol):
    def folders(self) -> Iterator[Listing]: ...

    def read(self, path: str, limit: int) -> bytes:
        """The content. OSError, with a text, for what cannot be read or is larger than `limit` bytes."""

    def target(self, path: str) -> str:
        """The file's absolute path, as the ledger of exports names it; "" in a zip."""


class FolderTree:
    """A folder on this machine. Links to folders are not followed, hidden ones are left out."""

    def __init__(self, root: str) -> None:
        """ImportProblem where it is no folder."""
        self._root = Path(root)
        if not self._root.is_dir():
            raise ImportProblem(f"There is no folder {root}.")

    def folders(self) -> Iterator[Listing]:
        def refuse(error: OSError) -> None:
            raise ImportProblem(f"{error.filename} cannot be read: {error.strerror}.")

        for at, inner, names in os.walk(self._root, onerror=refuse):
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            folder = Path(at).relative_to(self._root).as_posix()
            found = [name for name in sorted(names) if not name.startswith(".") and _speakable(name)]
            yield Listing("" if folder == "." else folder, found)

    def read(self, path: str, limit: int) -> bytes:
        file = self._root / path
        if not file.resolve().is_relative_to(self._root.resolve()):
            raise OSError("a link leads out of the folder")
        with file.open("rb") as f:
            return _whole(f, limit)

    def target(self, path: str) -> str:
        return str(self._root / path)


class ZipTree:
    """An uploaded zip. Nothing is unpacked to the disk."""

    def __init__(self, stream: BinaryIO) -> None:
        """ImportProblem where it is no zip."""
        try:
            self._zip = zipfile.ZipFile(stream)
        except (zipfile.BadZipFile, OSError, ValueError) as e:
            raise ImportProblem(f"This zip cannot be read: {e}.") from None
        if len(self._zip.infolist()) > MOST_FILES:
            raise ImportProblem(f"This zip has more than {MOST_FILES:,} files.")

    def folders(self) -> Iterator[Listing]:
        found: dict[str, list[str]] = {}
        for info in self._zip.infolist():
            path = info.filename.replace("\\", "/")
            folder, _, name = path.rpartition("/")
            if name and not name.startswith(".") and "__MACOSX" not in folder:
                found.setdefault(folder, []).append(name)
        for folder in sorted(found):
            yield Listing(folder, sorted(found[folder]))

    def read(self, path: str, limit: int) -> bytes:
        try:
            with self._zip.open(path) as f:
                return _whole(f, limit)
        except (zipfile.BadZipFile, KeyError, RuntimeError, NotImplementedError, EOFError) as e:
            raise OSError(f"it cannot be unpacked: {e}") from None

    def target(self, path: str) -> str:
        return ""


def _whole(stream: object, limit: int) -> bytes:
    data: bytes = stream.read(limit + 1)  # type: ignore[attr-defined]
    if len(data) > limit:
        raise OSError(f"larger than {max(1, limit // 2**20)} MB")
    return data


def _speakable(name: str) -> bool:
    """Names that are no UTF-8 cannot name an image of the database."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
