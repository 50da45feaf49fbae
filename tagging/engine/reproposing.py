"""A policy applied to the stored predictions of a run, a slice at a time: computed first, then written in one short
transaction. No inference, no network; truth is never touched.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from django.db import connection
from django.db.models import TextField
from django.db.models.functions import Cast
from django.utils import timezone

from ..actions.counts import Deltas
from ..adapters.base import AdapterOptions, LabelSet, PackedScores, Reply, ScoredTag
from ..models import ImageAsset, ImageTag, Proposal, ProposalRevision, Run
from ..policy import bulk
from ..policy.pipeline import CompiledPolicy
from . import store, vocabulary
from .combining import Plan, results_of
from .propose import Proposed, Proposer, stored_labels

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
    flags: Any


class Kept(NamedTuple):
    """A tag that stays: what is needed to show it."""

    name: str
    category: str
    score: float | None
    ancestors: tuple[str, ...]


@dataclass(slots=True)
class Change:
    """A proposal that becomes another one. `old` names the tags that stayed before."""

    row: Row
    tags: str
    caption: str
    old: list[str]
    new: list[str]
    scores: Sequence[float | None]  # of `new`
    kept: Callable[[], list[Kept]]  # the same in full
    flags: list[str] | None = None  # None: they stay

    @property
    def state(self) -> str:
        return str(Proposal.State.OK if self.new or self.caption else Proposal.State.EMPTY)


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
    """One run's channels and a policy, ready to be applied again and again."""

    def __init__(self, run: Run, policy: CompiledPolicy, rule: Mapping[str, Any] | None = None) -> None:
        """`rule`: another combine rule than the recipe's. ModelUnavailable when an adapter of the run is not known
        here: its thresholds could not be asked. CombineError for a rule that does not go with its channels."""
        self._plan = Plan(run, policy=policy, rule=rule)
        self._rule_flag = [f"combine:{self._plan.spec.rule}"] if rule else []
        stage = self._plan.stages[0]
        self._adapter, self._options, self._policy = stage.adapter_class, stage.options, policy
        self._source = stage.channel.source
        self._proposer = Proposer(self._adapter, self._options, policy, source=self._source)
        self._bulk: dict[str, bulk.BulkPolicy] = {}
        self._bulk_fits = bulk.fits(policy)
        self._run = run
        self.tag_ids: dict[str, int] = {}  # of words met, for `prepare_shown`

    @property
    def problems(self) -> list[str]:
        """What was met on the way: patterns that took too long."""
        return self._policy.problems

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
                "flags",
            )[:limit]
        )
        return [Row(*row) for row in found]

    def apply(self, rows: Sequence[Row]) -> Slice:
        """What the policy makes of them. Pure; no query except for label sets met the first time."""
        result = Slice(last=rows[-1].id if rows else 0, done=len(rows))
        if self._plan.several:
            self._apply_channels(rows, result)
            return result
        quick = self._quick(rows)
        for row in rows:
            if row.state == Proposal.State.ERROR or row.prediction_id is None:
                result.skipped += 1
            elif (found := quick.get(row.id)) is not None:
                if found.tags == row.tags and not row.caption:
                    self._same(result, row, len(found.names))
                else:
                    kept = partial(self._kept_of_bulk, row.labels or "", found)
                    self._compare(result, Change(row, found.tags, "", [], found.names, found.scores, kept))
            else:
                proposed = self._proposer.propose(_reply(row), stored_labels(row.labels) if row.labels else None)
                text = json.dumps(proposed.tags_json(), ensure_ascii=False)
                names = [fate.name for fate in proposed.kept]
                scores = [fate.score for fate in proposed.kept]
                change = Change(row, text, proposed.caption, [], names, scores, partial(_kept, proposed))
                self._compare(result, change)
        return result

    def _apply_channels(self, rows: Sequence[Row], result: Slice) -> None:
        """The same for a run of several channels: what each of them said is combined anew."""
        results = results_of(self._run.pk, [row.image_id for row in rows], self._plan.last + 1)
        for row in rows:
            proposed = self._plan.repropose(results[row.image_id]) if row.image_id in results else ""
            if row.state == Proposal.State.ERROR or isinstance(proposed, str):
                result.skipped += 1
                continue
            text = json.dumps(proposed.tags_json(), ensure_ascii=False)
            names = [fate.name for fate in proposed.kept]
            scores = [fate.score for fate in proposed.kept]
            flags = [*proposed.flags, *self._rule_flag]
            change = Change(row, text, proposed.caption, [], names, scores, partial(_kept, proposed), flags)
            self._compare(result, change)

    def _same(self, result: Slice, row: Row, tags: int) -> None:
        result.unchanged.append(row.id)
        result.tags_before += tags
        result.tags_after += tags

    def _compare(self, result: Slice, change: Change) -> None:
        row = change.row
        before = json.loads(row.tags)
        change.old = [fate[0] for fate in before if fate[3] != "dropped"]
        same = row.tags == change.tags
        if not same and connection.vendor == "postgresql":  # which writes JSON in its own way
            same = before == json.loads(change.tags)
        if same and change.caption == row.caption and change.flags in (None, row.flags):
            self._same(result, row, len(change.new))
            return
        result.tags_before += len(change.old)
        result.tags_after += len(change.new)
        old, new = set(change.old), set(change.new)
        result.gained.update(new - old)
        result.lost.update(old - new)
        result.changes.append(change)

    def _kept_of_bulk(self, digest: str, found: bulk.Bulk) -> list[Kept]:
        prepared = self._bulk[digest]
        return [
            Kept(name, prepared.categories[i], score, prepared.ancestors[i])
            for name, i, score in zip(found.names, found.labels, found.scores, strict=True)
        ]

    def _quick(self, rows: Sequence[Row]) -> dict[int, bulk.Bulk]:
        """Outcomes of proposals that are nothing but scores, found many at once where the rules allow it."""
        if not self._bulk_fits:
            return {}
        by_group: dict[tuple[str, tuple[tuple[str, float], ...]], list[Row]] = {}
        lowest: dict[tuple[str, tuple[tuple[str, float], ...]], Mapping[str, float]] = {}
        for row in rows:
            if row.state != Proposal.State.ERROR and row.scores is not None and row.labels and not row.said_caption:
                thresholds = self._thresholds(stored_labels(row.labels), row.scores)
                key = (row.labels, tuple(sorted(thresholds.items())))
                lowest[key] = thresholds
                by_group.setdefault(key, []).append(row)
        found: dict[int, bulk.Bulk] = {}
        for key, group in by_group.items():
            digest = key[0]
            prepared = self._bulk.get(digest)
            if prepared is None:
                prepared = bulk.BulkPolicy(self._policy, stored_labels(digest), self._source)
                self._bulk[digest] = prepared
            outcomes = prepared.apply([row.scores for row in group if row.scores is not None], lowest[key])
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


