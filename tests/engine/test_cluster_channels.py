"""Runs of several channels in real clusters, killed at random: each image ends with one result of each channel and one
proposal."""

from __future__ import annotations

import json
import random
import time

import pytest

from .installation import Installation, kill, roles, until
from .test_cluster import check_log

pytestmark = pytest.mark.cluster

N = 400
SLOW = {"image_ms": 4, "prepare_ms": 1, "batch": 8, "load_seconds": 0.1}
BAD = ["00007.jpg", "00200.jpg"]
MERGED = json.dumps({"tags": [{"tag": "crimson sky", "sources": ["qwen: red sky"], "evidence": ""}], "caption": ""})


class Queues:
    """A cluster for each queue, restarted when its main process is gone."""

    def __init__(self, site: Installation, names: tuple[str, ...]) -> None:
        self.site, self.names = site, names
        self.clusters = {name: site.worker(name) for name in names}

    def tend(self) -> None:
        for name, child in self.clusters.items():
            if child.poll() is not None:
                self.clusters[name] = self.site.worker(name)

    def kill_worker(self, name: str) -> None:
        def look() -> dict[str, int]:
            self.tend()
            return roles(self.clusters[name].pid)

        kill(until(look, f"the cluster of {name} is complete")["worker"])


def results(site: Installation, run: int) -> int:
    return int(site.value("SELECT COUNT(*) FROM tagging_channelresult WHERE run_id = ?", run))


@pytest.mark.parametrize("order", ["parallel", "sequential"])
def test_kills_between_and_within_stages_lose_and_double_nothing(installation, order):
    site, seed = installation, random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    queues = Queues(site, ("gpu", "io", "iwtag"))
    template = "{{ tags('wd') }}" if order == "sequential" else "Say it"
    run = site.run_channels(
        N,
        [
            ("wd", "fake", {"bad": BAD, **SLOW}, ""),
            ("qwen", "fake-remote", {"says": "red sky", "failing": ["00100.jpg"], **SLOW}, template),
            (
                "merge",
                "fake-talker",
                {"says": MERGED, "stubborn": ["00003.jpg"], **SLOW},
                "",
            ),
        ],
        {"rule": "llm_merge", "order": order},
    )
    for victim in dice.sample(["gpu", "io", "gpu", "iwtag", "gpu"], 5):
        before, end = results(site, run), time.monotonic() + 20
        while results(site, run) == before and site.state(run) == "running" and time.monotonic() < end:
            queues.tend()
            time.sleep(0.05)
        time.sleep(dice.uniform(0.0, 0.6))
        queues.kill_worker(victim)
    until(lambda: queues.tend() or site.state(run) != "running", f"run {run} ends")
    assert site.state(run) == "done", site.value("SELECT error FROM tagging_run WHERE id = ?", run)
    count = "SELECT COUNT(*), COUNT(DISTINCT image_id) FROM tagging_proposal WHERE run_id = ? AND state = 'ok'"
    assert site.rows(count, run) == [(N, N)]
    stages = dict(site.rows("SELECT stage, COUNT(*) FROM tagging_channelresult WHERE run_id = ? GROUP BY 1", run))
    assert stages == {0: N, 1: N, 2: N}
    failed = site.rows("SELECT stage, COUNT(*) FROM tagging_channelresult WHERE state = 'error' GROUP BY 1 ORDER BY 1")
    assert failed == [(0, len(BAD)), (1, 1), (2, 2)]  # 00100 gets no citation, 00003 no JSON: both fall back
    counters = (
        "SELECT stage, SUM(n_ok + n_empty + n_error), MIN(state), MAX(state) FROM tagging_chunk WHERE run_id = ? "
        "GROUP BY 1 ORDER BY 1"
    )
    assert [tuple(map(int, r)) for r in site.rows(counters, run)] == [(s, N, 2, 2) for s in range(3)]
    assert site.value("SELECT SUM(n_fallback) FROM tagging_chunk WHERE run_id = ?", run) == 2
    held = site.rows("SELECT tag_id, COUNT(*) FROM tagging_imagetag GROUP BY 1 ORDER BY 1")
    assert site.rows("SELECT tag_id, proposed FROM tagging_tagcount WHERE proposed <> 0 ORDER BY 1") == held
    check_log(site)


def test_each_model_loads_once_when_nobody_dies(sqlite: Installation):
    queues = Queues(sqlite, ("gpu", "iwtag"))
    run = sqlite.run_channels(
        200,
        [
            ("one", "fake", SLOW, ""),
            ("two", "fake-talker", {"says": "red", **SLOW}, "x"),
            ("three", "fake", {**SLOW, "variant": "3"}, ""),
        ],
        {"rule": "votes", "votes": 1, "order": "sequential"},
    )
    until(lambda: queues.tend() or sqlite.state(run) != "running", f"run {run} ends")
    assert sqlite.state(run) == "done"
    assert len(sqlite.called("load")) <= 3
    assert len(sqlite.called("c")) == 600
    check_log(sqlite)
