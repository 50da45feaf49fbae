"""A real installation in a folder of its own, run by the real commands: what the cluster tests start, kill and read."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from tagging.engine import process
from tests.fakes import adapter as fake

ROOT = Path(__file__).resolve().parents[2]
POSTGRES = os.environ.get("IWTAG_TEST_POSTGRES", "postgres://postgres@127.0.0.1:5432/postgres")
REDIS = os.environ.get("IWTAG_TEST_REDIS", "redis://127.0.0.1:6379")
#: generous: the machine may be slow and shared
PATIENCE = 180.0
Found = TypeVar("Found")

SEED = """
import json, sys
import django
django.setup()
from tagging.actions.recipes import ChannelSpec, get_recipe
from tagging.actions.runs import start_run
from tagging.models import Collection, ImageAsset, ModelAdapter
n, options, settings = int(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
collection, made = Collection.objects.get_or_create(name="C", slug="c", root="/nowhere")
have = collection.images.count()
ImageAsset.objects.bulk_create(
    ImageAsset(collection=collection, path=f"{i:05}.jpg", sha256=f"{i:064x}", width=1, height=1) for i in range(have, n)
)
adapter, _ = ModelAdapter.objects.update_or_create(
    slug="fake", defaults={"kind": "fake", "label": "Fake", "options": options}
)
print(start_run(get_recipe([ChannelSpec(adapter)]), images=collection.images.order_by("pk")[:n], collection=collection,
                **settings).pk)
"""


SEED_CHANNELS = """
import json, sys
import django
django.setup()
from prompts.models import Prompt, PromptVersion
from tagging.actions.recipes import ChannelSpec, get_recipe
from tagging.actions.runs import start_run
from tagging.models import Collection, ImageAsset, ModelAdapter
n, channels, combine = int(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
collection, made = Collection.objects.get_or_create(name="C", slug="c", root="/nowhere")
have = collection.images.count()
ImageAsset.objects.bulk_create(
    ImageAsset(collection=collection, path=f"{i:05}.jpg", sha256=f"{i:064x}", width=1, height=1) for i in range(have, n)
)
prompt, _ = Prompt.objects.get_or_create(slug="p", defaults={"name": "p"})

def spec(name, kind, options, template):
    adapter, _ = ModelAdapter.objects.get_or_create(slug=name, defaults={"kind": kind, "label": name})
    version = None
    if template:
        version = PromptVersion.objects.filter(prompt=prompt, template=template).first()
        version = version or PromptVersion.objects.create(prompt=prompt, template=template, message="x")
    return ChannelSpec(adapter, version, options, name=name)

merge = spec(*channels.pop()) if combine["rule"] == "llm_merge" else None
recipe = get_recipe([spec(*c) for c in channels], combine=combine, merge=merge)
print(start_run(recipe, images=collection.images.order_by("pk")[:n], collection=collection).pk)
"""


def until(check: Callable[[], Found], what: str, seconds: float = PATIENCE) -> Found:
    """Poll until `check` gives something true."""
    end = time.monotonic() + seconds
    while True:
        if found := check():
            return found
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.05)


def allowance(seconds: float) -> float:
    """The time that something may take: `seconds`, more on a machine that is overloaded."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1) / 1.5)


def unavailable(what: str, error: Exception) -> None:
    """A service that does not answer is a failure in CI, and a skip elsewhere."""
    text = f"{what} does not answer: {error}"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)


@contextlib.contextmanager
def postgres_database(template: str = "template1") -> Iterator[str]:
    """The address of a new database, made like `template`; it is gone afterwards."""
    import psycopg

    name = f"iwtag_test_{uuid.uuid4().hex[:12]}"
    try:
        admin = psycopg.connect(POSTGRES, autocommit=True, connect_timeout=5)
    except psycopg.OperationalError as e:
        unavailable("PostgreSQL", e)
    with admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield f"{POSTGRES.rsplit('/', 1)[0]}/{name}"
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.contextmanager
def redis_database() -> Iterator[str]:
    """The address of a database of the Redis server that nobody uses; it is emptied afterwards."""
    import redis

    try:
        for number in range(15, 0, -1):
            client = redis.from_url(f"{REDIS}/{number}", socket_connect_timeout=5)
            if not client.dbsize() and client.set("iwtag-test", os.getpid(), nx=True, ex=600):
                break
        else:
            pytest.skip("all databases of the Redis server are in use")
    except redis.RedisError as e:
        unavailable("Redis", e)
    try:
        yield f"{REDIS}/{number}"
    finally:
        client.flushdb()


class Installation:
    """Data folder, database and broker, and the processes that were started on them."""

    def __init__(self, folder: Path, database: str = "", broker: str = "", migrated: Path | None = None) -> None:
        """`database` is the address of a PostgreSQL database; else `migrated` is a SQLite database to begin with."""
        self.folder, self.database = folder, database
        (folder / "data").mkdir(parents=True, exist_ok=True)
        if migrated:
            shutil.copy(migrated, folder / "data" / "db.sqlite3")
        self.calls = folder / "calls.log"
        self.calls.touch()
        self.log = folder / "processes.log"
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith(("IWTAG_", "DATABASE_URL", "DJANGO_", "Q_", "COV_"))
        }
        self.environment = {
            **kept,
            "DJANGO_SETTINGS_MODULE": "iwtag_site.settings",
            "IWTAG_DATA_DIR": str(folder / "data"),
            "IWTAG_SECRET_KEY": "x" * 50,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(fake.install(folder / "site"))]),
            "PYTHONUNBUFFERED": "1",
            "IWTAG_LEASE_SECONDS": "5",
            "IWTAG_DRAIN_SECONDS": "4",
            "IWTAG_FLUSH_SECONDS": "0.3",
            **({"DATABASE_URL": database} if database else {}),
            **({"IWTAG_BROKER_URL": broker} if broker else {}),
        }
        self.started: list[subprocess.Popen[bytes]] = []

    # -- commands ---------------------------------------------------------------------------------------------------
    def python(self, *args: str) -> str:
        """Run to the end; its output."""
        done = subprocess.run(
            [sys.executable, *args], cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, n: int, *, shown: bool = True, **options: Any) -> int:
        """Start a run of the fake model over the first `n` images, made when missing; its number."""
        given = {"log": str(self.calls), **options}
        return int(self.python("-c", SEED, str(n), json.dumps(given), json.dumps({"shown": shown})))

    def run_channels(self, n: int, channels: list[tuple[str, str, dict[str, Any], str]], rule: dict[str, Any]) -> int:
        """Start a run of several fake models (name, kind, options, prompt) over the first `n` images; its number. Of
        the rule llm_merge the last one merges."""
        given = [[name, kind, {"log": str(self.calls), **options}, text] for name, kind, options, text in channels]
        return int(self.python("-c", SEED_CHANNELS, str(n), json.dumps(given), json.dumps(rule)))

    def start(self, *args: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a command as a supervisor would: in a session of its own, writing to the log. It dies with this one."""
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "manage.py", *args],
                cwd=ROOT,
                env={**self.environment, process.PARENT: str(os.getpid()), **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(child)
        return child

    def worker(self, queue: str = "gpu", host: str = "one") -> subprocess.Popen[bytes]:
        return self.start("qworker", queue, IWTAG_HOST_NAME=host)

    def close(self) -> None:
        """Kill everything that was started and lives, with all it started."""
        for child in self.started:
            for p in family(child.pid):
                with contextlib.suppress(psutil.NoSuchProcess):
                    p.kill()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()

    # -- reading ----------------------------------------------------------------------------------------------------
    def rows(self, sql: str, *args: Any) -> list[tuple[Any, ...]]:
        if self.database:
            import psycopg

            with psycopg.connect(self.database, autocommit=True) as db:
                return db.execute(sql.replace("?", "%s"), args).fetchall()
        path = self.folder / "data" / "db.sqlite3"
        with contextlib.closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as db:
            return db.execute(sql, args).fetchall()

    def value(self, sql: str, *args: Any) -> Any:
        return self.rows(sql, *args)[0][0]

    def state(self, run: int) -> str:
        return str(self.value("SELECT state FROM tagging_run WHERE id = ?", run))

    def done(self, run: int) -> int:
        """Images that the chunks' counters say are finished."""
        sql = "SELECT COALESCE(SUM(n_ok + n_empty + n_error), 0) FROM tagging_chunk WHERE run_id = ?"
        return int(self.value(sql, run))

    def called(self, what: str) -> list[str]:
        """What the fake model wrote down: "c" images computed, "load" and "try" process numbers."""
        return [line.split(" ", 1)[1] for line in self.calls.read_text().splitlines() if line.startswith(f"{what} ")]

    def wait(self, run: int, seconds: float = PATIENCE) -> None:
        """Until the run has ended, whichever way."""
        open_states = ("running", "paused")
        try:
            until(lambda: self.state(run) not in open_states, f"run {run} ends", seconds)
        except BaseException:
            print(self.rows("SELECT id, state, token, owner, attempts, inflight, n_ok, n_error FROM tagging_chunk"))
            print(self.log.read_text()[-5000:])
            raise


def family(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    try:
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def roles(main: int) -> dict[str, int]:
    """The processes of a cluster with one worker: main, sentinel, worker, monitor, pusher. Empty unless complete.

    The sentinel forks them in this order.
    """
    try:
        sentinels = psutil.Process(main).children()
        members = sorted(sentinels[0].children(), key=lambda p: (p.create_time(), p.pid)) if sentinels else []
        if len(sentinels) != 1 or len(members) != 3:
            return {}
    except psutil.NoSuchProcess:
        return {}
    names = ("main", "sentinel", "worker", "monitor", "pusher")
    return dict(zip(names, (main, sentinels[0].pid, *(p.pid for p in members)), strict=True))


def kill(*pids: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
