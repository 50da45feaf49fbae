"""The arena: two unnamed answers to one image, a person's vote, and the ranking that votes give."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from tagging.models import ImageAsset, Recipe

from ..matrix import Index, index_of
from ..models import Experiment, ExperimentRecipe, Vote
from ..ranking_votes import Strength, Votes, bradley_terry, next_pair

#: images tried for a pair before the next pair is tried
TRIES = 400
KINDS = ("all", "people", "judges")
VOTED = {"image": "You have voted on this pair already."}


@dataclass(frozen=True, slots=True)
class Bout:
    """An image and the rows shown left and right."""

    image: int
    left: int
    right: int


def next_bout(
    experiment: Experiment,
    by: AbstractBaseUser | None,
    draw: random.Random,
    skipped: Sequence[tuple[int, int, int]] = (),
) -> Bout | None:
    """The pair of recipes whose order is least settled, on an image where they differ and this person has not voted on
    them; sides at random. None when there is nothing left to vote on. `skipped`: (image, lower row, higher row)."""
    index = index_of(experiment)
    rows = rows_of(experiment)
    if len(rows) < 2:
        return None
    strengths, _ = ranking(experiment, rows)
    mine = _mine(experiment, by) if by is not None else Vote.objects.none()
    voted = set(mine.values_list("image_id", "a_id", "b_id"))
    passed = set(skipped)
    sets = _sets(index)
    tried: set[tuple[int, int]] = set()
    pairs = [(i, j) for i in range(len(rows)) for j in range(i + 1, len(rows))]
    draw.shuffle(pairs)
    first = next_pair(strengths)
    for i, j in ([first] if first else []) + pairs:
        if (i, j) in tried:
            continue
        tried.add((i, j))
        image = _image(index, sets, rows[i], rows[j], voted, passed, draw)
        if image is not None:
            left, right = (i, j) if draw.random() < 0.5 else (j, i)
            return Bout(image, rows[left].pk, rows[right].pk)
    return None


def _sets(index: Index) -> dict[int, dict[int, frozenset[int]]]:
    """Row's place → image's place → its tags."""
    found: dict[int, dict[int, set[int]]] = {}
    for row, image, tag in zip(index.row.tolist(), index.image.tolist(), index.tag.tolist(), strict=True):
        found.setdefault(row, {}).setdefault(image, set()).add(tag)
    return {row: {image: frozenset(tags) for image, tags in images.items()} for row, images in found.items()}


def _image(
    index: Index,
    sets: dict[int, dict[int, frozenset[int]]],
    one: ExperimentRecipe,
    other: ExperimentRecipe,
    voted: set[tuple[int, int, int]],
    passed: set[tuple[int, int, int]],
    draw: random.Random,
) -> int | None:
    a, b = index.rows.index(one.pk), index.rows.index(other.pk)
    recipes = tuple(sorted((one.recipe_id, other.recipe_id)))
    both = np.flatnonzero((index.samples[a] > 0) & (index.samples[b] > 0)).tolist()
    draw.shuffle(both)
    alike = None
    for place in both[:TRIES]:
        image = int(index.images[place])
        if (image, *recipes) in voted or (image, *sorted((one.pk, other.pk))) in passed:
            continue
        if sets.get(a, {}).get(place, frozenset()) != sets.get(b, {}).get(place, frozenset()):
            return image
        alike = image if alike is None else alike
    return alike if _has_captions(one) else None


def _has_captions(row: ExperimentRecipe) -> bool:
    """Recipes that write captions may differ where their tags do not."""
    from tagging.models import Proposal

    return Proposal.objects.filter(run__experiment_links__row=row).exclude(caption="").exists()


def rows_of(experiment: Experiment) -> list[ExperimentRecipe]:
    """One row for each recipe: votes are on recipes."""
    found: dict[int, ExperimentRecipe] = {}
    for row in experiment.rows.select_related("recipe").order_by("position"):
        found.setdefault(row.recipe_id, row)
    return list(found.values())


def vote(
    experiment: Experiment,
    bout: Bout,
    winner: str,
    *,
    by: AbstractBaseUser | None,
    seconds: float | None = None,
) -> Vote:
    """A person's vote: "left", "right" or "tie". ValidationError for what is no bout of the experiment, and for another
    vote of the same person on the same pair and image."""
    if winner not in ("left", "right", "tie"):
        raise ValidationError({"winner": f"{winner!r} is none of left, right, tie."})
    rows = {row.pk: row for row in rows_of(experiment)}
    if bout.left not in rows or bout.right not in rows or bout.left == bout.right:
        raise ValidationError({"rows": "These are no two recipes of this experiment."})
    if bout.image not in set(experiment.images) or not ImageAsset.objects.filter(pk=bout.image).exists():
        raise ValidationError({"image": "That image is not part of this experiment."})
    left, right = rows[bout.left], rows[bout.right]
    a, b = sorted((left, right), key=lambda row: row.recipe_id)
    if by is not None and _mine(experiment, by).filter(image=bout.image, a=a.recipe_id, b=b.recipe_id).exists():
        raise ValidationError(VOTED)
    side = {"left": left, "right": right}.get(winner)
    index = index_of(experiment)
    place = index.places[bout.image]
    counts = {row.pk: _tags(index, row.pk, place) for row in (a, b)}
    given = Vote(
        experiment=experiment,
        image_id=bout.image,
        a_id=a.recipe_id,
        b_id=b.recipe_id,
        winner="tie" if side is None else "a" if side is a else "b",
        first="a" if left is a else "b",
        by_id=by.pk if by is not None else None,
        tags_a=counts[a.pk],
        tags_b=counts[b.pk],
        seconds=None if seconds is None else round(min(max(seconds, 0.0), 3600.0), 2),
    )
    try:
        with transaction.atomic():
            given.save(force_insert=True)
    except IntegrityError:
        if by is None or not _mine(experiment, by).filter(image=bout.image, a=a.recipe_id, b=b.recipe_id).exists():
            raise
        raise ValidationError(VOTED) from None  # in another tab, just now
    return given


def take_back(experiment: Experiment, by: AbstractBaseUser) -> Vote | None:
    """The person's last vote goes, and is returned; None when there is none."""
    last = _mine(experiment, by).order_by("-pk").first()
    if last is not None:
        Vote.objects.filter(pk=last.pk).delete()
    return last


