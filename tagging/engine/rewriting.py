"""What a policy made of proposals, written: history, proposals, the tags in force and their counters, in the caller's
short transaction. What a person decided stays.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from django.db import connection
from django.db.models import Model
from django.utils import timezone

from ..actions.counts import Deltas
from ..models import ImageAsset, ImageTag, Proposal, ProposalRevision, Run
from . import store, vocabulary

if TYPE_CHECKING:
    from .reproposing import Change, Slice

#: a tag's id in one number with its image's place: bits
_BITS = 40


class Shown(NamedTuple):
    """A changed proposal on an image that shows it, ready to be written. Of a tag that comes twice the first counts."""

    tags: Sequence[int]
    scores: Sequence[float | None]
    top_score: float | None
    state: str
    caption: str


def prepare_shown(run: Run, changes: Sequence[Change], known: dict[str, int]) -> dict[int, Shown]:
    """What goes on the images that show this run now, by image. New words become tags here, before the transaction.

    `known`: tag ids by name, filled as words are met. Clear it where a tag turns out to be gone.
    """
    by_image = {change.row.image_id: change for change in changes}
    showing = ImageAsset.objects.filter(pk__in=list(by_image), proposed_by=run).values_list("pk", flat=True)
    shown = [by_image[pk] for pk in showing]
    met = set(chain.from_iterable(change.new for change in shown))
    if new := met - known.keys():
        some = [change for change in shown if not new.isdisjoint(change.new)]
        names = {t.name: (t.category, t.ancestors) for change in some for t in change.kept() if t.name in new}
        known.update(vocabulary.tag_ids(names))
    return {change.row.image_id: _shown(change, known) for change in shown}


def _shown(change: Change, known: Mapping[str, int]) -> Shown:
    ids, scores = list(map(known.get, change.new)), change.scores
    if None in scores:
        top = max((score for score in scores if score is not None), default=None)
    else:
        top = max(scores, default=None)  # type: ignore[type-var]
    if None in ids:  # a word of which nothing is left as a tag
        scores = [score for tag, score in zip(ids, scores, strict=True) if tag is not None]
        ids = [tag for tag in ids if tag is not None]
    return Shown(cast(list[int], ids), scores, top, change.state, change.caption)


def write(run: Run, job_id: int, policy_version_id: int, part: Slice, shown: Mapping[int, Shown]) -> None:
    """Keep the old proposals, write the new ones and show them. Inside the caller's transaction."""
    for some in _pieces(part.unchanged):
        Proposal.objects.filter(pk__in=some).exclude(policy_version=policy_version_id).update(
            policy_version=policy_version_id
        )
    if not part.changes:
        return
    for some in _pieces([change.row.id for change in part.changes]):
        _keep(some, job_id)
    _update(
        Proposal,
        {"tags": "jsonb", "caption": "text", "state": "text"},
        [(c.tags, c.caption.replace("\x00", ""), c.state, c.row.id) for c in part.changes],
        {"policy_version_id": policy_version_id},
    )
    flagged = [(json.dumps(c.flags), c.row.id) for c in part.changes if c.flags is not None]
    _update(Proposal, {"flags": "jsonb"}, flagged)
    _show(run, shown)


def _keep(ids: Sequence[int], job_id: int) -> None:
    """Copy proposals into their history, inside the database."""
    old, new = _table(Proposal), _table(ProposalRevision)
    now = connection.ops.adapt_datetimefield_value(timezone.now())
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {new} (proposal_id, job_id, policy_version_id, state, tags, caption, replaced_at) "
            f"SELECT id, %s, policy_version_id, state, tags, caption, %s FROM {old} "
            f"WHERE id IN ({', '.join(['%s'] * len(ids))})",
            [job_id, now, *ids],
        )


def _show(run: Run, shown: Mapping[int, Shown]) -> None:
    """Write the difference on the images that still show this run: tags, counters, caption, highest score.

    The images are locked in the order of their ids, as a person's decision locks them; what a person decided stays.
    """
    locked = ImageAsset.objects.select_for_update(no_key=True).filter(pk__in=list(shown), proposed_by=run)
    columns = ("pk", "collection_id", "caption_state", "caption", "top_score", "proposal_state")
    images = list(locked.order_by("pk").values_list(*columns))
    if not images:
        return
    captions: list[tuple[str, str, int]] = []
    fields: list[tuple[str, float | None, int]] = []
    for pk, _, caption_state, caption, top_score, state in images:
        new = shown[pk]
        if caption_state in ("", "proposed") and new.caption != caption:
            captions.append((new.caption.replace("\x00", ""), "proposed" if new.caption else "", pk))
        if (state, top_score) != (new.state, new.top_score):
            fields.append((new.state, new.top_score, pk))
    _update(ImageAsset, {"caption": "text", "caption_state": "text"}, captions)
    _update(ImageAsset, {"proposal_state": "text", "top_score": "double precision"}, fields)
    _show_tags(run, [row[0] for row in images], [row[1] for row in images], shown)


