"""A policy applied to the stored predictions of a run, a slice at a time: computed first, then written in one short
transaction. No inference, no network; truth is never touched.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from django.db import connection
from django.db.models import TextField
from django.db.models.functions import Cast
from django.utils import timezone

from ..adapters.base import AdapterOptions, LabelSet, PackedScores, Reply, ScoredTag
from ..models import Channel, ImageAsset, Proposal, ProposalRevision, Run
from ..policy import bulk
from ..policy.pipeline import CompiledPolicy
from . import store, vocabulary
from .propose import Proposer, stored_labels
from .stage import Stage
from .store import Result

#: proposals per transaction: other writers wait this long at most (about a fifth of a second)
SLICE = 1000


class Row(NamedTuple):
    """A proposal with the prediction it rests on, as plain values. JSON columns are text."""

    id: int
    image_id: int
    state: str
    tags: str
    caption: str
    prediction_id: int | None
    labels: str | None
    scores: bytes | memoryview | None
    said: Any
    said_caption: str
    rating: str
    rating_score: float | None
    text: str


@dataclass(slots=True)
class Change:
    """A proposal that becomes another one. `new` and `old` name the tags that stay."""

    row: Row
    tags: str
    caption: str
    state: str
    old: list[str]
    new: list[str]


@dataclass(slots=True)
class Slice:
    """What a policy makes of some proposals."""

    last: int = 0  # the highest proposal id that was looked at
    done: int = 0
    skipped: int = 0
    unchanged: list[int] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    tags_before: int = 0
    tags_after: int = 0
    gained: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)


class Reproposer:
    """One run's channel and a policy, ready to be applied again and again."""

    def __init__(self, run: Run, policy: CompiledPolicy) -> None:
        """Raises ModelUnavailable when the run's adapter is not known here: its thresholds could not be asked."""
        channel = Channel.objects.select_related("adapter", "prompt_version").get(recipe_id=run.recipe_id, position=0)
        stage = Stage(run, channel)
        self._adapter, self._options, self._policy = stage.adapter_class, stage.options, policy
        self._source = channel.adapter.slug
        self._proposer = Proposer(self._adapter, self._options, policy, source=self._source)
        self._bulk: dict[str, bulk.BulkPolicy] = {}
        self._bulk_fits = bulk.fits(policy)
        self._run = run

    def rows(self, after: int, limit: int) -> list[Row]:
        """The next proposals of the run by id, with their predictions: one query."""
        found = (
            Proposal.objects.filter(run=self._run, pk__gt=after)
            .order_by("pk")
            .values_list(
                "pk",
                "image_id",
                "state",
                Cast("tags", TextField()),
                "caption",
                "prediction_id",
                "prediction__labels_id",
                "prediction__scores",
                "prediction__tags",
                "prediction__caption",
                "prediction__rating",
                "prediction__rating_score",
                "prediction__text",
            )[:limit]
        )
        return [Row(*row) for row in found]

    def apply(self, rows: Sequence[Row]) -> Slice:
        """What the policy makes of them. Pure; no query except for label sets met the first time."""
        result = Slice(last=rows[-1].id if rows else 0, done=len(rows))
        quick = self._quick(rows)
        for row in rows:
            if row.state == Proposal.State.ERROR or row.prediction_id is None:
                result.skipped += 1
                continue
            found = quick.get(row.id)
            if found is not None and found.tags == row.tags and not row.caption:
                result.unchanged.append(row.id)
                result.tags_before += len(found.names)
                result.tags_after += len(found.names)
                continue
            if found is not None:
                self._compare(result, row, found.tags, found.names, "")
            else:
                proposed = self.propose(row)
                text = json.dumps(proposed.tags_json(), ensure_ascii=False)
                self._compare(result, row, text, [f.name for f in proposed.kept], proposed.caption)
        return result

    def propose(self, row: Row) -> Any:
        """The ordinary pipeline for one proposal."""
        labels = stored_labels(row.labels) if row.labels else None
        return self._proposer.propose(_reply(row), labels)

    def result(self, row: Row) -> Result:
        """As the store takes it, to show it on its image."""
        return Result(row.image_id, self.propose(row), prediction_id=row.prediction_id)

    def _compare(self, result: Slice, row: Row, tags: str, new: list[str], caption: str) -> None:
        before = json.loads(row.tags)
        old = [fate[0] for fate in before if fate[3] != "dropped"]
        result.tags_before += len(old)
        result.tags_after += len(new)
        if caption == row.caption and before == json.loads(tags):
            result.unchanged.append(row.id)
            return
        result.gained.update(set(new) - set(old))
        result.lost.update(set(old) - set(new))
        state = Proposal.State.OK if new or caption else Proposal.State.EMPTY
        result.changes.append(Change(row, tags, caption, str(state), old, new))

    def _quick(self, rows: Sequence[Row]) -> dict[int, bulk.Bulk]:
        """Outcomes of proposals that are nothing but scores, found many at once where the rules allow it."""
        if not self._bulk_fits:
            return {}
        by_group: dict[tuple[str, tuple[tuple[str, float], ...]], list[Row]] = {}
        for row in rows:
            if row.state != Proposal.State.ERROR and row.scores is not None and row.labels and not row.said_caption:
                thresholds = self._thresholds(stored_labels(row.labels), row.scores)
                by_group.setdefault((row.labels, tuple(sorted(thresholds.items()))), []).append(row)
        found: dict[int, bulk.Bulk] = {}
        for (digest, thresholds), group in by_group.items():
            prepared = self._bulk.get(digest)
            if prepared is None:
                prepared = bulk.BulkPolicy(self._policy, stored_labels(digest), self._source)
                self._bulk[digest] = prepared
            outcomes = prepared.apply([row.scores for row in group if row.scores is not None], dict(thresholds))
            found.update((row.id, o) for row, o in zip(group, outcomes, strict=True) if o is not None)
        return found

    def _thresholds(self, labels: LabelSet, blob: bytes | memoryview) -> Mapping[str, float]:
        """The adapter's thresholds for one image (some of them depend on its scores)."""
        packed = PackedScores.from_bytes(bytes(blob))
        scores = np.zeros(len(labels.names), dtype=np.float32)
        scores[packed.labels] = packed.probabilities
        options: AdapterOptions = self._options
        return self._adapter.thresholds(labels, scores, options)


