"""The policy pipeline alone, and recomputing a run with it.

    python benchmarks/policy.py [--images 20000] [--lists 5000]

One core. Synthetic scores: 120 above the floor per image, 30 above the threshold, over 10,861 labels. First the pure
functions, beside a plain Python loop over the same scores; then whole recomputes through the database (SQLite): read,
compare, keep the history, write, and, for a run that is shown, replace the proposed tags on the images.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "iwtag_site.settings")
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"
LABELS, SCORED, KEPT = 10_861, 120, 30
THRESHOLDS = {"general": 0.35, "character": 0.35}


def label_set():
    from tagging.adapters.base import LabelSet

    return LabelSet(
        tuple(f"tag_{i:05}" for i in range(LABELS)),
        tuple("character" if i % 9 == 4 else "general" for i in range(LABELS)),
    )


def blobs(n: int):
    """Packed scores of n images."""
    import numpy as np

    from tagging.adapters.base import PackedScores

    rng = np.random.default_rng(7)
    weights = 1 / np.arange(1, LABELS + 1)
    weights /= weights.sum()
    found = []
    for _ in range(n):
        labels = rng.choice(LABELS, SCORED, replace=False, p=weights).astype(np.uint16)
        scores = np.concatenate((rng.uniform(0.36, 0.99, KEPT), rng.uniform(0.05, 0.34, SCORED - KEPT)))
        packed = np.sort(np.rint(scores * 65535).astype(np.uint16))[::-1]
        found.append(PackedScores(labels, packed).to_bytes())
    return found


def per_image(function: Callable[[], object], n: int) -> float:
    """Best of three, microseconds of CPU per image."""
    times = []
    for _ in range(3):
        start = time.process_time()
        function()
        times.append((time.process_time() - start) / n * 1e6)
    return min(times)


def plain(blob: bytes, labels, banned: set[str]) -> list[tuple[str, float]]:
    """What a script does: every score becomes a Python object, then rules one after the other."""
    import numpy as np

    values = np.frombuffer(blob, dtype="<u2")
    half = len(values) // 2
    dense = np.zeros(len(labels.names), dtype=np.float32)
    dense[values[:half]] = values[half:] / 65535
    tags = []
    for name, category, score in zip(labels.names, labels.categories, dense.tolist(), strict=True):
        if score >= THRESHOLDS[category]:
            word = name.replace("_", " ").lower().strip()
            if word not in banned:
                tags.append((word, score))
    return sorted(tags, key=lambda t: -t[1])[:50]


def pure(n: int, entries: int) -> None:
    from tagging.adapters.base import PackedScores
    from tagging.policy.bulk import BulkPolicy
    from tagging.policy.pipeline import compile_policy
    from tagging.policy.select import label_floors, select_many
    from tagging.policy.spec import WordList

    labels, data = label_set(), blobs(n)
    lists = [
        WordList("bans", "banned", [f"word {i}" for i in range(entries)]),
        WordList("words", "vocabulary", [f"tag {i:05}" for i in range(0, LABELS, 2)][:entries]),
        WordList("swaps", "replacement", [{"text": f"old {i}", "replacement": f"new {i}"} for i in range(50)]),
    ]
    plain_us = per_image(lambda: [plain(b, labels, {"x"}) for b in data[:200]], 200)
    print(f"plain loop over all scores                     {plain_us:8.1f} us an image")
    for title, policy in (
        ("the defaults", compile_policy({})),
        (f"lists of {entries:,}, limit 20", compile_policy({"vocabulary": "prefer", "max_tags": 20}, lists)),
    ):
        packed = [PackedScores.from_bytes(b) for b in data]
        chosen = [policy.select(labels, p, THRESHOLDS) for p in packed]
        some = [policy.apply(c, thresholds=THRESHOLDS) for c in chosen[:50]]  # words are met once
        assert all(len(o.kept) == (policy.spec.max_tags or KEPT) for o in some)
        select_us = per_image(
            lambda policy=policy, packed=packed: [policy.select(labels, p, THRESHOLDS) for p in packed], n
        )
        apply_us = per_image(
            lambda policy=policy, chosen=chosen: [policy.apply(c, thresholds=THRESHOLDS) for c in chosen], n
        )
        bulk = BulkPolicy(policy, labels, "wd")
        bulk.apply(data[:10], THRESHOLDS)
        bulk_us = per_image(
            lambda bulk=bulk: [bulk.apply(data[i : i + 1000], THRESHOLDS) for i in range(0, n, 1000)], n
        )
        print(f"{title}:")
        print(f"  choose among the scores of one image         {select_us:8.1f} us")
        print(f"  all steps on its {KEPT} candidates               {apply_us:8.1f} us")
        print(f"  both, many images at once, with the JSON     {bulk_us:8.1f} us ({1e6 / bulk_us:,.0f} images/s)")
    floors = label_floors(labels, THRESHOLDS)
    many_us = per_image(lambda: select_many(data, floors), n)
    print(f"thresholds alone, many images at once          {many_us:8.1f} us ({1e6 / many_us:,.0f} images/s)")


def database(n: int, entries: int) -> None:
    from django.core.management import call_command
    from django.utils import timezone

    from prompts.actions import create_wordlist, save_wordlist
    from tagging.actions import policies, recompute
    from tagging.actions.recipes import ChannelSpec, get_recipe
    from tagging.actions.setup import ensure_default_adapter
    from tagging.engine.store import store_labels
    from tagging.models import Collection, ImageAsset, Policy, Prediction, Proposal, RecomputeJob, Run

    call_command("migrate", verbosity=0)
    labels = label_set()
    digest = store_labels(labels)
    collection = Collection.objects.create(name="Scale", slug="scale", kind="upload")
    recipe = get_recipe([ChannelSpec(adapter=ensure_default_adapter())])
    ImageAsset.objects.bulk_create(
        [ImageAsset(collection=collection, path=f"{i}.jpg", sha256=f"{i:064d}") for i in range(n)], batch_size=2000
    )
    images = list(ImageAsset.objects.order_by("pk").values_list("pk", flat=True))
    Prediction.objects.bulk_create(
        [
            Prediction(key=f"{i}", image_sha256=f"{i:064d}", labels_id=digest, scores=blob)
            for i, blob in enumerate(blobs(n))
        ],
        batch_size=2000,
    )
    predictions = list(Prediction.objects.order_by("pk").values_list("pk", flat=True))

    def run_of(shown: bool) -> Run:
        run = Run.objects.create(
            recipe=recipe, collection=collection, state="done", finished_at=timezone.now(), shown=shown, n_total=n
        )
        Proposal.objects.bulk_create(
            [
                Proposal(run=run, image_id=i, state="empty", prediction_id=p)
                for i, p in zip(images, predictions, strict=True)
            ],
            batch_size=2000,
        )
        return run

    # half of the list is nothing that is ever said: a long list costs what it costs to compile, once
    bans = create_wordlist(slug="bans", kind="banned", entries=[f"word {i}" for i in range(entries)])
    policy = Policy.objects.create(slug="p", name="p")

    def measure(title: str, run: Run, spec: dict, words: list) -> None:
        lists = [save_wordlist(bans, [*(f"word {i}" for i in range(entries)), *words])]
        version = policies.create_policy_version(policy, spec, lists)
        waiting = recompute.start_recompute(run, version)
        start = time.process_time()
        job = recompute.run_recompute(waiting.pk)
        cpu = time.process_time() - start
        assert job.state == RecomputeJob.State.DONE, job.error
        print(
            f"  {title:<52} {job.n_done / job.seconds:8,.0f} images/s, {job.n_done / cpu:8,.0f} a CPU second, "
            f"{job.n_changed / job.n_done:4.0%} changed"
        )

    for shown in (False, True):
        run = run_of(shown)
        if shown:
            ImageAsset.objects.update(proposed_by=run)
        print(f"recompute of {n:,} images, {'shown on the images' if shown else 'not shown'}:")
        measure("from nothing to 51 tags", run, {}, [])
        measure("the same rules again", run, {}, ["another word"])
        measure(
            "thresholds far higher: 22 of 51 tags go", run, {"thresholds": {"general": 0.38, "character": 0.38}}, []
        )
        measure("thresholds a little higher: 2 of 29 go", run, {"thresholds": {"general": 0.42, "character": 0.42}}, [])
        measure("and lower again: 2 come", run, {"thresholds": {"general": 0.38, "character": 0.38}}, [])
        measure(
            "a rare word banned",
            run,
            {"thresholds": {"general": 0.38, "character": 0.38}},
            [{"text": "tag 00300", "match": "exact"}],
        )
        measure(
            "a common word banned",
            run,
            {"thresholds": {"general": 0.38, "character": 0.38}},
            [{"text": "tag 00003", "match": "exact"}],
        )
        measure(
            "twelve common words banned",
            run,
            {"thresholds": {"general": 0.38, "character": 0.38}},
            [{"text": f"tag {i:05}", "match": "exact"} for i in range(12)],
        )
        measure("a forced word (the ordinary way)", run, {"forced": ["photo"]}, [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--lists", type=int, default=5_000, help="Entries of each list.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["IWTAG_DATA_DIR"] = folder
        import django

        django.setup()
        pure(min(options.images, 5_000), options.lists)
        database(options.images, options.lists)


if __name__ == "__main__":
    main()
