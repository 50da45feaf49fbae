"""The one writer of results: predictions, proposals, shown tags and counters, in one short fenced transaction.

Rows go through `executemany` (model objects cost five to thirty times as much, measured); everything that can be
prepared is prepared before the transaction begins.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import IntegrityError, connection, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from ..actions.counts import Deltas
from ..adapters.base import LabelSet, Reply
from ..models import ChannelResult, Chunk, ImageAsset, ImageTag, Prediction, Proposal, Run, StoredLabelSet
from . import leases, purse, vocabulary
from .leases import LeaseLost
from .propose import Proposed

State = ImageTag.State
#: flag of a proposal whose merging model gave nothing usable
FALLBACK = "merge_fallback"


@dataclass(slots=True)
class Result:
    """What a run has to say of one image. Either `error`, or `proposed` with the reply it rests on: `reply` new under
    `key`, or `prediction_id` of a cached one.

    Of one channel of several there is no proposal: `said` is the state of its ChannelResult then (ok, empty, error,
    skipped; `error` the note). A proposal that combines them `rests_on` the first one's prediction; where a model
    merged them, `merged` is the state of that one's ChannelResult and `reply` or `prediction_id` its answer.
    """

    image_id: int
    proposed: Proposed | None = None
    error: str = ""
    key: str = ""
    sha256: str = ""
    reply: Reply | None = None
    prediction_id: int | None = None
    source: str = "original"
    flags: list[str] = field(default_factory=list)
    said: str = ""
    rests_on: int | None = None
    merged: str = ""
    note: str = ""

    @property
    def state(self) -> str:
        if self.said:
            return self.said
        if self.proposed is None:
            return Proposal.State.ERROR
        return Proposal.State.EMPTY if self.proposed.empty else Proposal.State.OK


@dataclass(slots=True)
class Batch:
    """Results that are written together. `gone` counts images whose rows were deleted since the run began: they have
    no proposal, and are counted as errors so that the chunk can end."""

    results: list[Result] = field(default_factory=list)
    gone: int = 0
    seconds: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.results or self.gone)


@dataclass(frozen=True, slots=True)
class Inflight:
    """The image that is tried alone next, and how often it has been."""

    image_id: int | None = None
    times: int = 0


def store_labels(labels: LabelSet) -> str:
    """Keep the label set under its digest; the digest."""
    if not StoredLabelSet.objects.filter(digest=labels.digest).exists():
        StoredLabelSet.objects.bulk_create(
            [
                StoredLabelSet(
                    digest=labels.digest,
                    names=list(labels.names),
                    categories=list(labels.categories),
                    parents=list(labels.parents),
                    published=dict(labels.published),
                )
            ],
            ignore_conflicts=True,
        )
    return labels.digest


def commit(chunk: Chunk, run: Run, batch: Batch, *, labels: LabelSet | None, inflight: Inflight | None = None) -> str:
    """Write the batch, move the chunk's counters and renew its lease, all or nothing; the run's state then.

    Raises LeaseLost when the claim is no longer valid: nothing was written. Rows that vanished under way (an image or a
    tag that a person deleted) are sorted out and the batch is written without them.
    """
    for attempt in range(3):
        tag_ids = vocabulary.tag_ids(_names(batch.results)) if run.shown else {}
        try:
            with transaction.atomic():
                return _write(chunk, run, batch, labels, tag_ids, inflight or Inflight())
        except IntegrityError:
            if attempt == 2:
                raise
            vocabulary.forget()
            _drop_gone(batch)
    raise AssertionError("unreachable")


def _names(results: Iterable[Result]) -> dict[str, tuple[str, tuple[str, ...]]]:
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for result in results:
        if result.proposed:
            for fate in result.proposed.kept:
                if not vocabulary.known(fate.name) and fate.name not in found:
                    found[fate.name] = (fate.category, result.proposed.ancestors.get(fate.original or fate.name, ()))
    return found


def _drop_gone(batch: Batch) -> None:
    ids = [r.image_id for r in batch.results]
    there = set(ImageAsset.objects.filter(pk__in=ids).values_list("pk", flat=True))
    batch.gone += sum(i not in there for i in ids)
    batch.results = [r for r in batch.results if r.image_id in there]
    cached = [r.prediction_id for r in batch.results if r.prediction_id]
    known = set(Prediction.objects.filter(pk__in=cached).values_list("pk", flat=True))
    for result in batch.results:
        if result.prediction_id and result.prediction_id not in known:
            result.prediction_id = None
        if result.rests_on and not Prediction.objects.filter(pk=result.rests_on).exists():
            result.rests_on = None


def _write(
    chunk: Chunk, run: Run, batch: Batch, labels: LabelSet | None, tag_ids: dict[str, int], inflight: Inflight
) -> str:
    states = [r.state for r in batch.results]
    cached = sum(1 for r in batch.results if r.prediction_id is not None)
    fenced = leases.held(chunk).update(
        n_ok=F("n_ok") + states.count("ok"),
        n_empty=F("n_empty") + states.count("empty"),
        n_error=F("n_error") + states.count("error") + batch.gone,
        n_skipped=F("n_skipped") + states.count("skipped"),
        n_fallback=F("n_fallback") + sum(FALLBACK in r.flags for r in batch.results),
        n_cached=F("n_cached") + cached,
        seconds=F("seconds") + batch.seconds,
        touched_at=Now(),
        lease_until=leases.lease_end(),
        inflight=inflight.image_id,
        inflight_n=inflight.times,
        attempts=1 if batch else F("attempts"),  # progress: the claims so far were not in vain
    )
    if not fenced:
        raise LeaseLost(chunk.pk)
    if batch.results:
        now = timezone.now()
        proposals = [r for r in batch.results if not r.said]
        images = _lock_images(proposals) if run.shown else {}
        if run.shown and len(images) < len({r.image_id for r in proposals}):
            raise IntegrityError("an image was deleted")
        predictions = _insert_predictions(run.pk, batch.results, labels, now)
        _insert_channel_results(run, chunk.stage, batch.results, predictions)
        _insert_proposals(run, proposals, predictions, now)
        if run.shown and proposals:
            show(run.pk, proposals, images, tag_ids)
    if run.budget is not None:
        purse.pause_when_spent(run.pk)
    return str(Run.objects.values_list("state", flat=True).get(pk=run.pk))


def _lock_images(results: Sequence[Result]) -> dict[int, tuple[int, str, str, float | None]]:
    """Image → (collection, caption state, rating, its score); the same lock, in the same order, as a person's decision
    takes."""
    rows = ImageAsset.objects.select_for_update(no_key=True).filter(pk__in=[r.image_id for r in results])
    columns = ("pk", "collection_id", "caption_state", "rating", "rating_score")
    return {row[0]: row[1:] for row in rows.order_by("pk").values_list(*columns)}


_PREDICTION = (
    "key image_sha256 run_id labels_id scores tags caption rating rating_score text tokens_in tokens_out cost "
    "currency finish_reason seconds flags source created_at"
).split()
_PROPOSAL = (
    "run_id image_id state tags caption rating rating_score error prediction_id flags policy_version_id created_at"
).split()


def _insert(model: type[Any], columns: Sequence[str], rows: Sequence[Sequence[Any]], conflict: str = "") -> None:
    """Plain rows into a model's table; the values are as the database driver takes them.

    PostgreSQL takes them by COPY where nothing can conflict (measured: 0.75 instead of 1.1 ms an image in all).
    """
    if not rows:
        return
    quote = connection.ops.quote_name
    table, names = quote(model._meta.db_table), ", ".join(map(quote, columns))
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql" and not conflict:
            with connection.wrap_database_errors, cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
        else:
            values = ", ".join(["%s"] * len(columns))
            cursor.executemany(f"INSERT INTO {table} ({names}) VALUES ({values}) {conflict}", rows)


def _time(value: datetime) -> Any:
    return connection.ops.adapt_datetimefield_value(value)


def _insert_predictions(
    run_id: int | None, results: Sequence[Result], labels: LabelSet | None, now: datetime
) -> dict[str, int]:
    """New replies under their keys; key → id. One that another worker stored first is taken as it is."""
    new = {r.key: r for r in results if r.reply is not None and r.key}
    if not new:
        return {}
    at, digest = _time(now), labels.digest if labels else None
    rows = []
    for key, result in sorted(new.items(), key=lambda item: item[0]):  # one order for all workers: no deadlock
        reply = result.reply
        assert reply is not None
        rating, rating_score = reply.rating or ("", None)
        rows.append(
            (
                key,
                result.sha256,
                run_id,
                digest if reply.scores is not None else None,
                reply.scores.to_bytes() if reply.scores is not None else None,
                json.dumps([[t.name, t.category, t.score] for t in reply.tags]) if reply.tags else None,
                _text(reply.caption or ""),
                rating[:32],
                rating_score,
                _text(reply.text),
                reply.tokens_in,
                reply.tokens_out,
                reply.cost,
                reply.currency or None,
                reply.finish_reason[:20],
                reply.seconds,
                json.dumps(list(reply.flags)),
                result.source,
                at,
            )
        )
    _insert(Prediction, _PREDICTION, rows, "ON CONFLICT (key) DO NOTHING")
    if run_id is not None:
        purse.count(run_id, [r.reply for r in new.values() if r.reply])
    return dict(Prediction.objects.filter(key__in=list(new)).values_list("key", "pk"))


def _text(value: str) -> str:
    """PostgreSQL takes no NUL in text."""
    return value.replace("\x00", "")


def _insert_proposals(run: Run, results: Sequence[Result], predictions: dict[str, int], now: datetime) -> None:
    policy, at = run.recipe.policy_version_id, _time(now)
    rows = []
    for r in results:
        p = r.proposed or Proposed()
        rows.append(
            (
                run.pk,
                r.image_id,
                r.state,
                json.dumps(p.tags_json(), ensure_ascii=False),
                _text(p.caption),
                p.rating[:32],
                p.rating_score,
                _text(r.error)[:2000],
                r.rests_on if r.merged else r.rests_on or r.prediction_id or predictions.get(r.key),
                json.dumps(r.flags),
                policy,
                at,
            )
        )
    _insert(Proposal, _PROPOSAL, rows)


def _insert_channel_results(run: Run, stage: int, results: Sequence[Result], predictions: dict[str, int]) -> None:
    """What one channel (or the merging model) came to, image by image."""
    rows = []
    for r in results:
        if state := r.said or r.merged:
            note = "" if state in ("ok", "empty") else _text(r.error or r.note)[:2000]
            rows.append((run.pk, stage, r.image_id, state, r.prediction_id or predictions.get(r.key), note))
    _insert(ChannelResult, ("run_id", "stage", "image_id", "state", "prediction_id", "note"), rows)


def add_results(run: Run, results: Sequence[Result]) -> None:
    """Predictions and proposals of a run that no worker computes, inside the caller's transaction. Nothing is shown
    for review, and no chunk is counted."""
    now = timezone.now()
    _insert_proposals(run, results, _insert_predictions(run.pk, results, None, now), now)


def add_predictions(results: Sequence[Result], labels: LabelSet | None, run_id: int | None = None) -> dict[str, int]:
    """Replies that belong to no chunk, in a transaction of their own; key → id. `run_id`: the run they are made for."""
    with transaction.atomic():
        return _insert_predictions(run_id, results, labels, timezone.now())


# -- what review shows ------------------------------------------------------------------------------------------------
def show(
    run_id: int,
    results: Sequence[Result],
    images: dict[int, tuple[int, str, str, float | None]],
    tag_ids: dict[str, int],
) -> None:
    """Make these results the proposals in force on their images; what a person decided stays as it is.

    Inside a transaction that holds the images' locks (`images` as `_lock_images` gives them).
    """
    ids = [r.image_id for r in results]
    before: dict[int, dict[int, int]] = {i: {} for i in ids}
    for image_id, tag_id, state in ImageTag.objects.filter(image_id__in=ids).values_list("image_id", "tag_id", "state"):
        before[image_id][tag_id] = state
    proposed, rows = State.PROPOSED.value, []
    more: Counter[tuple[int, int]] = Counter()  # (collection, tag) → images more that carry it
    for result in results:
        image_id, stood = result.image_id, before[result.image_id]
        collection = images[image_id][0]
        new: dict[int, float | None] = {}
        for fate in result.proposed.kept if result.proposed else ():
            known = tag_ids.get(fate.name)
            if known is not None and stood.get(known, proposed) == proposed:
                new.setdefault(known, fate.score)
        rows += [(image_id, tag_id, proposed, run_id, score) for tag_id, score in new.items()]
        more.update([(collection, tag_id) for tag_id in new])
        more.subtract([(collection, tag_id) for tag_id, state in stood.items() if state == proposed])
    deltas = Deltas()
    for (collection, tag_id), n in more.items():
        deltas.move(collection, tag_id, None, State.PROPOSED, n)
    if any(State.PROPOSED in stood.values() for stood in before.values()):
        ImageTag.objects.filter(image_id__in=ids, state=State.PROPOSED).delete()
    rows.sort()
    _insert(ImageTag, ("image_id", "tag_id", "state", "run_id", "score"), rows)
    deltas.apply()
    _update_images(run_id, results, images)


def _update_images(
    run_id: int, results: Sequence[Result], images: dict[int, tuple[int, str, str, float | None]]
) -> None:
    """What the grid and the review screen show; a caption or rating that a person set stays."""
    rows, captions, ratings = [], [], []
    for r in results:
        _, caption_state, rating, rating_score = images[r.image_id]
        p = r.proposed or Proposed()
        rows.append((run_id, r.state, p.top_score, r.image_id))
        if caption_state in ("", "proposed") and (p.caption or caption_state):
            captions.append((_text(p.caption), "proposed" if p.caption else "", r.image_id))
        if (not rating or rating_score is not None) and (p.rating or rating):
            ratings.append((p.rating[:32], p.rating_score, r.image_id))
    table = connection.ops.quote_name(ImageAsset._meta.db_table)
    with connection.cursor() as cursor:
        cursor.executemany(
            f"UPDATE {table} SET proposed_by_id = %s, proposal_state = %s, top_score = %s WHERE id = %s", rows
        )
        if captions:
            cursor.executemany(f"UPDATE {table} SET caption = %s, caption_state = %s WHERE id = %s", captions)
        if ratings:
            cursor.executemany(f"UPDATE {table} SET rating = %s, rating_score = %s WHERE id = %s", ratings)
