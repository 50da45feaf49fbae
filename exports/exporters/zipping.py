"""A zip as a stream: written once from front to back, in memory that does not grow with the number of members."""

from __future__ import annotations

import io
import pickle
import tempfile
import zipfile
from collections.abc import Iterator
from typing import IO, Any

PIECE = 1 << 16  # bytes that go out at once
SPOOLED = 1 << 20  # bytes of a spool that stay in memory; the rest waits in a temporary file


def spooled() -> IO[bytes]:
    """A temporary file for what can only be written later. Whoever reads it closes it (`drained`)."""
    return tempfile.SpooledTemporaryFile(SPOOLED)


def drained(spool: IO[bytes], skip: int = 0) -> Iterator[bytes]:
    """What a spool holds from byte `skip` on, a piece at a time; it is closed at the end."""
    with spool:
        spool.seek(skip)
        while piece := spool.read(PIECE):
            yield piece


class ZipStream:
    """Members go in through `write`, bytes come out through `take`. UTF-8 names, zip64 where needed."""

    def __init__(self) -> None:
        self._out = _Out()
        self._zip = zipfile.ZipFile(self._out, "w", allowZip64=True)
        self._directory = _Directory()
        self._zip.filelist = self._directory  # type: ignore[assignment]
        self._zip.NameToInfo = _Forgetful()

    def write(self, name: str, pieces: Iterator[bytes], *, size: int | None, packed: bool) -> Iterator[bytes]:
        """One member; yields what can go out. `size` is known beforehand or None; `packed` deflates."""
        info = zipfile.ZipInfo(name)  # dated 1980: the same truth gives the same bytes
        info.compress_type = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
        info.external_attr = 0o644 << 16
        info.create_system = 3
        if size is not None:
            info.file_size = size
        with self._zip.open(info, "w", force_zip64=size is None) as member:
            for piece in pieces:
                member.write(piece)
                if self._out.waiting >= PIECE:
                    yield self._out.take()
        if data := self._out.take():
            yield data

    def close(self) -> Iterator[bytes]:
        """The directory at the end."""
        self._out.spool = spooled()  # zipfile writes all of it at once
        self._zip.close()
        self._directory.close()
        yield from drained(self._out.spool)


class _Out(io.RawIOBase):
    """What zipfile writes to: it cannot seek, so sizes follow each member."""

    def __init__(self) -> None:
        super().__init__()
        self._buffer = bytearray()
        self.spool: IO[bytes] | None = None

    @property
    def waiting(self) -> int:
        return len(self._buffer)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self.spool is not None:
            return self.spool.write(data)
        self._buffer += data
        return len(data)

    def take(self) -> bytes:
        data = bytes(self._buffer)
        self._buffer.clear()
        return data


class _Directory:
    """zipfile's list of members, kept outside the memory: a million of them would take a gigabyte."""

    def __init__(self) -> None:
        self._file = spooled()
        self._n = 0

    def append(self, info: zipfile.ZipInfo) -> None:
        pickle.dump({slot: getattr(info, slot) for slot in info.__slots__ if hasattr(info, slot)}, self._file)
        self._n += 1

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[zipfile.ZipInfo]:
        self._file.seek(0)
        for _ in range(self._n):
            info = zipfile.ZipInfo()
            for slot, value in pickle.load(self._file).items():
                setattr(info, slot, value)
            yield info

    def close(self) -> None:
        self._file.close()


class _Forgetful(dict[str, zipfile.ZipInfo]):
    """zipfile looks names up here to warn of doubles; ours are known to be different."""

    def __setitem__(self, name: str, info: zipfile.ZipInfo) -> None:
        return
