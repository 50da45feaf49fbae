"""Collections that look after themselves: look for new files, tag what is new, and what other apps add to that.

The sweeper calls `sweep` each minute on the default cluster. `tick` never waits for work: it starts what is due (an
ingest, a run, an export) and notes what became of what it started before. A claim by token keeps two workers from
doing it twice, and everything that it starts is found again in the tables, so that a death in the middle costs nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from .. import queue, watching
from ..engine import job_leases
from ..models import Collection, ImageAsset, IngestJob, Proposal, Recipe, Run, Watch
from . import ingest, labels, runs

log = logging.getLogger(__name__)
TASK = "tagging.tasks.watch"
LEASE = timedelta(minutes=10)
_FIELDS = ("paused", "look", "tag", "interval_seconds", "settle_seconds", "recipe")


# -- settings ---------------------------------------------------------------------------------------------------------
def watch_of(collection: Collection) -> Watch:
    """The collection's watch; a new one, not saved and with every step off, where there is none."""
    return Watch.objects.select_related("collection", "job", "run").filter(collection=collection).first() or Watch(
        collection=collection
    )


def configure(collection: Collection, given: Mapping[str, Any], *, by: AbstractBaseUser | None = None) -> Watch:
    """Change what is named in `given`: the fields of a watch, and registered steps by name with their settings.

    ValidationError keyed by the field, "<step>.<setting>" for those of a step; then nothing is changed.
    """
    with transaction.atomic():
        Collection.objects.select_for_update().get(pk=collection.pk)
        watch = watch_of(collection)
        before = watch.recipe
        errors = _set(watch, given)
        if watch.tag and "recipe" not in errors:
            try:
                labels.find_recipe(watch.recipe, collection=collection)
            except labels.UnknownLabel as e:
                errors["recipe"] = [str(e)]
        try:
            watch.clean_fields(exclude=("collection", "steps", "last_result", "job", "run", "changed_by"))
        except ValidationError as e:
            errors = {**e.message_dict, **errors}
        if errors:
            raise ValidationError(errors)
        watch.changed_by_id = by.pk if by and by.is_authenticated else None
        if watch.pk is None:
            watch.save()
            return watch
        if watch.recipe != before:
            watch.run = None
        # never what a worker writes meanwhile
        watch.save(update_fields=[*_FIELDS, "steps", "run", "changed_by", "changed_at"])
    return watch


def _set(watch: Watch, given: Mapping[str, Any]) -> dict[str, list[str]]:
    errors: dict[str, list[str]] = {}
    known = watching.steps()
    for name, value in given.items():
        if name in _FIELDS:
            setattr(watch, name, value.strip() if isinstance(value, str) else value)
        elif name not in known:
            errors[name] = [f"A watch has no {name!r}; it has {', '.join([*_FIELDS, *known])}."]
        else:
            try:
                watch.steps = {**watch.steps, name: known[name].check(watch.collection, value)}
            except ValidationError as e:
                found = e.message_dict if hasattr(e, "error_dict") else {"": e.messages}
                errors |= {f"{name}.{field}".rstrip("."): lines for field, lines in found.items()}
    return errors


def look_now(watch: Watch) -> None:
    """Have a worker do all steps now, whatever the interval says. runs.NotNow while the watch is paused."""
    if watch.paused:
        raise runs.NotNow("This watch is paused: resume it first.")
    Watch.objects.filter(pk=watch.pk).update(last_looked_at=None)
    queue.defer(TASK, watch.pk, True)


def looked(job: IngestJob) -> None:
    """Ring for what waits for a look at the files that has just ended. The sweeper comes anyway."""
    if job.state not in IngestJob.OPEN:
        found = Watch.objects.filter(collection=job.collection_id, paused=False).first()
        if found is not None and found.enabled:
            queue.defer(TASK, found.pk)


# -- work -------------------------------------------------------------------------------------------------------------
def sweep() -> None:
    """What each minute brings."""
    for watch in Watch.objects.filter(paused=False).order_by("pk"):
        if watch.active:
            tick(watch.pk)


def tick(watch_id: int, *, force: bool = False, ring: bool = True) -> Watch | None:
    """Start what is due. None when the watch is paused, has nothing to do, or is in other hands.

    `force` looks at the files now, also where that step is off or not due. `ring=False` leaves it to the caller to run
    the ingest. What goes wrong in a step is its "error" in `last_result`; the other steps go on, and so does the next
    tick.
    """
    watch = _claim(watch_id, force)
    if watch is None:
        return None
    results = {name: watch.result(name) for name in watch.last_result}
    if force and watch.run and watch.run.state == Run.State.CANCELLED:  # a person says: go on
        job_leases.ours(watch).update(run=None)
        watch.run = None
    if watch.tag:
        results["tag"] = _outcome(watch, results.get("tag", {}), lambda last: _tag(watch, last, force))
    for name, step in watching.steps().items():
        settings = watch.steps.get(name, {})
        if settings.get("enabled"):
            results[name] = _outcome(
                watch,
                results.get(name, {}),
                lambda last, step=step, settings=settings: step.run(watch, settings, last, force=force),  # type: ignore[misc]
            )
    # last: what the look before found is tagged before the next look is open, however short the interval
    if watch.look or force:
        results["look"] = _outcome(watch, results.get("look", {}), lambda last: _look(watch, force, ring))
    ours = job_leases.ours(watch)
    if not ours.update(last_result=results, owner="", lease_until=None):
        log.warning("%s was taken over meanwhile", watch)
    return watch_of(watch.collection)


def held(watch: Watch) -> bool:
    """True while somebody who lives works on it."""
    return job_leases.alive(watch)


