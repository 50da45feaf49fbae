from __future__ import annotations

import io
import stat
import zipfile
from io import BytesIO

import pytest
from django.core.exceptions import ValidationError
from django.core.files.storage import InMemoryStorage, default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from PIL import Image

from tagging import tasks
from tagging.actions import ingest, uploads
from tagging.models import ImageAsset, IngestJob
from tests.imaging import files

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def rung(monkeypatch):
    calls = []
    monkeypatch.setattr("tagging.queue.defer", lambda path, *args, **kwargs: calls.append((path, *args)))
    return calls


@pytest.fixture(params=["folder", "memory"])
def box(request, settings):
    """A collection of uploads, in a storage with paths and in one without."""
    if request.param == "memory":
        settings.STORAGES = {**settings.STORAGES, "default": {"BACKEND": f"{__name__}.Memory"}}
    return ingest.create_collection(name="Box", kind="upload")


class Memory(InMemoryStorage):
    """Like S3: no paths."""


@pytest.fixture
def paths_box():
    return ingest.create_collection(name="Box", kind="upload")


def upload(name, data):
    return SimpleUploadedFile(name, data)


def zipped(entries, method=zipfile.ZIP_STORED):
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return buffer.getvalue()


def work():
    """Do what the queue would do, in order."""
    while job := IngestJob.objects.filter(state__in=IngestJob.OPEN).order_by("id").first():
        tasks.ingest(job.pk)
    return IngestJob.objects.order_by("-id").first()


def paths():
    return sorted(ImageAsset.objects.values_list("path", flat=True))


def archives(box):
    try:
        return default_storage.listdir(f"archives/{box.pk}")[1]
    except FileNotFoundError:
        return []


def test_pictures_are_stored_and_indexed(box, rung):
    results = ingest.add_uploads(
        box, [upload("a.jpg", files.jpeg(seed=1)), upload("b.PNG", files.encoded(files.photo(), "PNG"))]
    )
    assert [(r.name, r.state, r.path) for r in results] == [("a.jpg", "stored", "a.jpg"), ("b.PNG", "stored", "b.PNG")]
    assert rung == [("tagging.tasks.ingest", IngestJob.objects.get().pk)]
    job = work()
    assert (job.state, job.added) == ("done", 2)
    image = ImageAsset.objects.get(path="a.jpg")
    assert (image.width, image.format, image.size) == (120, "JPEG", len(files.jpeg(seed=1)))
    with image.open() as stream:
        assert stream.read() == files.jpeg(seed=1)
    with default_storage.open(image.thumbnail_name(320)) as f:
        assert Image.open(f).size == (120, 80)
    assert tasks.ingest(ingest.start_ingest(box).pk) is None
    assert IngestJob.objects.first().unchanged == 2


def test_taken_names_get_a_number(box):
    for seed in (1, 2, 3):
        ingest.add_uploads(box, [upload("a.jpg", files.jpeg(seed=seed))])
    work()
    assert paths() == ["a (2).jpg", "a (3).jpg", "a.jpg"]
    assert ImageAsset.objects.values("sha256").distinct().count() == 3


def test_other_files_are_skipped_with_the_reason(box, rung):
    results = ingest.add_uploads(box, [upload("notes.txt", b"x"), upload("run.exe", b"MZ")])
    assert [(r.state, r.message) for r in results] == [
        ("skipped", "Not a picture or a zip, going by its extension.")
    ] * 2
    assert rung == []
    assert not IngestJob.objects.exists()


def test_a_file_that_only_says_it_is_a_picture_is_stored_as_an_error(box):
    ingest.add_uploads(box, [upload("a.jpg", b"<?php echo 1; ?>")])
    work()
    assert ImageAsset.objects.get().state == "error"


def test_uploads_need_a_collection_of_uploads(tmp_path):
    collection = ingest.create_collection(name="Trip", root=str(tmp_path))
    with pytest.raises(ValidationError, match="indexes a folder"):
        ingest.add_uploads(collection, [upload("a.jpg", files.jpeg())])


