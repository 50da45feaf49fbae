"""Writing into a Django storage so that a file is either there whole or not at all, and none is overwritten.

Storages with paths get a hidden temporary file and a rename; others (S3 and its like) are atomic by themselves.
"""

from __future__ import annotations

import os
import posixpath
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, Storage


def local_path(storage: Storage, name: str) -> str | None:
    """Where `name` lies on this machine; None for storages that are no folder (some have a `path` all the same)."""
    return storage.path(name) if isinstance(storage, FileSystemStorage) else None


def put(storage: Storage, name: str, data: bytes) -> None:
    """Store content-addressed bytes: the name stands for the content, so what is there already (whole) is kept."""
    path = local_path(storage, name)
    if path is not None:
        try:
            if os.stat(path).st_size == len(data):
                return
        except FileNotFoundError:
            pass
        os.replace(_write_part(path, [data], storage), path)
        return
    if storage.exists(name):
        if storage.size(name) == len(data):
            return
        storage.delete(name)
    saved = storage.save(name, ContentFile(data))
    if saved != name:  # somebody else was faster with the same content
        storage.delete(saved)


def add(storage: Storage, name: str, chunks: Iterable[bytes]) -> str:
    """Store a new file under `name`, or "stem (2).ext" and so on when that is taken. The name it got."""
    path = local_path(storage, name)
    if path is None:
        with tempfile.SpooledTemporaryFile(max_size=16 << 20) as spool:
            for chunk in chunks:
                spool.write(chunk)
            spool.seek(0)
            return storage.save(next(c for c in _candidates(name) if not storage.exists(c)), File(spool))
    part = _write_part(path, chunks, storage)
    try:
        for candidate in _candidates(name):
            if _link(part, storage.path(candidate)):
                return candidate
    finally:
        os.unlink(part)
    raise AssertionError("unreachable: candidates never end")


def _candidates(name: str) -> Iterator[str]:
    yield name
    folder, base = posixpath.split(name)
    stem, extension = posixpath.splitext(base)
    n = 2
    while True:
        yield posixpath.join(folder, f"{stem} ({n}){extension}")
        n += 1


def _write_part(path: str, chunks: Iterable[bytes], storage: Storage) -> str:
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    part = os.path.join(folder, f".{uuid.uuid4().hex}.part")
    try:
        with open(part, "xb") as f:
            for chunk in chunks:
                f.write(chunk)
        if (mode := getattr(storage, "file_permissions_mode", None)) is not None:
            os.chmod(part, mode)
    except BaseException:
        if os.path.exists(part):
            os.unlink(part)
        raise
    return part


def _link(part: str, path: str) -> bool:
    """Give `part` its final name too; False when that is taken."""
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if os.path.exists(path):
            return False
        with open(part, "rb") as source, open(path, "xb") as target:
            while chunk := source.read(1 << 20):
                target.write(chunk)
    return True


def pieces(stream: BinaryIO, size: int = 1 << 20) -> Iterator[bytes]:
    """The rest of a stream in pieces."""
    while chunk := stream.read(size):
        yield chunk