def _show_tags(run: Run, ids: Sequence[int], collections: Sequence[int], shown: Mapping[int, Shown]) -> None:
    """Take away proposed tags that are proposed no more, add those that are new, count both. The images are locked."""
    wanted = [shown[pk].tags for pk in ids]
    place = np.repeat(np.arange(len(ids)), [len(tags) for tags in wanted])
    flat = np.fromiter(chain.from_iterable(wanted), dtype=np.int64, count=len(place))
    keys, first = np.unique(place << _BITS | flat, return_index=True)
    there, states = _standing(ids)
    proposed, run_id = ImageTag.State.PROPOSED.value, run.pk
    new = ~np.isin(keys, there, assume_unique=True)
    gone = there[(states == proposed) & ~np.isin(there, keys, assume_unique=True)]
    come, at = keys[new], first[new].tolist()
    scores = list(chain.from_iterable(shown[pk].scores for pk in ids))
    deltas, owners, images = Deltas(), np.array(collections, dtype=np.int64), np.array(ids, dtype=np.int64)
    for moved, before, after in ((gone, proposed, None), (come, None, proposed)):
        tags, owner = moved & ((1 << _BITS) - 1), owners[moved >> _BITS]
        for collection in np.unique(owner).tolist():
            values, counts = np.unique(tags[owner == collection], return_counts=True)
            for tag_id, n in zip(values.tolist(), counts.tolist(), strict=True):
                deltas.move(collection, tag_id, before, after, n)
    _delete_tags(*_pairs(gone, images))
    pairs = zip(*_pairs(come, images), strict=True)
    rows = [(pk, tag, proposed, run_id, scores[i]) for (pk, tag), i in zip(pairs, at, strict=True)]
    store._insert(ImageTag, ("image_id", "tag_id", "state", "run_id", "score"), rows)
    deltas.apply()


def _pairs(keys: npt.NDArray[np.int64], images: npt.NDArray[np.int64]) -> tuple[list[int], list[int]]:
    return images[keys >> _BITS].tolist(), (keys & ((1 << _BITS) - 1)).tolist()


def _standing(ids: Sequence[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The tags on these images: (place of the image among `ids`, tag) as one number, and their states. The database
    packs an image's tags into one text: a quarter of the cost of as many rows."""
    whole = "tag_id * 8 + state"
    packed = f"string_agg(({whole})::text, ',')" if _postgres() else f"group_concat({whole})"
    found: list[tuple[int, str]] = []
    with connection.cursor() as cursor:
        for some in _pieces(ids):
            cursor.execute(
                f"SELECT image_id, {packed} FROM {_table(ImageTag)} "
                f"WHERE image_id IN ({', '.join(['%s'] * len(some))}) GROUP BY image_id",
                some,
            )
            found += cursor.fetchall()
    places = {pk: place for place, pk in enumerate(ids)}
    place = np.repeat(
        np.array([places[pk] for pk, _ in found], dtype=np.int64), [text.count(",") + 1 for _, text in found]
    )
    both = np.fromstring(",".join([text for _, text in found]), dtype=np.int64, sep=",")
    return place << _BITS | both >> 3, both & 7


def _delete_tags(images: list[int], tags: list[int]) -> None:
    table = _table(ImageTag)
    with connection.cursor() as cursor:
        if images and _postgres():
            cursor.execute(
                f"DELETE FROM {table} USING unnest(%s::bigint[], %s::bigint[]) AS gone (image, tag) "
                f"WHERE image_id = gone.image AND tag_id = gone.tag",
                [images, tags],
            )
        elif images:
            cursor.executemany(
                f"DELETE FROM {table} WHERE image_id = %s AND tag_id = %s", list(zip(images, tags, strict=True))
            )


def _update(
    model: type[Model], types: Mapping[str, str], rows: Sequence[tuple[Any, ...]], same: Mapping[str, Any] | None = None
) -> None:
    """Set columns (`types`: name → PostgreSQL's type) of many rows, each given as (*values, id); `same` sets columns
    to one value in all of them. PostgreSQL takes all rows in one statement."""
    if not rows:
        return
    table, constant = _table(model), same or {}
    fixed = [f"{name} = %s" for name in constant]
    with connection.cursor() as cursor:
        if _postgres():
            sets = ", ".join([f"{name} = new.{name}::{kind}" for name, kind in types.items()] + fixed)
            arrays = ", ".join(f"%s::{'text' if kind == 'jsonb' else kind}[]" for kind in types.values())
            cursor.execute(
                f"UPDATE {table} SET {sets} FROM unnest({arrays}, %s::bigint[]) AS new ({', '.join(types)}, id) "
                f"WHERE {table}.id = new.id",
                [*constant.values(), *map(list, zip(*rows, strict=True))],
            )
        else:
            sets = ", ".join([f"{name} = %s" for name in types] + fixed)
            fill = tuple(constant.values())
            cursor.executemany(
                f"UPDATE {table} SET {sets} WHERE id = %s", [(*row[:-1], *fill, row[-1]) for row in rows]
            )


def _postgres() -> bool:
    return connection.vendor == "postgresql"


def _table(model: type[Model]) -> str:
    return connection.ops.quote_name(model._meta.db_table)


def _pieces(ids: Sequence[int], size: int = 500) -> Iterator[Sequence[int]]:
    for lo in range(0, len(ids), size):
        yield ids[lo : lo + size]
