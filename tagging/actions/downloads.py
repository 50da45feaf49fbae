"""Downloads of models: start, cancel, go on. The work itself is in `tagging.hub`, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone

from .. import queue
from ..adapters import known, registry
from ..adapters.model_files import is_hub_id
from ..engine import job_leases, process
from ..models import ModelDownload
from .runs import NotNow

State = ModelDownload.State
TASK = "tagging.tasks.download"
#: A download whose lease ran out belongs to nobody; it is renewed about once a second.
LEASE = timedelta(seconds=60)


def start_download(
    source: str,
    *,
    kind: str,
    revision: str = "",
    folder: str = "",
    configure: bool = True,
    by: AbstractBaseUser | None = None,
    ring: bool = True,
) -> ModelDownload:
    """Queue a download; the open one where the same is under way already.

    `folder`: one of IWTAG_MODELS_DIRS, else the hub's cache. ValidationError keyed by source, kind, revision or folder.
    """
    source, revision = source.strip(), revision.strip()
    if not is_hub_id(source):
        raise ValidationError({"source": f"{source!r} is no hub id: it looks like owner/name."})
    if kind not in registry.registered():
        raise ValidationError({"kind": f"No adapter {kind!r}; known: {', '.join(sorted(registry.registered()))}."})
    if len(revision) > 80 or any(c.isspace() for c in revision):
        raise ValidationError({"revision": "A branch, a tag or a commit, without spaces."})
    if folder and folder not in {str(p) for p in settings.IWTAG_MODELS_DIRS}:
        raise ValidationError({"folder": "Choose the hub's cache or one of the folders in IWTAG_MODELS_DIRS."})
    try:
        with transaction.atomic():
            job = ModelDownload.objects.create(
                source=source,
                kind=kind,
                revision=revision,
                folder=folder,
                configure=configure,
                created_by=by,  # type: ignore[misc]
            )
    except IntegrityError:
        found = ModelDownload.objects.filter(
            source=source, revision=revision, folder=folder, state__in=ModelDownload.OPEN
        ).first()
        if found is None:
            raise
        return found
    if ring:
        queue.defer(TASK, job.pk)
    return job


def cancel_download(job: ModelDownload) -> None:
    """Stop it, within about a second; what came stays and is used when it goes on. NotNow when it is over."""
    over = ModelDownload.objects.filter(pk=job.pk, state__in=ModelDownload.OPEN).update(
        state=State.CANCELLED, token=F("token") + 1, owner="", lease_until=None, phase="", finished_at=timezone.now()
    )
    job.refresh_from_db()
    if not over:
        raise NotNow(f"The download of {job} is {job.get_state_display()} already.")


def resume_download(job: ModelDownload) -> None:
    """Go on with one that failed or was cancelled. NotNow in other states, or while the same is under way anew."""
    try:
        with transaction.atomic():
            again = ModelDownload.objects.filter(pk=job.pk, state__in=(State.FAILED, State.CANCELLED)).update(
                state=State.QUEUED, error="", finished_at=None, rate=None, created_at=timezone.now()
            )
    except IntegrityError:
        raise NotNow(f"{job} is being downloaded already.") from None
    job.refresh_from_db()
    if not again:
        raise NotNow(f"The download of {job} is {job.get_state_display()}.")
    queue.defer(TASK, job.pk)


def patterns(kind: str) -> list[str]:
    """The files of a repository that the adapter needs; [] for all."""
    try:
        own = registry.adapter_class(kind).hub_files
    except (LookupError, ImportError, TypeError):
        own = ()
    if own:
        return list(own)
    return (
        list(known.TRANSFORMERS_FILES) if kind in known.ARCHITECTURES.values() or kind in known.NAMES.values() else []
    )


# -- the process that does it ------------------------------------------------------------------------------------------
def claim(job_id: int) -> ModelDownload | None:
    """Take a queued or abandoned job; None when it is over or somebody who lives works on it."""
    job = ModelDownload.objects.filter(pk=job_id, state__in=ModelDownload.OPEN).first()
    if job is None or alive(job):
        return None
    if not job_leases.take(job, LEASE, where={"state": job.state}, state=State.RUNNING, error=""):
        return None
    job.refresh_from_db()
    return job


def alive(job: ModelDownload) -> bool:
    """Does somebody who lives work on it?"""
    return job.state == State.RUNNING and job_leases.alive(job)


def spawn(job_id: int) -> None:
    """Start the process that downloads; it ends with this one. A worker is free for other tasks meanwhile, and what the
    hub's client needs of memory is given back."""
    job = ModelDownload.objects.filter(pk=job_id, state__in=ModelDownload.OPEN).first()
    if job is None or alive(job):
        return
    child = subprocess.Popen(
        [sys.executable, str(Path(settings.BASE_DIR) / "manage.py"), "download_model", "--job", str(job_id)],
        env={**os.environ, process.PARENT: str(os.getpid())},
        stdin=subprocess.DEVNULL,
    )
    threading.Thread(target=child.wait, daemon=True, name=f"download {job_id}").start()  # no zombie stays


def sweep() -> None:
    """Ring again for downloads that wait or whose process died."""
    fresh = timezone.now() - timedelta(minutes=1)
    for job in ModelDownload.objects.filter(state__in=ModelDownload.OPEN, created_at__lt=fresh).order_by("pk"):
        if not alive(job):
            queue.defer(TASK, job.pk)


def forget_download(job: ModelDownload) -> None:
    """Take a download that is over off the list; its files stay. NotNow while it is open."""
    gone, _ = ModelDownload.objects.filter(pk=job.pk).exclude(state__in=ModelDownload.OPEN).delete()
    if not gone:
        raise NotNow(f"{job} is on its way: cancel it first.")
