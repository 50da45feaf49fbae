"""Looking through a folder or a storage for pictures, streaming: no list is longer than one folder's subfolders.

Folders come in a fixed order (a folder's own files, then its subfolders by name), so that a walk can be cut and taken
up again. Left out: hidden files and folders (leading dot), folders with a `.nomedia` file, what the excludes match.
"""

from __future__ import annotations

import fnmatch
import os
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast

from django.core.files.storage import Storage

from . import kinds

#: Longest relative path that is stored.
MAX_PATH = 1000
NOMEDIA = ".nomedia"


@dataclass(slots=True)
class Found:
    """A file by its path relative to the tree. `size` is -1 where the storage would have to be asked for each file.

    `changed_ns` is when content or name last changed by the disk's clock (ctime): unlike mtime nobody sets it, so
    a copy that keeps an old date is seen to grow. 0 where it is unknown.
    """

    path: str
    folder: str
    size: int = -1
    mtime_ns: int = 0
    changed_ns: int = 0


@dataclass(slots=True)
class Cursor:
    """How far a walk came: the folder it was in, and what it had counted there."""

    folder: str = ""
    files: int = 0
    skipped: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Excludes:
    """Globs on the relative path. Without a slash a glob is held against the name of each file and folder."""

    def __init__(self, globs: Iterable[str]) -> None:
        forms: list[str] = []
        for glob in globs:
            glob = glob.strip().removeprefix("./").strip("/") if glob.strip() != "/" else ""
            if not glob:
                continue
            forms += [glob, glob[2:]] if glob.startswith("*/") else [glob] if "/" in glob else [glob, f"*/{glob}"]
        self._regex = re.compile("|".join(fnmatch.translate(f) for f in forms)) if forms else None

    def file(self, path: str) -> bool:
        return self._regex is not None and self._regex.match(path) is not None

    def folder(self, path: str) -> bool:
        """True when everything below is left out."""
        return self._regex is not None and bool(self._regex.match(path) or self._regex.match(path + "/"))


class Tree(ABC):
    """Where a collection's files lie. `skipped` counts the files left out; `note` is told what deserves a line."""

    def __init__(self, excludes: Iterable[str] = (), note: Callable[[str], None] = lambda text: None) -> None:
        self.excludes = Excludes(excludes)
        self.note = note
        self.skipped = 0
        self.cursor = Cursor()
        self._forgive = 0

    @abstractmethod
    def _visit(self, folder: str, subfolders: list[str], *, stat: bool) -> Iterator[Found]:
        """Yield the pictures of one folder, and put its subfolders' paths into the list."""

    @abstractmethod
    def open(self, path: str) -> BinaryIO:
        """OSError when it is gone or cannot be read."""

    @abstractmethod
    def _exists(self, path: str) -> bool: ...

    @abstractmethod
    def _nomedia(self, folder: str) -> bool: ...

    def walk(self, after: Cursor | None = None, *, stat: bool = True) -> Iterator[Found]:
        """All pictures; with `after`, from the folder on in which a walk was cut (that folder again from its start)."""
        start = after.folder.split("/") if after and after.folder else []
        self._forgive = after.skipped if after else 0
        stack = [""]
        while stack:
            folder = stack.pop()
            self.cursor = Cursor(folder)
            below: list[str] = []
            parts = folder.split("/") if folder else []
            if len(parts) < len(start) and parts == start[: len(parts)]:  # above the place where the walk was cut
                skipped, forgive = self.skipped, self._forgive
                for _ in self._visit(folder, below, stat=False):
                    pass
                self.skipped, self._forgive = skipped, forgive
                at = start[len(parts)]
                below = [b for b in below if b.rpartition("/")[2] >= at]
            else:
                for found in self._visit(folder, below, stat=stat):
                    self.cursor.files += 1
                    yield found
                self._forgive = 0
            below.sort(reverse=True)
            stack += below

    def count(self, stop: threading.Event) -> int | None:
        """How many pictures a walk will find; None when stopped before the end."""
        n = 0
        for n, _ in enumerate(self.walk(stat=False), start=1):
            if n % 1000 == 0 and stop.is_set():
                return None
        return n

    def has(self, path: str) -> bool:
        """Would a walk find `path`? True also when it cannot be known (a folder that cannot be read)."""
        parts = path.split("/")
        if any(p.startswith(".") for p in parts) or not kinds.has_image_extension(path) or self.excludes.file(path):
            return False
        folders = ["/".join(parts[:i]) for i in range(1, len(parts))]
        if any(self.excludes.folder(f) for f in folders) or any(self._nomedia(f) for f in ["", *folders]):
            return False
        return self._exists(path)

    def _skip(self) -> None:
        self.cursor.skipped += 1
        if self._forgive:
            self._forgive -= 1
        else:
            self.skipped += 1

    def _storable(self, path: str) -> bool:
        """False, with a note, for names that a database cannot hold."""
        if len(path) > MAX_PATH:
            self.note(f"{path[:80]}…: left out, the path is longer than {MAX_PATH} characters.")
            return False
        if not path.isascii():
            try:
                path.encode()
            except UnicodeEncodeError:
                self.note(f"{path!a}: left out, the name is not valid UTF-8. Rename the file.")
                return False
        return True


