"""Reading what exports write: images in pages by id, each page's tags in one query, names looked up once.

However many images there are, a page costs two queries (a third for tags never met before), and memory holds one page
and the vocabulary in use.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from django.contrib.auth import get_user_model
from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Aggregate, BigIntegerField, ExpressionWrapper, F, Q, QuerySet, TextField, Value
from django.db.models.functions import Cast, Coalesce, Round
from django.db.models.sql.compiler import SQLCompiler

from tagging.models import Channel, ImageAsset, ImageTag, Run, Tag

from .base import ExportOptions, Selection

PAGE = 1000  # images
NAMES_KEPT = 100_000  # about 30 MB of names; a larger vocabulary is read again now and then


class ImageRow(NamedTuple):
    """An image as exports see it. Caption and rating are empty where the options ask for truth and there is none."""

    id: int
    path: str
    sha256: str
    width: int
    height: int
    captured_at: datetime | None
    review_state: str
    caption: str
    caption_state: str
    rating: str
    rating_score: float | None
    reviewed_by: int | None


_row, _parsed = tuple.__new__, datetime.fromisoformat  # once for each of a million images
_PROPOSED = str(ImageAsset.CaptionState.PROPOSED)

#: A tag of an image in one integer: its rank, then the tag's id in the lowest 40 bits. The rank is minus the score in
#: ten-thousandths, or -20,000 where a person added the tag. There are tens of millions of them, so they are packed by
#: the database; they sort as they are: added first, then by score, highest first, then by id.
Packed = int
TAG_SHIFT = 40
TAG_BITS = (1 << TAG_SHIFT) - 1
SCALE = 10_000
NO_SCORE = -2 * SCALE


def tag_of(packed: Packed) -> int:
    """The tag's id."""
    return packed & TAG_BITS


def score_of(packed: Packed) -> float | None:
    """The tag's probability to four digits; None where a person added it."""
    rank = packed >> TAG_SHIFT
    return None if rank == NO_SCORE else -rank / SCALE


class Record(NamedTuple):
    """One image with its tags in order."""

    image: ImageRow
    tags: list[Packed]


class TagRow(NamedTuple):
    """A tag of an image with where it comes from. `rank` as in Packed."""

    rank: int
    tag_id: int
    state: int
    run_id: int | None


class DetailedRecord(NamedTuple):
    """One image with its tags in order, and their origin."""

    image: ImageRow
    tags: list[TagRow]


@dataclass(frozen=True, slots=True)
class TagName:
    """What a tag is called. `parent` is the name of the tag above it, or empty."""

    name: str
    category: str
    parent: str


class Source:
    """The records of a selection under some options. `rejected` adds the tags that a person refused."""

    def __init__(self, selection: Selection, options: ExportOptions, *, rejected: bool = False) -> None:
        self.options = options
        self.rejected = rejected
        images = selection.images
        if not options.proposed:
            # as an expression, so that no planner takes the review queue's index and sorts all of it for every page
            states = [ImageAsset.Review.REVIEWED, *([ImageAsset.Review.AUTO] if options.judged else [])]
            images = images.alias(_review=Coalesce(F("review_state"), Value(""))).filter(_review__in=states)
        # a filter that starts from another table is walked along that table's index, see tagging.queries.filtered
        self._key = "hit__image_id" if "hit__image_id" in str(images.query.order_by) else "pk"
        self.images: QuerySet[ImageAsset] = images.order_by(self._key)
        self.names = Names()

    # -- what is written --------------------------------------------------------------------------------------------
    def pages(self) -> Iterator[list[Record]]:
        """All records, at most PAGE at a time, by ascending id."""
        for images in self._image_pages():
            found = self._packed(images)
            self.names.learn({value & TAG_BITS for image in images for value in found.get(image.id, ())})
            yield [Record(image, found.get(image.id, [])) for image in images]

    def detailed(self) -> Iterator[list[DetailedRecord]]:
        """The same with state and run of every tag; about twice as slow."""
        for images in self._image_pages():
            found: dict[int, list[TagRow]] = {image.id: [] for image in images}
            rows = self._tag_rows(images).values_list("image_id", _RANK, "tag_id", "state", "run_id")
            for image_id, *tag in _fetch(rows):
                if image_id in found:
                    found[image_id].append(TagRow._make(tag))
            self.names.learn({row.tag_id for tags in found.values() for row in tags})
            yield [DetailedRecord(image, sorted(found[image.id])) for image in images]

    def counts(self) -> tuple[int, int]:
        """(images, tags of them) that `pages` gives."""
        images = self.images.count()
        tags = ImageTag.objects.filter(self._tag_filter(), image__in=self.images.order_by().values("pk")).count()
        return images, tags

    def _packed(self, images: Sequence[ImageRow]) -> dict[int, list[Packed]]:
        """Image id → its tags in order; images without tags are left out."""
        rows = self._tag_rows(images).values("image_id").annotate(packed=_Gathered(_PACKED))
        found = _fetch(rows.values_list("image_id", "packed"))
        ids = [row[0] for row in found]
        gathered = [row[1] for row in found]
        if gathered and isinstance(gathered[0], str):
            gathered = json.loads(f"[{','.join(gathered)}]")
        for packed in gathered:
            packed.sort()
        return dict(zip(ids, gathered, strict=True))

    def _image_pages(self) -> Iterator[list[ImageRow]]:
        after = 0
        rows = self.images.values_list(*ImageRow._fields)
        with lean():
            while page := _fetch(rows.filter(**{f"{self._key}__gt": after})[:PAGE]):
                after = page[-1][0]
                yield [self._image(row) for row in page]

    def _image(self, row: tuple[Any, ...]) -> ImageRow:
        pk, path, sha256, width, height, at, review, caption, caption_state, rating, rating_score, by = row
        if type(at) is str:  # SQLite has no type for it; Django keeps UTC there
            at = _parsed(f"{at}+00:00")
        if not self.options.proposed:
            if caption_state == _PROPOSED:
                caption = ""
            if rating_score is not None:  # a model's; a person's has no score
                rating = ""
        values = (pk, path, sha256, width, height, at, review, caption, caption_state, rating, rating_score, by)
        return _row(ImageRow, values)

    def _tag_filter(self) -> Q:
        states = [*ImageTag.POSITIVE, *([ImageTag.State.REJECTED] if self.rejected else [])]
        wanted = Q(state__in=states)
        if self.options.proposed:
            proposed = Q(state=ImageTag.State.PROPOSED)
            if self.options.min_score > 0:
                proposed &= Q(score__gte=self.options.min_score)
            wanted |= proposed
        return wanted

    def _tag_rows(self, images: Sequence[ImageRow]) -> QuerySet[ImageTag]:
        """The tags of these images (and of some between them, where they lie close: a range reads faster)."""
        first, last = images[0].id, images[-1].id
        if last - first < 2 * len(images):
            which = Q(image_id__gte=first, image_id__lte=last)
        else:
            which = Q(image_id__in=[image.id for image in images])
        return ImageTag.objects.filter(which, self._tag_filter()).order_by()


