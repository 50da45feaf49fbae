"""The verbs of exports that write beside the images: plan, look, apply, undo.

They are jobs as the others are: queued, claimed under a token, renewed while they work, taken up again when their owner
died. A plan is a page of the ledger for every file; applying writes exactly these entries, some dozens a time.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Count, Q, QuerySet, Sum
from pydantic import ValidationError as OptionsError

from tagging import queue
from tagging.engine import job_leases
from tagging.filters import ImageFilter
from tagging.forms import messages_of
from tagging.models import Collection, Recipe

from . import actions, changes, ledger, undoing
from .exporters.base import ExportError, ExportOptions
from .exporters.registry import IN_PLACE
from .exporters.sidecars import SidecarExporter
from .models import ExportEntry, ExportJob
from .text_files import CaptionsInPlace, HydrusInPlace

#: What plans the files of the formats in `registry.IN_PLACE`.
#: Each has `Options`, `source`, `root`, `entries()`; it counts `rows`, `unchanged`, `left_out`.
Planner = SidecarExporter | CaptionsInPlace | HydrusInPlace
_PLANNERS: dict[str, Any] = {
    planner.identifier: planner for planner in (SidecarExporter, CaptionsInPlace, HydrusInPlace)
}
BATCH = 32  # files a journal transaction; this many are in doubt after a crash
SLOW = 0.5  # seconds for a batch, above which it shrinks: cancelling is obeyed between batches
AT_ONCE = 200  # entries that may be undone without a job
WARNINGS_KEPT = 20

Action, EntryState, State, Step = ExportEntry.Action, ExportEntry.State, ExportJob.State, ExportJob.Step

#: What a list of entries can be narrowed to: name → (label, condition).
KINDS: dict[str, tuple[str, Q]] = {
    "added": ("words added", Q(n_added__gt=0)),
    "removed": ("words removed", Q(n_removed__gt=0)),
    "withheld": ("words withheld", Q(n_withheld__gt=0)),
    "texts": ("captions", Q(texts=True)),
    "create": ("new files", Q(action=Action.CREATE)),
    "update": ("changed files", Q(action=Action.UPDATE)),
    "refused": ("left alone", Q(action=Action.REFUSE)),
    "noted": ("with a warning", ~Q(notes=[])),
    "unticked": ("unticked", Q(selected=False)),
    "done": ("written", Q(state=EntryState.DONE)),
    "skipped": ("skipped", Q(state=EntryState.SKIPPED)),
    "failed": ("failed", Q(state=EntryState.FAILED)),
    "undone": ("undone", Q(state=EntryState.UNDONE)),
    "stuck": ("not undone", Q(state=EntryState.DONE) & ~Q(error="")),
}


class NotNow(ExportError):
    """The job's state does not allow this; the text says why."""


# -- making jobs ------------------------------------------------------------------------------------------------------
def create(
    collection: Collection,
    format: str,
    options: Mapping[str, Any] | None = None,
    filter: Mapping[str, Any] | ImageFilter | None = None,
    *,
    write: bool = False,
    by: AbstractBaseUser | AnonymousUser | None = None,
    ring: bool = True,
) -> ExportJob:
    """Queue a plan, which then waits to be looked at; with `write` it is carried out at once.

    ValidationError keyed by "format", the option's name, "filter" or "collection". `ring=False` is for a caller that
    does the work itself, with `actions.run_export`.
    """
    f = filter if isinstance(filter, ImageFilter) else actions.parse_filter(filter)
    exporter = get_exporter(collection, format, options, f)
    job = ExportJob.objects.create(
        collection=collection,
        format=format,
        step=Step.WRITE if write else Step.PLAN,
        options=actions.settled(exporter),
        filter=actions.filter_as_json(f),
        created_by_id=by.pk if by and by.is_authenticated else None,
    )
    if ring:
        queue.defer(actions.TASK, job.pk)
    return job


