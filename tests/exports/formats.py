"""Collections with real small image files, and independent readers, for the tests of the formats."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

from PIL import Image

from exports.actions import get_exporter
from tagging.models import Collection

from .truth import State, collection, image, run_of

NASTY = [
    "a|b", "a/b", "a,b", "a;b", 'say "hi"', "it's", "été 🐈", "שלום עולם", "type=Bag", "=cmd|' /C calc'!A0",
    "two\nlines", "a\tb", "a\\b", "{a|b}", "[x]", "-3", ":-)", "<b>&amp;", "../up", "CON", "(((x)))", "\u202egnp.exe",
]  # fmt: skip


def picture(format: str = "JPEG", colour: str = "red", size: tuple[int, int] = (40, 30)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, format)
    return out.getvalue()


def holiday() -> Collection:
    """Two reviewed images, the second without tags, and one that is only proposed; no files."""
    c = collection()
    run = run_of(c)
    image(
        c, "a.jpg", [("cat", State.ACCEPTED, 0.9), ("mine", State.ADDED, None), ("dog", State.REJECTED, 0.8),
        ("car", State.PROPOSED, 0.6)], run=run, caption="A cat, asleep", caption_state="edited", rating="general",
    )  # fmt: skip
    image(c, "b.png", run=run)
    image(c, "c.jpg", [("sea", State.PROPOSED, 0.7), ("sky", State.PROPOSED, 0.2)], run=run, reviewed=False)
    return c


def on_disk(root: Path, **files: list[tuple[Any, ...]]) -> Collection:
    """A folder collection with a real picture behind every name (`a__b_jpg` is a/b.jpg)."""
    c = Collection.objects.create(name="Disk", slug="disk", kind="folder", root=str(root))
    run = run_of(c)
    for key, tags in files.items():
        add_file(c, key.replace("__", "/")[::-1].replace("_", ".", 1)[::-1], tags, run=run)
    return c


def add_file(c: Collection, path: str, tags: list[tuple[Any, ...]] = (), **fields: Any) -> bytes:  # type: ignore[assignment]
    target = Path(c.root, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    data = picture("PNG" if path.lower().endswith("png") else "JPEG", f"#{abs(hash(path)) % 0xFFFFFF:06x}")
    target.write_bytes(data)
    image(c, path, tags, size=len(data), **fields)
    return data


def zipped(c: Collection, format: str, **options: Any) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(b"".join(get_exporter(c, format, options).stream())))


def load_with_datasets(kind: str, **arguments: Any) -> list[dict[str, Any]]:
    import datasets

    datasets.disable_progress_bars()
    return list(datasets.load_dataset(kind, split="train", **arguments))
