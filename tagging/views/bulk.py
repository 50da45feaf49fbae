"""What a bulk decision asks for: which images, which verb, with which words."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import QueryDict

from .. import queue
from ..actions.review import BulkResult, bulk
from ..actions.tags import check_name
from ..filters import ImageFilter
from ..models import Collection, ImageAsset, ImageTag
from ..queries import filtered
from .cells import cells
from .filters import Word, words

#: More than these are changed by a worker, not within the request.
AT_ONCE = 2000
PREVIEW = 60

VERBS: dict[str, tuple[Literal["accept", "reject", "add", "remove"], str, str]] = {
    "accept": ("accept", "Accept all proposed tags", "Accepted"),
    "reject": ("reject", "Reject all proposed tags", "Rejected"),
    "accept_above": ("accept", "Accept the proposed tags", "Accepted"),
    "add": ("add", "Add", "Added"),
    "remove": ("remove", "Remove", "Removed"),
}


@dataclass
class Bulk:
    """A verb over a selection (`ids`) or over all that a filter lets through (`ids` is None)."""

    collection: Collection
    verb: str
    filter: ImageFilter
    ids: list[int] | None
    tags: list[str] = field(default_factory=list)
    min_score: float | None = None
    batch: uuid.UUID = field(default_factory=uuid.uuid4)

    @classmethod
    def parse(cls, collection: Collection, data: QueryDict) -> Bulk:
        """From the grid's form. ValidationError keyed by the field."""
        verb = data.get("verb", "")
        if verb not in VERBS:
            raise ValidationError({"verb": f"{verb!r} is none of {', '.join(VERBS)}."})
        f = ImageFilter.parse(QueryDict(data.get("filter", "")))
        ids = None if data.get("scope") == "filter" else _ids(data.getlist("image"))
        # chosen ones come as they are; what was typed may be several
        names = [*data.getlist("tags"), *data.get("tags_text", "").split(",")]
        tags = list(dict.fromkeys(text for name in names if (text := name.strip())))
        if verb in ("add", "remove") and not tags:
            raise ValidationError({"tags": f"Name the tags to {verb}, separated by commas."})
        for tag in tags:
            check_name(tag)
        min_score = _score(data.get("min_score", "")) if verb == "accept_above" else None
        return cls(collection, verb, f, ids, tags if verb in ("add", "remove") else [], min_score)

    # -- what it is about -------------------------------------------------------------------------------------------
    @property
    def images(self) -> QuerySet[ImageAsset]:
        if self.ids is None:
            return filtered(self.collection, self.filter)
        return ImageAsset.objects.filter(collection=self.collection, pk__in=self.ids).order_by("id")

    @cached_property
    def count(self) -> int:
        return self.images.order_by().count()

    @cached_property
    def preview(self) -> list[ImageAsset]:
        return list(self.images[:PREVIEW])

    @property
    def cells(self) -> str:
        return cells(self.preview, self.filter)

    @property
    def hidden(self) -> int:
        """How many are not among the pictures shown."""
        return max(0, self.count - PREVIEW)

    @cached_property
    def touched(self) -> int | None:
        """How many proposed tags would be decided; None where that is not the question or too many to count."""
        if VERBS[self.verb][0] not in ("accept", "reject") or self.count > AT_ONCE:
            return None
        tags = ImageTag.objects.filter(image__in=self.images.order_by().values("pk"), state=ImageTag.State.PROPOSED)
        return (tags if self.min_score is None else tags.filter(score__gte=self.min_score)).count()

    @property
    def in_background(self) -> bool:
        return self.count > AT_ONCE

    # -- in words ---------------------------------------------------------------------------------------------------
    @property
    def title(self) -> str:
        text = VERBS[self.verb][1]
        if self.min_score is not None:
            text += f" with p ≥ {self.min_score:g}"
        if self.tags:
            text += " " + ", ".join(f"“{tag}”" for tag in self.tags)
        return text

    @property
    def done_text(self) -> str:
        return VERBS[self.verb][2] + (" " + ", ".join(self.tags) if self.tags else "")

    @property
    def words(self) -> list[Word]:
        return words(self.filter)

    @property
    def back(self) -> str:
        query = self.filter.query_string()
        return self.collection.get_absolute_url() + (f"?{query}" if query else "")

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The same request again, as hidden inputs."""
        pairs = [("verb", self.verb), ("filter", self.filter.query_string())]
        pairs += [("scope", "filter")] if self.ids is None else [("image", str(pk)) for pk in self.ids]
        pairs += [("tags", tag) for tag in self.tags]
        return pairs + ([("min_score", f"{self.min_score:g}")] if self.min_score is not None else [])

    # -- doing it ---------------------------------------------------------------------------------------------------
    def run(self, by: User) -> BulkResult | None:
        """Do it now, or hand it to a worker (None)."""
        verb = VERBS[self.verb][0]
        if not self.in_background:
            return bulk(self.images, by=by, verb=verb, tag_names=self.tags, min_score=self.min_score)
        queue.defer(
            "tagging.tasks.bulk",
            self.collection.pk,
            self.filter.query_string(),
            verb,
            self.tags,
            self.min_score,
            by.pk,
            str(self.batch),
        )
        return None


def _ids(values: list[str]) -> list[int]:
    if not values:
        raise ValidationError({"image": "Select at least one image."})
    if len(values) > AT_ONCE:
        raise ValidationError({"image": f"At most {AT_ONCE:,} at once; for more, choose all that match the filter."})
    if not all(v.isascii() and v.isdigit() and len(v) < 19 for v in values):
        raise ValidationError({"image": "An image is named by its number."})
    return list(dict.fromkeys(int(v) for v in values))


def _score(text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise ValidationError({"min_score": f"{text[:40]!r} is not a probability between 0 and 1."})
    return score
