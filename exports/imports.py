"""The verbs of imports: read and compare, apply, undo, cancel. Jobs do the work in the background, in steps that a
crash cannot double."""

from __future__ import annotations

import hashlib
import logging
import re
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.core.exceptions import ValidationError
from django.core.files import File
from django.core.files.storage import default_storage
from django.db.models import Q, QuerySet
from pydantic import ValidationError as OptionsError

from tagging import queue
from tagging.forms import messages_of
from tagging.models import Collection

from . import import_targets as targets
from .import_leases import TASK, Stopped, claim, release, report, start, stop
from .import_leases import sweep as sweep
from .import_models import ImportJob, ImportRow
from .importers.base import ImportProblem, Item
from .importers.difference import AT_ONCE, Comparison, summary
from .importers.matching import Index
from .importers.registry import OPTIONS, TABLES, reading

log = logging.getLogger(__name__)
State, Step, Target = ImportJob.State, ImportJob.Step, ImportJob.Target
Person = AbstractBaseUser | AnonymousUser | None
_ROWS_DELETED_AT_ONCE = 2000


class NotNow(Exception):
    """The import's state does not allow this. The text says what it is."""


# -- create -----------------------------------------------------------------------------------------------------------
def create_import(
    collection: Collection,
    source: str,
    *,
    target: str = Target.TRUTH,
    options: Mapping[str, Any] | None = None,
    file: BinaryIO | None = None,
    name: str = "",
    folder: str = "",
    by: Person = None,
    ring: bool = True,
) -> ImportJob:
    """Queue the reading of a source; its preview waits for `apply_import` then.

    `file`: the table, or a zip of sidecars or text files, called `name`. `folder`: another folder than the
    collection's, for people at this machine only. ValidationError keyed by source, target, file, or the option's name.
    """
    if source not in OPTIONS:
        raise ValidationError({"source": f"{source!r} is none of {', '.join(OPTIONS)}."})
    if target not in Target.values:
        raise ValidationError({"target": f"{target!r} is none of {', '.join(Target.values)}."})
    try:
        checked = OPTIONS[source].model_validate(dict(options or {}))
    except OptionsError as e:
        raise ValidationError({n or "options": lines for n, lines in messages_of(e).items()}) from None
    if source in TABLES and file is None:
        raise ValidationError({"file": "Choose the file to import."})
    if source == ImportJob.Source.EMBEDDED and (file is not None or folder):
        raise ValidationError({"file": "Embedded metadata is read from the collection's own images."})
    job = ImportJob(
        collection=collection,
        source=source,
        target=target,
        options=checked.model_dump(mode="json"),
        name=(name or folder)[-200:],
        folder=folder,
        created_by_id=by.pk if by and by.is_authenticated else None,
    )
    if file is not None:
        job.file, job.sha256 = _store(file, name)
    try:
        with reading(job):  # the header, the folder: what is wrong with these is said at once
            pass
    except ImportProblem as e:
        if job.file:
            default_storage.delete(job.file)
        raise ValidationError(_keyed(str(e))) from None
    job.save()
    if ring:
        queue.defer(TASK, job.pk)
    return job


def _keyed(text: str) -> dict[str, str]:
    """ "path_column: Say …" as the field and its text."""
    field, colon, rest = text.partition(": ")
    return {field: rest} if colon and re.fullmatch(r"[a-z_0-9]+", field) else {"file": text}


def _store(file: BinaryIO, name: str) -> tuple[str, str]:
    """Keep an upload; its storage name and sha256."""
    digest = hashlib.sha256()
    for piece in iter(lambda: file.read(1024 * 1024), b""):
        digest.update(piece)
    file.seek(0)
    suffix = re.sub(r"[^a-z0-9.]", "", name.lower()[-8:].rpartition(".")[2]) or "data"
    return str(default_storage.save(f"imports/{uuid.uuid4().hex}.{suffix}", File(file))), digest.hexdigest()


