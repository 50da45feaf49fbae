"""A policy applied to the stored predictions of a run, a slice at a time: computed here, then written in one short
transaction (`rewriting`). No inference, no network; truth is never touched.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from django.db import connection
from django.db.models import TextField
from django.db.models.functions import Cast

from ..adapters.base import LabelSet, PackedScores, Reply, ScoredTag
from ..models import Proposal, Run
from ..policy import bulk, fates
from ..policy.pipeline import CompiledPolicy
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
    said: str | None
    said_caption: str
    rating: str
    rating_score: float | None
    text: str
    flags: str


class Kept(NamedTuple):
    """A tag that stays: what is needed to show it."""

    name: str
    category: str
    score: float | None
    ancestors: tuple[str, ...]


@dataclass(slots=True)
class Change:
    """A proposal that becomes another one."""

    row: Row
    tags: str
    caption: str
    new: list[str]  # the tags that stay
    scores: Sequence[float | None]  # of `new`
    kept: Callable[[], list[Kept]]  # the same in full
    flags: list[str] | None = None  # None: they stay

    @property
    def old(self) -> list[str]:
        """The tags that stayed before."""
        return fates.standing(self.row.tags)

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
        self._thresholds_vary = self._adapter.thresholds_vary(self._options)
        self._scores: dict[str, npt.NDArray[np.float32]] = {}
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
                Cast("prediction__tags", TextField()),
                "prediction__caption",
                "prediction__rating",
                "prediction__rating_score",
                "prediction__text",
                Cast("flags", TextField()),
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
                    self._compare(result, Change(row, found.tags, "", found.names, found.scores, kept))
            else:
                proposed = self._proposer.propose(_reply(row), stored_labels(row.labels) if row.labels else None)
                text = json.dumps(proposed.tags_json(), ensure_ascii=False)
                names = [fate.name for fate in proposed.kept]
                scores = [fate.score for fate in proposed.kept]
                change = Change(row, text, proposed.caption, names, scores, partial(_kept, proposed))
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
            change = Change(row, text, proposed.caption, names, scores, partial(_kept, proposed), flags)
            self._compare(result, change)

    def _same(self, result: Slice, row: Row, tags: int) -> None:
        result.unchanged.append(row.id)
        result.tags_before += tags
        result.tags_after += tags

    def _compare(self, result: Slice, change: Change) -> None:
        row = change.row
        same = row.tags == change.tags
        found = fates.Differences(len(change.new), [], [])
        if not same:
            found = fates.differences(row.tags, change.tags, change.new)
            if connection.vendor == "postgresql" and not found.gained and not found.lost:
                same = json.loads(row.tags) == json.loads(change.tags)  # it writes JSON in its own way
        if change.flags is not None and change.flags == json.loads(row.flags):
            change.flags = None
        if same and change.caption == row.caption and change.flags is None:
            self._same(result, row, len(change.new))
            return
        result.tags_before += found.before
        result.tags_after += len(change.new)
        result.gained.update(found.gained)
        result.lost.update(found.lost)
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
        fixed: dict[str, tuple[str, tuple[tuple[str, float], ...]]] = {}  # label set → its only group
        for row in rows:
            if row.state != Proposal.State.ERROR and row.scores is not None and row.labels and not row.said_caption:
                key = fixed.get(row.labels)
                if key is None:
                    thresholds = self._thresholds(stored_labels(row.labels), row.scores)
                    key = (row.labels, tuple(sorted(thresholds.items())))
                    lowest[key] = thresholds
                    if not self._thresholds_vary:
                        fixed[row.labels] = key
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
        scores = self._scores.get(labels.digest)  # one array for all images: zeroing it for each costs more
        if scores is None:
            scores = self._scores[labels.digest] = np.zeros(len(labels.names), dtype=np.float32)
        packed = PackedScores.from_bytes(bytes(blob))
        scores[packed.labels] = packed.probabilities
        try:
            return self._adapter.thresholds(labels, scores, self._options)
        finally:
            scores[packed.labels] = 0


def _reply(row: Row) -> Reply:
    return Reply(
        scores=PackedScores.from_bytes(bytes(row.scores)) if row.scores is not None else None,
        tags=tuple(ScoredTag(*tag) for tag in json.loads(row.said or "null") or ()),
        caption=row.said_caption or None,
        rating=(row.rating, row.rating_score or 0.0) if row.rating else None,
        text=row.text or "",
    )


def _kept(proposed: Proposed) -> list[Kept]:
    above = proposed.ancestors
    return [Kept(f.name, f.category, f.score, above.get(f.original or f.name, ())) for f in proposed.kept]
