"""Start, pause, resume, cancel, retry: one conditional UPDATE each, then the bell."""

from __future__ import annotations

import os
import sys
from array import array
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Count, F, QuerySet
from django.utils import timezone

from prompts.rendering import wordlists_used

from .. import queue
from ..engine.contexts import newest_lists
from ..engine.identity import model_key
from ..engine.leases import finish, open_waiting, tell_ended
from ..engine.purse import reason
from ..engine.store import FALLBACK
from ..models import Channel, ChannelResult, Chunk, Collection, ImageAsset, ModelAdapter, Proposal, Recipe, Run
from .costs import check_priced, price_currency

State = Run.State
#: Drain tokens rung for at a start: a cluster hoards two, so that fewer could leave a second host idle.
TOKENS = 3
#: Priorities lie between this and its negative.
HIGHEST_PRIORITY = 1000
HIGHEST_SAMPLE = 999


class NotNow(Exception):
    """The run's state does not allow this. The text says what does."""


def start_run(
    recipe: Recipe,
    *,
    collection: Collection | None = None,
    images: QuerySet[ImageAsset] | None = None,
    name: str = "",
    shown: bool | None = None,
    priority: int = 0,
    sample: int = 0,
    purpose: str = Run.Purpose.TAGGING,
    budget: Decimal | float | str | None = None,
    by: User | None = None,
) -> Run:
    """A run of the recipe over the images as they are now: the list is frozen, in the order of their ids.

    `images` default to the collection's usable ones. `shown`: its proposals are what review shows; that is so for
    tagging unless it is said otherwise, and not for trials and experiments. `sample`: which answer of several to the
    same question. Wordlists that the prompts write out count as they are now. `budget`: what its own calls may cost, in
    the currency of the recipe's prices; the run pauses there. Raises ValidationError, keyed by the argument, where
    there are no images, a prompt's list is gone, or a budget has no price to be counted by.
    """
    if purpose not in Run.Purpose.values:
        raise ValidationError({"purpose": f"{purpose!r} is none of {', '.join(Run.Purpose.values)}."})
    if not 0 <= sample <= HIGHEST_SAMPLE:
        raise ValidationError({"sample": f"A number from 0 to {HIGHEST_SAMPLE}."})
    if abs(priority) > HIGHEST_PRIORITY:
        raise ValidationError({"priority": f"The priority is a number from {-HIGHEST_PRIORITY} to {HIGHEST_PRIORITY}."})
    if images is None:
        if collection is None:
            raise ValidationError({"collection": "Name a collection or images."})
        images = ImageAsset.objects.filter(collection=collection).usable()
    ids = array("q", _ids(images))
    if not ids:
        raise ValidationError({"images": "There is no image to run on. Index the collection, or widen the filter."})
    channels = list(
        Channel.objects.filter(recipe=recipe).select_related("adapter", "prompt_version").order_by("position")
    )
    lists = _lists(channels)
    limit, currency = _budget(budget), price_currency(channels)
    if limit is not None:
        check_priced(channels)
    with transaction.atomic():
        run = Run.objects.create(
            recipe=recipe,
            collection=collection,
            name=name or _name(recipe, channels, collection),
            shown=purpose == Run.Purpose.TAGGING if shown is None else shown,
            priority=priority,
            sample=sample,
            purpose=purpose,
            wordlists=lists,
            n_total=len(ids),
            budget=limit,
            currency=currency,
            created_by=by,
        )
        Chunk.objects.bulk_create(stage_chunks(run, ids, channels), batch_size=100)
        ModelAdapter.objects.filter(channels__in=channels).update(last_used_at=timezone.now())
    _ring(run, Chunk.State.PENDING)
    return run


def _ids(images: QuerySet[ImageAsset]) -> Iterable[int]:
    """Primary keys in order; a page that was cut out of a list is sorted here."""
    if images.query.is_sliced:
        return sorted(set(images.values_list("pk", flat=True)))
    return images.order_by("pk").values_list("pk", flat=True).distinct().iterator(chunk_size=5000)


def _lists(channels: Iterable[Channel]) -> dict[str, int]:
    """The newest version of each list that the prompts write out: a run asks the same to its end."""
    versions = [c.prompt_version for c in channels if c.prompt_version]
    slugs = {slug for v in versions for text in (v.system, v.template) for slug in wordlists_used(text)}
    found = newest_lists(slugs) if slugs else {}
    if missing := sorted(slugs - found.keys()):
        raise ValidationError({"prompt": f"The prompt writes out the list {missing[0]!r}, which has no words yet."})
    return found


