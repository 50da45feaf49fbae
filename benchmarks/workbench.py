"""Server time of the workbench with answers that are stored: from the key press to all panes.

    python benchmarks/workbench.py [--images 5] [--others 2000]

Makes a SQLite database with a collection, a tagger of 10,861 labels under each pane and `--others` recipes and earlier
proposals around it, then presses Ctrl+Enter through Django's test client: the time of the answer with every cell in it,
for two and four panes, and the same after only a policy was changed. Nothing is faked but the rows.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "iwtag_site.settings")
LABELS, SCORED, BAR = 10_861, 60, 300
READS = ("original", "proxy")


def clock(ask: Callable[[], Any], n: int = 30) -> tuple[float, float, float]:
    """(the first, median, 95th percentile) in milliseconds."""
    times = []
    for _ in range(n + 1):
        began = time.perf_counter()
        answer = ask()
        times.append((time.perf_counter() - began) * 1000)
        if answer.status_code != 200:
            raise SystemExit(f"the page answered {answer.status_code}")
    first, rest = times[0], sorted(times[1:])
    return first, statistics.median(rest), rest[int(len(rest) * 0.95)]


def fill(images: int, others: int) -> list[Any]:
    """Images with an answer of every pane's recipe, and recipes with answers that are looked past."""
    import numpy as np
    from django.core.management import call_command
    from django.utils import timezone

    from tagging.actions.policies import create_policy, create_policy_version
    from tagging.actions.recipes import ChannelSpec, get_recipe
    from tagging.actions.setup import ensure_default_adapter
    from tagging.adapters.base import LabelSet, PackedScores
    from tagging.models import Collection, ImageAsset, Prediction, Proposal, Run, StoredLabelSet

    call_command("migrate", verbosity=0)
    call_command("collectstatic", interactive=False, verbosity=0)
    collection = Collection.objects.create(name="Scale", slug="scale", kind="upload", indexed_at=timezone.now())
    rows = [
        ImageAsset(collection=collection, path=f"{i:04}.jpg", sha256=f"{i:064x}", format="JPEG", width=40, height=30)
        for i in range(images)
    ]
    made = ImageAsset.objects.bulk_create(rows)
    adapter = ensure_default_adapter()
    names = tuple(f"tag {i:05}" for i in range(LABELS))
    labels = LabelSet(names, ("general",) * LABELS, (-1,) * LABELS)
    stored = StoredLabelSet.objects.create(
        digest=labels.digest, names=list(names), categories=list(labels.categories), parents=list(labels.parents)
    )
    rng = np.random.default_rng(1)

    def answered(recipe: Any, number: int) -> None:
        run = Run.objects.create(
            recipe=recipe, purpose="trial", state="done", shown=False, n_total=images, finished_at=timezone.now()
        )
        for image in made:
            scores = np.zeros(LABELS, dtype=np.float32)
            scores[rng.choice(LABELS, SCORED, replace=False)] = rng.uniform(0.05, 1, SCORED)
            prediction = Prediction.objects.create(
                key=f"{number:032x}{image.pk:032x}",
                image_sha256=image.sha256,
                run=run,
                labels=stored,
                scores=PackedScores.pack(scores).to_bytes(),
                seconds=0.1,
            )
            Proposal.objects.create(run=run, image=image, state="ok", prediction=prediction)

    for n in range(2):
        answered(get_recipe([ChannelSpec(adapter, read=READS[n])]), n)
    policy = create_policy(slug="many")
    for n in range(others):
        version = create_policy_version(policy, {"max_tags": n + 1}, message="x")
        recipe = get_recipe([ChannelSpec(adapter)], policy_version=version)
        if n % 50 == 0:
            answered(recipe, 1000 + n)
    print(f"{others:,} other recipes")
    return list(made)


def measure(images: list[Any]) -> None:
    from django.contrib.auth import get_user_model
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    from tagging.models import Run

    client = Client(headers={"host": "localhost"})
    client.force_login(get_user_model().objects.create_superuser("bench", password="x"))
    adapter = "photo-lite"
    runs = Run.objects.count()
    print(f"{'':<46}{'first':>9}{'median':>9}{'95 %':>9}{'queries':>9}   (bar: {BAR} ms)")
    for panes in (2, 4):
        data: dict[str, Any] = {"i": [image.pk for image in images], "pane": list("abcd"[:panes])}
        for n, letter in enumerate("abcd"[:panes]):
            data |= {f"{letter}-adapter": adapter, f"{letter}-read": READS[n % 2]}
        edited = {**data, "b-rules": "1", "b-rule-max_tags": "7"}
        address = ""
        for what, ask in (
            ("Ctrl+Enter, all answers stored", lambda d=data: client.post("/workbench/run/", d)),
            ("only the rules of a pane changed", lambda d=edited: client.post("/workbench/show/", d)),
        ):
            first, median, high = clock(ask)
            with CaptureQueriesContext(connection) as queries:
                answer = ask()
            text = answer.content.decode()
            if "not asked yet" in text or 'class="chip"' not in text:
                raise SystemExit("an answer was not found: this measures nothing")
            address = answer.headers["HX-Push-Url"]
            line = f"{panes} panes, {len(images)} images: {what}"
            print(f"{line:<60}{first:7.0f}{median:9.0f}{high:9.0f}{len(queries):9}")
        first, median, high = clock(lambda a=address: client.get(a))
        print(f"{f'{panes} panes, {len(images)} images: its address opened':<60}{first:7.0f}{median:9.0f}{high:9.0f}")
    if Run.objects.count() != runs:
        raise SystemExit("a run was started: the answers were not found")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5)
    parser.add_argument("--others", type=int, default=2000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["IWTAG_DATA_DIR"] = folder
        import django

        django.setup()
        measure(fill(min(given.images, 5), given.others))


if __name__ == "__main__":
    main()
