"""What the tests of ingest share: a folder of pictures, the command, its counters."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import call_command

from tagging.models import ImageAsset, IngestJob
from tests.imaging import files


@pytest.fixture(name="rung", autouse=True)
def rung_fixture(monkeypatch):
    """What was put into the queue."""
    calls = []
    monkeypatch.setattr("tagging.queue.defer", lambda path, *args, **kwargs: calls.append((path, *args)))
    return calls


@pytest.fixture(name="folder")
def folder_fixture(tmp_path):
    root = tmp_path / "photos"
    write(root / "a.jpg", files.jpeg(seed=1))
    write(root / "trip" / "b.png", files.encoded(files.photo(seed=2), "PNG"))
    write(root / "trip" / "day 2" / "c.webp", files.encoded(files.photo(seed=3), "WEBP"))
    return root


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def run(folder, *args, name="Trip"):
    out = StringIO()
    call_command("ingest", str(folder), "--collection", name, *args, stdout=out)
    return out.getvalue()


def last():
    return IngestJob.objects.order_by("-id").first()


def counts(job=None):
    job = job or last()
    names = ("added", "changed", "moved", "unchanged", "missing", "failed", "skipped")
    return {n: getattr(job, n) for n in names if getattr(job, n)}


def paths(**where):
    return sorted(ImageAsset.objects.filter(**where).values_list("path", flat=True))
