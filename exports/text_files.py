"""Texts beside the images in place (`a.txt`, `a.jpg.txt`): what each would get, as entries of the ledger.

Writing, settling after a crash and undoing are the ledger's, as for sidecars. A text that iwtag did not write is never
overwritten unless the person says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

from pydantic import Field

from tagging.models import Collection

from . import ledger
from .exporters.base import ExportError, ExportOptions, Selection
from .exporters.reading import Record, Source
from .exporters.text_sidecars import CaptionFileExporter, HydrusExporter, HydrusTags, TextSidecars, TrainerOptions
from .ledger import TEXT
from .models import ExportEntry
from .safe_write import Seen, WriteRefused

TOO_LONG = 1 << 20  # bytes: no caption, whatever it is


class InPlaceOptions(ExportOptions):
    """What texts beside the images are asked besides their content."""

    clashes: Literal["refuse", "keep_extension"] = Field(
        "refuse",
        title="Names that clash",
        description="Where two images would share a text (a.jpg and a.png share a.txt).",
        json_schema_extra={
            "labels": {"refuse": "refuse, and name them", "keep_extension": "keep the extension (a.png.txt)"}
        },
    )
    replace: bool = Field(
        False,
        title="Also replace texts of others",
        description="Texts that iwtag did not write, or that someone edited since. Undo brings them back.",
    )


class CaptionsInPlaceOptions(TrainerOptions, InPlaceOptions):
    """A text per image for trainers, beside the originals."""


class HydrusInPlaceOptions(HydrusTags, InPlaceOptions):
    """A list of tags per image for Hydrus, beside the originals."""


class TextFiles:
    """Plans the texts of a format beside the originals of a folder collection."""

    identifier: ClassVar[str]
    description: ClassVar[str]
    Options: ClassVar[type[InPlaceOptions]]
    Format: ClassVar[type[TextSidecars]]

    def __init__(self, selection: Selection, options: InPlaceOptions) -> None:
        """ExportError for a collection without a folder of its own."""
        collection = selection.collection
        if collection.kind != Collection.Kind.FOLDER:
            raise ExportError(
                f"{collection} holds uploads: there is no folder to put texts into. Export a zip instead."
            )
        given = options.model_dump(exclude={"replace"})
        self.exporter = self.Format(selection, self.Format.Options.model_validate(given))
        self.options = options
        self.root = Path(collection.root)
        self.unchanged = 0
        self.left_out = 0
        self.rows = 0

    @property
    def source(self) -> Source:
        return self.exporter.source

    def problems(self) -> list[str]:
        """Why nothing can be written. Names that only Windows refuses are no matter here: the image has them too."""
        clashes = self.exporter.names.clashes
        return self.exporter.name_problems() if clashes.doubled else []

    def entries(self) -> Iterator[list[ExportEntry]]:
        """For each page of images its entries, not saved: texts to make, to change, or left alone with the reason.

        Those that are there already, word for word, are counted in `unchanged`. ExportError when names clash.
        """
        if problems := self.problems():
            raise ExportError(" ".join(problems))
        for page in self.exporter.source.pages():
            targets = [self._target(record) for record in page]
            last = ledger.last_written(str(target) for target in targets)
            found = []
            for record, target in zip(page, targets, strict=True):
                ours = last.get(str(target), {}).get(TEXT, [])
                entry = self._entry(record, target, ours)
                if entry is None:
                    self.unchanged += 1
                else:
                    entry.image_id = record.image.id
                    found.append(entry)
            self.rows += len(page)
            yield found

    def _target(self, record: Record) -> Path:
        name = self.exporter.text_name(record.image.path, self.exporter.text_extension)
        return self.root / PurePosixPath(name)

    def _entry(self, record: Record, target: Path, ours: list[str]) -> ExportEntry | None:
        if not os.path.lexists(self.root / record.image.path):
            return ledger.refused(target, "the image is no longer there")
        text = self.exporter.text(record)
        if not text and self.exporter.skips_empty and not os.path.lexists(target):
            return None
        return plan_text(target, text, ours, replace=self.options.replace)


class CaptionsInPlace(TextFiles):
    """`a.txt` beside `a.jpg`."""

    identifier = "txt_in_place"
    description = "a.txt beside a.jpg for kohya sd-scripts, AI-toolkit and OneTrainer; undoable."
    Options = CaptionsInPlaceOptions
    Format = CaptionFileExporter


class HydrusInPlace(TextFiles):
    """`a.jpg.txt` beside `a.jpg`."""

    identifier = "hydrus_in_place"
    description = "a.jpg.txt beside a.jpg, one namespace:tag a line, for Hydrus Network; undoable."
    Options = HydrusInPlaceOptions
    Format = HydrusExporter


def plan_text(target: Path, content: bytes, ours: list[str], *, replace: bool = False) -> ExportEntry | None:
    """The entry (not saved, without job and image) that makes `target` hold `content`; None when it does already.

    `ours` are the SHA-256 of what iwtag last wrote there: a file that holds something else is refused unless `replace`.
    """
    try:
        seen = Seen.of(target)
        if seen and seen.size > TOO_LONG:
            return ledger.refused(target, f"is {seen.size:,} bytes long, which is no caption")
        before = target.read_bytes() if seen else b""
    except WriteRefused as e:
        return ledger.refused(target, str(e))
    except OSError as e:
        return ledger.refused(target, f"cannot be read: {e.strerror or e}")
    if seen and before == content:
        return None
    if seen and not replace and ledger.sha256(before) not in ours:
        return ledger.refused(target, "holds a text that iwtag did not write; replace it only if you mean to")
    described: dict[str, Any] = {
        "before": before.decode(errors="replace") if seen else "",
        "after": content.decode(),
    }
    return ExportEntry(
        target=str(target),
        action=ExportEntry.Action.UPDATE if seen else ExportEntry.Action.CREATE,
        seen=[seen.size, seen.mtime_ns, seen.inode] if seen else None,
        sha_before=ledger.sha256(before) if seen else "",
        fields={TEXT: described},
        written={TEXT: [ledger.sha256(content)]},
    )
