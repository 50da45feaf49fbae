"""Real clusters, killed at random: every image ends with exactly one result, whatever dies."""

from __future__ import annotations

import os
import random
import signal
import time

import psutil
import pytest

from .installation import Installation, allowance, family, kill, postgres_database, roles, until

pytestmark = pytest.mark.cluster

IMAGES = 2000
BAD = tuple(f"{i:05}.jpg" for i in range(7, IMAGES, 250))
FAILING = tuple(f"{i:05}.jpg" for i in range(13, IMAGES, 250))
BEHAVIOUR = {
    "bad": BAD,
    "failing": FAILING,
    "image_ms": 5,
    "prepare_ms": 1,
    "load_seconds": 0.2,
    "batch": 16,
    "out_of_memory_over": 12,
}
VICTIMS = ("worker", "pusher", "monitor", "sentinel", "main", "tree")


def check_ledger(site: Installation, run: int, n: int, errors: int, *, shown: bool = True) -> None:
    """One proposal per image, counters equal to rows, nothing lost or doubled on the way to the tags."""
    count = "SELECT COUNT(*), COUNT(DISTINCT image_id) FROM tagging_proposal WHERE run_id = ?"
    assert site.rows(count, run) == [(n, n)]
    by_state = dict(site.rows("SELECT state, COUNT(*) FROM tagging_proposal WHERE run_id = ? GROUP BY 1", run))
    assert by_state == ({"ok": n - errors, "error": errors} if errors else {"ok": n})
    counters = (
        "SELECT SUM(n_ok), SUM(n_empty), SUM(n_error), MIN(state), MAX(state) FROM tagging_chunk WHERE run_id = ?"
    )
    assert [tuple(map(int, r)) for r in site.rows(counters, run)] == [(n - errors, 0, errors, 2, 2)]
    predictions = "SELECT COUNT(*), COUNT(DISTINCT key) FROM tagging_prediction WHERE run_id = ?"
    assert site.rows(predictions, run) == [(n - errors, n - errors)]
    held = site.rows("SELECT tag_id, COUNT(*) FROM tagging_imagetag GROUP BY 1 ORDER BY 1")
    assert site.rows("SELECT tag_id, proposed FROM tagging_tagcount WHERE proposed <> 0 ORDER BY 1") == held
    if not shown:
        return
    tags = "SELECT COUNT(*) FROM tagging_imagetag WHERE run_id = ? AND state = 1"
    assert site.value(tags, run) == 5 * (n - errors)
    on_images = "SELECT COUNT(*) FROM tagging_imageasset WHERE proposed_by_id = ? AND proposal_state IN ('ok', 'error')"
    assert site.value(on_images, run) == n


def check_log(site: Installation) -> None:
    text = site.log.read_text()
    for word in ("Traceback", "IntegrityError", "database is locked", "deadlock detected"):
        assert word not in text, text[-5000:]


class Hosts:
    """Clusters on pretended hosts, restarted when their main process is gone, as a service manager would."""

    def __init__(self, site: Installation, names: tuple[str, ...]) -> None:
        self.site = site
        self.clusters = {name: site.worker(host=name) for name in names}
        self.everything: set[psutil.Process] = set()

    def tend(self) -> None:
        for name, child in self.clusters.items():
            self.everything.update(family(child.pid))
            if child.poll() is not None:
                self.clusters[name] = self.site.worker(host=name)

    def complete(self, name: str) -> dict[str, int]:
        """All processes of a cluster, once they are there."""

        def look() -> dict[str, int]:
            self.tend()
            return roles(self.clusters[name].pid)

        return until(look, f"the cluster on {name} is complete")

    def kill(self, name: str, victim: str) -> None:
        there = self.complete(name)
        kill(*(there.values() if victim == "tree" else [there[victim]]))

    def stop(self) -> None:
        """One SIGTERM each; nothing may be left."""
        self.tend()
        for child in self.clusters.values():
            child.send_signal(signal.SIGTERM)
        for child in self.clusters.values():
            assert child.wait(60) == 0
        _, alive = psutil.wait_procs([p for p in self.everything if p.pid != os.getpid()], timeout=10)
        assert not alive


def test_kills_in_mid_run_and_when_idle_lose_and_double_nothing(installation):
    site, seed = installation, random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    hosts = Hosts(site, ("one", "two") if site.database else ("one",))
    for name in hosts.clusters:
        hosts.complete(name)
    runs: list[int] = []
    for victim in dice.sample(VICTIMS, len(VICTIMS)):
        if not runs or site.state(runs[-1]) == "done":  # over before all have died: once more
            runs.append(site.run(IMAGES, variant=str(len(runs)), **BEHAVIOUR))
        run, before, began = runs[-1], site.done(runs[-1]), time.monotonic()
        until(
            lambda: hosts.tend() or site.done(run) > before or site.state(run) == "done",  # noqa: B023
            f"run {run} goes on, before {victim} dies",
        )
        time.sleep(max(0.0, dice.uniform(0.2, 1.5) - (time.monotonic() - began)))
        hosts.kill(dice.choice(list(hosts.clusters)), victim)
    for run in runs:
        until(lambda: hosts.tend() or site.state(run) != "running", f"run {run} ends")  # noqa: B023
        assert site.state(run) == "done"
        check_ledger(site, run, IMAGES, len(BAD) + len(FAILING), shown=run == runs[-1])
    print(f"{len(site.called('c'))} images computed for {IMAGES * len(runs)} results")
    for victim in ("worker", dice.choice(["pusher", "monitor", "sentinel"])):
        for name in hosts.clusters:
            hosts.kill(name, victim)
            until(lambda: roles(hosts.clusters[name].pid), "the cluster is back")  # noqa: B023
        again = site.run(20, shown=False, variant=victim)
        site.wait(again)
        assert site.done(again) == 20
    hosts.stop()
    check_log(site)


