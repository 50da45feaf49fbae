"""What a template sees of an image: its tags, caption, fields and words, each written bare as people expect it.

This module knows neither Django nor the database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import UndefinedError


@dataclass(frozen=True, slots=True)
class TagValue:
    """A tag as a template sees it; written bare it is its name."""

    name: str
    score: float | None = None
    category: str = "general"

    def __str__(self) -> str:
        return self.name


class TagValues(Sequence[TagValue]):
    """`tags` in a template: a list; written bare the names with commas; called, those of another run or channel."""

    def __init__(self, tags: Sequence[TagValue], of: Callable[[str], Sequence[TagValue]] | None = None) -> None:
        self._tags = tuple(tags)
        self._of = of

    def __call__(self, source: str) -> TagValues:
        if self._of is None:
            raise UndefinedError(f"there is no run or channel {source!r}")
        return TagValues(self._of(source), self._of)

    def __getitem__(self, index: Any) -> Any:
        return self._tags[index]

    def __iter__(self) -> Iterator[TagValue]:
        return iter(self._tags)

    def __len__(self) -> int:
        return len(self._tags)

    def __str__(self) -> str:
        return ", ".join(tag.name for tag in self._tags)


class CaptionValue(str):
    """`caption` in a template: a text; called, that of another run or channel."""

    _of: Callable[[str], str] | None

    def __new__(cls, text: str, of: Callable[[str], str] | None = None) -> CaptionValue:
        made = super().__new__(cls, text)
        made._of = of
        return made

    def __call__(self, source: str) -> str:
        if self._of is None:
            raise UndefinedError(f"there is no run or channel {source!r}")
        return self._of(source)


class WordValues(tuple[str, ...]):
    """The words of a list in a template; written bare, with commas."""

    __slots__ = ()

    def __str__(self) -> str:
        return ", ".join(self)


class ExifValues:
    """EXIF fields by name; a field that an image lacks is empty."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields

    def __getitem__(self, name: str) -> Any:
        return self._fields.get(name, "")


@dataclass(frozen=True, slots=True)
class ImageValues:
    """The image as a template sees it. `folder` is relative to the collection's root."""

    name: str = ""
    folder: str = ""
    collection: str = ""
    captured_at: str = ""

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return self.name.rpartition(".")[0] or self.name


def _no_lists(slug: str) -> Sequence[str]:
    raise UndefinedError(f"there is no wordlist {slug!r}")


@dataclass(frozen=True)
class RenderContext:
    """Everything a template may use for one image."""

    image: ImageValues = ImageValues()
    exif: Mapping[str, Any] = field(default_factory=dict)
    tags: Sequence[TagValue] = ()
    tags_of: Callable[[str], Sequence[TagValue]] | None = None
    caption: str = ""
    caption_of: Callable[[str], str] | None = None
    max_tags: int | None = None
    wordlist: Callable[[str], Sequence[str]] = _no_lists
    variables: Mapping[str, str | int | float | bool] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The template's names. Free variables never hide ours."""
        return {
            **self.variables,
            "image": self.image,
            "exif": ExifValues(self.exif),
            "tags": TagValues(self.tags, self.tags_of),
            "caption": CaptionValue(self.caption, self.caption_of),
            "max_tags": "" if self.max_tags is None else self.max_tags,
            "wordlist": lambda slug: WordValues(self.wordlist(slug)),
        }