def get_exporter(
    collection: Collection,
    format: str,
    options: Mapping[str, Any] | None = None,
    filter: Mapping[str, Any] | ImageFilter | None = None,
) -> Planner:
    """What plans the files. ValidationError as `create`."""
    if format not in IN_PLACE:
        raise ValidationError({"format": f"{format!r} does not write beside images; known: {', '.join(IN_PLACE)}."})
    try:
        checked = options_of(format).model_validate(dict(options or {}))
    except OptionsError as e:
        raise ValidationError({name or "options": lines for name, lines in messages_of(e).items()}) from None
    try:
        planner: Planner = _PLANNERS[format](actions.selection(collection, filter), checked)
    except ExportError as e:
        raise ValidationError({"collection": str(e)}) from None
    return planner


def options_of(format: str) -> type[ExportOptions]:
    """The options of a format of `registry.IN_PLACE`."""
    found: type[ExportOptions] = _PLANNERS[format].Options
    return found


def described(format: str) -> str:
    """What a format of `registry.IN_PLACE` is for, in a sentence."""
    return str(_PLANNERS[format].description)


# -- after the look ---------------------------------------------------------------------------------------------------
def apply(job: ExportJob, *, ring: bool = True) -> ExportJob:
    """Queue the writing of what is planned and ticked: after the plan, or again after it stopped or failed.

    NotNow when there is nothing to write, or the job is at work.
    """
    _must_rest(job)
    if job.step in (Step.PLAN, Step.WRITE) and job.state != State.PLANNED:
        raise NotNow("The plan was not finished. Make a new one.")
    with transaction.atomic():
        # what failed left its file as it was; whether it still is what was planned for is looked at again
        job.entries.filter(state=EntryState.FAILED).update(state=EntryState.PLANNED)
        if not job.entries.filter(state=EntryState.PLANNED, selected=True).exists():
            raise NotNow("Nothing is left to write.")
        _queue(job, Step.APPLY)
    if ring:
        queue.defer(actions.TASK, job.pk)
    return job


def undo(job: ExportJob, *, recipe: int | None = None, ring: bool = True) -> ExportJob:
    """Queue taking back all files of the job that are in force, or those with what one recipe proposed.

    NotNow when there are none, or the job is at work.
    """
    _must_rest(job)
    found = job.entries.filter(state__in=(EntryState.DONE, EntryState.WRITING))
    if recipe is not None:
        found = found.filter(recipe_id=recipe)
    if not found.exists():
        raise NotNow("Nothing of this export is in force" + (f" by recipe {recipe}." if recipe is not None else "."))
    _queue(job, Step.UNDO, summary={**job.summary, "undo_recipe": recipe})
    if ring:
        queue.defer(actions.TASK, job.pk)
    return job


def undo_recipe(recipe: int, collection: Collection | None = None, *, ring: bool = True) -> list[ExportJob]:
    """Queue taking back everything that came of a recipe, newest job first. NotNow when there is nothing."""
    entries = ExportEntry.objects.filter(recipe_id=recipe, state=EntryState.DONE)
    jobs = ExportJob.objects.filter(pk__in=entries.values("job")).order_by("-id")
    found = list(jobs.filter(collection=collection) if collection else jobs)
    if not found:
        raise NotNow(f"Nothing by recipe {recipe} is in force.")
    for job in found:
        _must_rest(job)
    return [undo(job, recipe=recipe, ring=ring) for job in found]


def recipes_in_force(job: ExportJob) -> list[tuple[Recipe, int]]:
    """The recipes whose words the job's files hold, each with the number of files; most first."""
    rows = job.entries.filter(state=EntryState.DONE, recipe__isnull=False).order_by()
    files = dict(rows.values_list("recipe").annotate(n=Count("pk")))
    found = Recipe.objects.in_bulk(files)
    return sorted(((found[pk], n) for pk, n in files.items()), key=lambda pair: (-pair[1], pair[0].pk))


def undo_entries(job: ExportJob, ids: Iterable[int]) -> tuple[int, list[str]]:
    """Take single files back now; (how many, what could not be undone and why). NotNow while the job is at work."""
    _must_rest(job)
    wanted = list(ids)
    if len(wanted) > AT_ONCE:
        raise NotNow(f"At most {AT_ONCE} files at once; undo the whole export instead.")
    done = undoing.undo(job.entries.filter(pk__in=wanted))
    refresh(job)
    if done[0] and not job.entries.filter(state=EntryState.DONE).exists():
        ExportJob.objects.filter(pk=job.pk, state__in=(State.DONE, State.CANCELLED, State.FAILED)).update(
            state=State.UNDONE
        )
        job.refresh_from_db()
    return done


