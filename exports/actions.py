"""The verbs of exports: what a format would write, a stream of it, and jobs that write it in the background."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.core.exceptions import ValidationError
from django.core.files import File
from django.core.files.storage import default_storage
from django.db.models import F, Q
from django.utils import timezone
from pydantic import ValidationError as OptionsError

from tagging import queue
from tagging.engine import job_leases
from tagging.filters import ImageFilter
from tagging.forms import messages_of
from tagging.models import Collection
from tagging.queries import filtered

from .exporters.base import Exporter, ExportError, Selection
from .exporters.of_run import find_run
from .exporters.registry import UnknownFormat, exporter_class
from .models import ExportEntry, ExportJob

log = logging.getLogger(__name__)
TASK = "exports.tasks.export"
LEASE = timedelta(seconds=90)  # renewed with every report, about once a second
State = ExportJob.State
OPEN = (State.QUEUED, State.RUNNING)


class Stopped(Exception):
    """The job is no longer ours: cancelled, or taken over after we were thought dead."""


# -- what would be written --------------------------------------------------------------------------------------------
def get_exporter(
    collection: Collection,
    format: str,
    options: Mapping[str, Any] | None = None,
    filter: Mapping[str, Any] | ImageFilter | None = None,
) -> Exporter[Any]:
    """The exporter that writes those images in that format.

    ValidationError keyed by "format", the option's name, or "filter".
    """
    try:
        found = exporter_class(format)
    except UnknownFormat as e:
        raise ValidationError({"format": str(e)}) from None
    try:
        checked = found.Options.model_validate(dict(options or {}))
    except OptionsError as e:
        raise ValidationError({name or "options": lines for name, lines in messages_of(e).items()}) from None
    if checked.proposed_by:
        find_run(collection, checked.proposed_by)
    return found(selection(collection, filter), checked)


def settled(exporter: Any) -> dict[str, Any]:
    """The options as a job keeps them: a label stands for the run that it means now."""
    options: dict[str, Any] = exporter.options.model_dump(mode="json")
    if options["proposed_by"]:
        options["proposed_by"] = f"run {find_run(exporter.selection.collection, options['proposed_by']).pk}"
    return options


def parse_filter(given: Mapping[str, Any] | None) -> ImageFilter:
    """A filter as an address or the API spells it. ValidationError keyed by "filter"; unknown names are refused."""
    given = given or {}
    if unknown := [name for name in given if name not in ImageFilter.__dataclass_fields__]:
        known = ", ".join(ImageFilter.__dataclass_fields__)
        raise ValidationError({"filter": f"{unknown[0]!r} is no filter; known: {known}."})
    try:
        return ImageFilter.parse(given)
    except ValidationError as e:
        raise ValidationError({"filter": [f"{k}: {' '.join(v)}" for k, v in e.message_dict.items()]}) from None


def selection(collection: Collection, given: Mapping[str, Any] | ImageFilter | None) -> Selection:
    f = given if isinstance(given, ImageFilter) else parse_filter(given)
    if not f.active:
        return Selection.of(collection)
    return Selection(collection, filtered(collection, replace(f, sort="id")))


# -- jobs -------------------------------------------------------------------------------------------------------------
def create_export(
    collection: Collection,
    format: str,
    options: Mapping[str, Any] | None = None,
    filter: Mapping[str, Any] | ImageFilter | None = None,
    *,
    by: AbstractBaseUser | AnonymousUser | None = None,
) -> ExportJob:
    """Queue an export in the background. ValidationError as `get_exporter`."""
    f = filter if isinstance(filter, ImageFilter) else parse_filter(filter)
    exporter = get_exporter(collection, format, options, f)
    job = ExportJob.objects.create(
        collection=collection,
        format=format,
        options=settled(exporter),
        filter=filter_as_json(f),
        created_by_id=by.pk if by and by.is_authenticated else None,
    )
    queue.defer(TASK, job.pk)
    return job


def filter_as_json(f: ImageFilter) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in f.params():
        if name in ("tag", "not_tag"):
            found.setdefault(name, []).append(value)
        else:
            found[name] = value
    return found


def run_export(job_id: int) -> ExportJob:
    """Write the job's file, or do its next step beside the images, if nobody else does. What goes wrong is stored on
    the job, never raised.

    The file appears in the storage when it is whole, and on the job when it is in the storage. A job that was
    interrupted starts anew. ExportJob.DoesNotExist when there is no such job.
    """
    job = _claim(job_id)
    if job is None:
        return ExportJob.objects.get(pk=job_id)
    try:
        if job.step:
            from . import in_place  # it is built on this module

            in_place.work(job)
        else:
            _write(job)
    except Stopped:
        log.info("export %s was stopped", job_id)
    except ExportError as e:
        finish(job, State.FAILED, error=str(e))
    except ValidationError as e:  # the collection's tags, runs or formats changed since it was asked for
        finish(job, State.FAILED, error=" ".join(e.messages))
    except OSError as e:
        finish(job, State.FAILED, error=f"The file cannot be written: {e.strerror or e}.")
    except Exception as e:
        log.exception("export %s failed", job_id)
        finish(job, State.FAILED, error=f"{type(e).__name__}: {e}")
    job.refresh_from_db()
    return job


def cancel_export(job: ExportJob) -> bool:
    """Stop a waiting or running export; its file never appears. False when it was already over."""
    n = ExportJob.objects.filter(pk=job.pk, state__in=OPEN).update(
        state=State.CANCELLED, owner="", lease_until=None, token=F("token") + 1, finished_at=timezone.now()
    )
    job.refresh_from_db()
    return bool(n)


def delete_export(job: ExportJob) -> None:
    """Remove a job with its file; one that still runs stops. ExportError while files that it wrote beside the images
    are in force: the job is what can undo them, and knows which words in them are iwtag's."""
    if job.entries.filter(state__in=(ExportEntry.State.DONE, ExportEntry.State.WRITING)).exists():
        raise ExportError("This export wrote files beside the images: undo it first, then it can be deleted.")
    cancel_export(job)
    if job.file:
        default_storage.delete(job.file)
    job.delete()


