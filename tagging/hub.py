"""Fetching a model from the hub: plan, check of the disk, the files with progress, and what went wrong in words.

Runs in a process of its own (`manage.py download_model`). huggingface_hub keeps finished files only; large ones are
fetched here into a part file beside their place first, so that hours of a download survive a cancel, a crash or a lost
connection, and are then handed to huggingface_hub, which finds them complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from django.db import transaction

from .actions.downloads import claim, patterns
from .actions.models import configure
from .adapters.scan import cache_folder
from .hub_watch import Plan, Stopped, Watch
from .hub_words import is_known, is_offline, size, why
from .models import ModelDownload

log = logging.getLogger(__name__)
State = ModelDownload.State

#: Files from this size on are fetched by us, with a part file.
LARGE = 16 << 20
#: What has to stay free on the disk.
RESERVE = 1 << 30
#: Files fetched at the same time.
STREAMS = 4


class Refused(Exception):
    """Cannot be downloaded; the text names the mend."""


def run_download(job_id: int, report: Callable[[ModelDownload], None] | None = None) -> ModelDownload:
    """Do a download from where it stands; the job as it is then. Nothing happens when it is over or another's."""
    job = claim(job_id)
    if job is None:
        return ModelDownload.objects.get(pk=job_id)
    watch = Watch(job, report)
    try:
        with watch:
            _fetch(job, watch)
    except Stopped:
        pass
    except Refused as e:
        watch.finish(State.FAILED, str(e))
    except Exception as e:
        if watch.stopped:
            log.info("the download of %s was stopped", job)
        else:
            log.warning("the download of %s failed: %s", job, e, exc_info=not is_known(e))
            watch.finish(State.FAILED, why(e, job))
    job.refresh_from_db()
    return job


def _fetch(job: ModelDownload, watch: Watch) -> None:
    from huggingface_hub import snapshot_download

    if is_offline():
        raise Refused("The hub is switched off here (HF_HUB_OFFLINE is set). Unset it, or copy the files by hand.")
    watch.say("asking the hub")
    target = Path(job.folder) / job.source.replace("/", "--") if job.folder else None
    where: dict[str, Any] = {"local_dir": str(target)} if target else {"cache_dir": str(cache_folder())}
    common = {"revision": job.revision or None, "allow_patterns": patterns(job.kind) or None, **where}
    plan = _plan(snapshot_download(job.source, dry_run=True, **common), job)
    place = target or cache_folder() / f"models--{job.source.replace('/', '--')}"
    _room(place, plan)
    watch.begin(plan, place)
    _large_files(job, plan, target, place, watch)
    watch.say("finishing")
    path = snapshot_download(job.source, tqdm_class=watch.meter(), max_workers=STREAMS, **common)
    with transaction.atomic():
        watch.finish(State.DONE, path=str(path), commit=plan.commit, bytes_done=plan.total)
        if job.configure:
            row = configure(job.kind, job.source if target is None else str(target), revision=job.revision, by=None)
            ModelDownload.objects.filter(pk=job.pk).update(adapter=row)


def _plan(infos: Any, job: ModelDownload) -> Plan:
    if not infos:
        wanted = ", ".join(patterns(job.kind))
        raise Refused(
            f"{job.source} has none of the files that an adapter of kind {job.kind!r} needs ({wanted}). Choose another "
            "kind, or another repository."
        )
    total = sum(i.file_size or 0 for i in infos)
    missing = {i.filename: i.file_size or 0 for i in infos if i.will_download}
    return Plan(infos[0].commit_hash, total, total - sum(missing.values()), len(infos), missing)


def _room(place: Path, plan: Plan) -> None:
    """Refused when the disk is too small for what is missing."""
    at = place
    while not at.exists():
        at = at.parent
    free = shutil.disk_usage(at).free + sum(size for _, size in _parts(place))
    if plan.missing and free < plan.missing + RESERVE:
        raise Refused(
            f"{size(plan.missing)} are to come, and {size(free)} are free on the disk of {at} (1 GB has to stay free). "
            "Free some space, or let HF_HOME or IWTAG_MODELS_DIRS point to a larger disk."
        )


def _parts(place: Path) -> Iterator[tuple[Path, int]]:
    for path in place.rglob("*.part"):
        with contextlib.suppress(OSError):
            yield path, path.stat().st_size


# -- large files, with what came of them before ------------------------------------------------------------------------
def _large_files(job: ModelDownload, plan: Plan, target: Path | None, place: Path, watch: Watch) -> None:
    large = [name for name, length in plan.files.items() if length >= LARGE]
    with ThreadPoolExecutor(STREAMS, thread_name_prefix="download") as pool:
        tasks = [pool.submit(_large_file, job.source, name, plan, target, place, watch) for name in large]
        try:
            for task in tasks:
                task.result()
        except BaseException:
            watch.stopped = True  # the others need not go on
            for task in tasks:
                task.cancel()
            raise


def _large_file(source: str, name: str, plan: Plan, target: Path | None, place: Path, watch: Watch) -> None:
    """One file through its part file to its place. Left to huggingface_hub where the hub gives no digest to check."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(source, name, revision=plan.commit)
    facts = get_hf_file_metadata(url)
    digest = facts.etag or ""
    if len(digest) != 64 or not facts.size:  # only large files are named by their sha256
        return
    final = (target / name) if target else place / "blobs" / digest
    part = (target / ".cache" / "iwtag" if target else place / "blobs") / f"{digest}.part"
    if final.exists():
        return
    part.parent.mkdir(parents=True, exist_ok=True)
    final.parent.mkdir(parents=True, exist_ok=True)
    while (have := _have(part)) != facts.size:
        try:
            _go_on(url, facts, part, have if have < facts.size else 0, watch)
        except Exception:
            watch.check()
            if _have(part) <= have:  # nothing came: no use in asking once more
                raise
            facts = get_hf_file_metadata(url)  # the address it was redirected to holds for an hour only
    watch.check()
    if _sha256(part, watch) != digest:
        part.unlink()
        raise Refused(f"{name} arrived damaged (its sha256 is another): it was thrown away. Download it again.")
    os.replace(part, final)


def _have(part: Path) -> int:
    try:
        return part.stat().st_size
    except FileNotFoundError:
        return 0


def _go_on(url: str, facts: Any, part: Path, have: int, watch: Watch) -> None:
    """Fetch what is missing of a part file that has `have` bytes."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    with part.open("r+b" if have else "wb") as stream:
        stream.seek(have)
        http_get(
            facts.location,
            stream,
            resume_size=have,
            # where the hub redirects to another host, that one must not see the token
            headers=build_hf_headers() if facts.location == url else None,
            expected_size=facts.size,
            displayed_filename=part.name,
            tqdm_class=watch.meter(),
        )


def _sha256(path: Path, watch: Watch) -> str:
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            found.update(block)
            watch.check()
    return found.hexdigest()