_RANK = Coalesce(Cast(Round(F("score") * -float(SCALE)), BigIntegerField()), NO_SCORE, output_field=BigIntegerField())
_PACKED = ExpressionWrapper(_RANK * (1 << TAG_SHIFT) + F("tag_id"), output_field=BigIntegerField())


class _Gathered(Aggregate):
    """All values of a group: JSON text on SQLite, an array on PostgreSQL."""

    function = "JSON_GROUP_ARRAY"
    output_field = TextField()

    def as_postgresql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **extra: Any) -> Any:
        return self.as_sql(compiler, connection, function="ARRAY_AGG", **extra)


@contextmanager
def lean() -> Iterator[None]:
    """SQLite reads with a small cache and maps nothing, for as long as a large table is walked: what is read once is
    not worth keeping. The connection's settings come back after."""
    if connection.vendor != "sqlite":
        yield
        return
    with connection.cursor() as cursor:
        before = {name: cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in ("cache_size", "mmap_size")}
        cursor.execute("PRAGMA cache_size=-4096")
        cursor.execute("PRAGMA mmap_size=0")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            for name, value in before.items():
                cursor.execute(f"PRAGMA {name}={value}")


def _fetch(rows: QuerySet[Any, Any]) -> list[tuple[Any, ...]]:
    """The rows as the database driver gives them: for millions of numbers, three times as fast as through the ORM."""
    try:
        sql, params = rows.query.sql_with_params()
    except EmptyResultSet:  # the filter lets nothing through
        return []
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall()


class Names:
    """Names of tags, runs and people, each read once."""

    def __init__(self) -> None:
        self.tags: dict[int, TagName] = {}
        self._runs: dict[int, tuple[str, str]] = {}
        self._people: dict[int, str] = {}

    def learn(self, tag_ids: Iterable[int]) -> None:
        """Read the names of tags not met before: one query for 5,000 of them."""
        if len(self.tags) > NAMES_KEPT:
            self.tags.clear()
        missing = [pk for pk in tag_ids if pk not in self.tags]
        for at in range(0, len(missing), 5000):  # databases bound the number of parameters
            found = Tag.objects.filter(pk__in=missing[at : at + 5000]).order_by()
            for pk, name, category, parent in found.values_list("pk", "name", "category", "parent__name"):
                self.tags[pk] = TagName(name, category, parent or "")

    def run(self, pk: int | None) -> tuple[str, str]:
        """(name of the run, slugs of its adapters joined with "+"); empty texts without a run."""
        if pk is None:
            return "", ""
        if pk not in self._runs:
            run = Run.objects.filter(pk=pk).first()
            slugs = Channel.objects.filter(recipe__runs=pk).order_by("position").values_list("adapter__slug", flat=True)
            self._runs[pk] = (str(run) if run else f"run {pk}", "+".join(slugs))
        return self._runs[pk]

    def person(self, pk: int | None) -> str:
        """The user name; empty without one."""
        if pk is None:
            return ""
        if pk not in self._people:
            user = get_user_model().objects.filter(pk=pk).first()
            self._people[pk] = user.get_username() if user else ""
        return self._people[pk]
