"""The arithmetic of comparisons: leaderboards, intervals, strengths from votes.

    python benchmarks/judging.py [--recipes 20] [--images 1000] [--tags 10]

One core. A leaderboard of 20 recipes on 1,000 images with 10 tags each, once from the database (SQLite: read, match,
count, 2,000 paired draws) and once the draws alone, beside the same draws in a plain Python loop (extrapolated from
20). Then Bradley–Terry of 12 recipes from 2,400 votes with 500 refits, without and with the covariate. Last an
experiment of 6 recipes on 1,000 images whose answers are all known, from its start to its leaderboard, controller and
worker in one process: no model is called.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "iwtag_site.settings")
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"
WORDS = 800


def best(function: Callable[[], Any], times: int = 3) -> float:
    """Best of some, in seconds."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return min(found)


def seed(recipes: int, images: int, tags: int) -> Any:
    """An experiment of runs that are done: about two thirds of each recipe's tags are judged right."""
    from django.core.management import call_command
    from django.db import transaction

    call_command("migrate", verbosity=0)
    from judging.actions.experiments import compare_runs
    from tagging.actions.recipes import default_policy_version
    from tagging.models import Collection, ImageAsset, ImageTag, Proposal, Recipe, Run, Tag

    rng = random.Random(5)
    collection = Collection.objects.create(name="C", slug="c", kind="upload")
    ImageAsset.objects.bulk_create(
        ImageAsset(
            collection=collection,
            path=f"{i:05}.jpg",
            sha256=hashlib.sha256(str(i).encode()).hexdigest(),
            review_state="reviewed",
        )
        for i in range(images)
    )
    pks = list(ImageAsset.objects.order_by("pk").values_list("pk", flat=True))
    Tag.objects.bulk_create(Tag(name=f"word {i}", key=f"word {i}") for i in range(WORDS))
    words = list(Tag.objects.order_by("pk").values_list("pk", "name"))
    truth = {pk: rng.sample(words, 3 * tags) for pk in pks}
    with transaction.atomic():
        ImageTag.objects.bulk_create(
            ImageTag(image_id=pk, tag_id=tag, state=4 if at < tags else 3)
            for pk, of in truth.items()
            for at, (tag, _) in enumerate(of[: 2 * tags])
        )
    policy, runs = default_policy_version(), []
    for r in range(recipes):
        recipe = Recipe.objects.create(key=f"{r:064x}", name=f"recipe {r}", policy_version=policy)
        run = Run.objects.create(
            recipe=recipe, collection=collection, state="done", finished_at="2026-01-01T00:00Z", n_total=images
        )
        runs.append(run)
        share = 0.5 + 0.02 * r
        rows = []
        for pk, of in truth.items():
            said = [of[i] if rng.random() < share else of[tags + rng.randrange(2 * tags)] for i in range(tags)]
            said = list(dict.fromkeys(said))
            listed = [[name, "general", round(rng.random(), 4), "kept", "", "m", name] for _, name in said]
            rows.append(Proposal(run=run, image_id=pk, state="ok", tags=listed))
        Proposal.objects.bulk_create(rows, batch_size=500)
    return compare_runs(runs)


def plain(num: Any, den: Any, draws: int) -> list[list[float]]:
    """What a script does: for each draw pick images, for each recipe sum and divide."""
    recipes, n = num.shape
    num, den = num.tolist(), den.tolist()
    rng = random.Random(0)
    found = []
    for _ in range(draws):
        picked = [rng.randrange(n) for _ in range(n)]
        found.append([sum(num[r][i] for i in picked) / sum(den[r][i] for i in picked) for r in range(recipes)])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", type=int, default=20)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--tags", type=int, default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["IWTAG_DATA_DIR"] = folder
        import django

        django.setup()
        experiment = seed(given.recipes, given.images, given.tags)
        leaderboards(experiment)
        strengths()
        cached(given.images)


