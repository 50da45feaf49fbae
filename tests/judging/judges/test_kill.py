"""A real worker with a job of a judge, killed in the act."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from tests.engine.conftest import migrated, migrated_postgres, sqlite  # noqa: F401  (fixtures)
from tests.engine.installation import Installation, family, postgres_database, redis_database, until
from tests.fakes import judge as fake

#: two slices: the first is written when the worker dies in the second
N = 32
SEED = """
import sys
import django
django.setup()
from judging.actions.judge_jobs import start_job
from tagging.models import Collection
from tests.judging.judges.world import judge, run
trip = Collection.objects.create(name="Trip", slug="trip", kind="upload")
said = {f"{i:03}.jpg": ["dog", "cat"] for i in range(int(sys.argv[1]))}
made = run(trip, said)
profile = judge(truth={name: ["dog"] for name in said}, slow_ms=60, log=sys.argv[2], hang_at=int(sys.argv[3]))
print(start_job(profile.current, runs=[made]).pk)
"""


@pytest.mark.cluster
def test_kill_nine_in_the_middle_of_a_job_leaves_no_gap_and_no_double(sqlite: Installation):  # noqa: F811
    killed_in_the_middle(sqlite)


@pytest.mark.cluster
@pytest.mark.postgres
@pytest.mark.redis
def test_the_same_on_postgresql_with_the_queue_in_redis(tmp_path, migrated_postgres):  # noqa: F811
    with postgres_database(migrated_postgres) as database, redis_database() as broker:
        site = Installation(tmp_path, database, broker)
        try:
            killed_in_the_middle(site)
        finally:
            site.close()


def killed_in_the_middle(site: Installation) -> None:
    fake.install(site.folder / "site")
    job = int(site.python("-c", SEED, str(N), str(site.calls), "0"))
    first = site.worker("io")
    until(lambda: _asked(site) >= 20, "the judge is asked")
    for process in family(first.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    first.wait()
    before = site.rows("SELECT state, n_done FROM judging_judgejob WHERE id = ?", job)
    assert before[0][0] == "running"
    assert before[0][1] == 16
    site.worker("io")
    site.worker("default")  # its sweeper rings for what a death left behind
    until(lambda: site.rows("SELECT state FROM judging_judgejob WHERE id = ?", job) == [("done",)], "the job is done")
    ((done, verdicts, cached),) = site.rows(
        "SELECT n_done, n_verdicts, n_cached FROM judging_judgejob WHERE id = ?", job
    )
    assert (done, verdicts + cached) == (N, N)
    assert site.rows("SELECT COUNT(*), COUNT(DISTINCT image_sha256) FROM judging_judgeverdict") == [(N, N)]
    assert site.rows("SELECT COUNT(*) FROM judging_runverdict") == [(N,)]
    assert site.rows("SELECT COUNT(*) FROM judging_judgedtag WHERE role = 0") == [(2 * N,)]
    assert _asked(site) <= N + 16, "only what was in the air is asked again"


@pytest.mark.cluster
def test_a_call_that_hangs_is_noticed_given_back_and_asked_again(sqlite: Installation):  # noqa: F811
    fake.install(sqlite.folder / "site")
    job = int(sqlite.python("-c", SEED, str(N), str(sqlite.calls), "20"))
    sqlite.environment["IWTAG_JUDGE_HANG_SECONDS"] = "3"
    sqlite.worker("io")
    until(lambda: sqlite.rows("SELECT state FROM judging_judgejob WHERE id = ?", job) == [("done",)], "the job is done")
    ((verdicts, problems, error),) = sqlite.rows(
        "SELECT n_verdicts + n_cached, problems, error FROM judging_judgejob WHERE id = ?", job
    )
    assert (verdicts, error) == (N, "")
    assert "No answer for" in problems
    assert "after 16 of 32" in problems
    assert sqlite.rows("SELECT COUNT(*), COUNT(DISTINCT image_sha256) FROM judging_judgeverdict") == [(N, N)]


def _asked(installation: Installation) -> int:
    return installation.calls.read_text().count("\n")