def test_an_upload_during_a_job_is_not_missed(box):
    """The running job may have passed by already: a second one follows."""
    ingest.add_uploads(box, [upload("a.jpg", files.jpeg(seed=1))])
    first = IngestJob.objects.get()

    def late(job):
        if not ImageAsset.objects.filter(path="b.jpg").exists() and IngestJob.objects.count() == 1:
            ingest.add_uploads(box, [upload("b.jpg", files.jpeg(seed=2))])

    ingest.run_ingest(first.pk, report=late)
    assert IngestJob.objects.count() == 2
    assert work().state == "done"
    assert paths() == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("..\\..\\up.jpg", "up.jpg"),
        ("/etc/abs.jpg", "abs.jpg"),
        (".hidden.jpg", "hidden.jpg"),
        ('we:ird*"?.jpg', "we_ird___.jpg"),
        ("con\ttrol.jpg", "control.jpg"),
        ("e\u0301.jpg", "é.jpg"),
    ],
)
def test_names_are_made_safe(paths_box, given, stored):
    class File(io.BytesIO):
        name = given

        def chunks(self):
            return [files.jpeg()]

    (result,) = ingest.add_uploads(paths_box, [File()])
    assert result.path == stored


# -- zips ------------------------------------------------------------------------------------------------------------
def test_a_zip_is_unpacked_with_its_folders(box):
    data = zipped(
        [
            ("a.jpg", files.jpeg(seed=1)),
            ("trip/", b""),
            ("trip/b.jpg", files.jpeg(seed=2)),
            ("trip/day/c.png", files.encoded(files.photo(), "PNG")),
            ("__MACOSX/trip/._b.jpg", b"x"),
            ("trip/.DS_Store", b"x"),
            ("readme.txt", b"hello"),
        ],
        zipfile.ZIP_DEFLATED,
    )
    (result,) = ingest.add_uploads(box, [upload("photos.zip", data)])
    assert result.state == "archive"
    assert len(archives(box)) == 1
    job = work()
    assert (job.state, job.added, job.skipped) == ("done", 3, 1)
    assert job.notes == ["1 file of the zip left out: not pictures by their extension."]
    assert paths() == ["a.jpg", "trip/b.jpg", "trip/day/c.png"]
    assert archives(box) == []
    assert set(ImageAsset.objects.values_list("state", flat=True)) == {"ready"}


def test_zip_slip_is_refused(box, tmp_path):
    evil = ["../up.jpg", "a/../../up.jpg", "/abs.jpg", "C:\\windows\\abs.jpg", "..\\up.jpg", "good/ok.jpg"]
    ingest.add_uploads(box, [upload("x.zip", zipped([(n, files.jpeg(seed=i)) for i, n in enumerate(evil)]))])
    job = work()
    assert (job.state, job.added, job.skipped) == ("done", 1, 5)
    assert paths() == ["good/ok.jpg"]
    assert any("../up.jpg: left out, the path leads out of its folder" in n for n in job.notes)
    assert any("the path is absolute" in n for n in job.notes)
    assert not list(tmp_path.rglob("up.jpg"))
    assert not list(tmp_path.rglob("abs.jpg"))


def test_links_in_a_zip_are_refused(box):
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("ok.jpg", files.jpeg())
    ingest.add_uploads(box, [upload("x.zip", buffer.getvalue())])
    job = work()
    assert paths() == ["ok.jpg"]
    assert job.notes == ["link.jpg: left out, it is a symbolic link."]


def encrypted(data):
    """The zip with the encryption flag of every entry set, as a reader without the password sees it."""
    data = bytearray(data)
    for start, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        i = data.find(start)
        while i >= 0:
            data[i + at] |= 1
            i = data.find(start, i + 4)
    return bytes(data)


def test_an_encrypted_zip_fails_with_its_reason(box):
    ingest.add_uploads(box, [upload("x.zip", encrypted(zipped([("a.jpg", files.jpeg())])))])
    job = work()
    assert job.state == "failed"
    assert "a.jpg: left out, it is encrypted" in job.error
    assert paths() == []


@pytest.mark.parametrize("data", [b"", b"not a zip at all", zipped([("a.jpg", files.jpeg())])[:-30]])
def test_a_bad_zip_fails_with_its_reason(box, data):
    ingest.add_uploads(box, [upload("x.zip", data)])
    job = work()
    assert job.state == "failed"
    assert "The zip is damaged" in job.error
    assert archives(box) == []


