"""Fetching a model from the hub: plan, check of the disk, the files with progress, and what went wrong in words.

Runs in a process of its own (`manage.py download_model`). huggingface_hub keeps finished files only; large ones are
fetched here into a part file beside their place first, so that hours of a download survive a cancel, a crash or a lost
connection, and are then handed to huggingface_hub, which finds them complete.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from .actions.downloads import LEASE, claim, patterns
from .actions.models import configure
from .adapters.scan import cache_folder
from .engine.process import stopping
from .models import ModelDownload

log = logging.getLogger(__name__)
State = ModelDownload.State

#: Files from this size on are fetched by us, with a part file.
LARGE = 16 << 20
#: What has to stay free on the disk.
RESERVE = 1 << 30
#: Files fetched at the same time.
STREAMS = 4


class Stopped(Exception):
    """Cancelled, or taken over by another process."""


class Refused(Exception):
    """Cannot be downloaded; the text names the mend."""


@dataclass
class Plan:
    """What has to come. `files` maps names to bytes, of those that are not here yet."""

    commit: str
    total: int
    here: int
    count: int
    files: dict[str, int] = field(default_factory=dict)

    @property
    def missing(self) -> int:
        return self.total - self.here


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
            log.warning("the download of %s failed: %s", job, e, exc_info=not _known(e))
            watch.finish(State.FAILED, why(e, job))
    job.refresh_from_db()
    return job


def _fetch(job: ModelDownload, watch: Watch) -> None:
    from huggingface_hub import snapshot_download

    if _offline():
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


# -- progress ----------------------------------------------------------------------------------------------------------
class Watch:
    """Writes how far it is about once a second, keeps the lease, and notices that the job is not ours any more."""

    def __init__(self, job: ModelDownload, report: Callable[[ModelDownload], None] | None = None) -> None:
        self.job, self.report = job, report
        self.stopped = False
        self._phase = ""
        self._place: Path | None = None
        self._here = self._before = 0
        self._total: int | None = None
        self._history: deque[tuple[float, int]] = deque()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="watch")

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join(10)

    def say(self, phase: str) -> None:
        self.check()
        self._phase = phase

    def begin(self, plan: Plan, place: Path) -> None:
        """From now on what grows below `place` is progress."""
        _drop_leftovers(place)
        self._before = _bytes(place, finished=True)
        self._here, self._total, self._place = plan.here, plan.total, place
        self._write(bytes_total=plan.total, files=plan.count, commit=plan.commit)
        self.say("downloading")

    def check(self) -> None:
        """Stopped once the job is no longer ours, or this process is to end."""
        if self.stopped or stopping():
            raise Stopped

    def meter(self) -> type[Any]:
        """A progress bar that shows nothing and stops the transfer when it should."""
        from huggingface_hub.utils import tqdm

        watch = self

        class Meter(tqdm):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                kwargs["disable"] = True
                super().__init__(*args, **kwargs)

            def update(self, n: float | None = 1) -> bool | None:
                watch.check()
                return None

        return Meter

    def finish(self, state: str, error: str = "", **more: Any) -> None:
        self._over.set()
        self._write(
            state=state,
            error=error,
            phase="",
            owner="",
            lease_until=None,
            rate=None,
            finished_at=timezone.now(),
            **more,
        )

    def _run(self) -> None:
        try:
            while not self._over.wait(0.7):
                try:
                    self._write(phase=self._phase, lease_until=timezone.now() + LEASE, **self._progress())
                except Stopped:
                    return
                except Exception as e:  # the database is away for a moment: the transfer goes on
                    log.warning("the progress could not be written: %s", e)
                    connection.close()
        finally:
            connection.close()

    def _progress(self) -> dict[str, Any]:
        if self._place is None or self._total is None:
            return {}
        now = time.monotonic()
        done = min(self._total, self._here + max(0, _bytes(self._place) - self._before))
        self._history.append((now, done))
        while len(self._history) > 2 and now - self._history[0][0] > 10:
            self._history.popleft()
        since, then = self._history[0]
        rate = (done - then) / (now - since) if now - since > 1 else None
        return {"bytes_done": done, **({"rate": max(0.0, rate)} if rate is not None else {})}

    def _write(self, **values: Any) -> None:
        """Fenced by the token: Stopped once the job is no longer ours."""
        ours = ModelDownload.objects.filter(pk=self.job.pk, token=self.job.token, state=State.RUNNING)
        if not ours.update(**values):
            self.stopped = True
            raise Stopped
        for name, value in values.items():
            setattr(self.job, name, value)
        if self.report:
            self.report(self.job)


def _bytes(place: Path, *, finished: bool = False) -> int:
    """What the files below a folder hold; links count nothing. `finished` leaves out what is still coming."""
    total = 0
    for path in place.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_symlink() or not path.is_file() or (finished and path.suffix in (".part", ".incomplete")):
                continue
            total += path.stat().st_size
    return total


def _drop_leftovers(place: Path) -> None:
    """Temporary files of huggingface_hub that no process writes any more: it never uses them again."""
    for path in place.rglob("*.incomplete"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > 600:
                path.unlink()


# -- words -------------------------------------------------------------------------------------------------------------
def size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{count:.0f} B"


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _names(error: BaseException) -> set[str]:
    """Class names along the chain of causes."""
    found: set[str] = set()
    at: BaseException | None = error
    for _ in range(8):
        if at is None:
            break
        found |= {kind.__name__ for kind in type(at).__mro__}
        at = at.__cause__ or at.__context__
    return found


NETWORK = {"ConnectError", "TimeoutException", "ConnectTimeout", "ProxyError", "RemoteProtocolError", "ReadError"}


def _known(error: BaseException) -> bool:
    return bool(_names(error) & {*NETWORK, "HfHubHTTPError", "LocalEntryNotFoundError", "DryRunError", "OSError"})


def why(error: BaseException, job: ModelDownload) -> str:
    """What went wrong and the mend, for the person who waits."""
    from huggingface_hub import constants

    names = _names(error)
    if "GatedRepoError" in names:
        return (
            f"{job.source} is given only to accounts that accepted its licence. Accept it on {constants.ENDPOINT}/"
            f"{job.source} and set HF_TOKEN to a token of that account where the workers run."
        )
    if "RevisionNotFoundError" in names:
        return (
            f"{job.source} has no revision {job.revision!r}. Give a branch, a tag or a commit, or none for the newest."
        )
    if "RepositoryNotFoundError" in names:
        return f"The hub has no model {job.source!r}, or not for this account (HF_TOKEN). Correct the name."
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "The disk is full. Free some space and let it go on: what came is kept."
    if isinstance(error, PermissionError):
        return (
            f"{error.filename} cannot be written. Give the workers the right to write there, or choose another folder."
        )
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if names & {*NETWORK, "LocalEntryNotFoundError", "DryRunError"}:
        return (
            f"The hub ({constants.ENDPOINT}) cannot be reached or broke off. Check the connection or the proxy and let "
            "it go on; or fetch the files on another machine and put them into a folder of IWTAG_MODELS_DIRS."
        )
    return f"{type(error).__name__}: {line}"