def sweep() -> None:
    """Ring again for jobs whose doorbell was lost or whose owner died. Called each minute on the default cluster."""
    now = timezone.now()
    for job in ExportJob.objects.filter(state__in=OPEN).order_by("id"):
        if job.state == State.RUNNING and not held(job):
            job_leases.ours(job, state=State.RUNNING).update(
                state=State.QUEUED, owner="", lease_until=None, token=F("token") + 1, n_rows=0
            )
            queue.defer(TASK, job.pk)
        elif job.state == State.QUEUED and (job.lease_until or job.created_at + timedelta(minutes=1)) <= now:
            # a lost doorbell; lease_until remembers when to ring next, so that a long queue is not rung each minute
            waiting = job_leases.ours(job, state=State.QUEUED)
            waiting.update(lease_until=now + timedelta(minutes=5))
            queue.defer(TASK, job.pk)


def held(job: ExportJob) -> bool:
    """True while somebody who lives works on it."""
    return job_leases.alive(job)


def _claim(job_id: int) -> ExportJob | None:
    """Take a queued job, or one whose owner is gone; None when it is another's or over."""
    job = ExportJob.objects.select_related("collection").filter(pk=job_id, state__in=OPEN).first()
    if job is None or (job.state == State.RUNNING and held(job)):
        return None
    if not job_leases.take(job, LEASE, where={"state": job.state}, state=State.RUNNING, n_rows=0, error=""):
        return None
    job.refresh_from_db()
    return job


def report(job: ExportJob, **values: Any) -> None:
    """One fenced write; it renews the lease. Stopped once the job is lost."""
    ours = job_leases.ours(job, state=State.RUNNING)
    if not ours.update(**{"lease_until": timezone.now() + LEASE, **values}):
        raise Stopped


def finish(job: ExportJob, state: str, **values: Any) -> None:
    with contextlib.suppress(Stopped):
        report(job, state=state, owner="", lease_until=None, finished_at=timezone.now(), **values)


def _write(job: ExportJob) -> None:
    exporter = get_exporter(job.collection, job.format, job.options, job.filter)
    report(job, n_total=exporter.plan().rows)
    folder = _work_folder(job)
    try:
        temporary = folder / "export"
        sha256, reported = hashlib.sha256(), time.monotonic()
        with temporary.open("wb") as f:
            for piece in exporter.stream():
                f.write(piece)
                sha256.update(piece)
                if time.monotonic() - reported >= 1:
                    report(job, n_rows=exporter.rows)
                    reported = time.monotonic()
            f.flush()
            os.fsync(f.fileno())
        size = temporary.stat().st_size
        report(job, n_rows=exporter.rows)  # still ours: only now may the file appear
        name = _publish(temporary, f"exports/{job.pk}-{job.token}/{exporter.file_name}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        report(
            job,
            state=State.DONE,
            owner="",
            lease_until=None,
            finished_at=timezone.now(),
            file=name,
            size=size,
            sha256=sha256.hexdigest(),
        )
    except Stopped:
        default_storage.delete(name)
        raise


def _work_folder(job: ExportJob) -> Path:
    """A folder for the unfinished file, on the storage's own file system where it has one, so that a rename is enough.
    What earlier attempts of this job left is removed: they lost their token."""
    try:
        parent = Path(default_storage.path("exports/unfinished"))
    except NotImplementedError:
        parent = Path(tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    for old in parent.glob(f"iwtag-export-{job.pk}-*"):
        shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"iwtag-export-{job.pk}-", dir=parent))


def _publish(temporary: Path, name: str) -> str:
    """Put the whole file into the storage; its name there."""
    try:
        target = Path(default_storage.path(name))
    except NotImplementedError:
        with temporary.open("rb") as f:
            return str(default_storage.save(name, File(f)))
    target.parent.mkdir(parents=True, exist_ok=True)
    os.chmod(temporary, 0o640)
    os.replace(temporary, target)
    return name


def exports_of(collection: Collection | None = None) -> Any:
    """Past and running exports, newest first, with what a list shows."""
    jobs = ExportJob.objects.select_related("collection", "created_by").order_by("-id")
    return jobs.filter(Q(collection=collection)) if collection else jobs
