"""The rules of a policy as data, and what goes into and comes out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator

from prompts.wordlists import Entry

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Words = tuple[Annotated[str, Field(min_length=1, max_length=500)], ...]


class PolicyError(ValueError):
    """The rules contradict themselves or a list cannot be used; the text names the word and the mend."""


class CaptionRules(BaseModel):
    """What is done to the sentence or description. Words of the banned lists never stay in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    strip_prefixes: Words = Field(
        default=(),
        title="Openings to remove",
        description="For example: The image shows. Upper and lower case do not matter.",
    )
    banned_phrases: Words = Field(
        default=(), title="Banned phrases", description="Besides the words of the banned lists."
    )
    banned_action: Literal["remove", "sentence"] = Field(
        default="remove",
        title="What a banned word costs",
        json_schema_extra={"labels": {"remove": "the word itself", "sentence": "its whole sentence"}},
    )
    max_sentences: int = Field(default=0, ge=0, le=100, title="Most sentences", description="0: no limit.")
    max_chars: int = Field(default=0, ge=0, le=20000, title="Most characters", description="0: no limit.")
    blend: Literal["caption", "caption, tags", "tags, caption", "tags"] = Field(
        default="caption", title="Caption is made of", description="'caption, tags' appends the final tags."
    )


class PolicySpec(BaseModel):
    """Everything done to raw tags and text after the model. The defaults suit photo-lite and the WD taggers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    parse: Literal["auto", "comma", "newline", "json", "sentences", "caption"] = Field(
        default="auto",
        title="Read a text reply as",
        description="Of models that answer in text; scores need no reading.",
        json_schema_extra={
            "labels": {
                "auto": "whatever it is: JSON, else lines, else commas",
                "comma": "tags with commas",
                "newline": "one tag a line",
                "json": "JSON",
                "sentences": "sentences, each a tag",
                "caption": "a caption",
            }
        },
    )
    case: Literal["keep", "lower", "title"] = Field(
        default="keep",
        title="Upper and lower case",
        json_schema_extra={"labels": {"keep": "as it comes", "lower": "lower case", "title": "Each Word Capital"}},
    )
    underscores: Literal["spaces", "keep"] = Field(
        default="spaces",
        title="Underscores",
        description="Emoticons such as ^_^ keep theirs.",
        json_schema_extra={"labels": {"spaces": "become spaces", "keep": "stay"}},
    )
    hyphens: Literal["keep", "spaces"] = Field(
        default="keep", title="Hyphens", json_schema_extra={"labels": {"keep": "stay", "spaces": "become spaces"}}
    )
    vocabulary: Literal["free", "prefer", "only"] = Field(
        default="free",
        title="Vocabulary",
        description="Takes a vocabulary list below. A word that it knows gets its spelling.",
        json_schema_extra={
            "labels": {
                "free": "free: words stay as they are",
                "prefer": "prefer: its spelling where a word is known",
                "only": "only: every other word is dropped",
            }
        },
    )
    inflections: bool = Field(
        default=True,
        title="Singular and plural",
        description="'dogs' becomes 'dog' only where the vocabulary has 'dog'.",
    )
    similarity: Probability = Field(
        default=0.0,
        title="Close match from",
        description="0: off. 0.85 lets 'sunsett' become 'sunset'. Marked as mapped.",
    )
    thresholds: dict[str, Probability] = Field(
        default_factory=dict, title="Thresholds by category", description="They take the place of the model's own."
    )
    tag_thresholds: dict[str, Probability] = Field(
        default_factory=dict, title="Thresholds by tag", description="May be lower than the category's."
    )
    hidden_categories: tuple[str, ...] = Field(
        default=("rating",), title="Categories never tagged", description="The rating has a field of its own."
    )
    banned: Words = Field(default=(), title="Banned words", description="Besides the lists; the same syntax.")
    forced: Words = Field(default=(), title="Forced words", description="On every image.")
    triggers: Words = Field(default=(), title="Trigger words", description="On every image, at the position below.")
    trigger_position: Literal["first", "last"] = Field(
        default="first", title="Trigger words stand", json_schema_extra={"labels": {"first": "first", "last": "last"}}
    )
    parents: Literal["keep", "drop"] = Field(
        default="keep",
        title="Broader terms",
        description="By the model's hierarchy and the vocabulary's.",
        json_schema_extra={"labels": {"keep": "stay: dog, animal", "drop": "go: only dog"}},
    )
    exclusive: tuple[Words, ...] = Field(
        default=(), title="Mutually exclusive groups", description="Of each group only the most probable stays."
    )
    min_chars: int = Field(default=1, ge=1, le=200, title="Fewest characters of a tag")
    max_words: int = Field(default=0, ge=0, le=50, title="Most words in a tag", description="0: no limit.")
    min_tags: int = Field(
        default=0,
        ge=0,
        le=1000,
        title="Fewest tags",
        description="The best below their threshold fill up, if any.",
    )
    max_tags: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        title="Most tags",
        description="Forced and trigger words count; the least probable go.",
    )
    order: Literal["score", "vocabulary", "alphabet", "category", "given"] = Field(
        default="score",
        title="Order",
        json_schema_extra={
            "labels": {
                "score": "most probable first",
                "vocabulary": "as in the vocabulary",
                "alphabet": "by the alphabet",
                "category": "by category, then most probable",
                "given": "as the model gave them",
            }
        },
    )
    category_order: tuple[str, ...] = Field(
        default=("character",), title="Categories first", description="In this order; all others follow."
    )
    caption: CaptionRules = CaptionRules()

    @field_validator("thresholds", "tag_thresholds", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        """A bool is no threshold."""
        if isinstance(value, dict) and any(isinstance(v, bool) for v in value.values()):
            raise ValueError("a threshold is a number from 0 to 1")
        return value

    @field_validator("exclusive")
    @classmethod
    def _groups(cls, value: tuple[Words, ...]) -> tuple[Words, ...]:
        if any(len(group) < 2 for group in value):
            raise ValueError("a mutually exclusive group has at least two words")
        return value


@dataclass(frozen=True, slots=True)
class WordList:
    """One version of a wordlist as plain data. `entries` may be stored JSON objects or Entry instances."""

    slug: str
    kind: str
    entries: Sequence[Entry | dict[str, Any] | str]


class Candidate(NamedTuple):
    """One tag as it comes from a model or from combining several. `score` None: the model does not say.

    `parent` is the label above it; `ancestors` all of them, nearest first, where a label set knows.
    """

    name: str
    category: str = "general"
    score: float | None = None
    source: str = ""
    parent: str | None = None
    ancestors: tuple[str, ...] = ()


class Fate(NamedTuple):
    """What became of one tag: kept, changed (from `original`), dropped or added, and why."""

    name: str
    category: str
    score: float | None
    state: Literal["kept", "changed", "dropped", "added"]
    reason: str = ""
    source: str = ""
    original: str = ""


class Outcome(NamedTuple):
    """The result for one image: first the tags that stay, in order, then the dropped ones; and the caption."""

    tags: list[Fate]
    caption: str = ""

    @property
    def kept(self) -> list[Fate]:
        """The tags that stay, in order."""
        return [fate for fate in self.tags if fate.state != "dropped"]

    @property
    def names(self) -> list[str]:
        """The names of the tags that stay, in order."""
        return [fate.name for fate in self.tags if fate.state != "dropped"]