# -- the work ---------------------------------------------------------------------------------------------------------
def run_import(job_id: int) -> ImportJob:
    """Do the queued step, if nobody else does. What goes wrong is stored on the job, never raised.

    ImportJob.DoesNotExist when there is no such job.
    """
    job = claim(job_id)
    if job is None:
        return ImportJob.objects.get(pk=job_id)
    try:
        {Step.READ: _read, Step.APPLY: _apply, Step.UNDO: _undo}[Step(job.step)](job)
    except Stopped:
        log.info("import %s was stopped", job_id)
    except (ImportProblem, targets.NotApplied) as e:
        _fail(job, _plain(str(e)))
    except ValidationError as e:
        _fail(job, " ".join(e.messages))
    except OSError as e:
        _fail(job, f"A file cannot be read: {e.strerror or e}.")
    except Exception as e:
        log.exception("import %s failed", job_id)
        _fail(job, f"{type(e).__name__}: {e}"[:2000])
    job.refresh_from_db()
    return job


def _plain(text: str) -> str:
    return " ".join(_keyed(text).values())


def _fail(job: ImportJob, error: str) -> None:
    try:
        release(job, State.FAILED, error=error)
    except Stopped:
        log.info("import %s was stopped", job.pk)


def _read(job: ImportJob) -> None:
    """From the beginning, whatever an interrupted reading left."""
    _delete_rows(job)
    report(job, n_rows=0, n_total=None)
    with reading(job) as reader:
        report(job, n_total=reader.total())
        comparison = Comparison(job, Index(job.collection), reader.several)
        waiting: list[Item] = []
        read, said = 0, time.monotonic()
        for item in reader.items():
            waiting.append(item)
            read += 1
            if len(waiting) >= AT_ONCE:
                comparison.store(waiting)
                waiting = []
            if time.monotonic() - said >= 1:
                report(job, n_rows=read)
                said = time.monotonic()
        comparison.store(waiting)
        report(job, n_rows=read)
        release(job, State.PLANNED, summary=summary(job, comparison.unknown, reader.warnings))


_APPLY = {
    Target.TRUTH: targets.apply_truth,
    Target.RUN: targets.apply_run,
    Target.VOCABULARY: targets.apply_vocabulary,
}
_UNDO = {
    Target.TRUTH: targets.undo_truth,
    Target.RUN: targets.undo_run,
    Target.VOCABULARY: targets.undo_vocabulary,
}


def _apply(job: ImportJob) -> None:
    done = ImportRow.objects.filter(job=job, state__in=(ImportRow.State.APPLIED, ImportRow.State.LEFT)).count()
    report(job, n_rows=done, n_total=done + targets.waiting(job).count())
    _APPLY[Target(job.target)](job)
    rows = ImportRow.objects.filter(job=job)
    applied = rows.filter(state=ImportRow.State.APPLIED).count()
    left = rows.filter(state=ImportRow.State.LEFT).count()
    release(job, State.DONE, result={"applied": applied, "left": left})


def _undo(job: ImportJob) -> None:
    found = _UNDO[Target(job.target)](job)
    release(job, State.UNDONE, result={**job.result, **found})


def _delete_rows(job: ImportJob) -> None:
    rows = ImportRow.objects.filter(job=job).order_by("pk").values_list("pk", flat=True)
    while ids := list(rows[:_ROWS_DELETED_AT_ONCE]):
        ImportRow.objects.filter(pk__in=ids).delete()


# -- decisions about a job --------------------------------------------------------------------------------------------
def can_apply(job: ImportJob) -> bool:
    """Its preview is there, or its applying was cut off and can go on."""
    stopped = job.state in (State.CANCELLED, State.FAILED) and job.step == Step.APPLY
    return job.state == State.PLANNED or stopped


def can_undo(job: ImportJob) -> bool:
    """Something of it is in force, as far as the job knows."""
    over = job.state in (State.DONE, State.CANCELLED, State.FAILED) and job.step in (Step.APPLY, Step.UNDO)
    return over and (job.batch is not None or job.run_id is not None or job.wordlist_version_id is not None)