def _claim(watch_id: int, force: bool) -> Watch | None:
    found = Watch.objects.select_related("collection", "job", "run", "changed_by").filter(pk=watch_id).first()
    if found is None or found.paused or not (found.enabled or force) or held(found):
        return None
    return found if job_leases.take(found, LEASE, where={"paused": False}) else None


def _outcome(watch: Watch, last: dict[str, Any], work: Callable[[dict[str, Any]], Mapping[str, Any]]) -> dict[str, Any]:
    """What a step says it did, with the time; or its error beside what is remembered of before."""
    now = timezone.now().isoformat(timespec="seconds")
    try:
        return {"error": "", **work(last), "at": now}
    except ValidationError as e:
        error = " ".join(e.messages)
    except (runs.NotNow, labels.UnknownLabel) as e:
        error = str(e)
    except OSError as e:
        error = f"{e.filename or watch.collection}: {e.strerror or e}."
    except Exception as e:
        log.exception("a step of %s failed", watch)
        error = f"Unexpected error ({type(e).__name__}: {str(e)[:300]}). The log has more."
    return {**last, "error": error, "text": "", "at": now}


def _look(watch: Watch, force: bool, ring: bool) -> dict[str, Any]:
    """Start an ingest when it is due; say what came of the last."""
    job, now = watch.job, timezone.now()
    if job is not None and job.state in IngestJob.OPEN:
        return {"job": job.pk, "text": "looking now"}
    failed = job is not None and job.state == IngestJob.State.FAILED
    if not (force or failed or watch.next_look is None or watch.next_look <= now):
        return _looked(job)
    ingest.tree_of(watch.collection, lambda text: None)  # a folder that is away: say so, queue nothing
    new = ingest.start_ingest(watch.collection, by=watch.changed_by, ring=ring, settle_seconds=watch.settle_seconds)
    mine = job_leases.ours(watch)
    if mine.update(job=new, last_looked_at=now) and job is not None and new.pk != job.pk and _idle(job):
        IngestJob.objects.filter(pk=job.pk, state=job.state).delete()  # hundreds a day would bury the others
    error = job.error if job is not None and failed else ""
    return {"job": new.pk, "text": "looking now", "error": error}


def _idle(job: IngestJob) -> bool:
    """A look that found nothing, or failed and was repeated."""
    if job.state == IngestJob.State.FAILED:
        return True
    nothing = not (job.added or job.changed or job.moved or job.missing or job.failed)
    return job.state == IngestJob.State.DONE and nothing and not job.archive


def _looked(job: IngestJob | None) -> dict[str, Any]:
    if job is None:
        return {"text": "looked"}
    if job.state == IngestJob.State.CANCELLED:
        return {"job": job.pk, "text": "the last look was cancelled"}
    names = (
        ("added", "new"),
        ("changed", "changed"),
        ("moved", "moved"),
        ("missing", "gone"),
        ("failed", "unreadable"),
    )
    parts = [f"{getattr(job, name):,} {word}" for name, word in names if getattr(job, name)]
    return {"job": job.pk, "text": ", ".join(parts) or "nothing new"}


def _tag(watch: Watch, last: dict[str, Any], force: bool) -> dict[str, Any]:
    """Start a run over the images that the recipe has not seen. An image on which it failed has been seen."""
    collection = watch.collection
    recipe = labels.find_recipe(watch.recipe, collection=collection)
    working = (
        Run.objects.listed().filter(collection=collection, recipe=recipe, state__in=Run.OPEN).order_by("pk").first()
    )
    if working is not None:
        known = last.get("error", "") if last.get("run") == working.pk else ""
        return {"run": working.pk, "text": f"run {working.pk} is {working.get_state_display()}", "error": known}
    if collection.ingest_jobs.filter(state__in=IngestJob.OPEN).exists():
        return {**last, "text": "waits for the look at the files", "error": ""}
    mine = watch.run if watch.run and watch.run.recipe_id == recipe.pk else None
    if mine is not None and mine.state == Run.State.FAILED:
        error = f"Run {mine.pk} failed: {mine.error}"
        runs.retry_failed(mine)
        return {"run": mine.pk, "text": f"run {mine.pk} is tried again", "error": error}
    if mine is not None and mine.state == Run.State.CANCELLED:
        return {"run": mine.pk, "text": f"run {mine.pk} was cancelled: nothing more is tagged until you look now"}
    # asked once for each look: going through all images is not for every minute
    seen = [collection.ingest_jobs.order_by("-pk").values_list("pk", flat=True).first(), recipe.pk]
    if last.get("seen") == seen and not force:
        return last
    images = new_images(collection, recipe)
    if not images.exists():
        return {"seen": seen, "text": f"nothing new for {recipe}"}
    name = f"{recipe} on {collection}, watch"[:160]
    run = runs.start_run(recipe, collection=collection, images=images, name=name, by=watch.changed_by)
    job_leases.ours(watch).update(run=run)
    return {"run": run.pk, "images": run.n_total, "text": f"run {run.pk} tags {run.n_total:,} new images"}


def new_images(collection: Collection, recipe: Recipe) -> QuerySet[ImageAsset]:
    """Usable images without a proposal by the recipe for what is in the file now."""
    of_it = Proposal.objects.filter(image=OuterRef("pk"), run__recipe=recipe, run__purpose=Run.Purpose.TAGGING)
    same = of_it.filter(Q(prediction=None) | Q(prediction__image_sha256__in=(OuterRef("sha256"), "")))
    return ImageAsset.objects.filter(collection=collection).usable().filter(~Exists(same))
