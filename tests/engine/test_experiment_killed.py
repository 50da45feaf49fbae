"""A real cluster, killed with -9 in the middle of an experiment: the table at the end is the one of an experiment that
nobody disturbed."""

from __future__ import annotations

import json
import time

import pytest

from .installation import Installation, family, kill, postgres_database, redis_database, until

pytestmark = pytest.mark.cluster

SEED = """
import django, json, sys
django.setup()
from judging.actions.experiments import create_experiment, start
from tagging.actions import review
from tagging.models import Collection, ImageAsset, ModelAdapter
from tests.fakes import adapter as fakes
collection, made = Collection.objects.get_or_create(name="C", slug="c", root="/nowhere")
if made:
    ImageAsset.objects.bulk_create(
        ImageAsset(collection=collection, path=f"{i:03}.jpg", sha256=f"{i:064x}", width=1, height=1) for i in range(120)
    )
    ModelAdapter.objects.create(slug="fake", kind="fake", label="Fake", options=json.loads(sys.argv[1]))
    for image in ImageAsset.objects.all():
        right = fakes.expected(image.name, fakes.Fake.Options(variant="a"))
        review.decide(image.pk, by=None, door="review", add=right[:4], review="reviewed")
axes = {"mode": "product", "adapters": ["fake"], "options": {"variant": ["a", "b"], "kept": [3, 5]}}
experiment = create_experiment(collection, axes, name="E", seed=2, samples=2)
start(experiment, racing=sys.argv[2] == "race")
print(experiment.pk)
"""
TABLE = """
import django, json, sys
django.setup()
from judging import board
from judging.models import Experiment
experiment = Experiment.objects.get(pk=int(sys.argv[1]))
found = board.compute(experiment)
rows = [{k: v for k, v in row.items() if k not in ("row", "recipe")} for row in found["rows"]]
log = [[e.get("images"), e["text"], [d["why"] for d in e.get("dropped", [])]] for e in experiment.log]
print(json.dumps([{**found, "rows": rows}, log, experiment.reached]))
"""
BEHAVIOUR = {"image_ms": 12, "batch": 8, "load_seconds": 0.3}


def state(site: Installation, pk: int) -> str:
    return str(site.value("SELECT state FROM judging_experiment WHERE id = ?", pk))


def cells(site: Installation) -> int:
    return int(site.value("SELECT COUNT(*) FROM tagging_proposal"))


@pytest.mark.parametrize("how", ["all", "race"])
def test_killed_in_mid_experiment_ends_with_the_same_table(sqlite: Installation, how):
    killed_in_the_middle(sqlite, how)


@pytest.mark.postgres
@pytest.mark.redis
def test_the_same_on_postgresql_with_the_queue_in_redis(tmp_path, migrated_postgres):
    with postgres_database(migrated_postgres) as database, redis_database() as broker:
        site = Installation(tmp_path, database, broker)
        try:
            killed_in_the_middle(site, "all")
        finally:
            site.close()


def killed_in_the_middle(site: Installation, how: str) -> None:
    options = json.dumps({**BEHAVIOUR, "log": str(site.calls)})
    experiment = int(site.python("-c", SEED, options, how))
    for wanted in (10, 60, 150):
        before = cells(site)
        clusters = [site.worker("gpu"), site.worker("iwtag")]
        until(
            lambda: cells(site) >= min(before + 1, wanted) or state(site, experiment) != "running",  # noqa: B023
            "the experiment goes on",
        )
        time.sleep(0.4)
        for cluster in clusters:
            kill(*(p.pid for p in family(cluster.pid)))
            cluster.wait()
    site.worker("gpu")
    site.worker("iwtag")
    until(lambda: state(site, experiment) == "done", "the experiment ends")
    slices = "SELECT COUNT(*), COUNT(DISTINCT row_id || ' ' || sample || ' ' || lo) FROM judging_experimentrun"
    assert len(set(site.rows(slices)[0])) == 1  # none was started twice
    asked = site.called("c")
    table = json.loads(site.python("-c", TABLE, str(experiment)))
    again = int(site.python("-c", SEED, options, how))
    until(lambda: state(site, again) == "done", "the undisturbed experiment ends")
    assert site.called("c") == asked  # everything was known
    assert json.loads(site.python("-c", TABLE, str(again))) == table
    assert table[0]["images"] > 0