def _name(recipe: Recipe, channels: list[Channel], collection: Collection | None) -> str:
    what = recipe.name or " + ".join(c.adapter.label for c in channels)
    return f"{what} on {collection}"[:160] if collection else what[:160]


def chunk_size(images: int, queue: str = "gpu") -> int:
    """256 images; fewer in short runs, so that the first results come soon and two workers share the work.

    Remote endpoints answer many at once in any order, and each end of a chunk waits for the slowest: always 256 there.
    IWTAG_CHUNK_IMAGES sets another size, for tests.
    """
    given = int(os.environ.get("IWTAG_CHUNK_IMAGES", "0"))
    return given or (256 if images > 2048 or queue == "io" else 64 if images > 256 else 16)


def stage_chunks(run: Run, ids: array[int], channels: Sequence[Channel]) -> list[Chunk]:
    """The slices of the frozen list for all stages of the recipe, not saved. Those that need what another stage says
    wait for it."""
    queues = [channel.adapter.adapter_class.capabilities.queue for channel in channels]
    size = chunk_size(len(ids), queue.IO if queue.IO in queues else queue.GPU)
    if len(channels) == 1:
        return chunks(run, ids, size, 0, queues[0], model_key(channels[0]))
    found, at_once = [], run.recipe.combine.get("order", "parallel") == "parallel"
    for channel, name in zip(channels, queues, strict=True):
        waits = channel.role == Channel.Role.MERGE or (channel.position > 0 and not at_once)
        found += chunks(run, ids, size, channel.position, name, model_key(channel), waits=waits)
    if channels[-1].role != Channel.Role.MERGE:
        found += chunks(run, ids, size, len(channels), queue.DEFAULT, "", waits=True)
    return found


def chunks(
    run: Run, ids: array[int], size: int, stage: int, name: str, key: str, *, waits: bool = False
) -> list[Chunk]:
    """The slices of the frozen list for one stage, not saved."""
    found = []
    for lo in range(0, len(ids), size):
        part = ids[lo : lo + size]
        if sys.byteorder == "big":
            part.byteswap()
        found.append(
            Chunk(
                run=run,
                stage=stage,
                queue=name,
                model_key=key,
                state=Chunk.State.WAITING if waits else Chunk.State.PENDING,
                lo=lo,
                hi=lo + len(part),
                image_ids=part.tobytes(),
            )
        )
    return found


def pause(run: Run) -> None:
    """Workers put it down within a second; what is done stays. NotNow unless it is running."""
    _move(run, (State.RUNNING,), State.PAUSED, "paused")


def resume(run: Run) -> None:
    """Go on where it was paused. NotNow unless it is paused, and while its budget is spent."""
    row = Run.objects.only("budget", "spent", "currency").get(pk=run.pk)
    if row.budget is not None and row.spent >= float(row.budget):
        raise NotNow(reason(float(row.budget), row.spent, row.currency))
    _move(run, (State.PAUSED,), State.RUNNING, "resumed", error="")
    finish(run.pk)
    _ring(run)


def set_budget(run: Run, budget: Decimal | float | str | None) -> None:
    """What the run may cost from now on, all that it spent so far included; None: no limit. A run that paused for its
    budget stays paused until it is resumed. ValidationError; NotNow once it has ended."""
    limit = _budget(budget)
    if limit is not None:
        check_priced(Channel.objects.filter(recipe=run.recipe_id).select_related("adapter"))
    if not Run.objects.filter(pk=run.pk).exclude(state=State.DONE).update(budget=limit):
        raise NotNow(f"{run} has ended.")
    run.refresh_from_db()


def _budget(given: Decimal | float | str | None) -> Decimal | None:
    if given is None or given == "":
        return None
    try:
        found = Decimal(str(given)).quantize(Decimal("0.0001"))
    except InvalidOperation:
        raise ValidationError({"budget": f"{given!r} is no amount of money."}) from None
    if not (found.is_finite() and 0 < found < 10**8):
        raise ValidationError({"budget": "The budget is an amount above 0."})
    return found


def cancel(run: Run) -> None:
    """Stop for good; what is done stays, `retry_failed` goes on with the rest. NotNow once it has ended."""
    _move(run, (State.RUNNING, State.PAUSED), State.CANCELLED, "cancelled", finished_at=timezone.now())
    tell_ended(run.pk)