class FolderTree(Tree):
    """A folder of this machine.

    A link to a folder is followed once, unless it leads back into the tree; with `allowed` set, links of either kind
    that lead out of those folders are left out.
    """

    def __init__(
        self,
        root: str | Path,
        excludes: Iterable[str] = (),
        note: Callable[[str], None] = lambda text: None,
        allowed: Sequence[Path] = (),
    ) -> None:
        super().__init__(excludes, note)
        self.root = str(root)
        self._real = os.path.realpath(self.root)
        self._allowed = [os.path.realpath(a) for a in allowed]
        self._followed: set[str] = set()
        self._nomedia = lru_cache(maxsize=4096)(self._look_for_nomedia)  # type: ignore[method-assign]

    def open(self, path: str) -> BinaryIO:
        return Path(self.root, path).open("rb")

    def _visit(self, folder: str, subfolders: list[str], *, stat: bool) -> Iterator[Found]:
        full = os.path.join(self.root, folder) if folder else self.root
        if self._look_for_nomedia(folder):
            return
        prefix = folder + "/" if folder else ""
        try:
            with os.scandir(full) as entries:
                for entry in entries:
                    found = self._entry(entry, folder, prefix, subfolders, stat)
                    if found is not None:
                        yield found
        except OSError as error:
            self.note(f"{folder or full}: the folder cannot be read ({error.strerror}).")

    def _entry(
        self, entry: os.DirEntry[str], folder: str, prefix: str, subfolders: list[str], stat: bool
    ) -> Found | None:
        name = entry.name
        path = prefix + name
        try:
            if entry.is_dir():
                if name[0] != "." and not self.excludes.folder(path) and self._enter(entry) and self._storable(path):
                    subfolders.append(path)
                return None
            wanted = name[0] != "." and kinds.has_image_extension(name) and not self.excludes.file(path)
            if wanted and entry.is_file() and self._may_read(entry) and self._storable(path):
                if not stat:
                    return Found(path, folder)
                info = entry.stat()
                return Found(path, folder, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
        except OSError as error:  # a broken link, a file that vanished just now
            self.note(f"{path}: left out ({error.strerror}).")
        self._skip()
        return None

    def _enter(self, entry: os.DirEntry[str]) -> bool:
        if not entry.is_symlink():
            return True
        real = os.path.realpath(entry.path)
        if _within(real, self._real) or _within(self._real, real) or real in self._followed:
            return False
        if self._allowed and not any(_within(real, a) for a in self._allowed):
            return False
        self._followed.add(real)
        return True

    def _may_read(self, entry: os.DirEntry[str]) -> bool:
        if not self._allowed or not entry.is_symlink():
            return True
        real = os.path.realpath(entry.path)
        return any(_within(real, a) for a in self._allowed)

    def _exists(self, path: str) -> bool:
        try:
            os.stat(os.path.join(self.root, path))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return True

    def _look_for_nomedia(self, folder: str) -> bool:
        return os.path.exists(os.path.join(self.root, folder, NOMEDIA))

    def _nomedia(self, folder: str) -> bool:  # replaced by a remembering one in __init__
        return self._look_for_nomedia(folder)


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


class StorageTree(Tree):
    """A prefix of a storage without paths. Files in it are written once, so a known path is an unchanged file."""

    def __init__(
        self, storage: Storage, prefix: str, excludes: Iterable[str] = (), note: Callable[[str], None] = lambda t: None
    ) -> None:
        super().__init__(excludes, note)
        self.storage, self.prefix = storage, prefix

    def open(self, path: str) -> BinaryIO:
        return cast(BinaryIO, self.storage.open(f"{self.prefix}/{path}", "rb"))

    def _visit(self, folder: str, subfolders: list[str], *, stat: bool) -> Iterator[Found]:
        try:
            folders, files = self.storage.listdir(f"{self.prefix}/{folder}" if folder else self.prefix)
        except FileNotFoundError:  # nothing was uploaded yet
            return
        if NOMEDIA in files:
            return
        prefix = folder + "/" if folder else ""
        subfolders += [prefix + f for f in folders if not f.startswith(".") and not self.excludes.folder(prefix + f)]
        for name in files:
            path = prefix + name
            if name.startswith(".") or not kinds.has_image_extension(name) or self.excludes.file(path):
                self._skip()
            elif self._storable(path):
                yield Found(path, folder)

    def _exists(self, path: str) -> bool:
        return self.storage.exists(f"{self.prefix}/{path}")

    def _nomedia(self, folder: str) -> bool:
        return False