def _reply(row: Row) -> Reply:
    return Reply(
        scores=PackedScores.from_bytes(bytes(row.scores)) if row.scores is not None else None,
        tags=tuple(ScoredTag(*tag) for tag in row.said or ()),
        caption=row.said_caption or None,
        rating=(row.rating, row.rating_score or 0.0) if row.rating else None,
        text=row.text or "",
    )


# -- the write -------------------------------------------------------------------------------------------------------
class Shown(NamedTuple):
    """What is needed to show changed proposals, prepared before the transaction."""

    results: dict[int, Result]  # by image
    tag_ids: dict[str, int]


def prepare_shown(run: Run, reproposer: Reproposer, changes: Sequence[Change]) -> Shown:
    """Results and tag ids of the changed proposals that their images show now. New words become tags here."""
    ids = [c.row.image_id for c in changes]
    shown = set(ImageAsset.objects.filter(pk__in=ids, proposed_by=run).values_list("pk", flat=True))
    results = {c.row.image_id: reproposer.result(c.row) for c in changes if c.row.image_id in shown}
    names: dict[str, tuple[str, tuple[str, ...]]] = {}
    for result in results.values():
        if result.proposed:
            for fate in result.proposed.kept:
                names.setdefault(
                    fate.name, (fate.category, result.proposed.ancestors.get(fate.original or fate.name, ()))
                )
    return Shown(results, vocabulary.tag_ids(names))


def write(run: Run, job_id: int, policy_version_id: int, part: Slice, shown: Shown) -> None:
    """Keep the old proposals, write the new ones and show them. Inside the caller's transaction."""
    ids = [change.row.id for change in part.changes]
    for some in _pieces(part.unchanged):
        Proposal.objects.filter(pk__in=some).exclude(policy_version=policy_version_id).update(
            policy_version=policy_version_id
        )
    if not ids:
        return
    for some in _pieces(ids):
        _keep(some, job_id)
    table = connection.ops.quote_name(Proposal._meta.db_table)
    with connection.cursor() as cursor:
        cursor.executemany(
            f"UPDATE {table} SET tags = %s, caption = %s, state = %s, policy_version_id = %s WHERE id = %s",
            [(c.tags, c.caption.replace("\x00", ""), c.state, policy_version_id, c.row.id) for c in part.changes],
        )
    _show(run, shown)


def _keep(ids: Sequence[int], job_id: int) -> None:
    """Copy proposals into their history, inside the database."""
    quote = connection.ops.quote_name
    old, new = quote(Proposal._meta.db_table), quote(ProposalRevision._meta.db_table)
    now = connection.ops.adapt_datetimefield_value(timezone.now())
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {new} (proposal_id, job_id, policy_version_id, state, tags, caption, replaced_at) "
            f"SELECT id, %s, policy_version_id, state, tags, caption, %s FROM {old} "
            f"WHERE id IN ({', '.join(['%s'] * len(ids))})",
            [job_id, now, *ids],
        )


def _show(run: Run, shown: Shown) -> None:
    """Replace what is proposed on the images that still show this run; they are locked as a person's decision does."""
    if not shown.results:
        return
    locked = ImageAsset.objects.select_for_update(no_key=True).filter(pk__in=list(shown.results), proposed_by=run)
    columns = ("pk", "collection_id", "caption_state", "rating", "rating_score")
    images = {row[0]: row[1:] for row in locked.order_by("pk").values_list(*columns)}
    results = [shown.results[pk] for pk in images]
    if results:
        store.show(run.pk, results, images, shown.tag_ids)


def _pieces(ids: Sequence[int], size: int = 500) -> Iterator[Sequence[int]]:
    for lo in range(0, len(ids), size):
        yield ids[lo : lo + size]
