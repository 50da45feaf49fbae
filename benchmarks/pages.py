"""Server time of the pages people wait for, at 200,000 images and 6,000,000 tags.

    python benchmarks/pages.py [--images 200000] [--tags 30] [--keep FOLDER]

Makes a SQLite database of synthetic rows (tags Zipf-distributed over 10,861 names), then asks the real pages through
Django's test client: median and 95th percentile of the server's time, and the queries of each. Then it asks again
while another process writes proposals as fast as it can. Nothing is faked but the rows: the URLs are the application's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "iwtag_site.settings")
LABELS = 10_861


def fill(images: int, tags: int) -> None:
    """Synthetic rows by plain executemany: what is measured is reading them."""
    import numpy as np
    from django.core.management import call_command
    from django.db import connection, transaction
    from django.utils import timezone

    from tagging.actions import counts
    from tagging.models import Collection, Tag

    call_command("migrate", verbosity=0)
    collection = Collection.objects.create(name="Scale", slug="scale", kind="upload")
    Tag.objects.bulk_create(
        [
            Tag(name=f"tag {i:05}", key=f"tag {i:05}", category="character" if i % 9 == 4 else "general")
            for i in range(LABELS)
        ],
        batch_size=2000,
    )
    tag_ids = np.array(Tag.objects.order_by("id").values_list("id", flat=True))
    rng = np.random.default_rng(1)
    weights = 1 / np.arange(1, LABELS + 1)
    weights /= weights.sum()
    now = timezone.now().isoformat(sep=" ")
    columns = (
        "collection_id path sha256 size mtime_ns format width height orientation frames state error added_at "
        "proposal_state top_score review_state priority caption caption_state rating"
    ).split()
    image_sql = (
        f"INSERT INTO tagging_imageasset ({', '.join(columns)}) VALUES (%s, %s, %s, 1000000, 0, 'JPEG', 4000, 3000, "
        "1, 1, 'ready', '', %s, 'ok', %s, %s, 0, '', '', '')"
    )
    tag_sql = "INSERT INTO tagging_imagetag (image_id, tag_id, state, score, run_id) VALUES (%s, %s, %s, %s, NULL)"
    cursor = connection.cursor()
    for lo in range(0, images, 2000):
        n = min(2000, images - lo)
        with transaction.atomic():
            cursor.executemany(
                image_sql,
                [
                    (collection.pk, f"{(lo + i) // 1000:03}/{lo + i:06}.jpg", f"{lo + i:064x}", now, 0.9,
                     "reviewed" if (lo + i) % 3 == 0 else "unreviewed")
                    for i in range(n)
                ],
            )  # fmt: skip
            first = lo + 1
            rows = []
            draws = rng.choice(LABELS, size=(n, tags * 2), p=weights)
            scores = rng.random((n, tags * 2)).round(4)
            for i in range(n):
                chosen = dict.fromkeys(draws[i].tolist())
                state = 2 if (lo + i) % 3 == 0 else 1
                for k, label in enumerate(list(chosen)[:tags]):
                    rows.append((first + i, int(tag_ids[label]), state, float(scores[i, k])))
            rows.sort()
            cursor.executemany(tag_sql, rows)
        if lo % 20_000 == 0:
            print(f"\r{lo:,} images", end="", flush=True)
    print(f"\r{images:,} images")
    counts.rebuild(collection)
    cursor.execute("ANALYZE")


def clock(ask: Callable[[int], int], n: int = 40) -> tuple[float, float, float]:
    """(median, 95th, 99th percentile) in milliseconds of `ask(i)`, which returns a status code."""
    times = []
    for i in range(n + 3):
        t = time.perf_counter()
        status = ask(i)
        took = (time.perf_counter() - t) * 1000
        if status >= 400:
            raise SystemExit(f"the page answered {status}")
        if i >= 3:
            times.append(took)
    times.sort()
    return statistics.median(times), times[int(len(times) * 0.95)], times[int(len(times) * 0.99)]


class Counter:
    """Counts the statements that go to the database."""

    n = 0

    def __call__(self, execute: Callable[..., object], *arguments: object) -> object:
        self.n += 1
        return execute(*arguments)


def measure(images: int) -> None:
    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.core.management import call_command
    from django.db import connection
    from django.test import Client
    from django.urls import reverse

    from tagging import queries
    from tagging.models import Collection, ImageTag, TagCount

    call_command("collectstatic", interactive=False, verbosity=0)
    settings.ALLOWED_HOSTS = ["*"]
    user, _ = get_user_model().objects.get_or_create(username="bench", is_superuser=True, is_staff=True)
    client = Client()
    client.force_login(user)
    collection = Collection.objects.get(slug="scale")
    grid = reverse("tagging:grid", args=["scale"])
    common = TagCount.objects.order_by("-proposed").values_list("tag__name", flat=True)
    x, y, rare = common[0], common[5], common[3000]
    middle = images // 2

    def page(url: str) -> int:
        response = client.get(url)
        b"".join(response.streaming_content) if response.streaming else response.content  # type: ignore[attr-defined]
        return response.status_code

    def decide(i: int) -> int:
        image_id = middle + i
        tag_id = ImageTag.objects.filter(image_id=image_id).values_list("tag_id", flat=True)[0]
        return client.post(
            f"/api/images/{image_id}/decisions", {"accept": [tag_id]}, content_type="application/json"
        ).status_code

    deep = f"{grid}?review=unreviewed"
    wanted = queries.ImageFilter(review="unreviewed")
    asks: dict[str, Callable[[int], int]] = {
        "review page": lambda i: page(reverse("tagging:review", args=[middle + i])),
        "decision POST": decide,
        "grid of 50": lambda i: page(deep),
        "tag X and not Y, common": lambda i: page(f"{grid}?tag={x}&not_tag={y}"),
        "tag X and not Y, rare X": lambda i: page(f"{grid}?tag={rare}&not_tag={y}"),
        "home": lambda i: page(reverse("tagging:home")),
        "API images": lambda i: page("/api/images?collection=scale"),
    }
    print(f"{'page':28} {'median':>9} {'p95':>9} {'p99':>9}  queries")
    for name, ask in asks.items():
        counter = Counter()
        with connection.execute_wrapper(counter):
            ask(0)
        median, p95, p99 = clock(ask)
        print(f"{name:28} {median:7.1f}ms {p95:7.1f}ms {p99:7.1f}ms  {counter.n}")
    items = {
        "query: X and not Y, common": lambda i: len(
            queries.page(queries.filtered(collection, queries.ImageFilter(tag=[x], not_tag=[y])), None, 50).items
        ),
        "query: X and not Y, rare": lambda i: len(
            queries.page(queries.filtered(collection, queries.ImageFilter(tag=[rare], not_tag=[y])), None, 50).items
        ),
        "query: next in queue": lambda i: int(queries.next_in_queue(collection, wanted) is None),
    }
    for name, ask in items.items():
        median, p95, p99 = clock(ask)
        print(f"{name:28} {median:7.1f}ms {p95:7.1f}ms {p99:7.1f}ms")


def beside_a_writer(folder: Path, seconds: float = 10) -> None:
    """The database reads of the review screen, alone and while a worker's writer goes at full speed."""
    from tagging import queries
    from tagging.models import Collection

    collection = Collection.objects.get(slug="scale")
    wanted = queries.ImageFilter(review="unreviewed")

    def read(i: int) -> int:
        image = queries.next_in_queue(collection, wanted)
        queries.tags_of([image.pk + i % 1000] if image else [])
        return 200

    alone = clock(read, 1000)
    command = [sys.executable, __file__, "--keep", str(folder), "--write-for", str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        writer.stdout.readline()
        beside = clock(read, 1000)
        written = writer.stdout.readline().strip()
    for name, (median, p95, p99) in {"reads alone": alone, "reads beside a writer": beside}.items():
        print(f"{name:28} {median:7.2f}ms {p95:7.2f}ms {p99:7.2f}ms")
    print(f"the writer meanwhile: {written}")


def write(seconds: float) -> None:
    """What a worker writes, through the engine's own writer, with no model: 30 tags an image, 256 images a commit."""
    import numpy as np

    from tagging.actions.recipes import ChannelSpec, get_recipe
    from tagging.actions.runs import start_run
    from tagging.actions.setup import ensure_default_adapter
    from tagging.engine import leases, store
    from tagging.engine.owners import owner_id
    from tagging.engine.propose import Proposed
    from tagging.models import Chunk, Collection
    from tagging.policy.spec import Fate

    collection = Collection.objects.get(slug="scale")
    run = start_run(get_recipe([ChannelSpec(ensure_default_adapter())]), collection=collection, priority=9)
    Chunk.objects.filter(run=run).update(queue="bench")
    rng = np.random.default_rng(2)
    print("go", flush=True)
    images, end = 0, time.monotonic() + seconds
    began = time.monotonic()
    while time.monotonic() < end and (chunk := leases.claim("bench", owner_id())):
        batch = store.Batch()
        for image_id in chunk.images:
            labels = dict.fromkeys(rng.integers(0, LABELS, 30).tolist())
            kept = [Fate(f"tag {i:05}", "general", 0.5, "kept") for i in labels]
            batch.results.append(store.Result(image_id, Proposed(kept)))
        store.commit(chunk, run, batch, labels=None)
        leases.release(chunk, done=True)
        images += len(batch.results)
    print(f"{images / (time.monotonic() - began):.0f} images/s with 30 tags each", flush=True)
    run.delete()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--tags", type=int, default=30)
    parser.add_argument("--keep", type=Path, help="data folder to use again")
    parser.add_argument("--write-for", type=float, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="iwtag-bench-"))
    os.environ["IWTAG_DATA_DIR"] = str(folder)
    import django

    django.setup()
    if not (folder / "db.sqlite3").exists():
        fill(options.images, options.tags)
    if options.write_for:
        write(options.write_for)
        return
    measure(options.images)
    beside_a_writer(folder)


if __name__ == "__main__":
    main()