def select(job: ExportJob, selected: bool, *, ids: Iterable[int] | None = None, kind: str = "") -> int:
    """Tick or untick files, or all of a kind; how many changed. NotNow when the plan does not wait any more."""
    if job.state != State.PLANNED:
        raise NotNow(f"This export is {job.get_state_display()}: its files can no longer be chosen.")
    found = entries_of(job, kind).filter(state=EntryState.PLANNED, selected=not selected)
    if ids is not None:
        found = found.filter(pk__in=list(ids))
    changed = found.update(selected=selected)
    with transaction.atomic():
        now = ExportJob.objects.select_for_update().get(pk=job.pk).summary
        step = changed if selected else -changed
        now = {**now, "ticked": now.get("ticked", 0) + step, "unticked": now.get("unticked", 0) - step}
        ExportJob.objects.filter(pk=job.pk).update(summary=now)
    job.summary = now
    return changed


def entries_of(job: ExportJob, kind: str = "") -> QuerySet[ExportEntry]:
    """The job's entries by id, without their backups. ValidationError keyed by "kind"."""
    found = job.entries.defer("backup", "written").order_by("id")
    if not kind:
        return found
    if kind not in KINDS:
        raise ValidationError({"kind": f"There is no kind {kind!r}; known: {', '.join(KINDS)}."})
    return found.filter(KINDS[kind][1])


def _must_rest(job: ExportJob) -> None:
    if not job.step:
        raise NotNow("This export made a file; it wrote nothing beside the images.")
    if job.state == State.QUEUED or (job.state == State.RUNNING and actions.held(job)):
        raise NotNow(f"This export is {job.get_step_display()} at the moment. Wait, or cancel it.")


def _queue(job: ExportJob, step: str, **values: Any) -> None:
    """To the queue from the state that was seen; NotNow when somebody else was quicker."""
    waiting = job_leases.ours(job, state=job.state)
    fresh = {"lease_until": None, "finished_at": None, "error": "", "n_rows": 0, "token": job.token + 1}
    if not waiting.update(state=State.QUEUED, step=step, **fresh, **values):
        raise NotNow("This export has moved on meanwhile. Look again.")
    job.refresh_from_db()


# -- the work ---------------------------------------------------------------------------------------------------------
def work(job: ExportJob) -> None:
    """Do the step of a claimed job to its end. Raises Stopped, and what `actions.run_export` knows."""
    try:
        if job.step in (Step.PLAN, Step.WRITE):
            _plan(job)
        if job.step == Step.APPLY:
            _apply(job)
        elif job.step == Step.UNDO:
            _undo(job)
    except actions.Stopped:
        if job.step != Step.PLAN:
            refresh(job)
        raise


def _plan(job: ExportJob) -> None:
    """From the beginning, also after an interruption: nothing was written yet."""
    settle_orphans(job.collection)
    exporter = get_exporter(job.collection, job.format, job.options, job.filter)
    while ids := list(job.entries.values_list("pk", flat=True)[:500]):
        ExportEntry.objects.filter(pk__in=ids).delete()
    actions.report(job, n_total=exporter.source.images.count(), n_rows=0)
    warnings: Counter[str] = Counter()
    for found in exporter.entries():
        for entry in found:
            entry.job = job
            changes.count(entry)
            warnings.update(entry.notes)
        with transaction.atomic():  # only an owner's entries
            actions.report(job, n_rows=exporter.rows)
            ledger.insert(found)
    summary = {
        "unchanged": exporter.unchanged,
        "left_out": exporter.left_out,
        "images": exporter.rows,
        "warnings": [[text, n] for text, n in warnings.most_common(WARNINGS_KEPT)],
    }
    job.summary = {**summary, **counts(job)}
    if job.step == Step.WRITE:
        actions.report(job, step=Step.APPLY, summary=job.summary, n_rows=0)
        job.step = Step.APPLY
    else:
        actions.report(job, state=State.PLANNED, owner="", lease_until=None, summary=job.summary)


