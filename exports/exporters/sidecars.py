"""XMP sidecars beside the images: what each would get, as entries of the ledger. Writing is `ledger.apply`'s."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import Field

from tagging.models import Collection, ImageAsset, Tag

from .. import embedded, ledger
from ..models import ExportEntry
from ..older import Which
from ..xmp import fields, naming
from ..xmp.merge import Mode
from .base import ExportError, ExportOptions, Selection
from .lookups import UNKNOWN, Names
from .origins import Origins
from .reading import ImageRow, Source, tag_of

FOLDERS_KEPT = 32
_STARS = frozenset("12345")
AT_ONCE = 64  # images planned between two looks at whether the job still stands


@dataclass(frozen=True, slots=True)
class Described:
    """An image with the ids of its tags in order and, where asked for, where each comes from."""

    image: ImageRow
    tags: list[int]
    details: tuple[fields.Detail, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """The sidecars of one image. `twins` are the paths of images that share the sidecar named `shared`.

    `image` is the file itself, to be written into; then only the sidecars that are `there` are written beside it.
    """

    targets: tuple[Path, ...] = ()
    warning: str = ""
    refused: str = ""
    twins: tuple[str, ...] = ()
    shared: str = ""
    image: Path | None = None
    there: tuple[Path, ...] = ()


class SidecarOptions(ExportOptions):
    """How sidecars are named and what goes into them."""

    profile: naming.Profile = Field(
        "both",
        title="Which program reads them",
        description="Names a new sidecar. One that is there is used whatever its name.",
        json_schema_extra={
            "labels": {
                "lightroom": "Lightroom, Photo Mechanic, ON1, DxO (IMG.xmp)",
                "capture_one": "Capture One (IMG.xmp)",
                "photoprism": "PhotoPrism (IMG.xmp)",
                "darktable": "darktable (IMG.JPG.xmp)",
                "digikam": "digiKam (IMG.JPG.xmp)",
                "immich": "Immich (IMG.JPG.xmp)",
                "both": "any of them: both files",
            }
        },
    )
    twins: naming.Twins = Field(
        "exact",
        title="RAW and JPEG of one name",
        description="IMG.xmp beside IMG.NEF and IMG.JPG speaks for both of them.",
        json_schema_extra={
            "labels": {
                "exact": "each gets its own (IMG.NEF.xmp, IMG.JPG.xmp)",
                "shared": "one for both, with the words of both",
                "jpeg_only": "only the JPEG gets one",
            }
        },
    )
    mode: Mode = Field(
        "merge",
        title="Where keywords stand already",
        description="Words of others are kept in every case.",
        json_schema_extra={
            "labels": {
                "merge": "beside them; what someone took out elsewhere stays out",
                "replace_own": "iwtag's words are set anew",
                "only_empty": "only where there are none",
            }
        },
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

    embed: bool = Field(
        False,
        title="Into the images themselves (JPEG, PNG, WebP)",
        description=embedded.WARNING + " Other formats, RAW first of all, get sidecars as ever.",
    )
    older: Which = Field(
        "present",
        title="IPTC and EXIF in those images",
        description="Many programs read these older fields first: while they say other words, yours stay unseen. "
        "Others' words in them are kept, and everything is undone together.",
        json_schema_extra={
            "advanced": True,
            "labels": {
                "present": "bring up to date what is there",
                "always": "write them too where there are none (JPEG)",
                "leave": "leave them as they are",
            },
        },
    )
    stars: bool = Field(
        False,
        title="Write stars as xmp:Rating",
        description="Images whose rating is a number from 1 to 5. Another program's stars are never replaced.",
        json_schema_extra={"advanced": True},
    )
    label: bool = Field(
        False,
        title="Write the content rating as xmp:Label",
        description="General, sensitive, … as the colour label's text. Another program's label is never replaced.",
        json_schema_extra={"advanced": True},
    )
    details: bool = Field(
        False,
        title="Say where each keyword comes from",
        description="Model, recipe, score and reviewer of every tag, in a namespace of iwtag's own. darktable and "
        "exiv2 keep it; some programs drop what they do not know.",
        json_schema_extra={"advanced": True},
    )

    def style(self) -> fields.Style:
        return fields.Style(
            prefix=self.prefix.strip(),
            prefix_flat=self.prefix_flat,
            ancestors_flat=self.ancestors_flat,
            mode=self.mode,
        )


class Ancestry:
    """Tag id → names from the root down. A tag is read once, whatever the number of images."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._rows: dict[int, tuple[str, int | None]] = {}
        self._paths: dict[int, tuple[str, ...]] = {}

    def learn(self, ids: set[int]) -> None:
        """Read tags and all above them: a query for each level."""
        todo = {i for i in ids if i not in self._rows}
        unknown = {i for i in todo if i >= UNKNOWN}
        self._rows |= {i: (self._names.unknown[i].name, None) for i in unknown}
        todo -= unknown
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
    description = "Keywords, captions and their origin where photo tools read them; undoable."
    Options = SidecarOptions

    def __init__(self, selection: Selection, options: SidecarOptions) -> None:
        """ExportError for a collection without a folder of its own."""
        if selection.collection.kind != Collection.Kind.FOLDER:
            raise ExportError(
                f"{selection.collection} holds uploads: there is no folder to put sidecars into. Download them instead."
            )
        self.root = Path(selection.collection.root)
        self.options = options
        # what was gone at the last look is not asked about file by file
        self.selection = Selection(selection.collection, selection.images.filter(missing_since=None))
        self.source = Source(self.selection, options)
        self.rows = 0  # images looked at
        self.left_out = 0  # RAW files that their JPEG twin speaks for
        self.unchanged = 0  # files
        self._style = options.style()
        self._ancestry = Ancestry(self.source.names)
        self._origins = Origins(self.source.names)
        self._recipe = self.source.of_run.run.recipe_id if self.source.of_run else None
        self._folders: OrderedDict[str, naming.Folder | OSError] = OrderedDict()

    def entries(self) -> Iterator[list[ExportEntry]]:
        """For some dozens of images at a time their entries, not saved: files to make, to change, or left alone with
        the reason.

        Files that say it all already are counted in `unchanged`, images in `rows`.
        """
        for page in self._records(self.source):
            for at in range(0, len(page), AT_ONCE):
                part = page[at : at + AT_ONCE]
                yield self._entries(part)
                self.rows += len(part)

    def _records(self, source: Source) -> Iterator[list[Described]]:
        """Pages of the source with each tag's place in the hierarchy learned; with each tag's origin where asked."""
        if not self.options.details:
            for page in source.pages():
                self._ancestry.learn({tag_of(t) for record in page for t in record.tags})
                yield [Described(r.image, [tag_of(t) for t in r.tags]) for r in page]
            return
        for detailed in source.detailed():
            self._ancestry.learn({t.tag_id for record in detailed for t in record.tags})
            yield [
                Described(r.image, [t.tag_id for t in r.tags], self._origins.details(r.image, r.tags, self._names))
                for r in detailed
            ]

    def _entries(self, part: Sequence[Described]) -> list[ExportEntry]:
        recipes = {} if self._recipe else _recipes([record.image.id for record in part])
        planned = [(record, self._targets(record)) for record in part]
        last = ledger.last_written(
            str(t) for _, place in planned for t in (*place.targets, place.image) if t is not None
        )
        found: list[ExportEntry] = []
        for record, place in planned:
            for entry in self._plan(record, place, last):
                entry.image_id, entry.recipe_id = record.image.id, self._recipe or recipes.get(record.image.id)
                found.append(entry)
        return found

    def _plan(
        self, record: Described, place: Place, last: Mapping[str, Mapping[str, Sequence[str]]]
    ) -> Iterator[ExportEntry]:
        if place.refused:
            yield ledger.refused(self.root / record.image.path, place.refused)
        elif not place.targets and place.image is None:
            self.left_out += 1
        wanted = self._wanted(record)
        targets, warning = place.targets, place.warning
        if place.image is not None:
            entry = ledger.plan_sidecar(
                place.image,
                wanted,
                last.get(str(place.image), {}),
                self._style,
                embed=True,
                which=self.options.older,
            )
            if entry and entry.action == ExportEntry.Action.REFUSE:
                warning = f"not embedded: {entry.error}"
            else:
                targets, warning = place.there, ""
                self.unchanged += entry is None
                if entry:
                    yield entry
        for target in targets:
            if place.twins and target.name == place.shared:
                twins = self._twins(place.twins)
                if any(twin.image.path < record.image.path for twin in twins):
                    continue  # the first of them writes for all
                wanted = self._wanted(record, *twins)
            entry = ledger.plan_sidecar(target, wanted, last.get(str(target), {}), self._style)
            if entry is None:
                self.unchanged += 1
                continue
            if warning:
                entry.notes = [*entry.notes, warning]
            yield entry

    def _wanted(self, *records: Described) -> fields.Wanted:
        """What the sidecar of these images (more than one: twins) should say."""
        ids = {tag: None for record in records for tag in record.tags}
        first = records[0].image
        caption = next((r.image.caption for r in records if r.image.caption), "")
        details: dict[str, fields.Detail] = {}
        for record in records:
            details = {d.name: d for d in record.details} | details
        return fields.Wanted(
            tuple(fields.Keyword(path) for tag in ids if (path := self._ancestry.path(tag))),
            caption=caption if self.options.captions else None,
            rating=int(first.rating) if self.options.stars and first.rating in _STARS else None,
            label=first.rating or None if self.options.label and first.rating not in _STARS else None,
            details=tuple(details.values()) if self.options.details else None,
        )

    def _names(self, tag_id: int) -> str:
        path = self._ancestry.path(tag_id)
        return path[-1] if path else ""

    def _twins(self, paths: Sequence[str]) -> list[Described]:
        """Those of these images that are exported too."""
        chosen = Selection(self.selection.collection, self.selection.images.filter(path__in=paths))
        return [record for page in self._records(self._source(chosen)) for record in page]

    def _source(self, chosen: Selection) -> Source:
        return Source(chosen, self.options, names=self.source.names)

    def _targets(self, record: Described) -> Place:
        relative = PurePosixPath(record.image.path)
        folder = self._folder(str(relative.parent))
        if isinstance(folder, OSError):
            return Place(refused=f"its folder cannot be read: {folder.strerror or folder}")
        if folder.find(relative.name) is None:
            return Place(refused="the image is no longer there")
        found = naming.sidecars(relative.name, folder, self.options.profile, self.options.twins)
        here = self.root / relative.parent
        targets = tuple(here / name for name in found.names)
        image, warning = None, found.warning
        if self.options.embed:
            reason = embedded.unsuited(relative.name)
            image, warning = (None, reason) if reason else (here / relative.name, warning)
        there = tuple(t for t, exists in zip(targets, found.exists, strict=True) if exists)
        if self.options.twins != "shared":
            return Place(targets, warning, image=image, there=there)
        short = folder.find(f"{relative.stem}.xmp") or f"{relative.stem}.xmp"
        others = folder.twins(relative.name)
        if self.options.embed and folder.find(short) is None:  # twins that are written into leave it to this one
            others = [name for name in others if embedded.unsuited(name)]
        twins = tuple(str(relative.parent / name) for name in others)
        return Place(targets, warning, twins=twins, shared=short, image=image, there=there)

    def _folder(self, relative: str) -> naming.Folder | OSError:
        found = self._folders.get(relative)
        if found is None:
            try:
                found = naming.Folder(self._listed(self.root / relative))
            except OSError as e:
                found = e
            self._folders[relative] = found
            while len(self._folders) > FOLDERS_KEPT:
                self._folders.popitem(last=False)
        return found

    def _listed(self, folder: Path) -> list[str]:
        """OSError also for a folder that a link leads out of the collection's."""
        if not folder.resolve().is_relative_to(self.root.resolve()):
            raise OSError(f"{folder.name} leads out of the collection's folder")
        return os.listdir(folder)


def _recipes(image_ids: list[int]) -> dict[int, int]:
    """Image → recipe of the run shown for review, of those that have one."""
    rows = ImageAsset.objects.filter(pk__in=image_ids, proposed_by__isnull=False)
    return dict(rows.values_list("pk", "proposed_by__recipe_id"))
