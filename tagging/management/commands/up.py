from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from argparse import ArgumentParser
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.migrations.executor import MigrationExecutor
from django.db.utils import OperationalError

from tagging.engine import process
from tagging.management.static_files import collect

from .qworker import environment_of, queues
from .web import check_free, parse_address, url

#: Seconds between the signal that asks the children to stop and the one that does not ask.
GRACE = 4.0
#: A child that lived this long, in seconds, is not part of a series of deaths; so many in series end everything.
SETTLED, PATIENCE = 10.0, 5
#: Workers are started when the web server answers, or after so many seconds: the first page comes first.
WEB_FIRST = 3.0


class Command(BaseCommand):
    help = "Runs everything: migrates, then the web server and a worker cluster per queue. Ctrl-C stops all of it."
    requires_system_checks = []  # they import every view: the web server runs them

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("address", nargs="?", help="[host:]port (default: IWTAG_HOST and IWTAG_PORT)")
        parser.add_argument(
            "--queues", default=",".join(queues()), help="clusters to run, separated by commas (%(default)s)"
        )

    def handle(self, *args: Any, address: str | None = None, queues: str = "", **options: Any) -> None:
        if os.environ.get("RUN_MAIN"):
            raise CommandError("'up' cannot run under the autoreloader: it would start every worker twice.")
        host, port = parse_address(address)
        names = list(dict.fromkeys(name.strip() for name in queues.split(",") if name.strip()))
        environments = {name: environment_of(name) for name in names}
        process.die_with_named_parent()
        check_free(host, port)
        migrate()
        collect()
        connections.close_all()
        children = Children(self.stdout.write)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, children.ask)
        commands = {name: (["qworker", name, "--grace", str(GRACE)], env) for name, env in environments.items()}
        children.start("web", ["web", f"[{host}]:{port}" if ":" in host else f"{host}:{port}"], None)
        self.run(children, host, port, commands)
        if children.failed:
            raise CommandError(f"{children.failed} ended {PATIENCE} times in a row; everything was stopped.")

    def run(self, children: Children, host: str, port: int, waiting: dict[str, tuple[list[str], str | None]]) -> None:
        answered, began = threading.Event(), time.monotonic()
        threading.Thread(target=wait_for_answer, args=(host, port, answered), daemon=True).start()
        said = False
        while not children.stopping:
            if answered.is_set() and not said:
                said = True
                self.stdout.write(f"\niwtag is at {url(host, port)}   (Ctrl-C stops everything)\n\n")
                self.stdout.flush()
            if waiting and (said or time.monotonic() - began > WEB_FIRST):
                for name, (arguments, environment) in waiting.items():
                    children.start(name, arguments, environment)
                waiting = {}
            children.tend()
            time.sleep(0.1)
        children.end()


def migrate() -> None:
    """Bring the database up to date; quick when it is. CommandError when it cannot be reached."""
    connection = connections[DEFAULT_DB_ALIAS]
    try:
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            call_command("migrate", interactive=False, verbosity=0)
    except OperationalError as e:
        reason = str(e).strip().splitlines()[0]
        raise CommandError(f"The database cannot be reached: {reason} Check DATABASE_URL or the data folder.") from None


def wait_for_answer(host: str, port: int, answered: threading.Event) -> None:
    """Set `answered` when the web server answers a request, whatever it says."""
    reach = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    while not answered.is_set():
        connection = http.client.HTTPConnection(reach, port, timeout=10)
        try:
            connection.request("GET", "/api/health", headers={"Host": "localhost"})
            connection.getresponse().read()
            answered.set()
        except (OSError, http.client.HTTPException):
            time.sleep(0.1)
        finally:
            connection.close()


class Children:
    """The processes that `up` started. Each has a session of its own, so that the terminal's Ctrl-C reaches only us and
    each of them gets exactly one signal; each dies with us, whatever ends us."""

    def __init__(self, write: Any) -> None:
        self.write = write
        self.stopping = 0
        self.failed = ""
        self._started: dict[str, tuple[list[str], str | None]] = {}
        self._alive: dict[str, subprocess.Popen[str]] = {}
        self._pumps: list[threading.Thread] = []
        self._born: dict[str, float] = {}
        self._deaths: dict[str, int] = {}
        self._again: dict[str, float] = {}

    def ask(self, *_: Any) -> None:
        """Signal handler: the first asks everything to stop, the second kills."""
        self.stopping += 1
        if self.stopping > 1:
            for child in self._alive.values():
                kill(child)

    def start(self, name: str, arguments: list[str], cluster: str | None) -> None:
        environment = {k: v for k, v in os.environ.items() if k != "Q_CLUSTER_NAME"}
        environment |= {process.PARENT: str(os.getpid()), "PYTHONUNBUFFERED": "1"}
        if cluster:
            environment["Q_CLUSTER_NAME"] = cluster
        child = subprocess.Popen(
            [sys.executable, sys.argv[0], *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._started[name], self._alive[name], self._born[name] = (arguments, cluster), child, time.monotonic()
        pump = threading.Thread(target=self._pump, args=(name, child), daemon=True)
        pump.start()
        self._pumps = [p for p in self._pumps if p.is_alive()] + [pump]

    def _pump(self, name: str, child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        for line in child.stdout:
            if not (name == "web" and line.startswith("Serving ")):
                self.write(f"{name:>7} | {line.rstrip()}")

    def tend(self) -> None:
        """Start again what ended, with a growing delay; give up when one ends again and again."""
        now = time.monotonic()
        for name, child in list(self._alive.items()):
            if child.poll() is None or self.stopping:
                continue
            if name not in self._again:
                self._deaths[name] = self._deaths.get(name, 0) + 1 if now - self._born[name] < SETTLED else 1
                if self._deaths[name] >= PATIENCE:
                    self.failed, self.stopping = name, 1
                    return
                kill(child)  # what may be left of its group
                self.write(f"{name} ended with code {child.returncode} and is started again")
                self._again[name] = now + 0.2 * 2 ** self._deaths[name]
            elif now >= self._again[name]:
                del self._again[name]
                self.start(name, *self._started[name])

    def end(self) -> None:
        """Ask every child once, then kill what is left. Returns when nothing is."""
        for child in self._alive.values():
            if child.poll() is None:
                child.terminate()
        limit = time.monotonic() + GRACE
        while time.monotonic() < limit and any(child.poll() is None for child in self._alive.values()):
            time.sleep(0.02)
        for name, child in self._alive.items():
            if child.poll() is None and self.stopping < 2:
                self.write(f"{name} did not end in time and is killed; what it stored is safe")
            kill(child)
            child.wait()
        for pump in self._pumps:
            pump.join(0.5)


def kill(child: subprocess.Popen[str]) -> None:
    """SIGKILL to everything in the child's group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
