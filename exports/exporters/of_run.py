"""What one run proposed, read instead of the tags in force: the run is named by its number or by a recipe's label."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from django.core.exceptions import ValidationError
from django.db.models import Exists, OuterRef, QuerySet

from tagging.actions.labels import UnknownLabel, find_recipe
from tagging.models import Collection, ImageAsset, Proposal, Run

from .lookups import Names

FIELD = "proposed_by"
IN_PROPOSAL = ("kept", "changed", "added")
AT_ONCE = 250  # images: a proposal with its reasons is a few kilobytes
_RUN = re.compile(r"^(?:run\s*|#)?([0-9]{1,18})$", re.IGNORECASE)
_ANSWERED = (Proposal.State.OK, Proposal.State.EMPTY)


def find_run(collection: Collection, text: str) -> Run:
    """The run of that number, or the newest finished run over the collection by the recipe that a label points to.

    ValidationError keyed by "proposed_by": there is none, it is another collection's, or it is not over yet.
    """
    text = text.strip()
    number = _RUN.match(text)
    if number:
        return _numbered(collection, int(number[1]))
    try:
        recipe = find_recipe(text, collection=collection)
    except UnknownLabel as e:
        raise ValidationError({FIELD: f"{e} Or name a run by its number, as in: run 12."}) from None
    runs = Run.objects.listed().filter(collection=collection, recipe=recipe)
    found = runs.filter(state=Run.State.DONE).order_by("-pk").first()
    if found is None:
        open_one = runs.filter(state__in=Run.OPEN).order_by("-pk").first()
        more = f" {_named(open_one)} is {open_one.get_state_display()}." if open_one else " Run it first."
        raise ValidationError({FIELD: f"{text} is {recipe}, which has no finished run over {collection}.{more}"})
    return found


def _numbered(collection: Collection, number: int) -> Run:
    found = Run.objects.select_related("collection").filter(pk=number).first()
    if found is None:
        raise ValidationError({FIELD: f"There is no run {number}."})
    if found.collection_id != collection.pk:
        whose = f"is over {found.collection}" if found.collection else "is over single images"
        raise ValidationError({FIELD: f"{_named(found)} {whose}, not over {collection}."})
    if found.state in Run.OPEN:
        state = found.get_state_display()
        raise ValidationError({FIELD: f"{_named(found)} is {state}: wait for its end, or cancel it."})
    return found


def _named(run: Run) -> str:
    return f"Run {run.pk}" + (f" ({run.name})" if run.name else "")


class Said(NamedTuple):
    """What the run said of an image; `tags` by id with their scores."""

    caption: str
    rating: str
    rating_score: float | None
    tags: dict[int, float | None]


class OfRun:
    """The proposals of a run, as records want them."""

    def __init__(self, run: Run, names: Names, min_score: float) -> None:
        self.run = run
        self.names = names
        self._floor = min_score

    def limited(self, images: QuerySet[ImageAsset]) -> QuerySet[ImageAsset]:
        """Those that the run has an answer for, an empty one included."""
        answers = Proposal.objects.filter(run=self.run, image=OuterRef("pk"), state__in=_ANSWERED)
        return images.filter(Exists(answers))

    def said(self, image_ids: Sequence[int]) -> dict[int, Said]:
        """By image id; one query for 250 of them."""
        rows: list[Any] = []
        for at in range(0, len(image_ids), AT_ONCE):
            rows += self._rows(image_ids[at : at + AT_ONCE])
        ids = self.names.ids_of((name, category) for row in rows for name, category, _ in row[4])
        found = {}
        for image_id, caption, rating, rating_score, tags in rows:
            own: dict[int, float | None] = {}
            for name, _, score in tags:
                if name in ids:
                    own.setdefault(ids[name], score)
            found[image_id] = Said(caption, rating, rating_score, own)
        return found

    def _rows(self, image_ids: Sequence[int]) -> Iterator[tuple[Any, ...]]:
        rows = Proposal.objects.filter(run=self.run, image__in=image_ids, state__in=_ANSWERED).order_by()
        for image_id, caption, rating, score, tags in rows.values_list(
            "image_id", "caption", "rating", "rating_score", "tags"
        ):
            yield image_id, caption, rating, score, [tag for tag in map(_tag, tags) if tag and self._counts(tag[2])]

    def _counts(self, score: float | None) -> bool:
        return self._floor <= 0 or (score is not None and score >= self._floor)

    def used(self, images: QuerySet[ImageAsset]) -> Counter[int]:
        """Tag id → on how many of these images. Walks through all of them; as large as the vocabulary in use."""
        found: Counter[int] = Counter()
        after = 0
        while ids := list(images.filter(pk__gt=after).order_by("pk").values_list("pk", flat=True)[: 4 * AT_ONCE]):
            after = ids[-1]
            for said in self.said(ids).values():
                found.update(said.tags.keys())
        return found


def _tag(row: Sequence[Any]) -> tuple[str, str, float | None] | None:
    """(name, category, score) of a tag that the policy let through."""
    return (row[0], row[1], row[2]) if row[3] in IN_PROPOSAL else None
