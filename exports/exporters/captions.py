"""The text of each image as options: template, order, escaping, drop-outs, categories; and words that must change."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath
from typing import Literal

from django.db.models import Exists, OuterRef
from pydantic import Field, field_validator, model_validator

from tagging.models import ImageTag, Tag

from .base import ExportOptions
from .counting import some
from .lookups import Names
from .reading import Packed, Record, Source, score_of, tag_of
from .texts import BadTemplate, Style, TextTag, TextWriter

MAX_TAGS = 10_000


class CaptionOptions(ExportOptions):
    """How the text of an image is put together."""

    template: str = Field(
        "{trigger}, {caption}, {tags}",
        max_length=2000,
        title="Template",
        description="Of {trigger}, {caption}, {tags}, {rating} and {name}; what is empty takes its comma with it.",
    )
    trigger: str = Field("", max_length=200, title="Trigger words", description="Put where the template says.")
    order: Literal["score", "alphabet", "category", "character_first", "shuffled"] = Field(
        "score",
        title="Order of tags",
        json_schema_extra={
            "labels": {
                "score": "by probability",
                "alphabet": "by name",
                "category": "by category",
                "character_first": "characters first",
                "shuffled": "shuffled (repeatable)",
            }
        },
    )
    max_tags: int | None = Field(None, ge=0, le=MAX_TAGS, title="At most so many tags")
    categories: list[str] = Field(
        default_factory=list,
        max_length=100,
        title="Only these categories",
        description="One a line; empty means all.",
        json_schema_extra={"advanced": True},
    )
    underscores: bool = Field(False, title="Underscores for spaces", json_schema_extra={"advanced": True})
    escape_parentheses: bool = Field(
        False,
        title="Escape parentheses",
        description="\\( and \\), as prompts of Stable Diffusion interfaces want them.",
        json_schema_extra={"advanced": True},
    )
    separator: str = Field(
        ", ", min_length=1, max_length=10, title="Between tags", json_schema_extra={"advanced": True}
    )
    drop: float = Field(
        0.0,
        ge=0,
        lt=1,
        title="Drop-out",
        description="The share of tags that is left out at random, the same ones each time. Trigger words stay.",
        json_schema_extra={"advanced": True},
    )
    seed: int = Field(0, ge=0, le=2**31, title="Seed of drop-out and shuffle", json_schema_extra={"advanced": True})

    @field_validator("categories", mode="before")
    @classmethod
    def _categories_of_a_line(cls, given: object) -> object:
        """From a command line they come as one text."""
        return [c for c in re.split(r"[,\n]", given) if c.strip()] if isinstance(given, str) else given

    @model_validator(mode="after")
    def _template_is_known(self) -> CaptionOptions:
        try:
            TextWriter(self.style())
        except BadTemplate as e:
            raise ValueError(str(e)) from None
        if "\n" in self.separator:
            raise ValueError("The separator must stay on the line.")
        return self

    def style(self) -> Style:
        return Style(
            template=self.template,
            trigger=self.trigger,
            separator=self.separator,
            order=self.order,
            underscores=self.underscores,
            escape_parentheses=self.escape_parentheses,
            max_tags=self.max_tags,
            drop=self.drop,
            seed=self.seed,
            flavour="plain",
        )


class Captions:
    """Texts of records."""

    def __init__(self, options: CaptionOptions, names: Names) -> None:
        self.writer = TextWriter(options.style())
        self._names = names
        self._only = {c.strip().casefold() for c in options.categories if c.strip()}

    def of(self, record: Record) -> str:
        return self.text(record, record.tags, record.image.caption)

    def text(self, record: Record, packed: Iterable[Packed], caption: str) -> str:
        """Of other tags or another caption than the record's."""
        return self.written(record, self.tags(packed), caption)

    def written(self, record: Record, tags: Sequence[TextTag], caption: str) -> str:
        """The same of tags by name."""
        image = record.image
        return self.writer.text(
            tags,
            caption=caption,
            rating=image.rating,
            name=PurePosixPath(image.path).stem,
            identity=image.sha256,
        )

    def tags(self, packed: Iterable[Packed]) -> list[TextTag]:
        known = self._names.tags
        rows = ((known[tag_of(value)], score_of(value)) for value in packed)
        return self.only([TextTag(tag.name, tag.category, score) for tag, score in rows])

    def only(self, tags: list[TextTag]) -> list[TextTag]:
        """Those of the categories that were asked for."""
        return [tag for tag in tags if tag.category.casefold() in self._only] if self._only else tags


def changed_words(source: Source, change: Callable[[str], str]) -> dict[str, str]:
    """Tags in use in these images that cannot be written as they are → what stands for them.

    `change` gives the written form of a name; equal means nothing happens to it. Two queries, and one for every 500
    that change.
    """
    if source.of_run:
        names = (source.names.tags[pk].name for pk in source.used())
        return {name: changed for name in names if (changed := change(name)) != name}
    everything = Tag.objects.order_by().values_list("pk", "name")
    suspects = [pk for pk, name in everything.iterator(5000) if change(name) != name]
    images = source.images.order_by().values("pk")
    found: dict[str, str] = {}
    for at in range(0, len(suspects), 500):
        used = ImageTag.objects.filter(source.tag_filter(), tag_id=OuterRef("pk"), image__in=images)
        for name in Tag.objects.filter(Exists(used), pk__in=suspects[at : at + 500]).values_list("name", flat=True):
            found[name] = change(name)
    return found


def changed_warning(changed: dict[str, str], why: str) -> list[str]:
    """One line about words that are written otherwise."""
    if not changed:
        return []
    shown = [f"{name!r} → {new!r}" if new else f"{name!r}" for name, new in changed.items()]
    return [f"{len(changed):,} tags are {why}: {some(shown)}."]


_BREAKS = re.compile(r"[\s\x00-\x1f\x7f\u2028\u2029]+")


def one_line(text: str) -> str:
    """White space and control characters as single spaces."""
    return _BREAKS.sub(" ", text).strip()