def _mine(experiment: Experiment, by: AbstractBaseUser) -> QuerySet[Vote]:
    return Vote.objects.filter(experiment=experiment, by=by.pk)


def _tags(index: Index, row: int, place: int) -> int:
    at = index.rows.index(row)
    return int(((index.row == at) & (index.image == place)).sum())


# -- the ranking ------------------------------------------------------------------------------------------------------
def ranking(
    experiment: Experiment, rows: Sequence[ExperimentRecipe], kind: str = "all", *, control_length: bool = False
) -> tuple[list[Strength], float]:
    """Strengths of the rows from the votes of "people", "judges" or "all", and what a longer list is worth (only with
    `control_length`)."""
    number = {row.recipe_id: n for n, row in enumerate(rows)}
    votes = Vote.objects.filter(experiment=experiment, a__in=list(number), b__in=list(number))
    if kind == "people":
        votes = votes.filter(judge="")
    elif kind == "judges":
        votes = votes.exclude(judge="")
    found = list(votes.values_list("a_id", "b_id", "winner", "image_id", "tags_a", "tags_b"))
    outcome = {"a": 1.0, "b": 0.0, "tie": 0.5}
    columns: list[tuple[Any, ...]] = list(zip(*found, strict=True)) if found else [()] * 6
    return bradley_terry(
        Votes.of(
            np.array([number[a] for a in columns[0]], np.int64),
            np.array([number[b] for b in columns[1]], np.int64),
            np.array([outcome[w] for w in columns[2]], float),
            np.array(columns[3], np.int64),
            np.array(columns[4], np.int64),
            np.array(columns[5], np.int64),
        ),
        len(rows),
        seed=experiment.seed,
        control_length=control_length,
    )


def standings(experiment: Experiment, kind: str = "all", *, control_length: bool = False) -> dict[str, Any]:
    """The ranking as the page and the API show it, the strongest first. ValidationError for an unknown kind."""
    if kind not in KINDS:
        raise ValidationError({"kind": f"{kind!r} is none of {', '.join(KINDS)}."})
    rows = rows_of(experiment)
    strengths, beta = ranking(experiment, rows, kind, control_length=control_length)
    every = Vote.objects.filter(experiment=experiment)
    ordered = sorted(zip(rows, strengths, strict=True), key=lambda pair: (-pair[1].rating, pair[0].position))
    return {
        "kind": kind,
        "control_length": control_length,
        "length_pull": round(beta, 3),
        "votes": {
            "all": every.count(),
            "people": every.filter(judge="").count(),
            "judges": every.exclude(judge="").count(),
            "ties": every.filter(winner="tie").count(),
            "flipped": every.filter(flipped=True).count(),
        },
        "rows": [
            {
                "row": row.pk,
                "recipe": row.recipe_id,
                "name": row.name,
                "rating": round(s.rating, 1),
                "low": round(s.low, 1),
                "high": round(s.high, 1),
                "rank_low": s.rank_low,
                "rank_high": s.rank_high,
                "votes": s.votes,
            }
            for row, s in ordered
        ],
    }


def name_of(recipe: Recipe | int, rows: Sequence[ExperimentRecipe]) -> str:
    """What the experiment calls a recipe."""
    pk = recipe if isinstance(recipe, int) else recipe.pk
    return next((row.name for row in rows if row.recipe_id == pk), f"recipe {pk}")