def test_an_image_that_kills_and_one_that_hangs_cost_only_themselves(sqlite: Installation):
    """The killer gets an error row after its second try alone; the one that hung is computed by the next process."""
    sqlite.environment["IWTAG_STALL_SECONDS"] = "4"
    hosts = Hosts(sqlite, ("one",))
    run = sqlite.run(60, poison=["00010.jpg"], hang=["00030.jpg"], bad=["00050.jpg"])
    until(lambda: hosts.tend() or sqlite.state(run) != "running", "the run ends")
    assert sqlite.state(run) == "done"
    errors = sqlite.rows(
        "SELECT i.path, p.error FROM tagging_proposal p JOIN tagging_imageasset i ON i.id = p.image_id "
        "WHERE p.state = 'error' ORDER BY 1"
    )
    assert errors == [
        ("00010.jpg", "The worker died on this image, 2 times."),
        ("00050.jpg", "00050.jpg cannot be decoded"),
    ]
    check_ledger(sqlite, run, 60, 2)
    tries = sqlite.called("c").count("00010.jpg")
    assert tries <= 4, f"{tries} processes died on one image"
    hosts.stop()
    check_log(sqlite)


def test_pause_is_obeyed_within_a_second_and_resume_loses_nothing(sqlite: Installation):
    hosts = Hosts(sqlite, ("one",))
    run = sqlite.run(300, image_ms=10, batch=8)
    until(lambda: sqlite.done(run) > 0, "the run has begun")
    sqlite.rows("UPDATE tagging_run SET state = 'paused'")  # what the action does, with no process to start first
    time.sleep(allowance(1))
    after = sqlite.done(run)
    time.sleep(0.7)
    assert sqlite.done(run) == after < 300
    assert sqlite.value("SELECT COUNT(*) FROM tagging_chunk WHERE state = 1") == 0
    resume = "import django; django.setup(); from tagging.actions import runs; from tagging.models import Run;"
    sqlite.python("-c", f"{resume} runs.resume(Run.objects.get())")
    until(lambda: hosts.tend() or sqlite.state(run) == "done", "the run is done")
    check_ledger(sqlite, run, 300, 0)
    assert len(sqlite.called("load")) == 1, "the model stays loaded"
    hosts.stop()


@pytest.mark.postgres
def test_a_database_that_drops_every_connection_costs_nothing(tmp_path, migrated_postgres):
    """As after a restart of the server, twice in mid-run."""
    with postgres_database(migrated_postgres) as database:
        site = Installation(tmp_path, database)
        try:
            hosts = Hosts(site, ("one", "two"))
            run = site.run(600, image_ms=8, batch=8)
            for _ in range(2):
                before = site.done(run)
                until(lambda: hosts.tend() or site.done(run) > before + 50, "the run goes on")  # noqa: B023
                site.rows(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            until(lambda: hosts.tend() or site.state(run) == "done", "the run is done")
            check_ledger(site, run, 600, 0)
            hosts.stop()
        finally:
            site.close()


def resident(site: Installation) -> str:
    """What the gpu worker's row says is loaded, as JSON text."""
    return str(site.rows("SELECT resident FROM tagging_worker WHERE queue = 'gpu'") or "")


def test_an_idle_worker_unloads_on_request_and_by_itself(sqlite: Installation):
    sqlite.worker("gpu")
    run = sqlite.run(16)
    sqlite.wait(run)
    until(lambda: "fake" in resident(sqlite), "the worker tells what it has loaded")
    assert sqlite.called("unload") == []
    assert sqlite.python("manage.py", "models", "--unload", "fake").strip() == "Asked 1 worker to unload fake."
    until(lambda: sqlite.called("unload"), "the idle worker unloads")
    until(lambda: "fake" not in resident(sqlite), "its row says so")
    until(lambda: not sqlite.rows("SELECT 1 FROM tagging_unloadrequest"), "the request is gone")
    # it is loaded again when it is needed, and the process was not replaced
    second = sqlite.run(16, variant="other")
    sqlite.wait(second)
    assert sqlite.state(second) == "done"
    assert len(set(sqlite.called("load"))) == 1


def test_an_unused_model_goes_after_its_time(sqlite: Installation):
    sqlite.environment["IWTAG_MODEL_IDLE_SECONDS"] = "2"
    sqlite.worker("gpu")
    run = sqlite.run(16)
    sqlite.wait(run)
    until(lambda: sqlite.called("unload"), "two idle seconds are over")
    until(lambda: "fake" not in resident(sqlite), "the row says so")
