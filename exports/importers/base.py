"""What every source of an import yields, and what it can be asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field

MAX_WORDS = 500  # of one image; as many as one decision takes


class ImportProblem(Exception):
    """The source as a whole cannot be read. The text says why and what would help; it can be shown."""


class Word(NamedTuple):
    """One keyword. `state` is "" for a word that is there, "rejected" where the source says that a person refused it,
    "proposed" where it says that nobody has decided, "added elsewhere" and "removed elsewhere" for edits made in
    another tool since iwtag wrote it."""

    name: str
    ancestors: tuple[str, ...] = ()
    state: str = ""
    why: str = ""
    score: float | None = None
    category: str = "general"


@dataclass(slots=True)
class Item:
    """What a source says of one image. Where `error` is set, it says nothing that can be used.

    `key` names the image: a path, a file name, or with `by_stem` a path without its extension. `image_id` is set by
    sources that begin with the images. A `caption` or `rating` of None says nothing.
    """

    number: int
    key: str
    sha256: str = ""
    by_stem: bool = False
    image_id: int | None = None
    words: list[Word] = field(default_factory=list)
    caption: str | None = None
    rating: str | None = None
    elsewhere: bool = False
    notes: list[str] = field(default_factory=list)
    error: str = ""

    def add(self, other: Item) -> None:
        """Another row of the same image (a table with a row for each tag)."""
        known = {(w.name, w.state) for w in self.words}
        self.words += [w for w in other.words if (w.name, w.state) not in known]
        self.caption = self.caption or other.caption
        self.rating = self.rating or other.rating


class ImportOptions(BaseModel):
    """Asked of every source."""

    model_config = ConfigDict(extra="forbid")

    captions: Literal["empty", "replace", "leave"] = Field(
        "empty",
        title="Captions and ratings",
        description="Taken over where no person has written one here, always, or never.",
        json_schema_extra={
            "labels": {
                "empty": "where nobody has decided on one here",
                "replace": "always: they replace what stands here",
                "leave": "leave them out",
            }
        },
    )
    prefix: str = Field(
        "",
        max_length=60,
        title="Root to cut off",
        description='The root branch under which a tagger put its words, such as "iw" or "st": iw|animal|dog becomes '
        "animal|dog, and the root itself is no word. What iwtag wrote last is known without it.",
        json_schema_extra={"advanced": True},
    )


class Reader(Protocol):
    """A source, ready to be read once from the beginning."""

    Options: ClassVar[type[ImportOptions]]
    #: Rows of one image may stand apart (a row for each tag): they are taken together.
    several: bool
    #: What was passed over, in words for a person; complete after the last item.
    warnings: list[str]

    def items(self) -> Iterator[Item]: ...

    def total(self) -> int | None:
        """How many items there are, where that is cheap to say."""


def without_root(path: tuple[str, ...], root: str) -> tuple[str, ...]:
    """The levels below a tagger's root branch; an empty path for the root itself."""
    return path[1:] if root and path and path[0].casefold() == root.casefold() else path


def words_from(paths: Any, root: str = "") -> list[Word]:
    """Paths (tuples of levels, root first) as words, each once, in order."""
    found: dict[str, Word] = {}
    for path in paths:
        levels = tuple(level.strip() for level in without_root(path, root))
        levels = tuple(level for level in levels if level)
        if levels:
            word = Word(levels[-1], levels[:-1])
            known = found.get(word.name)
            if known is None or (not known.ancestors and word.ancestors):
                found[word.name] = word
    return list(found.values())
