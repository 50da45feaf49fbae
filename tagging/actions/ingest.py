"""Collections and the indexing of their files."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.core.files.storage import default_storage
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.text import slugify

from .. import queue
from ..imaging import storing
from ..imaging.walk import FolderTree, StorageTree, Tree
from ..ingest import jobs, scan
from ..models import Collection, IngestJob

if TYPE_CHECKING:
    from .uploads import Upload

log = logging.getLogger(__name__)
TASK = "tagging.tasks.ingest"
#: Seconds of work for one token of the queue, so that a long ingest lets others have their turn.
SLICE = 20.0


# -- collections -----------------------------------------------------------------------------------------------------
def create_collection(
    *, name: str, kind: str = "folder", root: str = "", excludes: Iterable[str] = (), by: AbstractBaseUser | None = None
) -> Collection:
    """A new collection; nothing is read yet. ValidationError keyed by the field: name, kind, root or excludes."""
    name = " ".join(name.split())
    if not name:
        raise ValidationError({"name": "Give the collection a name."})
    if kind not in Collection.Kind.values:
        raise ValidationError({"kind": f"Unknown kind {kind!r}: choose one of {', '.join(Collection.Kind.values)}."})
    if Collection.objects.filter(name__iexact=name).exists():
        raise ValidationError({"name": f"There is a collection named {name!r} already."})
    if kind == Collection.Kind.FOLDER:
        root = str(check_root(root))
    elif root:
        raise ValidationError({"root": "A collection of uploads has no folder."})
    collection = Collection(name=name, slug=_free_slug(name), kind=kind, root=root, excludes=check_excludes(excludes))
    collection.full_clean()
    try:
        collection.save()
    except IntegrityError:
        raise ValidationError({"name": f"There is a collection named {name!r} already."}) from None
    log.debug("collection %s made by %s", name, by)
    return collection


def check_root(root: str | os.PathLike[str]) -> Path:
    """The folder, absolute, links resolved. ValidationError({"root": …}) when it cannot be indexed."""
    text = os.fspath(root).strip()
    if not text:
        raise ValidationError({"root": "Name the folder to index."})
    try:
        path = Path(text).expanduser()
        if not path.is_absolute():
            raise ValidationError({"root": f"{text} is not an absolute path."})
        path = path.resolve()
        str(path).encode()
        found, folder = path.exists(), path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        raise ValidationError({"root": f"{text!a} cannot be used ({error})."}) from None
    if not found:
        raise ValidationError({"root": f"There is no folder {path}."})
    if not folder:
        raise ValidationError({"root": f"{path} is a file; name the folder it lies in."})
    if not os.access(path, os.R_OK | os.X_OK):
        raise ValidationError({"root": f"The folder {path} may not be read by this user."})
    if settings.IWTAG_INGEST_ROOTS and not any(path.is_relative_to(r.resolve()) for r in settings.IWTAG_INGEST_ROOTS):
        allowed = ", ".join(str(r) for r in settings.IWTAG_INGEST_ROOTS)
        raise ValidationError({"root": f"{path} is outside the folders that may be indexed ({allowed})."})
    if path.is_relative_to(Path(settings.MEDIA_ROOT).resolve()):
        raise ValidationError({"root": f"{path} is where iwtag keeps its own files."})
    return path


def check_excludes(excludes: Iterable[str]) -> list[str]:
    """Trimmed globs without blanks and repeats. ValidationError({"excludes": …})."""
    if isinstance(excludes, str):
        raise ValidationError({"excludes": "Give a list of globs."})
    kept = list(dict.fromkeys(e.strip() for e in excludes if e.strip()))
    if any(len(e) > 300 or "\0" in e for e in kept) or len(kept) > 200:
        raise ValidationError({"excludes": "At most 200 globs of at most 300 characters."})
    return kept


def _free_slug(name: str) -> str:
    base = slugify(name)[:70] or "collection"
    slug, n = base, 2
    while Collection.objects.filter(slug=slug).exists():
        slug, n = f"{base}-{n}", n + 1
    return slug


# -- jobs ------------------------------------------------------------------------------------------------------------
def start_ingest(
    collection: Collection,
    *,
    by: AbstractBaseUser | None = None,
    archive: str = "",
    ring: bool = True,
    settle_seconds: int = 0,
) -> IngestJob:
    """Queue a look at the collection's files; the open job where there is one already.

    With `archive`, the storage name of an uploaded zip, there is always a job of its own. `ring=False` leaves it to the
    caller to run the job. Files that changed within `settle_seconds` are left for the next look.
    """
    with transaction.atomic():
        Collection.objects.select_for_update().get(pk=collection.pk)
        job = None
        if not archive:
            job = collection.ingest_jobs.filter(state__in=IngestJob.OPEN, archive="").order_by("id").first()
        if job is None:
            job = _new_job(collection, by, archive, settle_seconds)
    if ring:
        queue.defer(TASK, job.pk)
    return job


def follow_up(collection: Collection, *, by: AbstractBaseUser | None = None) -> IngestJob:
    """Queue a look that surely begins after now: a job that runs already may have passed by what was just added."""
    with transaction.atomic():
        Collection.objects.select_for_update().get(pk=collection.pk)
        job = collection.ingest_jobs.filter(state=IngestJob.State.QUEUED, archive="").order_by("id").first()
        if job is None:
            job = _new_job(collection, by, "")
    queue.defer(TASK, job.pk)
    return job


def _new_job(collection: Collection, by: AbstractBaseUser | None, archive: str, settle_seconds: int = 0) -> IngestJob:
    return IngestJob.objects.create(
        collection=collection,
        archive=archive,
        settle_seconds=settle_seconds,
        created_by_id=by.pk if by and by.is_authenticated else None,
    )


def cancel_ingest(job: IngestJob) -> bool:
    """Stop an open job; what it stored stays. False when it had ended already. Workers obey within a second or two."""
    now = timezone.now()
    stopped = IngestJob.objects.filter(pk=job.pk, state__in=IngestJob.OPEN).update(
        state=IngestJob.State.CANCELLED, owner="", lease_until=None, finished_at=now
    )
    if stopped and job.archive:
        default_storage.delete(job.archive)
    job.refresh_from_db()
    return bool(stopped)


def run_ingest(
    job_id: int, report: Callable[[IngestJob], None] | None = None, *, seconds: float | None = None
) -> IngestJob:
    """Do the work of a job, or of `seconds` of it: then the job stays running, without an owner, to be taken up again.

    Returns the job as it is afterwards, untouched when it is closed or in other hands. Problems of files are stored
    with the images; what stops the whole job is its `error`. Safe to run again after any kind of death.
    """
    job = jobs.claim(job_id)
    if job is None:
        return IngestJob.objects.select_related("collection").get(pk=job_id)
    ledger = jobs.Ledger(job, report)
    try:
        _work(ledger, seconds)
    except jobs.Stopped:
        log.info("%s stopped: cancelled or taken over", job)
    except (OSError, ValidationError) as error:
        _fail(ledger, _readable(error))
    except Exception as error:
        log.exception("%s failed", job)
        _fail(ledger, f"Unexpected error ({type(error).__name__}: {str(error)[:300]}). The log has more.")
    job.refresh_from_db()
    if job.state not in IngestJob.OPEN:
        _ring_next(job.collection)
    elif not job.owner:
        queue.defer(TASK, job.pk)
    return job


def _work(ledger: jobs.Ledger, seconds: float | None) -> None:
    job = ledger.job
    if job.archive:
        from . import uploads

        try:
            uploads.unpack(ledger)
        except jobs.Interrupted:
            ledger.release()
            return
    with scan.Counter(tree_of(job.collection, lambda text: None), ledger):
        cursor = scan.Scan(ledger, tree_of(job.collection, ledger.note), seconds=seconds).run()
    if cursor is not None:
        ledger.release(cursor.as_dict())
        return
    Collection.objects.filter(pk=job.collection_id).update(indexed_at=timezone.now())
    ledger.finish(IngestJob.State.DONE)


def tree_of(collection: Collection, note: Callable[[str], None]) -> Tree:
    """Where the files of a collection are looked for. ValidationError or OSError when there is no such place."""
    if collection.kind == Collection.Kind.FOLDER:
        root = check_root(collection.root)
        return FolderTree(root, collection.excludes, note, allowed=settings.IWTAG_INGEST_ROOTS)
    path = storing.local_path(default_storage, collection.upload_prefix)
    if path is None:
        return StorageTree(default_storage, collection.upload_prefix, collection.excludes, note)
    os.makedirs(path, exist_ok=True)
    return FolderTree(path, collection.excludes, note)


def _fail(ledger: jobs.Ledger, text: str) -> None:
    try:
        ledger.finish(IngestJob.State.FAILED, text)
    except jobs.Stopped:
        log.info("%s was no longer ours when it failed: %s", ledger.job, text)


def _readable(error: OSError | ValidationError) -> str:
    if isinstance(error, ValidationError):
        return " ".join(error.messages)
    where = f" ({error.filename})" if error.filename else ""
    return f"Reading or writing files failed: {error.strerror or error}{where}."


def _ring_next(collection: Collection) -> None:
    waiting = collection.ingest_jobs.filter(state__in=IngestJob.OPEN).order_by("id").first()
    if waiting is not None:
        queue.defer(TASK, waiting.pk)


def sweep() -> None:
    """Ring again for jobs whose doorbell was lost or whose owner died. Called each minute."""
    for job in jobs.abandoned():
        jobs.ring_again_later(job)
        queue.defer(TASK, job.pk)


def add_uploads(collection: Collection, files: Iterable[object], by: AbstractBaseUser | None = None) -> list[Upload]:
    """Store uploaded files and index them: see uploads.add_uploads."""
    from . import uploads

    return uploads.add_uploads(collection, files, by)