def test_a_damaged_entry_does_not_stop_the_others(box):
    body = files.jpeg(seed=1)
    data = zipped([("bad.jpg", body), ("ok.jpg", files.jpeg(seed=2))])
    data = data.replace(body[-60:-50], b"0123456789", 1)
    ingest.add_uploads(box, [upload("x.zip", data)])
    job = work()
    assert (job.state, paths()) == ("done", ["ok.jpg"])
    assert job.notes == ["bad.jpg: left out, its data is damaged."]


def test_bombs_are_refused_before_unpacking(box, settings, monkeypatch):
    bomb = zipped([(f"{i}.bmp", b"\0" * 2_000_000) for i in range(3)], zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(uploads, "RATIO_FREE", 1_000_000)
    ingest.add_uploads(box, [upload("x.zip", bomb)])
    assert "as zip bombs do" in work().error
    settings.IWTAG_ZIP_MAX_BYTES = 5_000_000
    ingest.add_uploads(box, [upload("x.zip", bomb)])
    assert "The zip unpacks to 0.0 GB; the limit is" in work().error
    settings.IWTAG_ZIP_MAX_BYTES, settings.IWTAG_ZIP_MAX_ENTRIES = 10**9, 2
    ingest.add_uploads(box, [upload("x.zip", bomb)])
    assert "3 entries" in work().error
    assert paths() == []


def test_a_zip_holding_more_than_it_says_is_cut_off(paths_box):
    data = bytearray(zipped([("a.bmp", b"\0" * 100_000)], zipfile.ZIP_DEFLATED))
    for start, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        i = data.find(start)
        data[i + at : i + at + 4] = (1000).to_bytes(4, "little")
    ingest.add_uploads(paths_box, [upload("x.zip", bytes(data))])
    assert work().state == "failed"
    assert paths() == []
    folder = default_storage.path(paths_box.upload_prefix)
    import os

    assert not os.path.exists(folder) or os.listdir(folder) == [], "no half-written file stays"


def test_equal_names_in_a_zip_both_stay(box):
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = zipped([("a.jpg", files.jpeg(seed=1)), ("a.jpg", files.jpeg(seed=2)), ("a.jpg", files.jpeg(seed=2))])
    ingest.add_uploads(box, [upload("x.zip", data)])
    work()
    assert ImageAsset.objects.values("sha256").distinct().count() == 2


def test_a_killed_unpacking_goes_on_without_doubles(box, monkeypatch):
    entries = [(f"{i}.jpg", files.jpeg(seed=i)) for i in range(6)]
    ingest.add_uploads(box, [upload("x.zip", zipped(entries))])
    job = IngestJob.objects.get()
    real, calls = uploads.storing.add, []

    def dies(*args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(uploads.storing, "add", dies)
    with pytest.raises(KeyboardInterrupt):
        ingest.run_ingest(job.pk)
    IngestJob.objects.update(owner="")
    monkeypatch.setattr(uploads.storing, "add", real)
    job = work()
    assert (job.state, job.added) == ("done", 6)
    assert paths() == [f"{i}.jpg" for i in range(6)]


def test_cancelling_a_zip_removes_it(box):
    ingest.add_uploads(box, [upload("x.zip", zipped([("a.jpg", files.jpeg())]))])
    assert ingest.cancel_ingest(IngestJob.objects.get())
    assert archives(box) == []
    assert paths() == []


def test_unpacking_stops_when_the_worker_is_asked_to_end(box, monkeypatch):
    ingest.add_uploads(box, [upload("x.zip", zipped([("a.jpg", files.jpeg()), ("b.jpg", files.jpeg(seed=1))]))])
    monkeypatch.setattr("tagging.engine.process.stopping", lambda: True)
    tasks.ingest(IngestJob.objects.get().pk)
    job = IngestJob.objects.get()
    assert (job.state, job.owner, paths()) == ("running", "", [])
    monkeypatch.setattr("tagging.engine.process.stopping", lambda: False)
    assert work().added == 2
