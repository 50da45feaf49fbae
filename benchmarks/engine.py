"""What the engine itself costs per image: claim, identity, cache look-up, policy, store, tags in force, counters.

    python benchmarks/engine.py [--images 8000] [--postgres postgres://postgres@127.0.0.1/postgres]

The model is free and answers as a WD tagger does: 10,861 labels, 120 scores above the stored floor, 30 tags above the
threshold, Zipf-distributed. Each variant runs in a process of its own, on SQLite and on PostgreSQL when it is named:

    new       every image is inferred, stored and shown for review
    hidden    the same, not shown: no rows per tag
    again     shown again by another policy; predictions come from the cache and the tags in force are replaced
    same      the very same run a second time: no model is asked
    channels  two channels and their union, a second time under another rule: no model is asked
    memory    `new` over four times as many images: peak memory is to be about the same

CPU is that of the whole process, database client included (SQLite's work is in it, PostgreSQL's server is not).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # not this folder: its tagging.py is not the package
LABELS, SCORED, KEPT = 10_861, 120, 30


def free_adapter() -> Any:
    """An adapter that answers from a table made when it is loaded."""
    import numpy as np

    from tagging.adapters.base import Adapter, AdapterOptions, Capabilities, LabelSet, PackedScores, Reply

    rng = np.random.default_rng(1)
    weights = 1 / np.arange(1, LABELS + 1)
    weights /= weights.sum()
    categories = tuple("character" if i % 9 == 4 else "general" for i in range(LABELS))
    labels = LabelSet(tuple(f"tag_{i:05}" for i in range(LABELS)), categories)
    high, low = np.linspace(0.99, 0.36, KEPT), np.linspace(0.34, 0.05, SCORED - KEPT)
    scores = np.rint(np.concatenate([high, low]) * 65535).astype(np.uint16)

    class Free(Adapter):
        key, label, preparation = "free", "Free", "free 1"
        capabilities = Capabilities(outputs=frozenset({"tags"}), scores=True)

        class Options(AdapterOptions):
            threshold: float = 0.35
            variant: str = ""

        answers: list[Any] = []
        asked = 0

        def check(self) -> list[Any]:
            return []

        def identity(self) -> dict[str, Any]:
            return {"model": "free"}

        @property
        def label_set(self) -> LabelSet:
            return labels

        @property
        def batch_size(self) -> int:
            return 32

        def load(self) -> None:
            for _ in range(500):
                drawn = rng.choice(LABELS, SCORED, replace=False, p=weights).astype(np.uint16)
                self.answers.append(PackedScores(drawn, scores))

        def unload(self) -> None:
            self.answers.clear()

        def prepare(self, image: Any, request: Any) -> str:
            return image.sha256

        def infer(self, batch: Sequence[Any], request: Any) -> Iterator[Reply]:
            for _ in batch:
                Free.asked += 1
                yield Reply(scores=self.answers[Free.asked % 500])

        @classmethod
        def thresholds(cls, *_: Any) -> dict[str, float]:
            return {"general": 0.35, "character": 0.35}

    return Free


def measure(variant: str, images: int) -> dict[str, float]:
    """In this process: fill a database, run, return CPU and wall milliseconds per image, and the peak of memory."""
    import django

    django.setup()
    from django.core.management import call_command

    from prompts.models import digest
    from tagging.actions.recipes import ChannelSpec, get_recipe
    from tagging.actions.runs import start_run
    from tagging.adapters import registry
    from tagging.engine import worker
    from tagging.management.commands.qworker import keep_memory_flat
    from tagging.models import Chunk, Collection, ImageAsset, ImageTag, ModelAdapter, Policy, PolicyVersion, Proposal

    sys.modules["iwtag_bench_free"] = sys.modules[__name__]
    globals()["Free"] = free_adapter()
    registry.BUILT_IN["free"] = ("Free", "iwtag_bench_free:Free")
    registry.registered.cache_clear()
    keep_memory_flat()
    call_command("migrate", verbosity=0)
    collection = Collection.objects.create(name="Bench", slug="bench", kind="upload")
    for lo in range(0, images, 1000):
        ImageAsset.objects.bulk_create(
            ImageAsset(collection=collection, path=f"{i:07}.jpg", sha256=f"{i:064x}") for i in range(lo, lo + 1000)
        )
    peaks: list[float] = []
    adapter = ModelAdapter.objects.create(slug="free", kind="free", label="Free")

    def recipe(policy: PolicyVersion | None, rule: str) -> Any:
        channels = [ChannelSpec(adapter)]
        if rule:
            channels.append(ChannelSpec(adapter, options={"variant": "b"}))
        return get_recipe(channels, policy_version=policy, combine={"rule": rule} if rule else None)

    def work(policy: PolicyVersion | None, shown: bool, rule: str = "") -> tuple[float, float]:
        run = start_run(recipe(policy, rule), collection=collection, shown=shown)
        wall, cpu = time.perf_counter(), time.process_time()
        while Chunk.objects.filter(run=run).exclude(state=Chunk.State.DONE).exists():
            for queue in ("gpu", "iwtag"):
                worker.drain(queue)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        run.refresh_from_db()
        assert run.state == "done", run.error
        assert Proposal.objects.filter(run=run, state="ok").count() == images
        return wall, cpu

    wall, cpu = work(None, variant != "hidden", "union" if variant == "channels" else "")
    asked = globals()["Free"].asked
    if variant == "channels":
        wall, cpu = work(None, True, "weighted")
    if variant == "same":
        wall, cpu = work(None, True)
    assert variant not in ("same", "channels") or globals()["Free"].asked == asked, "a model was asked again"
    if variant == "again":
        spec = {"max_tags": 25}
        other = Policy.objects.create(slug="other", name="Other")
        version = PolicyVersion.objects.create(policy=other, number=1, spec=spec, digest=digest([spec, []]))
        wall, cpu = work(version, True)
    expected = 0 if variant == "hidden" else images * (25 if variant == "again" else KEPT)
    assert variant == "channels" or ImageTag.objects.count() == expected, ImageTag.objects.count()
    return {"cpu": cpu / images * 1000, "wall": wall / images * 1000, "peak": peaks[-1], "images": images}


def isolated(variant: str, images: int, postgres: str) -> dict[str, float]:
    """`measure` in a fresh process on a fresh database."""
    name = f"iwtag_bench_{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory() as folder:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("IWTAG_", "DATABASE_URL"))}
        environment |= {"IWTAG_DATA_DIR": folder, "IWTAG_LOG_LEVEL": "WARNING"}
        environment |= {"DJANGO_SETTINGS_MODULE": "iwtag_site.settings"}
        if postgres:
            environment["DATABASE_URL"] = f"{postgres.rsplit('/', 1)[0]}/{name}"
            _sql(postgres, f"CREATE DATABASE {name}")
        try:
            done = subprocess.run(
                [sys.executable, __file__, "--measure", variant, "--images", str(images)],
                env=environment,
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
        finally:
            if postgres:
                _sql(postgres, f"DROP DATABASE {name} WITH (FORCE)")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _sql(address: str, statement: str) -> None:
    import psycopg

    with psycopg.connect(address, autocommit=True) as db:
        db.execute(statement)


def main() -> None:
    parser = argparse.ArgumentParser(description="What the engine costs per image.")
    parser.add_argument("--images", type=int, default=8000, help="in thousands (%(default)s)")
    parser.add_argument("--postgres", default="", help="address of a server where databases may be made")
    parser.add_argument("--measure", choices=("new", "hidden", "again", "same", "channels"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    images = max(1000, given.images // 1000 * 1000)
    if given.measure:
        print(json.dumps(measure(given.measure, images)))
        return
    print(f"{images:,} images, {SCORED} scores, {KEPT} tags each; bar: 1 ms CPU an image\n")
    print("database     variant   CPU ms/image   wall ms/image   images/s   peak MiB")
    for database, address in (("SQLite", ""), ("PostgreSQL", given.postgres)):
        if database == "PostgreSQL" and not address:
            continue
        for variant in ("new", "hidden", "again", "same", "channels", "memory"):
            n = 4 * images if variant == "memory" else images
            found = isolated("new" if variant == "memory" else variant, n, address)
            print(
                f"{database:<12} {variant:<9} {found['cpu']:>12.2f} {found['wall']:>15.2f} "
                f"{1000 / found['wall']:>10,.0f} {found['peak']:>10.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
