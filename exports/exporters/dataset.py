"""The contract of formats that are many files: they yield members, and a sink puts them somewhere.

Sinks: a zip that is streamed (`stream`, here), a new folder (`exports.folder`), and texts beside the images
(`exports.text_files`). Each writes a manifest with the SHA-256 of every file last.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal, TypeVar

from pydantic import Field

from tagging.models import Collection, ImageAsset

from .base import Exporter, ExportError, ExportOptions, Plan, Selection
from .counting import left_out, some
from .names import Names, Policy, split
from .reading import ImageRow, Record, Source
from .zipping import ZipStream, drained, spooled

MANIFEST = "manifest.json"
READ_AT_ONCE = 1 << 18


class DatasetOptions(ExportOptions):
    """What every format of many files is asked."""

    files: Literal["none", "copy", "link"] = Field(
        "none",
        title="Image files",
        description="The originals, byte for byte, beside what is written about them. A hard link in a new folder on "
        "the same disk costs no space; a zip always holds copies.",
        json_schema_extra={
            "labels": {"none": "without the images", "copy": "with copies", "link": "with hard links (new folder)"}
        },
    )
    clashes: Policy = Field(
        "refuse",
        title="Names that clash",
        description="Where two files would have one name (a.jpg and a.png share a.txt; A.jpg and a.jpg on Windows and "
        "macOS), or a name is impossible on Windows. Nothing is written before this is settled.",
        json_schema_extra={
            "labels": {
                "refuse": "refuse, and name them",
                "keep_extension": "keep the extension (a.png.txt)",
                "rename": "rename (a_png.png, a_png.txt)",
            }
        },
    )


class Original:
    """An image file of the collection, to be copied as it is."""

    def __init__(self, collection: Collection, image: ImageRow) -> None:
        self._asset = ImageAsset(collection=collection, path=image.path)
        self.image = image

    def open(self) -> BinaryIO:
        """OSError when it is gone."""
        return self._asset.open()

    @property
    def path(self) -> Path | None:
        """Where it lies on this machine; None for uploads, which may lie anywhere."""
        collection = self._asset.collection
        return Path(collection.root, self.image.path) if collection.kind == Collection.Kind.FOLDER else None


@dataclass
class Member:
    """One file to write: its relative name and what is in it. A sink that cannot read the original sets `failed`
    before it goes on, so that nothing is said about a file that is not there."""

    name: str
    content: bytes | Original | Iterator[bytes]
    packed: bool = True
    failed: str = ""

    @classmethod
    def of(cls, name: str, original: Original) -> Member:
        """Pictures are compressed already."""
        return cls(name, original, packed=False)

    def pieces(self) -> tuple[Iterator[bytes], int | None]:
        """(the bytes, how many if that is known). OSError when the original cannot be opened."""
        if isinstance(self.content, bytes):
            return iter([self.content]), len(self.content)
        if isinstance(self.content, Original):
            stream = self.content.open()
            return _read(stream, self.content.image.path), size_of(stream)
        return self.content, None


def size_of(stream: BinaryIO) -> int:
    """Length of an open file."""
    size = stream.seek(0, 2)
    stream.seek(0)
    return size


def _read(stream: BinaryIO, path: str) -> Iterator[bytes]:
    with stream:
        try:
            while piece := stream.read(READ_AT_ONCE):
                yield piece
        except OSError as e:
            raise ExportError(f"{path} cannot be read to its end: {e.strerror or e}.") from None


O = TypeVar("O", bound=DatasetOptions)  # noqa: E741


class DatasetExporter(Exporter[O]):
    """A format of many files. Subclasses yield `members`; the names of images come from `named`."""

    extension = "zip"
    content_type = "application/zip"
    Options: ClassVar[type[DatasetOptions]] = DatasetOptions

    #: What is written beside an image replaces its extension (a.txt), so that a.jpg and a.png clash.
    by_stem: ClassVar[bool] = False
    #: Names matter also without the image files: something is written beside where each would be.
    names_always: ClassVar[bool] = False

    @property
    def changed(self) -> dict[str, str]:
        """Tag → what was written for it, of those that could not be written as they are."""
        return {}

    @abstractmethod
    def members(self) -> Iterator[Member]:
        """All files but the manifest. ExportError when names clash and the options say refuse."""

    @cached_property
    def left_out(self) -> list[tuple[str, str]]:
        """(image, why) of those that a format could not read itself; filled while writing, for the manifest."""
        return []

    # -- which images, under which names ----------------------------------------------------------------------------
    @property
    def with_files(self) -> bool:
        return self.options.files != "none"

    @cached_property
    def source(self) -> Source:
        """Without images whose file is missing, where the files are wanted."""
        images = self.selection.images.filter(missing_since=None) if self.with_files else self.selection.images
        return Source(Selection(self.selection.collection, images), self.options)

    def placed(self, path: str) -> str:
        """Where an image of this path goes, before clashes are settled."""
        return path

    @cached_property
    def names(self) -> Names:
        paths = self.source.images.values_list("path", flat=True)
        key = (lambda path: split(path)[0]) if self.by_stem else (lambda path: path)
        return Names(lambda: (self.placed(path) for path in paths.iterator(5000)), key)

    @property
    def _names_matter(self) -> bool:
        return self.with_files or self.names_always

    def named(self) -> Iterator[list[tuple[Record, str]]]:
        """Pages of records, each with the name its image has in the dataset. ExportError when names clash."""
        if self._names_matter and (problems := self.name_problems()):
            raise ExportError(" ".join(problems))
        rename = self._names_matter and self.options.clashes == "rename"
        for page in self.source.pages():
            found = []
            for record in page:
                name = self.placed(record.image.path)
                found.append((record, self.names.renamed(name, record.image.id) if rename else name))
            self.rows += len(page)
            yield found

    def text_name(self, name: str, extension: str) -> str:
        """Of the text beside the image `name`: a.txt, or a.png.txt where that name is not the image's alone."""
        if self.by_stem and not (self.options.clashes == "keep_extension" and self.names.is_doubled(name)):
            return split(name)[0] + extension
        return name + extension

    def name_problems(self) -> list[str]:
        """Why nothing can be written under these names and options."""
        clashes, policy, found = self.names.clashes, self.options.clashes, []
        if policy == "rename":
            return []
        if clashes.doubled and policy == "refuse":
            what = "would share a file with another image" if self.by_stem else "differ from another only by case"
            found.append(
                f"{clashes.doubled:,} images {what}: {some(clashes.doubled_examples, clashes.doubled)}. "
                'Choose "keep the extension" or "rename" for names that clash.'
            )
        if clashes.doubled and policy == "keep_extension":
            paths = self.source.images.values_list("path", flat=True)
            whole = Names(lambda: (self.placed(path) for path in paths.iterator(5000))).clashes
            if whole.doubled:
                found.append(
                    f"{whole.doubled:,} images differ only by case: {some(whole.doubled_examples, whole.doubled)}. "
                    'Choose "rename" for names that clash.'
                )
        if clashes.bad:
            found.append(
                f"{clashes.bad:,} names cannot be written on every system: {some(clashes.bad_examples, clashes.bad)}. "
                'Choose "rename" for names that clash.'
            )
        return found

    # -- saying it beforehand ---------------------------------------------------------------------------------------
    def warnings(self) -> list[str]:
        """What a person should know of this format and selection; subclasses add theirs."""
        return []

    def refusals(self) -> list[str]:
        return self.name_problems() if self._names_matter else []

    def plan(self) -> Plan:
        images = self.source.images.count()
        everything = Source(self.selection, self.options).images.count()
        skipped, warnings = left_out(self.selection, self.options, everything)
        if missing := everything - images:
            warnings.append(f"{missing:,} images are left out: their file was missing at the last look.")
        problems = self.refusals()
        if self._names_matter:
            clashes = self.names.clashes
            if clashes.any and not problems:
                done = "renamed" if self.options.clashes == "rename" else "written as name.extension.txt"
                warnings.append(
                    f"{clashes.doubled + clashes.bad:,} names clash or are impossible somewhere, and are {done}: "
                    f"{some(clashes.doubled_examples + clashes.bad_examples, clashes.doubled + clashes.bad)}."
                )
        return Plan(images, images, skipped + missing, [*warnings, *self.warnings()], problems)

    # -- the zip ----------------------------------------------------------------------------------------------------
    def stream(self) -> Iterator[bytes]:
        """A zip of all members and the manifest, in constant memory; the same truth gives the same bytes."""
        out, manifest = ZipStream(), Manifest(self)
        for member in self.members():
            try:
                pieces, size = member.pieces()
            except OSError as e:
                manifest.leave_out(member, e)
                continue
            yield from out.write(member.name, manifest.watch(member.name, pieces), size=size, packed=member.packed)
        yield from out.write(MANIFEST, manifest.pieces(), size=None, packed=True)
        yield from out.close()