def apply_import(
    job: ImportJob,
    *,
    overrule: bool = False,
    removals: bool = False,
    reviewed: bool = False,
    wordlist: str = "",
    by: Person = None,
    ring: bool = True,
) -> None:
    """Queue the applying of exactly what the preview shows.

    As decisions: `overrule` brings words back that were rejected here; `removals` rejects what was taken out elsewhere;
    `reviewed` marks the images as reviewed. As a vocabulary: `wordlist` is the slug or name of the list, new or not.
    NotNow; ValidationError keyed by "wordlist".
    """
    if not can_apply(job):
        raise NotNow(f"This import is {job.get_state_display()}: there is nothing to apply.")
    choices: dict[str, Any] = {"overrule": overrule, "removals": removals, "reviewed": reviewed}
    if job.target == Target.VOCABULARY:
        choices["wordlist"] = targets.check_slug(wordlist or str(job.choices.get("wordlist") or ""))
    if by is not None and by.is_authenticated:
        choices["by"] = by.pk
    if job.state != State.PLANNED:  # it goes on as it began
        choices = job.choices
    if not start(job, Step.APPLY, ring=ring, choices=choices, finished_at=None):
        raise NotNow("Somebody else has just begun with this import.")


def undo_import(job: ImportJob, *, by: Person = None, ring: bool = True) -> None:
    """Queue the taking back of all that it did. NotNow."""
    if not can_undo(job):
        raise NotNow(f"This import is {job.get_state_display()}: there is nothing to undo.")
    choices = {**job.choices, **({"by": by.pk} if by is not None and by.is_authenticated else {})}
    if not start(job, Step.UNDO, ring=ring, choices=choices, finished_at=None):
        raise NotNow("Somebody else has just begun with this import.")


def cancel_import(job: ImportJob) -> bool:
    """Stop it within a second; what was applied until then can be undone, or gone on with. False when it was over."""
    return stop(job)


def delete_import(job: ImportJob) -> None:
    """Forget a job with its preview and its file; what it did stays. NotNow while it runs."""
    if job.state == State.RUNNING:
        raise NotNow("This import is running: cancel it first.")
    _delete_rows(job)
    if job.file:
        default_storage.delete(job.file)
    job.delete()


def select_rows(job: ImportJob, ids: Iterable[int], *, selected: bool) -> int:
    """Tick or untick rows of the preview; how many changed. NotNow once it is applied."""
    if job.state != State.PLANNED:
        raise NotNow(f"This import is {job.get_state_display()}: its rows can no longer be chosen.")
    rows = ImportRow.objects.filter(job=job, pk__in=list(ids)[:1000]).exclude(selected=selected)
    return rows.update(selected=selected)


# -- looking at it ----------------------------------------------------------------------------------------------------
#: Filters of the preview: name → (what it is called, condition).
SHOWN: dict[str, tuple[str, Q]] = {
    "": ("all rows", Q()),
    "change": ("changes", Q(state__in=("change", "applied", "left"))),
    "same": ("nothing new", Q(state="same")),
    "unmatched": ("without an image", Q(state="unmatched")),
    "problem": ("problems", Q(state="problem")),
    "elsewhere": ("edited elsewhere", Q(elsewhere=True)),
    "refused": ("rejected here", Q(n_refused__gt=0)),
    "left": ("left alone", Q(state="left")),
}


def rows_of(job: ImportJob, show: str = "") -> QuerySet[ImportRow]:
    """The rows that the filter lets through, in order. ValidationError keyed by "show"."""
    if show not in SHOWN:
        raise ValidationError({"show": f"{show!r} is none of {', '.join(n for n in SHOWN if n)}."})
    return ImportRow.objects.filter(SHOWN[show][1], job=job).select_related("image").order_by("pk")


def imports_of(collection: Collection | None = None) -> QuerySet[ImportJob]:
    """Past and open imports, newest first, with what a list shows."""
    jobs = ImportJob.objects.select_related("collection", "created_by", "run", "wordlist_version__wordlist")
    return (jobs.filter(collection=collection) if collection else jobs).order_by("-id")
