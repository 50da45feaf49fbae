"""Names of files that an export makes: which would be one file, which some system cannot hold, and other names for
them.

Nothing here depends on the number of images but one 8-byte hash for each name, so that a million names cost 8 MB.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

Policy = Literal["refuse", "keep_extension", "rename"]

MAX_NAME = 255  # bytes of one component: ext4, NTFS (UTF-16 units there, never more), APFS
MAX_PATH = 1024  # bytes of the whole relative name
EXAMPLES = 5
#: https://learn.microsoft.com/windows/win32/fileio/naming-a-file
RESERVED = frozenset(
    ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"] + [f"{d}{n}" for d in ("COM", "LPT") for n in "0123456789¹²³"]
)
_BAD = re.compile(r'[<>:"\\|?*\x00-\x1f\x7f]|[\ud800-\udfff]')


def problem(name: str) -> str:
    """Why a relative name cannot be a file everywhere; empty if it can. Refuses also what leads out of the folder."""
    if not name or name.startswith("/"):
        return "is no relative name"
    if len(name.encode(errors="surrogatepass")) > MAX_PATH:
        return f"is longer than {MAX_PATH} bytes"
    for part in name.split("/"):
        if part in ("", ".", ".."):
            return "has an empty part, . or .. in it"
        if found := _BAD.search(part):
            return f"holds {found.group()!r}, which Windows refuses"
        if part[-1] in " .":
            return "ends in a space or dot, which Windows drops"
        if part.split(".")[0].rstrip().upper() in RESERVED:
            return f"is reserved on Windows ({part.split('.')[0].rstrip()})"
        if len(part.encode()) > MAX_NAME:
            return f"is longer than {MAX_NAME} bytes"
    return ""


def mended(name: str) -> str:
    """The name with what `problem` finds replaced: bad characters by _, reserved names with _ before, long ones cut."""
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    return "/".join([_mended(part) for part in parts]) or "_"


def _mended(part: str) -> str:
    part = _BAD.sub("_", part).rstrip(" .") or "_"
    if part.split(".")[0].rstrip().upper() in RESERVED:
        part = f"_{part}"
    if len(part.encode()) > MAX_NAME:
        stem, suffix = split(part)
        mark = "~" + hashlib.sha256(part.encode()).hexdigest()[:10] + suffix[-20:]
        part = stem.encode()[: MAX_NAME - len(mark.encode())].decode(errors="ignore") + mark
    return part


def split(name: str) -> tuple[str, str]:
    """("dir/a.b", ".jpg") of dir/a.b.jpg."""
    suffix = PurePosixPath(name).suffix
    return (name[: -len(suffix)], suffix) if suffix else (name, "")


def same_file(name: str) -> int:
    """A 64-bit hash that is equal for names that are one file on Windows or macOS: case and Unicode form ignored."""
    key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return int.from_bytes(hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


@dataclass
class Clashes:
    """What stands against writing these names: how many, and the first of them in words."""

    doubled: int = 0
    bad: int = 0
    doubled_examples: list[str] = field(default_factory=list)
    bad_examples: list[str] = field(default_factory=list)

    @property
    def any(self) -> bool:
        return bool(self.doubled or self.bad)


class Names:
    """File names for the images of an export.

    `paths()` gives the images' paths, the same at each call and in the order of writing. `key(path)` is what must be
    unique: the path without its extension where a text of that name is written beside the image.
    """

    def __init__(self, paths: Callable[[], Iterable[str]], key: Callable[[str], str] = lambda path: path) -> None:
        import numpy as np  # and its 10 MB, where names have to be compared

        self._paths, self._key = paths, key
        hashes = array("Q")
        bad = 0
        examples: list[str] = []
        for path in paths():
            hashes.append(same_file(key(path)))
            if why := problem(path):
                bad += 1
                if len(examples) < EXAMPLES:
                    examples.append(f"{path} {why}")
        self._all = np.sort(np.frombuffer(hashes, np.uint64)) if hashes else np.empty(0, np.uint64)
        repeated = self._all[1:][self._all[1:] == self._all[:-1]]
        self._doubled = np.unique(repeated)
        self._given: set[int] = set()
        self.clashes = Clashes(doubled=self._count(), bad=bad, bad_examples=examples)
        if len(self._doubled):
            self.clashes.doubled_examples = list(self._examples())

    def _count(self) -> int:
        """Images whose name is not theirs alone."""
        low = self._all.searchsorted(self._doubled, "left")
        return int((self._all.searchsorted(self._doubled, "right") - low).sum())

    def _examples(self) -> Iterator[str]:
        left = EXAMPLES
        for path in self._paths():
            if left and self.is_doubled(path):
                left -= 1
                yield path

    def is_doubled(self, path: str) -> bool:
        """Another image has this name too."""
        return self._has(self._doubled, same_file(self._key(path)))

    def renamed(self, path: str, number: int) -> str:
        """The name to write under: the path itself, or one that is free. `number` is the image's id. Call it once for
        each image, in order: what was given is remembered."""
        if not self.is_doubled(path) and not problem(path):
            return path
        stem, suffix = split(path)
        mended_path = mended(path)
        candidates = [] if self.is_doubled(path) else [mended_path]
        candidates += [mended(f"{stem}_{suffix[1:]}{suffix}"), mended(f"{stem}_{suffix[1:]}_{number}{suffix}")]
        for name in candidates:
            if self._take(name):
                return name
        name = f"{number}_{hashlib.sha256(path.encode(errors='surrogatepass')).hexdigest()[:16]}{split(mended_path)[1]}"
        self._take(name)
        return name

    def _take(self, name: str) -> bool:
        key = same_file(self._key(name))
        if key in self._given or self._has(self._all, key):
            return False
        self._given.add(key)
        return True

    @staticmethod
    def _has(hashes: np.ndarray, key: int) -> bool:
        at = int(hashes.searchsorted(hashes.dtype.type(key)))
        return at < len(hashes) and int(hashes[at]) == key