def _apply(job: ExportJob) -> None:
    ledger.settle(job)
    # what only the next plan and the page need is not read
    waiting = job.entries.filter(state=EntryState.PLANNED, selected=True).defer("written", "notes", "backup")
    total = waiting.count()
    actions.report(job, n_total=total, n_rows=0)
    failed_in_a_row, last_error = 0, ""

    def write(batch: list[ExportEntry]) -> None:
        nonlocal failed_in_a_row, last_error
        ledger.apply(batch)
        for entry in batch:
            failed_in_a_row = failed_in_a_row + 1 if entry.state == EntryState.FAILED else 0
            last_error = entry.error or last_error

    for _ in _batches(job, waiting, write, newest_first=False):
        if failed_in_a_row >= BATCH:
            break
    refresh(job)
    if failed_in_a_row >= min(BATCH, total) > 0:
        raise ExportError(f"{failed_in_a_row} files one after the other failed: {last_error}. Mend that, then go on.")
    actions.finish(job, State.DONE, summary=job.summary)


def _undo(job: ExportJob) -> None:
    ledger.settle(job)
    recipe = job.summary.get("undo_recipe")
    written = job.entries.filter(state=EntryState.DONE)
    if recipe is not None:
        written = written.filter(recipe_id=recipe)
    actions.report(job, n_total=written.count(), n_rows=0)
    for _ in _batches(job, written, undoing.undo, newest_first=True):
        pass
    refresh(job)
    left = job.entries.filter(state=EntryState.DONE).exists()
    stuck = written.count()
    error = f"{stuck:,} files could not be undone; each says why." if stuck else ""
    actions.finish(job, State.DONE if left else State.UNDONE, summary=job.summary, error=error)


def _batches(
    job: ExportJob, rows: QuerySet[ExportEntry], do: Callable[[list[ExportEntry]], object], *, newest_first: bool
) -> Iterable[int]:
    """`do` with some dozens of rows at a time, each once; yields how many so far. Stopped when the job is no longer
    ours, which is asked before every batch."""
    size, done, last = BATCH, 0, None
    ordered = rows.order_by("-id" if newest_first else "id")
    while True:
        todo = ordered
        if last is not None:
            todo = ordered.filter(pk__lt=last) if newest_first else ordered.filter(pk__gt=last)
        batch = list(todo[:size])
        if not batch:
            return
        actions.report(job, n_rows=done)
        start = time.monotonic()
        do(batch)
        done, last = done + len(batch), batch[-1].pk
        took = time.monotonic() - start
        size = max(size // 2, 4) if took > SLOW else min(size * 2, BATCH)
        yield done


def settle_orphans(collection: Collection) -> None:
    """Settle what jobs of the collection whose owner died left in the middle, so that what they wrote counts."""
    middle = ExportEntry.objects.filter(state=EntryState.WRITING, job__collection=collection).values("job")
    for job in ExportJob.objects.filter(pk__in=middle):
        if not (job.state == State.RUNNING and actions.held(job)):
            ledger.settle(job)


# -- counts -----------------------------------------------------------------------------------------------------------
def refresh(job: ExportJob) -> None:
    """Bring the job's summary up to date."""
    job.summary = {**job.summary, **counts(job)}
    ExportJob.objects.filter(pk=job.pk).update(summary=job.summary)


def counts(job: ExportJob) -> dict[str, Any]:
    """Files by kind of change (the names of KINDS) and words by what happens to them."""
    entries = job.entries.order_by()
    found = entries.aggregate(
        **{name: Count("pk", filter=condition) for name, (_, condition) in KINDS.items()},
        files=Count("pk"),
        ticked=Count("pk", filter=Q(state=EntryState.PLANNED, selected=True)),
        words_added=Sum("n_added", default=0),
        words_removed=Sum("n_removed", default=0),
        words_kept=Sum("n_kept", default=0),
        words_withheld=Sum("n_withheld", default=0),
    )
    return {name: int(value) for name, value in found.items()}
