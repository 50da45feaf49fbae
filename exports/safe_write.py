"""A file is replaced whole or not at all.

Temp file in the same folder → write → fsync → read back and verify → the original is still what was planned for →
rename → fsync of the folder. A crash at any point leaves the original or the new file, never half of one; what may be
left over is a temp file that `sweep` removes.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

PREFIX, SUFFIX = ".iwtag-", ".tmp"


class WriteRefused(Exception):
    """The file was not written and is as it was. The text says why."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a file was when the plan was made; None stands for a file that was not there."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Seen | None:
        """Raises WriteRefused for what must not be replaced by a rename: a link, or anything but a plain file."""
        try:
            found = path.lstat()
        except FileNotFoundError:
            return None
        except OSError as e:
            raise WriteRefused(f"{path.name} cannot be looked at: {e.strerror}") from None
        if stat.S_ISLNK(found.st_mode):
            raise WriteRefused(f"{path.name} is a symbolic link")
        if not stat.S_ISREG(found.st_mode):
            raise WriteRefused(f"{path.name} is not a plain file")
        if found.st_nlink > 1:
            raise WriteRefused(f"{path.name} has {found.st_nlink} hard links; replacing it would part them")
        if not found.st_mode & stat.S_IWUSR:
            raise WriteRefused(f"{path.name} is read-only")
        return cls(found.st_size, found.st_mtime_ns, found.st_ino)


def replace(
    path: Path,
    data: bytes,
    *,
    seen: Seen | None,
    verify: Callable[[bytes], None] | None = None,
    fsync: bool = True,
    mark: str = "",
) -> Seen:
    """Make `path` hold exactly `data`; what the file is then.

    `seen` is what `Seen.of(path)` said when the plan was made: a file that changed, came or went since is refused.
    `verify` gets the bytes read back from the disk and raises to refuse. `mark` begins the temp file's name, for
    `sweep`. Raises WriteRefused, with the original untouched, also when the disk is full or the folder is gone or
    read-only.
    """
    try:
        with draft(path, mark=mark) as new:
            new.file.write(data)
            new.close(fsync=fsync)
            written = new.path.read_bytes()
            if written != data:
                raise WriteRefused(f"{path.name} was not written: the disk gave back other bytes")
            if verify:
                verify(written)
            if Seen.of(path) != seen:
                raise WriteRefused(f"{path.name} was changed by another program since the plan was made")
            found = os.stat(new.path)  # a rename keeps these
            new.put(path, fsync=fsync)
            return Seen(found.st_size, found.st_mtime_ns, found.st_ino)
    except OSError as e:
        raise WriteRefused(f"{path.name} was not written: {e.strerror or e}") from None


@dataclass(slots=True)
class Draft:
    """The temp file that is to become a file beside it."""

    file: IO[bytes]
    path: Path
    placed: bool = False

    def close(self, *, fsync: bool = True) -> None:
        """Nothing more is written; the bytes are on the disk."""
        self.file.flush()
        if fsync:
            os.fsync(self.file.fileno())
        self.file.close()

    def put(self, path: Path, *, fsync: bool = True) -> None:
        """Become `path`, in place of what is there."""
        os.replace(self.path, path)
        self.placed = True
        if fsync:
            _fsync_folder(path.parent)


@contextlib.contextmanager
def draft(path: Path, *, mark: str = "") -> Iterator[Draft]:
    """A temp file in the folder of `path`, with the permissions of the file there or those of a new one. At the end it
    is gone, unless it was `put`. OSError."""
    descriptor, temp = tempfile.mkstemp(prefix=PREFIX + mark, suffix=SUFFIX, dir=path.parent)
    new: Draft | None = None
    try:
        with open(descriptor, "wb") as f:
            os.fchmod(descriptor, _mode(path))
            new = Draft(f, Path(temp))
            yield new
    finally:
        if new is None or not new.placed:
            with contextlib.suppress(OSError):
                os.unlink(temp)


def remove(path: Path, *, seen: Seen | None, fsync: bool = True) -> None:
    """Take away a file that we made, if it is still what `seen` says. Raises WriteRefused."""
    if Seen.of(path) != seen:
        raise WriteRefused(f"{path.name} was changed by another program since")
    if seen is None:
        return
    try:
        path.unlink()
        if fsync:
            _fsync_folder(path.parent)
    except OSError as e:
        raise WriteRefused(f"{path.name} was not removed: {e.strerror or e}") from None


def sweep(folder: Path, mark: str = "") -> int:
    """Remove temp files of that mark that a crash left in `folder`. Call it only where no writer of that mark works."""
    removed = 0
    for path in folder.glob(f"{PREFIX}{mark}*{SUFFIX}"):
        with contextlib.suppress(OSError):
            path.unlink()
            removed += 1
    return removed


def _mode(path: Path) -> int:
    """Of the file that is replaced, else what a new file gets."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return 0o666 & ~_umask()


_UMASK: list[int] = []


def _umask() -> int:
    """The process's umask, asked once: asking means setting it for a moment."""
    if not _UMASK:
        value = os.umask(0o022)
        os.umask(value)
        _UMASK.append(value)
    return _UMASK[0]


def _fsync_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):  # Windows cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
