"""Which image a row means: exact relative path, then a file name that only one image has, then the content's sha256.

Nothing is guessed: where several images fit, the row says so. The index of a collection is arrays of 64-bit hashes,
64 bytes an image; what a hash finds is compared with the path in the database.
"""

from __future__ import annotations

import posixpath
import unicodedata
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tagging.models import Collection, ImageAsset

from .base import Item

_SHOWN = 3  # of several images that fit, how many are named
_MOST = 50  # candidates of one name that are looked at


def compare_path(path: str) -> str:
    """NFC and case folded: names that one disk takes for the same."""
    return unicodedata.normalize("NFC", path).casefold()


def clean_path(path: str, root: str = "") -> str:
    """As paths of images are written: forward slashes, relative to the collection where it lies below its folder."""
    found = path.strip().replace("\\", "/")
    top = root.replace("\\", "/").rstrip("/")
    if top and compare_path(found).startswith(compare_path(top) + "/"):
        found = found[len(top) + 1 :]
    while found.startswith("./"):
        found = found[2:]
    return posixpath.normpath(found) if found else ""


def _stem(path: str) -> str:
    """The path without its last extension."""
    return posixpath.splitext(path)[0]


@dataclass(frozen=True, slots=True)
class Match:
    """The image of a row, or why there is none."""

    image_id: int | None
    why: str = ""
    note: str = ""


class _Keys:
    """Hashes of one kind of key, sorted, with the images that they belong to."""

    def __init__(self, hashes: array[int], ids: array[int]) -> None:
        keys, values = np.frombuffer(hashes, dtype=np.int64), np.frombuffer(ids, dtype=np.int64)
        order = np.argsort(keys, kind="stable")
        self._keys, self._ids = keys[order], values[order]

    def find(self, key: str) -> list[int]:
        value = hash(key)
        lo = int(np.searchsorted(self._keys, value, "left"))
        hi = int(np.searchsorted(self._keys, value, "right"))
        return [int(i) for i in self._ids[lo : min(hi, lo + _MOST)]]


class Index:
    """The images of a collection, ready to be asked about."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        ids, paths, names, stems, name_stems = (array("q") for _ in range(5))
        rows = ImageAsset.objects.filter(collection=collection).present().order_by("pk")
        for pk, path in rows.values_list("pk", "path").iterator(chunk_size=5000):
            key = compare_path(path)
            ids.append(pk)
            paths.append(hash(key))
            names.append(hash(posixpath.basename(key)))
            stems.append(hash(_stem(key)))
            name_stems.append(hash(posixpath.basename(_stem(key))))
        self.size = len(ids)
        self._paths, self._names = _Keys(paths, ids), _Keys(names, ids)
        self._stems, self._name_stems = _Keys(stems, ids), _Keys(name_stems, ids)

    def match(self, items: Sequence[Item]) -> list[Match]:
        """The images of some hundreds of items; two queries."""
        keys = [clean_path(item.key, self._collection.root) for item in items]
        near: list[tuple[list[int], list[int]]] = []
        for item, key in zip(items, keys, strict=True):
            if item.image_id is not None or item.error:
                near.append(([], []))
                continue
            folded = compare_path(key)
            if item.by_stem:
                near.append((self._stems.find(folded), self._name_stems.find(posixpath.basename(folded))))
            else:
                near.append((self._paths.find(folded), self._names.find(posixpath.basename(folded))))
        rows = self._rows({i for found in near for ids in found for i in ids}, [i.image_id for i in items])
        by_sha = self._by_sha256({item.sha256.lower() for item in items if item.sha256})
        return [
            self._match(item, key, *found, rows, by_sha) for item, key, found in zip(items, keys, near, strict=True)
        ]

    def _rows(self, ids: set[int], known: Iterable[int | None]) -> dict[int, tuple[str, str]]:
        wanted = ids | {i for i in known if i is not None}
        rows = ImageAsset.objects.filter(collection=self._collection, pk__in=wanted)
        return {pk: (path, sha) for pk, path, sha in rows.values_list("pk", "path", "sha256")}

    def _by_sha256(self, wanted: set[str]) -> dict[str, list[tuple[int, str]]]:
        found: dict[str, list[tuple[int, str]]] = {}
        if wanted:
            rows = ImageAsset.objects.filter(collection=self._collection, sha256__in=wanted).present().order_by("pk")
            for pk, path, sha in rows.values_list("pk", "path", "sha256"):
                found.setdefault(sha, []).append((pk, path))
        return found

    def _match(
        self, item: Item, key: str, exact: list[int], named: list[int], rows: dict[int, Any], by_sha: dict[str, Any]
    ) -> Match:
        if item.error:
            return Match(None, item.error)
        if item.image_id is not None:
            gone = item.image_id not in rows
            return Match(None, "the image is gone") if gone else Match(item.image_id)
        same = by_sha.get(item.sha256.lower(), []) if item.sha256 else []
        if not key:
            return self._content(same, "the row names no image")
        folded = compare_path(key)
        of = {i: _stem(rows[i][0]) if item.by_stem else rows[i][0] for i in {*exact, *named} if i in rows}
        at_path = [i for i in exact if i in of and compare_path(of[i]) == folded]
        if not item.by_stem and len(spelled := [i for i in at_path if of[i] == key]) == 1:
            at_path = spelled  # two files whose names differ in case only
        if len(at_path) == 1:
            return _checked(at_path[0], rows[at_path[0]][1], item)
        if len(at_path) > 1:
            return self._content(same, f"it could mean {_list([rows[i][0] for i in at_path])}")
        name = posixpath.basename(folded)
        called = [i for i in named if i in of and compare_path(posixpath.basename(of[i])) == name]
        if len(called) == 1:
            return _checked(called[0], rows[called[0]][1], item)
        if len(called) > 1:
            what = f"{len(called)}{'+' if len(called) >= _MOST else ''} images have this name:"
            return self._content(same, f"{what} {_list([rows[i][0] for i in called])}")
        return self._content(same, "no image of the collection has this path or name")

    @staticmethod
    def _content(same: list[tuple[int, str]], why: str) -> Match:
        if len(same) == 1:
            return Match(same[0][0], note=f"found by its content: {same[0][1]}")
        if len(same) > 1:
            return Match(None, f"{why}; its content is that of {_list([path for _, path in same])}")
        return Match(None, why)


def _checked(image_id: int, sha256: str, item: Item) -> Match:
    differs = item.sha256 and sha256 and item.sha256.lower() != sha256
    return Match(image_id, note="the file is not the one it was: its sha256 differs" if differs else "")


def _list(paths: Sequence[str]) -> str:
    more = len(paths) - _SHOWN
    return ", ".join(paths[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