def retry_failed(run: Run) -> int:
    """Ask again for the images that got an error (of several channels: any channel's), and for those never reached;
    how many errors were taken back.

    Works in every state but while paused. NotNow when there is nothing to do again.
    """
    if run.state == State.PAUSED:
        raise NotNow(f"{run} is paused: resume it first.")
    with transaction.atomic():
        failed = Proposal.objects.filter(run=run, state=Proposal.State.ERROR)
        n, again = _take_back_channels(run, failed) if _several(run) else _take_back(run, failed)
        waiting = Chunk.objects.filter(run=run).exclude(state=Chunk.State.DONE)
        if not again and not waiting.exists():
            if not Run.objects.filter(pk=run.pk, state=State.CANCELLED).update(state=State.RUNNING, finished_at=None):
                raise NotNow(f"{run} has no failed images.")
            finish(run.pk)  # stopped when nothing was left to do: it is done
            run.refresh_from_db()
            return 0
        waiting.filter(state=Chunk.State.PENDING).update(attempts=0, inflight=None, inflight_n=0)
        Run.objects.filter(pk=run.pk).update(state=State.RUNNING, error="", finished_at=None, phase="")
    run.refresh_from_db()
    open_waiting(Chunk.objects.filter(run=run))
    _ring(run)
    return n


def _several(run: Run) -> bool:
    return Channel.objects.filter(recipe=run.recipe_id).count() > 1


_AGAIN: dict[str, Any] = {
    "token": F("token") + 1,
    "attempts": 0,
    "inflight": None,
    "inflight_n": 0,
    "owner": "",
    "lease_until": None,
}


def _take_back(run: Run, failed: QuerySet[Proposal]) -> tuple[int, int]:
    """Errors of a single channel: (images, chunks that are open again)."""
    n = failed.count()
    failed.delete()
    chunks = Chunk.objects.filter(run=run, n_error__gt=0)
    return n, chunks.update(state=Chunk.State.PENDING, n_error=0, **_AGAIN)


def _take_back_channels(run: Run, failed: QuerySet[Proposal]) -> tuple[int, int]:
    """The same with several channels: an image on which one of them failed goes through all stages again. What the
    others said is in the cache."""
    results = ChannelResult.objects.filter(run=run)
    images = {*failed.values_list("image_id", flat=True)}
    images.update(results.filter(state=ChannelResult.State.ERROR).values_list("image_id", flat=True))
    slices = Chunk.objects.filter(run=run, stage=0).order_by("lo") if images else Chunk.objects.none()
    open_again = 0
    for one in slices.iterator():
        mine = images.intersection(one.images)
        if not mine:
            continue
        results.filter(image__in=mine).delete()
        Proposal.objects.filter(run=run, image__in=mine).delete()
        for chunk in Chunk.objects.filter(run=run, lo=one.lo):
            open_again += _recount(chunk)
    return len(images), open_again


def _recount(chunk: Chunk) -> int:
    """Counters of a chunk as its rows are now; it is open again, or waits for the stages before it."""
    ids = list(chunk.images)
    rows: QuerySet[Any] = ChannelResult.objects.filter(run=chunk.run_id, stage=chunk.stage, image__in=ids)
    last = not Chunk.objects.filter(run=chunk.run_id, lo=chunk.lo, stage__gt=chunk.stage).exists()
    if last:
        rows = Proposal.objects.filter(run=chunk.run_id, image__in=ids)
    n = dict(rows.order_by().values_list("state").annotate(n=Count("image")))
    waits = chunk.state == Chunk.State.WAITING or chunk.stage > 0
    state = Chunk.State.WAITING if waits else Chunk.State.PENDING
    return Chunk.objects.filter(pk=chunk.pk).update(
        state=state,
        n_ok=n.get("ok", 0),
        n_empty=n.get("empty", 0),
        n_error=n.get("error", 0),
        n_skipped=n.get("skipped", 0),
        n_cached=0,
        n_fallback=_fallbacks(chunk.run_id, ids) if last else 0,
        **_AGAIN,
    )


def _fallbacks(run_id: int, ids: Sequence[int]) -> int:
    flags = Proposal.objects.filter(run=run_id, image__in=ids).values_list("flags", flat=True)
    return sum(FALLBACK in found for found in flags)


def _move(run: Run, before: tuple[State, ...], after: State, verb: str, **more: object) -> None:
    if not Run.objects.filter(pk=run.pk, state__in=before).update(state=after, phase="", **more):
        run.refresh_from_db()
        raise NotNow(f"{run} is {run.get_state_display()} and cannot be {verb}.")
    run.refresh_from_db()


def _ring(run: Run, *states: int) -> None:
    """Ring the queues of its chunks, or of those in the given states."""
    chunks = Chunk.objects.filter(run=run, state__in=states or Chunk.State.values)
    for name in chunks.order_by().values_list("queue", flat=True).distinct():
        queue.kick(name, TOKENS)
