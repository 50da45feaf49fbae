"""Reading what exports write: images in pages by id, each page's tags in one query, names looked up once.

However many images there are, a page costs two queries (a third for tags never met before), and memory holds one page
and the vocabulary in use.
"""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Aggregate, BigIntegerField, Count, ExpressionWrapper, F, Q, QuerySet, TextField, Value
from django.db.models.functions import Cast, Coalesce, Round
from django.db.models.sql.compiler import SQLCompiler

from tagging.models import ImageAsset, ImageTag

from .base import ExportOptions, Selection
from .lookups import Names
from .of_run import OfRun, find_run

PAGE = 2000  # images: two queries each, whose SQL is a tenth of the time at 1000


class ImageRow(NamedTuple):
    """An image as exports see it. Caption and rating are empty where the options ask for truth and there is none.
    `captured_at` is the camera's local time in ISO 8601, without a zone (EXIF does not say which), or empty."""

    id: int
    path: str
    sha256: str
    width: int
    height: int
    captured_at: str
    review_state: str
    caption: str
    caption_state: str
    rating: str
    rating_score: float | None
    reviewed_by: int | None


_row = tuple.__new__  # once for each of a million images
_PROPOSED = str(ImageAsset.CaptionState.PROPOSED)
_UNREVIEWED = str(ImageAsset.Review.UNREVIEWED)

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


class Source:
    """The records of a selection under some options. `rejected` adds the tags that a person refused."""

    def __init__(
        self, selection: Selection, options: ExportOptions, *, rejected: bool = False, names: Names | None = None
    ) -> None:
        """`names`: those of another source, where ids of both are compared. ValidationError keyed by "proposed_by"."""
        self.options = options
        self.rejected = rejected
        self.names = names or Names()
        self.of_run: OfRun | None = None
        images = selection.images
        if options.proposed_by:
            run = find_run(selection.collection, options.proposed_by)
            self.of_run = OfRun(run, self.names, options.min_score)
            images = self.of_run.limited(images)
        elif not options.proposed:
            # as an expression, so that no planner takes the review queue's index and sorts all of it for every page
            states = [ImageAsset.Review.REVIEWED, *([ImageAsset.Review.AUTO] if options.judged else [])]
            images = images.alias(_review=Coalesce(F("review_state"), Value(""))).filter(_review__in=states)
        # a filter that starts from another table is walked along that table's index, see tagging.queries.filtered
        self._key = "hit__image_id" if "hit__image_id" in str(images.query.order_by) else "pk"
        self.images: QuerySet[ImageAsset] = images.order_by(self._key)

    # -- what is written --------------------------------------------------------------------------------------------
    def pages(self) -> Iterator[list[Record]]:
        """All records, at most PAGE at a time, by ascending id."""
        if self.of_run:
            for said in self._of_run(self.of_run):
                yield [Record(image, sorted((rank << TAG_SHIFT) | pk for pk, rank in tags)) for image, tags in said]
            return
        for images in self._image_pages():
            found = self._packed(images)
            self.names.expect(partial(_ids, found))
            yield [Record(image, found.get(image.id, [])) for image in images]

    def detailed(self) -> Iterator[list[DetailedRecord]]:
        """The same with state and run of every tag; about twice as slow."""
        if self.of_run:
            state, run = ImageTag.State.PROPOSED.value, self.of_run.run.pk
            for said in self._of_run(self.of_run):
                yield [
                    DetailedRecord(image, sorted(TagRow(rank, pk, state, run) for pk, rank in tags))
                    for image, tags in said
                ]
            return
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
        if self.of_run:
            return images, self.used().total()
        tags = ImageTag.objects.filter(self.tag_filter(), image__in=self.images.order_by().values("pk")).count()
        return images, tags

    def used(self) -> Counter[int]:
        """Tag id → number of images that carry it. As large as the vocabulary in use."""
        if self.of_run:
            return self.of_run.used(self.images)
        rows = ImageTag.objects.filter(self.tag_filter(), image__in=self.images.order_by().values("pk"))
        return Counter(dict(rows.order_by().values_list("tag_id").annotate(n=Count("image_id"))))

    def _of_run(self, of_run: OfRun) -> Iterator[list[tuple[ImageRow, list[tuple[int, int]]]]]:
        """Each page's images with what the run said of them, and (tag id, rank) of its tags. The image counts as not
        reviewed: what is written was not."""
        for images in self._image_pages():
            said = of_run.said([image.id for image in images])
            page = []
            for image in images:
                one = said.get(image.id)
                if one is None:  # the run was deleted meanwhile
                    continue
                row = image._replace(
                    caption=one.caption,
                    caption_state=_PROPOSED,
                    rating=one.rating,
                    rating_score=one.rating_score,
                    review_state=_UNREVIEWED,
                    reviewed_by=None,
                )
                page.append((row, [(pk, _rank(score)) for pk, score in one.tags.items()]))
            if page:
                yield page

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
                yield self._images(page)

    def image_rows(self, ids: Sequence[int]) -> dict[int, ImageRow]:
        """Single images, whether the options let them through or not."""
        rows = ImageAsset.objects.filter(pk__in=ids).order_by().values_list(*ImageRow._fields)
        return {image.id: image for image in self._images(_fetch(rows))}

    def _images(self, rows: Sequence[tuple[Any, ...]]) -> list[ImageRow]:
        truth = not (self.options.proposed or self.of_run)
        return [
            _row(
                ImageRow,
                (
                    pk,
                    path,
                    sha256,
                    width,
                    height,
                    # SQLite has no type for it; Django writes it so
                    at.replace(" ", "T") if type(at) is str else _iso(at),
                    review,
                    "" if truth and caption_state == _PROPOSED else caption,
                    caption_state,
                    "" if truth and rating_score is not None else rating,  # a model's; a person's has no score
                    rating_score,
                    by,
                ),
            )
            for pk, path, sha256, width, height, at, review, caption, caption_state, rating, rating_score, by in rows
        ]

    def tag_filter(self) -> Q:
        """Which rows of ImageTag are read."""
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
        return ImageTag.objects.filter(which, self.tag_filter()).order_by()


def _ids(found: Mapping[int, Sequence[Packed]]) -> set[int]:
    return {value & TAG_BITS for tags in found.values() for value in tags}


def _iso(at: datetime | None) -> str:
    return at.isoformat().removesuffix("+00:00") if at else ""


def _rank(score: float | None) -> int:
    return NO_SCORE if score is None else -round(score * SCALE)


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
    """For as long as a large table is walked: what is there already is not looked at for garbage again and again (that
    took a sixth of the time), and SQLite reads with a small cache and maps nothing, as what is read once is not worth
    keeping. The settings come back after."""
    gc.freeze()
    try:
        with _small_cache() if connection.vendor == "sqlite" else nullcontext():
            yield
    finally:
        gc.unfreeze()


@contextmanager
def _small_cache() -> Iterator[None]:
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
