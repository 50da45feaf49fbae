"""The matrix of 20 recipes × 1,000 images × 10 tags: server time of the page and of its rows, and their size.

    python benchmarks/matrix.py [--recipes 20] [--images 1000]

A SQLite database of synthetic proposals; the pages through Django's test client, in this process. "cold" is the first
look at an experiment by a process, which reads all proposals once; "warm" every further one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def fill(recipes: int, images: int) -> int:
    from django.utils import timezone

    from judging.models import Experiment, ExperimentRecipe, ExperimentRun
    from tagging.actions.recipes import ChannelSpec, get_recipe
    from tagging.models import Collection, ImageAsset, ImageTag, ModelAdapter, Proposal, Run, Tag

    draw = random.Random(3)
    collection = Collection.objects.create(name="Bench", slug="bench", kind="upload")
    tags = [Tag(name=f"word {i:03}", key=f"word {i:03}") for i in range(400)]
    Tag.objects.bulk_create(tags)
    assets = ImageAsset.objects.bulk_create(
        [
            ImageAsset(collection=collection, path=f"{i:04}.jpg", sha256=f"{i:064x}", review_state="reviewed")
            for i in range(images)
        ]
    )
    adapter = ModelAdapter.objects.create(slug="bench", label="Bench", kind="photo-lite")
    experiment = Experiment(name="Bench", collection=collection, state="done")
    experiment.freeze([(a.pk, a.sha256) for a in assets])
    experiment.save()
    about = {a.pk: draw.sample(range(400), 14) for a in assets}
    decided = []
    for a in assets[: images // 2]:
        decided += [ImageTag(image=a, tag=tags[t], state=2 if i < 9 else 3) for i, t in enumerate(about[a.pk])]
    ImageTag.objects.bulk_create(decided)
    for n in range(recipes):
        recipe = get_recipe([ChannelSpec(adapter, options={"general_threshold": (n + 1) / 100})])
        run = Run.objects.create(
            recipe=recipe,
            collection=collection,
            state="done",
            n_total=images,
            purpose="experiment",
            finished_at=timezone.now(),
        )
        row = ExperimentRecipe.objects.create(experiment=experiment, recipe=recipe, position=n, name=f"threshold {n}")
        ExperimentRun.objects.create(row=row, run=run, sample=0)
        proposals = []
        for a in assets:
            said = draw.sample(about[a.pk], 10)
            words = [
                [f"word {t:03}", "general", round(draw.random(), 4), "kept", "", "bench", f"word {t:03}"] for t in said
            ]
            proposals.append(Proposal(run=run, image=a, state="ok", tags=words))
        Proposal.objects.bulk_create(proposals, batch_size=500)
    return experiment.pk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", type=int, default=20)
    parser.add_argument("--images", type=int, default=1000)
    o = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="iwtag-matrix-") as data:
        os.environ.update(IWTAG_DATA_DIR=data, DJANGO_SETTINGS_MODULE="iwtag_site.settings", DJANGO_ALLOWED_HOSTS="*")
        sys.path.insert(0, str(ROOT))
        import django

        django.setup()
        from django.conf import settings

        settings.STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
        from django.contrib.auth.models import User
        from django.core.management import call_command
        from django.test import Client

        call_command("migrate", verbosity=0)
        pk = fill(o.recipes, o.images)
        client = Client()
        client.force_login(User.objects.create_superuser("bench"))
        page = f"/judging/experiments/{pk}/matrix/"
        client.get("/")
        for label, path in (
            ("page", page),
            ("first 25 rows, cold", f"{page}rows/?"),
            ("25 rows, warm", f"{page}rows/?from=500"),
            ("25 rows, sorted by edits", f"{page}rows/?sort=edits"),
            ("25 rows, four filters", f"{page}rows/?only=disagree&only=single&only=unjudged&only=regressed"),
            ("has anything moved?", f"{page}state/"),
        ):
            times = []
            for _ in range(1 if "cold" in label else 5):
                start = time.perf_counter()
                answer = client.get(path, HTTP_HOST="localhost")
                times.append(time.perf_counter() - start)
            assert answer.status_code == 200, answer.content[:300]
            print(f"{label:<28}{min(times) * 1000:>8.0f} ms {len(answer.content) / 1e3:>8.0f} kB")
        from judging import board
        from judging.models import Experiment

        start = time.perf_counter()
        found = board.board(Experiment.objects.get(pk=pk), fresh=True)
        took, size = time.perf_counter() - start, len(json.dumps(found))
        print(f"{'leaderboard, 2,000 draws':<28}{took * 1000:>8.0f} ms {size / 1e3:>8.0f} kB")


if __name__ == "__main__":
    main()
