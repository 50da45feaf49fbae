"""Ingest: one decode per file against the same steps one after the other, and the rescan of an unchanged folder.

    python benchmarks/ingest.py [--files 4] [--rounds 5] [--unchanged 100000]

Photographs are made from samples/, enlarged to 12 and 24 megapixels with grain, as JPEG of 2 to 2.5 bits per pixel. The
variants take turns file by file; the figures are medians of process CPU time, which neighbours on the machine disturb
least. "separately" opens the file anew for each step in the form that one finds in most programs: turn upright, then
shrink. "separately, drafted" is the best that separate steps can do. Everything includes encoding and writing.
"""

from __future__ import annotations

import argparse
import hashlib
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


def photographs(folder: Path, megapixels: int, count: int) -> list[Path]:
    """JPEG files of that size with the grain of a sensor, so that they decode as slowly as a camera's."""
    import numpy as np
    from PIL import Image

    made = []
    sources = sorted((ROOT / "samples").glob("*.jpg"))
    rng = np.random.default_rng(7)
    height = round((megapixels * 1e6 / 1.5) ** 0.5 / 16) * 16
    width = height * 3 // 2
    for i in range(count):
        with Image.open(sources[(5 * i) % len(sources)]) as source:
            pixels = np.asarray(source.convert("RGB").resize((width, height), Image.Resampling.BICUBIC), np.int16)
        grain = rng.normal(0, 8, (height, width, 1)).astype(np.int16)
        image = Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))
        path = folder / f"{megapixels}mp-{i}.jpg"
        exif = Image.Exif()
        exif[0x0112] = 1
        exif.get_ifd(0x8769)[0x9003] = "2024:05:06 07:08:09"
        image.save(path, quality=88, exif=exif)
        made.append(path)
    return made


def separately(path: Path, out: Path, *, drafted: bool) -> None:
    """Hash, EXIF, perceptual hash, thumbnail and proxy, each from the file."""
    from PIL import Image, ImageOps

    from tagging.imaging.hash import phash

    with path.open("rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    with Image.open(path) as image:
        image.getexif().get_ifd(0x8769).get(0x9003)
    with Image.open(path) as image:
        if drafted:
            image.draft("RGB", (64, 64))
        phash(image)
    for side, quality in ((320, 75), (1024, 82)):
        with Image.open(path) as image:
            if drafted:
                image.thumbnail((side, side), Image.Resampling.LANCZOS)
                small = ImageOps.exif_transpose(image)
            else:
                upright = ImageOps.exif_transpose(image)
                scale = side / max(upright.size)
                size = (round(upright.width * scale), round(upright.height * scale))
                small = upright.resize(size, Image.Resampling.LANCZOS)
            small.save(out / f"{digest}-{side}.webp", quality=quality, method=2)


def one_decode(rounds: int, files: int) -> None:
    from django.core.files.storage import default_storage

    from tagging.imaging.walk import FolderTree, Found
    from tagging.ingest.reading import examine

    with tempfile.TemporaryDirectory() as name:
        for megapixels in (12, 24):
            folder = Path(name, str(megapixels))
            folder.mkdir()
            paths = photographs(folder, megapixels, files)
            tree = FolderTree(folder)

            def ours(path: Path, tree: FolderTree = tree) -> None:
                info = path.stat()
                outcome = examine(tree, Found(path.name, "", info.st_size, info.st_mtime_ns), None)
                assert not outcome.error, outcome.error
                for side in (320, 1024):  # forget the rendition, or the next round would not write it
                    default_storage.delete(_thumbnail(outcome.sha256, side))

            variants: dict[str, Callable[[Path], None]] = {
                "one decode": ours,
                "separately": lambda p, d=folder: separately(p, d, drafted=False),
                "separately, drafted": lambda p, d=folder: separately(p, d, drafted=True),
            }
            times = interleaved(variants, paths, rounds)
            bits = statistics.mean(8 * p.stat().st_size for p in paths) / (megapixels * 1e6)
            base = times["one decode"]
            for label, seconds in times.items():
                ratio = "" if label == "one decode" else f"   {seconds / base:4.1f} × one decode"
                print(f"{megapixels:3} MP ({bits:.1f} bit/pixel)  {label:20} {1000 * seconds:7.0f} ms CPU{ratio}")


def _thumbnail(sha256: str, side: int) -> str:
    from tagging.models.collections import thumbnail_name

    return thumbnail_name(sha256, side)


def interleaved(variants: dict[str, Callable[[Path], Any]], paths: list[Path], rounds: int) -> dict[str, float]:
    """Median CPU seconds per file; the first round only warms up."""
    spent: dict[str, list[float]] = {label: [] for label in variants}
    for n in range(rounds + 1):
        for path in paths:
            for label, work in variants.items():
                start = time.process_time()
                work(path)
                if n:
                    spent[label].append(time.process_time() - start)
    return {label: statistics.median(values) for label, values in spent.items()}


def rescan(count: int) -> None:
    """An unchanged folder, its rows put in by hand: what is measured is looking and comparing."""
    from tagging.actions import ingest
    from tagging.models import ImageAsset

    with tempfile.TemporaryDirectory() as name:
        for i in range(count):
            folder = Path(name, f"{i // 1000:03}")
            if i % 1000 == 0:
                folder.mkdir()
            (folder / f"{i:06}.jpg").write_bytes(b"x")
        collection = ingest.create_collection(name=f"Unchanged {count}", root=name)
        rows = []
        for path in Path(name).glob("*/*.jpg"):
            info = path.stat()
            rows.append(
                ImageAsset(
                    collection=collection,
                    path=f"{path.parent.name}/{path.name}",
                    sha256=hashlib.sha256(path.name.encode()).hexdigest(),
                    size=info.st_size,
                    mtime_ns=info.st_mtime_ns,
                )
            )
        ImageAsset.objects.bulk_create(rows, batch_size=5000)
        del rows
        for label in ("first", "again"):
            job = ingest.start_ingest(collection, ring=False)
            start, cpu = time.perf_counter(), time.process_time()
            job = ingest.run_ingest(job.pk)
            wall, cpu = time.perf_counter() - start, time.process_time() - cpu
            assert (job.state, job.unchanged, job.missing) == ("done", count, 0), job.error
            print(f"rescan of {count:,} unchanged files, {label}: {wall:.2f} s wall, {cpu:.2f} s CPU")


def whole(files: int) -> None:
    """The command's work, database included, with a thread for each core."""
    from tagging.actions import ingest

    with tempfile.TemporaryDirectory() as name:
        for megapixels in (12, 24):
            photographs(Path(name), megapixels, files)
        collection = ingest.create_collection(name="Whole", root=name)
        job = ingest.start_ingest(collection, ring=False)
        start, cpu = time.perf_counter(), time.process_time()
        job = ingest.run_ingest(job.pk)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        assert (job.state, job.added, job.failed) == ("done", 2 * files, 0), job.error
        count = 2 * files
        print(
            f"whole ingest of {count} photographs, database included: {1000 * cpu / count:.0f} ms CPU each, "
            f"{count / wall:.1f} a second"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=4, help="photographs of each size")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--unchanged", type=int, default=100_000, help="files of the rescan")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as data:
        os.environ.update(IWTAG_DATA_DIR=data, DJANGO_SETTINGS_MODULE="iwtag_site.settings", IWTAG_LOG_LEVEL="WARNING")
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)
        one_decode(options.rounds, options.files)
        whole(options.files)
        rescan(options.unchanged)


if __name__ == "__main__":
    main()
