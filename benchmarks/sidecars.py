"""Sidecars per second beside `exiftool -stay_open`, in one run.

    python benchmarks/sidecars.py [--files 1500] [--folder DIR]

The same keywords go into the same sidecars (Lightroom's, darktable's, digiKam's, and new ones): by a whole export job
(plan from disk and ledger, journal, write, read back, verify; fsync off), by its file part alone, and by exiftool. CPU
seconds are what counts on a machine with company; wall seconds are shown beside.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = sorted((ROOT / "tests" / "exports" / "sidecars").glob("*.xmp"))
WORDS = ("dog", "beach", "evening light", "boat", "two people", "sand", "wave", "summer")


def fill(folder: Path, n: int) -> list[Path]:
    """Three of four images have a sidecar."""
    folder.mkdir(parents=True)
    found = []
    for i, sample in zip(range(n), itertools.cycle([*SAMPLES, None])):
        (folder / f"{i:05}.jpg").write_bytes(b"jpeg")
        found.append(folder / f"{i:05}.jpg.xmp")
        if sample is not None:
            shutil.copyfile(sample, found[-1])
    return found


@contextmanager
def measured(label: str, n: int, results: dict[str, tuple[float, float]], *, children: bool = False) -> Iterator[None]:
    who = resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF
    before, start = resource.getrusage(who), time.perf_counter()
    yield
    wall, after = time.perf_counter() - start, resource.getrusage(who)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    results[label] = (n / cpu, n / wall)
    print(f"{label:<34}{n / cpu:>9,.0f} files/CPU s {n / wall:>9,.0f} files/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1500)
    parser.add_argument("--folder", type=Path, help="Where to write; a temporary folder unless named.")
    o = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="iwtag-sidecars-", dir=o.folder))
    os.environ.update(IWTAG_DATA_DIR=str(base / "data"), DJANGO_SETTINGS_MODULE="iwtag_site.settings")
    sys.path.insert(0, str(ROOT))
    import django

    django.setup()
    try:
        run(base, o.files)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def run(base: Path, n: int) -> None:
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    from exports import actions, in_place, ledger
    from exports.xmp.fields import Keyword, Style, Wanted

    results: dict[str, tuple[float, float]] = {}
    wanted = Wanted(tuple(Keyword(("thing", w)) for w in WORDS), caption="A dog on the beach")
    fill(base / "warm", 100)
    for target in fill(base / "warm2", 100):
        ledger.plan_sidecar(target, wanted, {}, Style())

    targets = fill(base / "files", n)
    with measured("files alone, no ledger", n, results):
        for target in targets:
            _one(target, wanted)
    collection = _collection(base / "job", n)
    apply = ledger.apply
    ledger.apply = lambda entries: apply(entries, fsync=False)  # type: ignore[assignment]
    job = in_place.create(collection, "xmp", {"profile": "darktable"}, ring=False)
    with measured("job: plan", n, results):
        actions.run_export(job.pk)
    job.refresh_from_db()
    in_place.apply(job, ring=False)
    with measured("job: write", n, results):
        actions.run_export(job.pk)
    job.refresh_from_db()
    assert job.summary["done"] == n, (job.state, job.error, job.summary)
    again = in_place.create(collection, "xmp", {"profile": "darktable"}, ring=False)
    with measured("job: plan again, nothing to do", n, results):
        actions.run_export(again.pk)
    again.refresh_from_db()
    assert again.summary["unchanged"] == n
    targets = fill(base / "exiftool", n)
    with measured("exiftool -stay_open", n, results, children=True):
        _exiftool(targets)
    both = 1 / (1 / results["job: plan"][0] + 1 / results["job: write"][0])
    theirs = results["exiftool -stay_open"][0]
    print(f"plan and write together: {both:,.0f} files/CPU s, {both / theirs:.1f} × exiftool", end="; ")
    print(f"files alone: {results['files alone, no ledger'][0] / theirs:.1f} ×")


def _one(target: Path, wanted: object) -> None:
    from exports import ledger, safe_write
    from exports.xmp.fields import Style

    entry = ledger.plan_sidecar(target, wanted, {}, Style())  # type: ignore[arg-type]
    assert entry is not None
    before = target.read_bytes() if entry.seen else b""
    data = ledger.build(before, entry.fields)
    seen = safe_write.Seen.of(target)
    safe_write.replace(target, data, seen=seen, verify=lambda d: ledger.verify(d, entry.fields), fsync=False)


def _collection(folder: Path, n: int) -> object:
    from tagging.models import Collection, ImageAsset, ImageTag, Tag

    fill(folder, n)
    c = Collection.objects.create(name="Bench", slug="bench", kind="folder", root=str(folder))
    thing = Tag.objects.create(name="thing")
    tags = [Tag.objects.create(name=w, parent=thing) for w in WORDS]
    images = ImageAsset.objects.bulk_create(
        [
            ImageAsset(
                collection=c,
                path=f"{i:05}.jpg",
                sha256=f"{i:064x}",
                review_state="reviewed",
                caption="A dog on the beach",
                caption_state="accepted",
            )
            for i in range(n)
        ]
    )
    ImageTag.objects.bulk_create([ImageTag(image=i, tag=t, state=2, score=0.9) for i in images for t in tags])
    return c


def _exiftool(targets: list[Path]) -> None:
    with subprocess.Popen(
        ["exiftool", "-stay_open", "True", "-@", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        for target in targets:
            lines = []
            for word in WORDS:
                lines += [f"-XMP-dc:Subject+={word}", f"-XMP-lr:HierarchicalSubject+=thing|{word}"]
                lines.append(f"-XMP-digiKam:TagsList+=thing/{word}")
            lines += ["-XMP-dc:Description=A dog on the beach", "-overwrite_original", str(target), "-execute"]
            process.stdin.write("\n".join(lines) + "\n")
            process.stdin.flush()
            while "{ready}" not in process.stdout.readline():
                pass
        process.stdin.write("-stay_open\nFalse\n")
        process.stdin.flush()


if __name__ == "__main__":
    main()
