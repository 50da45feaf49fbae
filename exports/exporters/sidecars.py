"""XMP sidecars beside the images: what each would get, as entries of the ledger. Writing is `ledger.apply`'s."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from pydantic import Field

from tagging.models import Collection, ImageAsset, Tag

from .. import ledger
from ..models import ExportEntry
from ..xmp import fields, naming
from ..xmp.merge import Mode
from .base import ExportError, ExportOptions, Selection
from .reading import Record, Source, tag_of

FOLDERS_KEPT = 32


class SidecarOptions(ExportOptions):
    """How sidecars are named and what goes into them."""

    profile: naming.Profile = Field(
        "both",
        title="Which program reads them",
        description="Names a new sidecar: base.xmp (Lightroom, Capture One, PhotoPrism) or base.ext.xmp (darktable, "
        "digiKam, Immich). One that is there is used whatever its name.",
    )
    twins: naming.Twins = Field(
        "exact",
        title="RAW and JPEG of one name",
        description="exact: each gets its own base.ext.xmp. shared: base.xmp speaks for both. jpeg_only: the RAW "
        "gets none.",
    )
    mode: Mode = Field(
        "merge",
        title="Where keywords stand already",
        description="merge: beside them, and what someone removed elsewhere stays out. replace_own: iwtag's are set "
        "anew. only_empty: only files without keywords.",
    )
    prefix: str = Field(
        "", max_length=60, title="Root of the hierarchy", description='For example "iw" gives iw|animal|dog.'
    )
    prefix_flat: bool = Field(False, title="The root as a flat keyword too", json_schema_extra={"advanced": True})
    ancestors_flat: bool = Field(
        False,
        title="Broader tags as flat keywords too",
        description="Animal and dog beside spaniel.",
        json_schema_extra={"advanced": True},
    )
    captions: bool = Field(True, title="Write captions", description="Another program's caption is never replaced.")

    def style(self) -> fields.Style:
        return fields.Style(
            prefix=self.prefix.strip(),
            prefix_flat=self.prefix_flat,
            ancestors_flat=self.ancestors_flat,
            mode=self.mode,
        )


class Ancestry:
    """Tag id → names from the root down. A tag is read once, whatever the number of images."""

    def __init__(self) -> None:
        self._rows: dict[int, tuple[str, int | None]] = {}
        self._paths: dict[int, tuple[str, ...]] = {}

    def learn(self, ids: set[int]) -> None:
        """Read tags and all above them: a query for each level."""
        todo = {i for i in ids if i not in self._rows}
        while todo:
            for pk, name, parent in Tag.objects.filter(pk__in=todo).values_list("pk", "name", "parent_id"):
                self._rows[pk] = (name, parent)
            todo = {p for i in todo if (p := self._rows.get(i, ("", None))[1]) and p not in self._rows}

    def path(self, tag_id: int) -> tuple[str, ...]:
        """Root first, the tag itself last. A circle of parents is cut."""
        found = self._paths.get(tag_id)
        if found is None:
            names: list[str] = []
            seen: set[int] = set()
            at: int | None = tag_id
            while at and at not in seen and at in self._rows:
                seen.add(at)
                name, at = self._rows[at]
                names.append(name)
            found = self._paths[tag_id] = tuple(reversed(names))
        return found


class SidecarExporter:
    """Plans sidecars for a selection of a folder collection."""

    identifier = "xmp"
    label = "XMP sidecars"

    def __init__(self, selection: Selection, options: SidecarOptions) -> None:
        """ExportError for a collection without a folder of its own."""
        if selection.collection.kind != Collection.Kind.FOLDER:
            raise ExportError(
                f"{selection.collection} holds uploads: there is no folder to put sidecars into. Download them instead."
            )
        self.root = Path(selection.collection.root)
        self.options = options
        self.source = Source(selection, options)
        self.unchanged = 0
        self._style = options.style()
        self._ancestry = Ancestry()
        self._folders: OrderedDict[str, naming.Folder | OSError] = OrderedDict()

    def entries(self) -> Iterator[list[ExportEntry]]:
        """For each page of images its entries, not saved: files to make, to change, or left alone with the reason.

        Files that say it all already are counted in `unchanged`.
        """
        for page in self.source.pages():
            self._ancestry.learn({tag_of(t) for record in page for t in record.tags})
            recipes = _recipes([record.image.id for record in page])
            planned = [(record, self._targets(record)) for record in page]
            last = ledger.last_written(str(t) for _, (targets, _, _) in planned for t in targets)
            found: list[ExportEntry] = []
            for record, (targets, warning, refused) in planned:
                for entry in self._plan(record, targets, warning, refused, last):
                    entry.image_id, entry.recipe_id = record.image.id, recipes.get(record.image.id)
                    found.append(entry)
            yield found

    def _plan(
        self,
        record: Record,
        targets: Sequence[Path],
        warning: str,
        refused: str,
        last: dict[str, dict[str, list[str]]],
    ) -> Iterator[ExportEntry]:
        if refused:
            yield ledger.refused(self.root / record.image.path, refused)
        wanted = self._wanted(record)
        for target in targets:
            entry = ledger.plan_sidecar(target, wanted, last.get(str(target), {}), self._style)
            if entry is None:
                self.unchanged += 1
                continue
            if warning:
                entry.notes = [*entry.notes, warning]
            yield entry

    def _wanted(self, record: Record) -> fields.Wanted:
        keywords = tuple(fields.Keyword(path) for t in record.tags if (path := self._ancestry.path(tag_of(t))))
        return fields.Wanted(keywords, caption=record.image.caption if self.options.captions else None)

    def _targets(self, record: Record) -> tuple[list[Path], str, str]:
        """(sidecars, warning, why there is none)."""
        relative = PurePosixPath(record.image.path)
        folder = self._folder(str(relative.parent))
        if isinstance(folder, OSError):
            return [], "", f"its folder cannot be read: {folder.strerror or folder}"
        if folder.find(relative.name) is None:
            return [], "", "the image is no longer there"
        found = naming.sidecars(relative.name, folder, self.options.profile, self.options.twins)
        return [self.root / relative.parent / name for name in found.names], found.warning, found.refused

    def _folder(self, relative: str) -> naming.Folder | OSError:
        found = self._folders.get(relative)
        if found is None:
            try:
                found = naming.Folder(os.listdir(self.root / relative))
            except OSError as e:
                found = e
            self._folders[relative] = found
            while len(self._folders) > FOLDERS_KEPT:
                self._folders.popitem(last=False)
        return found


def _recipes(image_ids: list[int]) -> dict[int, int]:
    """Image → recipe of the run shown for review, of those that have one."""
    rows = ImageAsset.objects.filter(pk__in=image_ids, proposed_by__isnull=False)
    return dict(rows.values_list("pk", "proposed_by__recipe_id"))