class Manifest:
    """What was written: name, size and SHA-256 of every file, and what was left out. Kept in a temporary file."""

    def __init__(self, exporter: DatasetExporter[Any]) -> None:
        self._exporter = exporter
        self._head = {
            "made_by": "iwtag",
            "format": exporter.identifier,
            "collection": exporter.selection.collection.name,
            "options": exporter.options.model_dump(mode="json"),
        }
        self._files = spooled()
        self._left_out = spooled()
        self.files = 0
        self.size = 0
        self.left_out = 0

    def watch(self, name: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Passes the pieces on and notes their sum at the end."""
        sha256, size = hashlib.sha256(), 0
        for piece in pieces:
            sha256.update(piece)
            size += len(piece)
            yield piece
        self.add(name, size, sha256.hexdigest())

    def add(self, name: str, size: int, sha256: str) -> None:
        self.files += 1
        self.size += size
        self._files.write(_line({"name": name, "size": size, "sha256": sha256}))

    def leave_out(self, member: Member, error: OSError) -> None:
        """Its original cannot be read: the member is told, and the manifest says so."""
        member.failed = error.strerror or str(error) or "cannot be read"
        self.left_out += 1
        self._left_out.write(_line({"name": member.name, "why": member.failed}))

    def pieces(self) -> Iterator[bytes]:
        """The JSON text. `words_changed` says which words are written otherwise, so that they can be found again."""
        for name, why in self._exporter.left_out:
            self._left_out.write(_line({"name": name, "why": why}))
        yield json.dumps(self._head, ensure_ascii=False, indent=1).removesuffix("\n}").encode(errors="replace")
        for key, spool in (("left_out", self._left_out), ("files", self._files)):
            yield f',\n "{key}": ['.encode()
            yield from drained(spool, skip=1)
            yield b"\n ]"
        words = json.dumps(self._exporter.changed, ensure_ascii=False, indent=1)
        yield f',\n "words_changed": {words}\n}}\n'.encode(errors="replace")


def _line(entry: dict[str, Any]) -> bytes:
    return (",\n  " + json.dumps(entry)).encode()
