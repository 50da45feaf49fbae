"""A text beside each image: captions for trainers, tags for Hydrus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

from pydantic import Field, model_validator

from .base import ExportOptions
from .captions import CaptionOptions, Captions, changed_warning, changed_words, one_line
from .dataset import DatasetExporter, DatasetOptions, Member, Original
from .reading import Record, tag_of
from .texts import ONE_LINE, Style

TRAINERS = {"kohya": "kohya sd-scripts", "ai_toolkit": "AI-toolkit", "onetrainer": "OneTrainer"}


class TextSidecars(DatasetExporter[Any]):
    """What the texts of trainers and of Hydrus have in common: image, text, image, text."""

    names_always = True

    def text(self, record: Record) -> bytes:
        raise NotImplementedError

    @property
    def text_extension(self) -> str:
        return ".txt"

    @property
    def skips_empty(self) -> bool:
        """An image without anything to say gets no file."""
        return bool(getattr(self.options, "skip_empty", False))

    def members(self) -> Iterator[Member]:
        for page in self.named():
            for record, name in page:
                if self.with_files:
                    image = Member.of(name, Original(self.selection.collection, record.image))
                    yield image
                    if image.failed:
                        continue
                text = self.text(record)
                if text or not self.skips_empty:
                    yield Member(self.text_name(name, self.text_extension), text)


class TrainerOptions(CaptionOptions):
    """What the texts of trainers are asked, wherever they go."""

    trainer: Literal["kohya", "ai_toolkit", "onetrainer"] = Field(
        "kohya",
        title="Trainer",
        description="kohya and OneTrainer take a line for a prompt: theirs is one line. What separates tags is "
        "replaced inside a tag by its full-width look-alike.",
        json_schema_extra={"labels": {**TRAINERS}},
    )
    extension: Literal[".txt", ".caption"] = Field(
        ".txt", title="Extension", description="As the trainer is told: caption_extension, caption_ext."
    )
    skip_empty: bool = Field(False, title="No file where the text is empty", json_schema_extra={"advanced": True})

    @model_validator(mode="after")
    def _one_line(self) -> TrainerOptions:
        if self.trainer in ONE_LINE and "\n" in self.template.strip():
            raise ValueError(f"{TRAINERS[self.trainer]} takes each line for a prompt: write the template on one line.")
        return self

    def style(self) -> Style:
        return replace(super().style(), flavour=self.trainer)


class CaptionFileOptions(TrainerOptions, DatasetOptions):
    flat: bool = Field(
        False,
        title="All in one folder",
        description="dir/a.jpg becomes dir__a.jpg: kohya does not look into folders inside its image folder.",
    )


class CaptionFileExporter(TextSidecars):
    """`a.txt` beside `a.jpg`, UTF-8 without a byte-order mark, no line end after the last line."""

    identifier = "txt"
    label = "Caption files (.txt, .caption)"
    description = "A text per image for kohya sd-scripts, AI-toolkit and OneTrainer."
    Options = CaptionFileOptions
    by_stem = True

    def placed(self, path: str) -> str:
        return path.replace("/", "__") if self.options.flat else path

    @property
    def text_extension(self) -> str:
        return str(self.options.extension)

    @cached_property
    def captions(self) -> Captions:
        return Captions(self.options, self.source.names)

    @property
    def changed(self) -> dict[str, str]:
        return self.captions.writer.changed

    def text(self, record: Record) -> bytes:
        return self.captions.of(record).encode(errors="replace")

    def warnings(self) -> list[str]:
        changed = changed_words(self.source, self.captions.writer.safe)
        return changed_warning(changed, "written otherwise, because the trainer would split them")


class HydrusTags(ExportOptions):
    rating: bool = Field(True, title="The rating as rating:…")
    caption: bool = Field(False, title="The caption as caption:…")


class HydrusOptions(HydrusTags, DatasetOptions):
    """The same, as files of a zip or folder."""


#: Category → namespace, as Hydrus's own booru parsers name them.
NAMESPACES = {
    "artist": "creator",
    "copyright": "series",
    "character": "character",
    "meta": "meta",
    "species": "species",
}


class HydrusExporter(TextSidecars):
    """`a.jpg.txt` beside `a.jpg`: one tag a line, `namespace:tag`.

    An unnamespaced tag with a colon in it begins with a colon, as Hydrus writes them itself (hydrus/core/HydrusTags).
    """

    identifier = "hydrus"
    label = "Hydrus sidecars"
    description = "image.ext.txt with one namespace:tag a line, for Hydrus Network's import of sidecars."
    Options = HydrusOptions

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._changed: dict[str, str] = {}

    @property
    def changed(self) -> dict[str, str]:
        return self._changed

    def text(self, record: Record) -> bytes:
        lines = [self._tag(tag_of(value)) for value in record.tags]
        if self.options.rating and record.image.rating:
            lines.append(f"rating:{one_line(record.image.rating)}")
        if self.options.caption and record.image.caption:
            lines.append(f"caption:{one_line(record.image.caption)}")
        return "".join(f"{line}\n" for line in dict.fromkeys(lines) if line).encode(errors="replace")

    def _tag(self, tag_id: int) -> str:
        tag = self.source.names.tags[tag_id]
        name = one_line(tag.name)
        if name != tag.name:
            self._changed[tag.name] = name
        namespace = NAMESPACES.get(tag.category)
        if namespace:
            return f"{namespace}:{name}"
        return f":{name}" if ":" in name else name

    def warnings(self) -> list[str]:
        broken = changed_words(self.source, one_line)
        stripped = changed_words(self.source, lambda name: name.lstrip("-") or "-")
        return changed_warning(broken, "written on one line") + changed_warning(
            stripped, "read by Hydrus without the hyphen they begin with"
        )