def _kept(proposed: Proposed) -> list[Kept]:
    above = proposed.ancestors
    return [Kept(f.name, f.category, f.score, above.get(f.original or f.name, ())) for f in proposed.kept]


# -- the write -------------------------------------------------------------------------------------------------------
class Shown(NamedTuple):
    """A changed proposal on an image that shows it, ready to be written: tag id → score."""

    tags: dict[int, float | None]
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
    unknown = [change for change in shown if not known.keys() >= set(change.new)]
    names = {t.name: (t.category, t.ancestors) for change in unknown for t in change.kept() if t.name not in known}
    known.update(vocabulary.tag_ids(names))
    return {
        change.row.image_id: Shown(
            # of two words that are one tag the first counts
            {known[n]: s for n, s in zip(reversed(change.new), reversed(change.scores), strict=True) if n in known},
            max((score for score in change.scores if score is not None), default=None),
            change.state,
            change.caption,
        )
        for change in shown
    }


def write(run: Run, job_id: int, policy_version_id: int, part: Slice, shown: Mapping[int, Shown]) -> None:
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
        flagged = [(json.dumps(c.flags), c.row.id) for c in part.changes if c.flags not in (None, c.row.flags)]
        if flagged:
            cursor.executemany(f"UPDATE {table} SET flags = %s WHERE id = %s", flagged)
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


def _show(run: Run, shown: Mapping[int, Shown]) -> None:
    """Write the difference on the images that still show this run: tags, counters, caption, highest score.

    The images are locked in the order of their ids, as a person's decision locks them; what a person decided stays.
    """
    locked = ImageAsset.objects.select_for_update(no_key=True).filter(pk__in=list(shown), proposed_by=run)
    columns = ("pk", "collection_id", "caption_state", "caption", "top_score", "proposal_state")
    images = {row[0]: row[1:] for row in locked.order_by("pk").values_list(*columns)}
    if not images:
        return
    stood: dict[int, dict[int, int]] = {pk: {} for pk in images}
    there = ImageTag.objects.filter(image_id__in=list(images)).values_list("image_id", "tag_id", "state")
    for image_id, tag_id, state in there:
        stood[image_id][tag_id] = state
    proposed, deltas = ImageTag.State.PROPOSED, Deltas()
    gone: list[tuple[int, int]] = []
    come: list[tuple[int, int, int, int, float | None]] = []
    captions: list[tuple[str, str, int]] = []
    fields: list[tuple[str, float | None, int]] = []
    for pk, (collection, caption_state, caption, top_score, state) in images.items():
        new, old = shown[pk], stood[pk]
        for tag_id in [t for t, s in old.items() if s == proposed and t not in new.tags]:
            gone.append((pk, tag_id))
            deltas.move(collection, tag_id, proposed, None)
        for tag_id in sorted(new.tags.keys() - old.keys()):
            come.append((pk, tag_id, proposed.value, run.pk, new.tags[tag_id]))
            deltas.move(collection, tag_id, None, proposed)
        if caption_state in ("", "proposed") and new.caption != caption:
            captions.append((new.caption.replace("\x00", ""), "proposed" if new.caption else "", pk))
        if (state, top_score) != (new.state, new.top_score):
            fields.append((new.state, new.top_score, pk))
    table, image_table = (connection.ops.quote_name(m._meta.db_table) for m in (ImageTag, ImageAsset))
    with connection.cursor() as cursor:
        if gone:
            cursor.executemany(f"DELETE FROM {table} WHERE image_id = %s AND tag_id = %s", gone)
        if captions:
            cursor.executemany(f"UPDATE {image_table} SET caption = %s, caption_state = %s WHERE id = %s", captions)
        if fields:
            cursor.executemany(f"UPDATE {image_table} SET proposal_state = %s, top_score = %s WHERE id = %s", fields)
    store._insert(ImageTag, ("image_id", "tag_id", "state", "run_id", "score"), come)
    deltas.apply()


def _pieces(ids: Sequence[int], size: int = 500) -> Iterator[Sequence[int]]:
    for lo in range(0, len(ids), size):
        yield ids[lo : lo + size]
