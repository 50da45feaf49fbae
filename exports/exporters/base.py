"""The contract of every export format.

A format is one subclass of `Exporter` in one module; `registry.py` names it and imports it only when used. It gets a
`Selection` (which images) and validated `Options` (what of them), says beforehand what it would write (`plan`), and
writes one file as a stream of bytes (`stream`), in memory that does not grow with the number of images.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from django.db.models import QuerySet
from pydantic import BaseModel, ConfigDict, Field

from tagging.models import Collection, ImageAsset


class ExportError(Exception):
    """An export cannot be written. The text names the thing and the mend; it is shown to the person who asked."""


class ExportOptions(BaseModel):
    """What every format is asked. Unknown names are errors; the JSON schema draws the form.

    Without `proposed` only reviewed truth leaves: images that a person has reviewed, with the tags, caption and rating
    that a person accepted or wrote.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    proposed: bool = Field(
        False,
        title="Also what is only proposed",
        description="All images, with proposed tags, captions and ratings beside the reviewed ones.",
    )
    judged: bool = Field(
        False,
        title="Also what a judge accepted",
        description="Images that a gate settled without a person, with the tags it accepted.",
    )
    proposed_by: str = Field(
        "",
        max_length=160,
        title="Only what one run proposed",
        description="Instead of what is in force. A run's number (run 12), or a recipe's label such as champion: its "
        "newest finished run over the collection. All images that it has an answer for.",
    )
    min_score: float = Field(
        0.0,
        ge=0,
        le=1,
        title="Lowest score of proposed tags",
        description="Proposed tags below are left out. Tags that a person accepted or added always stay.",
    )


@dataclass(frozen=True)
class Selection:
    """Which images: a queryset of one collection, unsliced; its order is of no matter (exports go by id)."""

    collection: Collection
    images: QuerySet[ImageAsset]

    @classmethod
    def of(cls, collection: Collection) -> Selection:
        """All images of the collection, missing files included: what was said about them still holds."""
        return cls(collection, ImageAsset.objects.filter(collection=collection))


@dataclass(frozen=True)
class Plan:
    """What an export would write. `problems` are reasons why it cannot, `warnings` what a person should know."""

    images: int
    rows: int
    skipped: int = 0
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form, used by the API."""
        return {
            "images": self.images,
            "rows": self.rows,
            "skipped": self.skipped,
            "warnings": self.warnings,
            "problems": self.problems,
        }


O = TypeVar("O", bound=ExportOptions)  # noqa: E741


class Exporter(ABC, Generic[O]):
    """One format, writing one file.

    `rows` counts what `stream` has written so far, for progress.
    """

    identifier: ClassVar[str]
    label: ClassVar[str]
    description: ClassVar[str] = ""
    extension: ClassVar[str]
    content_type: ClassVar[str]

    Options: ClassVar[type[ExportOptions]] = ExportOptions

    def __init__(self, selection: Selection, options: O) -> None:
        self.selection = selection
        self.options = options
        self.rows = 0

    @property
    def file_name(self) -> str:
        """A name for the download: the collection's slug and the format's extension."""
        return f"{self.selection.collection.slug or 'collection'}.{self.extension}"

    @abstractmethod
    def plan(self) -> Plan:
        """Count, write nothing. The same selection as `stream`."""

    def refusals(self) -> list[str]:
        """Reasons why `stream` would refuse, as in `plan().problems`; asked before a download begins, when it can still
        be answered with an error."""
        return []

    @abstractmethod
    def stream(self) -> Iterator[bytes]:
        """The whole file, a piece at a time. Constant memory; the first piece comes at once.

        Raises ExportError when it cannot go on.
        """