def cached(images: int) -> None:
    """Six recipes that differ in what the model answers; a first experiment asks, the second one is timed."""
    from django.core.files.base import ContentFile
    from django.core.files.storage import default_storage

    from judging import board
    from judging.actions.advance import advance
    from judging.actions.experiments import create_experiment, start
    from tagging.adapters import registry
    from tagging.engine import worker
    from tagging.models import Collection, ImageAsset, ModelAdapter, Prediction, Proposal

    registry.BUILT_IN["fake"] = ("Fake", "tests.fakes.adapter:Fake")
    registry.registered.cache_clear()
    ModelAdapter.objects.create(slug="fake", label="Fake", kind="fake")
    collection = Collection.objects.create(name="K", slug="k", kind="upload")
    ImageAsset.objects.bulk_create(
        ImageAsset(collection=collection, path=f"{i:05}.jpg", sha256=hashlib.sha256(f"k{i}".encode()).hexdigest())
        for i in range(images)
    )
    for i in range(images):
        default_storage.save(f"{collection.upload_prefix}/{i:05}.jpg", ContentFile(b""))

    def whole() -> float:
        began = time.perf_counter()
        axes = {"mode": "product", "adapters": ["fake"], "options": {"variant": list("abcdef")}}
        experiment = create_experiment(collection, axes)
        start(experiment)
        while experiment.state == "running":
            advance(experiment.pk)
            while worker.drain("gpu"):
                pass
            experiment.refresh_from_db()
        board.board(experiment)
        return time.perf_counter() - began

    asked = whole()
    known, results = Prediction.objects.count(), Proposal.objects.count()
    took = whole()
    calls, cells = Prediction.objects.count() - known, Proposal.objects.count() - results
    print(f"Experiment of 6 recipes on {images:,} images, all answers known   (bar: 30 s, no calls)")
    print(f"  {took:6.1f} s for {cells:,} cells, {calls} calls   (asked for the first time: {asked:.1f} s)")


def leaderboards(experiment: Any) -> None:
    import numpy as np

    from judging import board, metrics, ranking
    from judging.metrics_loading import load

    size = f"{experiment.rows.count()} recipes, {experiment.n_images:,} images"
    print(f"Leaderboard of {size}")
    whole = best(lambda: board.board(experiment, fresh=True), 2)
    read = best(lambda: load(experiment), 2)
    kept = best(lambda: board.board(experiment), 2)
    sheet = load(experiment)
    counts = [metrics.count(sheet.truth, said) for said in sheet.said]
    pairs = [metrics.ratio("f1", c, s) for c, s in zip(counts, sheet.said, strict=True)]
    num, den = np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs])
    drawn = best(lambda: ranking.compare(num, den, 0))
    slow = best(lambda: plain(num, den, 20), 1) * ranking.DRAWS / 20
    print(f"  computed      {whole:6.2f} s   (bar: 3 s)")
    print(f"  of it reading {read:6.2f} s")
    print(f"  kept          {kept:6.3f} s   {whole / kept:,.0f} times faster")
    print(f"  2,000 draws   {drawn:6.3f} s   {slow / drawn:,.0f} times faster than a plain loop ({slow:.0f} s)")


def strengths() -> None:
    import numpy as np

    from judging.ranking_votes import Votes, bradley_terry

    rng = np.random.default_rng(1)
    m, players = 2400, 12
    a = rng.integers(0, players, m)
    b = (a + rng.integers(1, players, m)) % players
    real = np.linspace(-1, 1, players)
    outcome = (rng.random(m) < 1 / (1 + np.exp(real[b] - real[a]))).astype(float)
    votes = Votes.of(a, b, outcome, rng.integers(0, 400, m), *rng.integers(3, 14, (2, m)))
    print("Bradley–Terry, 12 recipes, 2,400 votes, 500 refits   (bar: 1 s)")
    for name, control in (("plain", False), ("with tag counts", True)):
        print(f"  {name:<16}{best(lambda c=control: bradley_terry(votes, players, control_length=c)):6.3f} s")


if __name__ == "__main__":
    main()
