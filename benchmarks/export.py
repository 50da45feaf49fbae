"""Export of a million rows as CSV, JSON Lines and Parquet: seconds, peak memory, first byte; beside
django-import-export on the same rows.

    python benchmarks/export.py [--images 1000000] [--tags 5] [--data FOLDER] [--skip-rival]

Makes a SQLite database of synthetic images and tags (fast inserts, not measured; kept and used again with --data),
then writes the wide layout (a row per image, its tags and scores as JSON) and the long layout (a row per tag, until
there are as many rows as images), JSON Lines and Parquet (if pyarrow is there) through the application's own
exporter, each in a process of its own: the time to the first byte (of a CSV the header, which needs no query) and to
the first row, and memory before the export, Django and all, and at its peak (resident set, Linux). `command` is
`manage.py export` of the wide layout to a file.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "iwtag_site.settings")
NAMES = 10_861
OTHERS = ("jsonl", *(["parquet"] if find_spec("pyarrow") else []))


def fill(images: int, tags: int) -> None:
    """Rows by executemany, in the order of their keys."""
    import random

    from django.core.management import call_command
    from django.db import connection, transaction
    from django.utils import timezone

    from tagging.models import Collection, Tag

    call_command("migrate", verbosity=0)
    if Collection.objects.filter(slug="export").exists():
        return
    collection = Collection.objects.create(name="Export", slug="export", kind="upload")
    Tag.objects.bulk_create([Tag(name=f"tag {i:05}", key=f"tag {i:05}") for i in range(NAMES)], batch_size=2000)
    first_tag = Tag.objects.order_by("id").values_list("id", flat=True)[0]
    now = timezone.now().isoformat(sep=" ")
    image_sql = (
        "INSERT INTO tagging_imageasset (id, collection_id, path, sha256, size, mtime_ns, format, width, height,"
        " orientation, frames, state, error, added_at, captured_at, proposal_state, review_state, priority, caption,"
        " caption_state, rating) VALUES (%s, %s, %s, %s, 1000000, 0, 'JPEG', 4000, 3000, 1, 1, 'ready', '', %s, %s,"
        " 'ok', 'reviewed', 0, %s, 'accepted', '')"
    )
    tag_sql = "INSERT INTO tagging_imagetag (image_id, tag_id, state, score, run_id) VALUES (%s, %s, 2, %s, NULL)"
    draw = random.Random(1)
    for lo in range(1, images + 1, 5000):
        ids = range(lo, min(lo + 5000, images + 1))
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.executemany(
                image_sql,
                [
                    (
                        i,
                        collection.pk,
                        f"{i // 1000:04}/DSC_{i:07}.jpg",
                        f"{i:064x}",
                        now,
                        now,
                        f"A photograph, no. {i}",
                    )
                    for i in ids
                ],
            )
            cursor.executemany(
                tag_sql,
                [
                    (i, first_tag + tag, draw.randrange(500, 10_000) / 10_000)
                    for i in ids
                    for tag in sorted(draw.sample(range(NAMES), tags))
                ],
            )


def measure(what: str, rows: int) -> dict[str, float]:
    """One export in this process, to /dev/null."""
    import django

    django.setup()
    from tagging.models import Collection

    collection = Collection.objects.get(slug="export")
    base = _memory("VmRSS")
    start, cpu = time.perf_counter(), time.process_time()
    byte, first, size, count = 0.0, 0.0, 0, 0
    if what == "rival":
        text = _rival(collection, rows)
        byte = first = time.perf_counter() - start
        size, count = len(text), rows
    elif what == "command":
        size, count = _command(), rows
    else:
        from exports.actions import get_exporter

        csv = what in ("wide", "long")
        exporter = get_exporter(collection, "csv" if csv else what, {"layout": what} if csv else {})
        with open(os.devnull, "wb") as out:
            for piece in exporter.stream():
                out.write(piece)
                size += len(piece)
                byte = byte or time.perf_counter() - start
                if exporter.rows and not first:
                    first = time.perf_counter() - start
                if exporter.rows >= rows:
                    break
        count = exporter.rows
    return {
        "rows": count,
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,
        "byte": byte,
        "first": first,
        "megabytes": size / 1e6,
        "base": base,
        "peak": _memory("VmHWM"),
    }


def _command() -> int:
    """`manage.py export csv`, to a file; its bytes."""
    from django.core.management import call_command

    out = Path(os.environ["IWTAG_DATA_DIR"], "export.csv")
    call_command("export", "csv", collection="export", out=str(out), force=True, stdout=sys.stderr)
    size = out.stat().st_size
    out.unlink()
    return size


def _rival(collection: object, rows: int) -> bytes:
    """django-import-export on the same images, tags joined from a prefetch."""
    from import_export import resources
    from import_export.fields import Field

    from tagging.models import ImageAsset

    class Images(resources.ModelResource):
        tags = Field()

        class Meta:
            model = ImageAsset
            fields = (
                "id",
                "path",
                "sha256",
                "width",
                "height",
                "captured_at",
                "review_state",
                "caption",
                "rating",
                "tags",
            )

        def dehydrate_tags(self, image: ImageAsset) -> str:
            return json.dumps([t.tag.name for t in image.image_tags.all()])

    images = ImageAsset.objects.filter(collection=collection, review_state="reviewed").order_by("pk")[:rows]
    return Images().export(images.prefetch_related("image_tags__tag")).csv.encode()


def _memory(name: str) -> float:
    """MB, as Linux accounts for this process: VmRSS is now, VmHWM the peak."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def run(data: str, what: str, rows: int) -> None:
    command = [sys.executable, __file__, "--measure", what, "--images", str(rows)]
    done = subprocess.run(
        command, env={**os.environ, "IWTAG_DATA_DIR": data}, capture_output=True, text=True, check=True
    )
    m = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{what:7} {m['rows']:>9,} rows {m['megabytes']:7.1f} MB  {m['seconds']:6.1f} s ({m['cpu']:.1f} s CPU)  "
        f"first byte {m['byte'] * 1000:6.1f} ms, row {m['first'] * 1000:6.1f} ms  "
        f"memory {m['base']:.0f} → {m['peak']:.0f} MB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--tags", type=int, default=5, help="Tags of each image.")
    parser.add_argument("--data", help="Folder for the database; kept.")
    parser.add_argument("--skip-rival", action="store_true")
    parser.add_argument("--rival-images", type=int, default=50_000)
    parser.add_argument("--measure", choices=("wide", "long", *OTHERS, "command", "rival"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure, given.images)))
        return
    with tempfile.TemporaryDirectory() as folder:
        data = given.data or folder
        os.environ["IWTAG_DATA_DIR"] = data
        import django

        django.setup()
        start = time.perf_counter()
        fill(given.images, given.tags)
        print(f"{given.images:,} images with {given.tags} tags each, made in {time.perf_counter() - start:.0f} s")
        for what in ("wide", "long", *OTHERS, "command"):
            run(data, what, given.images)
        if not given.skip_rival:
            few = min(given.rival_images, given.images)
            run(data, "wide", few)
            run(data, "rival", few)


if __name__ == "__main__":
    main()
