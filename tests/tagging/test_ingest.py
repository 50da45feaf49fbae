from __future__ import annotations

import hashlib
import os
import shutil
from datetime import timedelta
from io import BytesIO, StringIO

import pytest
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command
from django.utils import timezone
from PIL import Image

from tagging.actions import ingest
from tagging.ingest import reading, scan
from tagging.models import Collection, ImageAsset, IngestJob
from tests.imaging import files

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def rung(monkeypatch):
    """What was put into the queue."""
    calls = []
    monkeypatch.setattr("tagging.queue.defer", lambda path, *args, **kwargs: calls.append((path, *args)))
    return calls


@pytest.fixture
def folder(tmp_path):
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


# -- a first look ----------------------------------------------------------------------------------------------------
def test_it_indexes_a_folder(folder):
    (folder / "d.jpg").write_bytes(
        files.encoded(
            files.turned(files.photo(seed=4), 6),
            "JPEG",
            exif=files.exif(6, "2024:05:06 07:08:09", "5", "+02:00").tobytes(),
        )
    )
    out = run(folder)
    assert out.startswith("Trip: 4 files")
    assert "4 added" in out
    collection = Collection.objects.get(name="Trip")
    assert (collection.slug, collection.root) == ("trip", str(folder))
    assert collection.indexed_at
    assert paths() == ["a.jpg", "d.jpg", "trip/b.png", "trip/day 2/c.webp"]
    image = ImageAsset.objects.get(path="d.jpg")
    assert (image.width, image.height, image.orientation, image.format) == (120, 80, 6, "JPEG")
    assert image.captured_at.isoformat() == "2024-05-06T05:08:09.500000+00:00"
    assert image.size == (folder / "d.jpg").stat().st_size
    assert image.phash is not None
    with image.open() as stream:
        assert stream.read(3) == b"\xff\xd8\xff"
    for side in (320, 1024):
        with default_storage.open(image.thumbnail_name(side)) as f:
            webp = Image.open(f)
            assert (webp.format, webp.size) == ("WEBP", (120, 80))
            assert webp.convert("RGB").getpixel((5, 5))[0] > 200, "upright"


def test_originals_are_not_touched(folder):
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*.*") if p.is_file()}
    run(folder)
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*.*") if p.is_file()} == before


def test_renditions_have_their_sides(folder):
    write(folder / "large.jpg", files.jpeg(2400, 1200))
    run(folder)
    image = ImageAsset.objects.get(path="large.jpg")
    sizes = [Image.open(default_storage.open(image.thumbnail_name(s))).size for s in (320, 1024)]
    assert sizes == [(320, 160), (1024, 512)]


def test_it_leaves_out_what_is_hidden_or_excluded(folder):
    for path in (".hidden/x.jpg", "trip/._a.jpg", "secret/x.jpg", "secret/deep/y.jpg", "a/previews/p.jpg",
                 "previews/p.jpg", "raw/x.tif", "notes.txt", "cache/z.jpg"):  # fmt: skip
        write(folder / path, files.jpeg())
    (folder / "secret" / ".nomedia").touch()
    run(folder, "--exclude", "*/previews/*", "--exclude", "*.tif", "--exclude", "cache")
    assert paths() == ["a.jpg", "trip/b.png", "trip/day 2/c.webp"]
    assert counts() == {"added": 3, "skipped": 3}  # ._a.jpg, x.tif, notes.txt
    assert Collection.objects.get().excludes == ["*/previews/*", "*.tif", "cache"]


def test_links_are_followed_once_and_never_in_circles(folder, tmp_path):
    write(tmp_path / "elsewhere" / "e.jpg", files.jpeg(seed=5))
    (tmp_path / "elsewhere" / "back").symlink_to(folder)
    (tmp_path / "elsewhere" / "self").symlink_to(tmp_path / "elsewhere")
    (folder / "trip" / "loop").symlink_to(folder)
    (folder / "up").symlink_to(tmp_path)
    (folder / "z1").symlink_to(tmp_path / "elsewhere")
    (folder / "z2").symlink_to(tmp_path / "elsewhere")
    (folder / "link.jpg").symlink_to(tmp_path / "elsewhere" / "e.jpg")
    (folder / "broken.jpg").symlink_to(tmp_path / "nowhere.jpg")
    run(folder)
    assert paths() == ["a.jpg", "link.jpg", "trip/b.png", "trip/day 2/c.webp", "z1/e.jpg"]


def test_with_roots_set_nothing_outside_is_read(folder, tmp_path, settings):
    settings.IWTAG_INGEST_ROOTS = [folder]
    outside = write(tmp_path / "outside" / "e.jpg", files.jpeg())
    (folder / "out").symlink_to(outside.parent)
    (folder / "e.jpg").symlink_to(outside)
    run(folder)
    assert paths() == ["a.jpg", "trip/b.png", "trip/day 2/c.webp"]
    with pytest.raises(CommandError, match="outside the folders that may be indexed"):
        run(outside.parent, name="Other")


def test_odd_names(folder):
    names = ["ünï 图.jpg", "new\nline.jpg", "quote'\".jpg", "a%b#c?.jpg", "UPPER.JPG"]
    for i, name in enumerate(names):
        write(folder / name, files.jpeg(seed=10 + i))
    with open(os.fsencode(str(folder)) + b"/bad\xff.jpg", "wb") as f:
        f.write(files.jpeg())
    run(folder)
    assert set(names) <= set(paths())
    assert counts() == {"added": 8, "skipped": 1}
    assert "not valid UTF-8" in last().notes[0]


# -- bad files -------------------------------------------------------------------------------------------------------
def test_bad_files_get_a_readable_state_and_stop_nothing(folder):
    bad = {
        "zero.jpg": (b"", "empty"),
        "text.jpg": (b"hello there\n" * 9, "text"),
        "cut.jpg": (files.jpeg(900, 700)[:9000], "truncated"),
        "movie.heic": (b"\0\0\0\x20ftypisom" + b"\0" * 40, "video"),
    }
    good = {
        "wrong.jpg": (files.encoded(files.photo(seed=6), "PNG"), "PNG"),
        "dot.png": (files.encoded(Image.new("RGB", (1, 1)), "PNG"), "PNG"),
        "print.jpg": (files.encoded(files.photo().convert("CMYK"), "JPEG"), "JPEG"),
        "deep.png": (files.encoded(Image.new("I;16", (40, 30), 30000), "PNG"), "PNG"),
        "sensor.dng": (files.dng(), "RAW"),
        "moving.gif": (files.encoded(files.photo(), "GIF", save_all=True, append_images=[files.photo(seed=1)]), "GIF"),
    }
    for name, (data, _) in {**bad, **good}.items():
        write(folder / name, data)
    out = run(folder)
    for name, (_, text) in bad.items():
        image = ImageAsset.objects.get(path=name)
        assert image.state == "error"
        assert text in image.error
        assert f"{name}: {image.error}" in out
    for name, (_, format) in good.items():
        image = ImageAsset.objects.get(path=name)
        assert (image.state, image.error, image.format) == ("ready", "", format)
        assert default_storage.exists(image.thumbnail_name(320))
    assert ImageAsset.objects.get(path="moving.gif").frames == 2
    assert ImageAsset.objects.get(path="cut.jpg").format == "JPEG"
    assert counts() == {"added": 13, "failed": 4}
    assert last().state == "done"
    run(folder)
    assert counts() == {"unchanged": 13}


def test_a_mended_file_becomes_ready(folder):
    path = write(folder / "x.jpg", b"")
    run(folder)
    path.write_bytes(files.jpeg(seed=9))
    run(folder)
    image = ImageAsset.objects.get(path="x.jpg")
    assert (image.state, image.error, image.width) == ("ready", "", 120)


def test_an_unreadable_file_is_tried_again(folder, monkeypatch):
    real = reading.load.decode
    monkeypatch.setattr(reading.load, "decode", lambda *a, **k: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    run(folder)
    assert set(ImageAsset.objects.values_list("state", flat=True)) == {"error"}
    assert "Input/output error" in ImageAsset.objects.first().error
    monkeypatch.setattr(reading.load, "decode", real)
    run(folder)
    assert set(ImageAsset.objects.values_list("state", "error")) == {("ready", "")}


def test_the_pixel_limit_is_a_setting(folder, settings):
    settings.IWTAG_MAX_PIXELS = 1000
    run(folder)
    assert counts() == {"added": 3, "failed": 3}
    assert "IWTAG_MAX_PIXELS" in ImageAsset.objects.first().error


# -- again -----------------------------------------------------------------------------------------------------------
def test_unchanged_files_are_not_opened(folder, monkeypatch):
    run(folder)
    monkeypatch.setattr(scan, "examine", lambda *a: pytest.fail("opened"))
    out = run(folder)
    assert "3 unchanged" in out
    assert counts() == {"unchanged": 3}


def test_a_touched_file_is_not_decoded(folder, monkeypatch):
    run(folder)
    os.utime(folder / "a.jpg", (1, 1))
    monkeypatch.setattr(reading.load, "decode", lambda *a, **k: pytest.fail("decoded"))
    run(folder)
    assert counts() == {"unchanged": 3}
    assert ImageAsset.objects.get(path="a.jpg").mtime_ns == 10**9


def test_changed_content_keeps_the_row_and_its_review(folder):
    run(folder)
    ImageAsset.objects.filter(path="a.jpg").update(review_state="reviewed", caption="mine", caption_state="edited")
    before = ImageAsset.objects.get(path="a.jpg")
    write(folder / "a.jpg", files.jpeg(60, 90, seed=8))
    run(folder)
    after = ImageAsset.objects.get(path="a.jpg")
    assert counts() == {"changed": 1, "unchanged": 2}
    assert (after.pk, after.caption, after.review_state) == (before.pk, "mine", "reviewed")
    assert after.sha256 != before.sha256
    assert (after.width, after.height) == (60, 90)


def test_moved_files_keep_their_row(folder):
    run(folder)
    ImageAsset.objects.update(review_state="reviewed", caption="mine", caption_state="edited")
    before = dict(ImageAsset.objects.values_list("sha256", "pk"))
    shutil.move(folder / "trip", folder / "voyage")
    (folder / "a.jpg").rename(folder / "voyage" / "renamed.jpg")
    run(folder)
    assert counts() == {"moved": 3}
    assert paths() == ["voyage/b.png", "voyage/day 2/c.webp", "voyage/renamed.jpg"]
    assert dict(ImageAsset.objects.values_list("sha256", "pk")) == before
    assert set(ImageAsset.objects.values_list("caption", flat=True)) == {"mine"}


def test_a_file_that_vanished_long_ago_is_found_again_elsewhere(folder, tmp_path):
    run(folder)
    pk = ImageAsset.objects.get(path="a.jpg").pk
    shutil.move(folder / "a.jpg", tmp_path / "a.jpg")
    run(folder)
    assert counts() == {"unchanged": 2, "missing": 1}
    shutil.move(tmp_path / "a.jpg", folder / "trip" / "a.jpg")
    run(folder)
    image = ImageAsset.objects.get(pk=pk)
    assert (image.path, image.missing_since) == ("trip/a.jpg", None)


def test_a_copy_is_a_second_image(folder):
    run(folder)
    shutil.copy(folder / "a.jpg", folder / "copy.jpg")
    run(folder)
    assert counts() == {"added": 1, "unchanged": 3}
    one, two = ImageAsset.objects.filter(path__in=["a.jpg", "copy.jpg"])
    assert one.sha256 == two.sha256


def test_of_two_vanished_copies_the_one_with_the_name_goes_on(folder):
    shutil.copy(folder / "a.jpg", folder / "z.jpg")
    run(folder)
    pk = ImageAsset.objects.get(path="z.jpg").pk
    (folder / "new").mkdir()
    shutil.move(folder / "z.jpg", folder / "new" / "z.jpg")
    (folder / "a.jpg").unlink()
    run(folder)
    assert ImageAsset.objects.get(path="new/z.jpg").pk == pk
    assert paths(missing_since=None) == ["new/z.jpg", "trip/b.png", "trip/day 2/c.webp"]
    assert counts() == {"moved": 1, "missing": 1, "unchanged": 2}


def test_moves_stay_inside_their_collection(folder, tmp_path):
    run(folder)
    shutil.copytree(folder, tmp_path / "other")
    run(tmp_path / "other", name="Other")
    assert counts() == {"added": 3}
    shutil.rmtree(folder / "trip")
    run(tmp_path / "other", name="Other")
    assert counts() == {"unchanged": 3}


def test_vanished_files_are_marked_and_come_back(folder, tmp_path):
    run(folder)
    shutil.move(folder / "trip", tmp_path / "away")
    run(folder)
    assert counts() == {"unchanged": 1, "missing": 2}
    assert paths(missing_since=None) == ["a.jpg"]
    assert ImageAsset.objects.count() == 3
    since = ImageAsset.objects.get(path="trip/b.png").missing_since
    run(folder)
    assert counts() == {"unchanged": 1}, "marked once"
    assert ImageAsset.objects.get(path="trip/b.png").missing_since == since
    shutil.move(tmp_path / "away", folder / "trip")
    run(folder)
    assert counts() == {"unchanged": 3}
    assert paths(missing_since__isnull=False) == []


def test_newly_excluded_files_count_as_missing(folder):
    run(folder)
    run(folder, "--exclude", "trip")
    assert paths(missing_since=None) == ["a.jpg"]
    run(folder, "--exclude", "")
    assert len(paths(missing_since=None)) == 3


def test_a_folder_that_cannot_be_read_marks_nothing_missing(folder, monkeypatch):
    run(folder)
    real = os.scandir

    def scandir(path):
        if str(path).endswith("trip"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    run(folder)
    assert counts() == {"unchanged": 1}
    assert last().notes == ["trip: the folder cannot be read (Permission denied)."]
    assert paths(missing_since__isnull=False) == []


def test_a_vanished_root_fails_the_job_and_marks_nothing(folder):
    run(folder)
    shutil.rmtree(folder)
    job = ingest.run_ingest(ingest.start_ingest(Collection.objects.get()).pk)
    assert job.state == "failed"
    assert f"There is no folder {folder}" in job.error
    assert paths(missing_since__isnull=False) == []


# -- wrong input -----------------------------------------------------------------------------------------------------
def test_wrong_input_is_one_line(folder, tmp_path):
    with pytest.raises(CommandError, match=r"There is no folder .*nowhere"):
        run(tmp_path / "nowhere")
    with pytest.raises(CommandError, match="is a file; name the folder"):
        run(folder / "a.jpg")
    with pytest.raises(CommandError, match="Give the collection a name"):
        run(folder, name="  ")
    assert not Collection.objects.exists()
    run(folder)
    (tmp_path / "other").mkdir()
    with pytest.raises(CommandError, match=r"Collection 'Trip' is the folder .*photos\. Choose another name"):
        run(tmp_path / "other", name="trip")
    ingest.create_collection(name="Box", kind="upload")
    with pytest.raises(CommandError, match="holds uploads"):
        run(folder, name="Box")


def test_create_collection_names_the_field(folder):
    from django.core.exceptions import ValidationError

    ingest.create_collection(name="Trip", root=str(folder))
    for field, given in (
        ("name", {"name": ""}),
        ("name", {"name": "TRIP"}),
        ("name", {"name": "x" * 200}),
        ("kind", {"kind": "cloud"}),
        ("root", {"root": "relative/path"}),
        ("root", {"root": ""}),
        ("root", {"root": "/nul\0"}),
        ("root", {"kind": "upload", "root": "/tmp"}),
        ("excludes", {"excludes": "*.tif"}),
        ("excludes", {"excludes": ["x" * 400]}),
    ):
        with pytest.raises(ValidationError) as error:
            ingest.create_collection(**{"name": "New", "root": str(folder), **given})
        assert field in error.value.message_dict, given
    assert Collection.objects.count() == 1


def test_slugs_are_made_unique(folder):
    slugs = [ingest.create_collection(name=n, root=str(folder)).slug for n in ("Trip!", "Trip?", "図")]
    assert slugs == ["trip", "trip-2", "collection"]


# -- jobs ------------------------------------------------------------------------------------------------------------
def test_a_collection_has_one_open_job(folder, rung):
    collection = ingest.create_collection(name="Trip", root=str(folder))
    job = ingest.start_ingest(collection)
    assert ingest.start_ingest(collection) == job
    assert rung == [("tagging.tasks.ingest", job.pk)] * 2
    assert ingest.run_ingest(job.pk).state == "done"
    assert ingest.start_ingest(collection) != job


def test_the_command_says_who_is_at_work(folder):
    collection = ingest.create_collection(name="Trip", root=str(folder))
    job = ingest.start_ingest(collection)
    hold = {"state": "running", "lease_until": timezone.now() + timedelta(minutes=1)}
    IngestJob.objects.filter(pk=job.pk).update(owner="elsewhere|1|1", **hold)
    with pytest.raises(CommandError, match=r"being indexed already \(job .*elsewhere"):
        run(folder)
    assert ingest.run_ingest(job.pk).seen == 0


def test_a_job_whose_owner_died_is_taken_up_again(folder, rung):
    from tagging.engine.owners import host

    collection = ingest.create_collection(name="Trip", root=str(folder))
    job = ingest.start_ingest(collection)
    hold = {"state": "running", "lease_until": timezone.now() + timedelta(minutes=1)}
    IngestJob.objects.filter(pk=job.pk).update(owner=f"{host()}|999999|1", **hold)
    rung.clear()
    ingest.sweep()
    assert rung == [("tagging.tasks.ingest", job.pk)]
    assert ingest.run_ingest(job.pk).state == "done"
    assert len(paths()) == 3


@pytest.mark.parametrize("seconds", [None, 0.0])
def test_a_kill_in_the_middle_neither_loses_nor_doubles_anything(folder, monkeypatch, seconds):
    for i in range(20):
        write(folder / f"{i}.jpg", files.jpeg(seed=i))
    monkeypatch.setattr(scan, "STORE", 2)
    monkeypatch.setattr(scan, "READING_BATCH", 4)
    job = ingest.start_ingest(ingest.create_collection(name="Trip", root=str(folder)))

    def die(running):
        if ImageAsset.objects.count() >= deaths[0]:
            deaths.pop(0)
            raise KeyboardInterrupt  # as abrupt for the job's row as SIGKILL: nothing more is written

    deaths, died = [3, 9, 9, 13, 99], 0
    while (job := IngestJob.objects.get()).state in IngestJob.OPEN:
        try:
            ingest.run_ingest(job.pk, report=die, seconds=seconds)
        except KeyboardInterrupt:
            died += 1
            IngestJob.objects.update(owner="gone|1|1", lease_until=timezone.now() - timedelta(seconds=1))
    assert (job.state, died) == ("done", 4)
    assert job.seen == 23
    assert len(paths(missing_since=None)) == ImageAsset.objects.count() == 23


def test_the_sweeper_rings_for_a_lost_bell_but_not_each_minute(folder, rung):
    job = ingest.start_ingest(ingest.create_collection(name="Trip", root=str(folder)))
    rung.clear()
    ingest.sweep()
    assert rung == [], "it was rung for just now"
    IngestJob.objects.update(created_at=timezone.now() - timedelta(minutes=3))
    ingest.sweep()
    ingest.sweep()
    assert rung == [("tagging.tasks.ingest", job.pk)]


def test_cancel_is_obeyed_and_keeps_what_was_stored(folder, monkeypatch):
    for i in range(30):
        write(folder / f"{i}.jpg", files.jpeg(seed=i))
    monkeypatch.setattr(scan, "STORE", 4)
    job = ingest.start_ingest(ingest.create_collection(name="Trip", root=str(folder)))

    def report(running):
        if running.added >= 4:
            assert ingest.cancel_ingest(running)

    done = ingest.run_ingest(job.pk, report=report)
    assert done.state == "cancelled"
    assert 4 <= len(paths()) < 33
    assert paths(missing_since__isnull=False) == []
    assert not ingest.cancel_ingest(done)
    assert ingest.run_ingest(ingest.start_ingest(done.collection).pk).state == "done"
    assert len(paths()) == 33


def test_a_worker_that_lost_its_lease_writes_nothing_more(folder):
    job = ingest.start_ingest(ingest.create_collection(name="Trip", root=str(folder)))

    def steal(running):
        IngestJob.objects.filter(pk=running.pk).update(token=99, owner="thief|1|1")

    ingest.run_ingest(job.pk, report=steal)
    job.refresh_from_db()
    assert (job.state, job.owner) == ("running", "thief|1|1")


@pytest.mark.parametrize("batch", [2, 3, 5, 7])
def test_slices_add_up_to_the_whole(folder, monkeypatch, rung, batch):
    """A long ingest is done a token at a time, and counts as if it had been one."""
    monkeypatch.setattr(scan, "BATCH", batch)
    monkeypatch.setattr(scan, "READING_BATCH", batch)
    for i in range(10):
        write(folder / f"{i}.jpg", files.jpeg(seed=i))
        write(folder / "trip" / f"{i}.jpg", files.jpeg(seed=20 + i))
        write(folder / "trip" / f"{i}.txt", b"x")
    job = ingest.start_ingest(ingest.create_collection(name="Trip", root=str(folder)))
    monkeypatch.setattr(ingest, "SLICE", 0.0)
    from tagging import tasks

    slices = 0
    while True:
        rung.clear()
        tasks.ingest(job.pk)
        slices += 1
        if not rung:
            break
        assert slices < 60
    job.refresh_from_db()
    assert slices > 1
    assert job.state == "done"
    assert counts(job) == {"added": 23, "skipped": 10}
    assert job.seen == 23
    assert len(paths(missing_since=None)) == 23


def test_a_failing_storage_fails_the_job_with_its_reason(folder, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device", "/somewhere")

    monkeypatch.setattr(reading.storing, "put", full)
    with pytest.raises(CommandError, match=r"No space left on device \(/somewhere\)"):
        run(folder)
    assert last().state == "failed"
    assert not ImageAsset.objects.exists()


def test_progress_tells_rate_and_time_left():
    from tagging.management.commands.ingest import progress_text

    job = IngestJob(seen=1200, total=5000, rate=50.0, failed=3)
    assert progress_text(job) == "1,200 of 5,000 files, 50 a second, about 76 s left, 3 unreadable"
    assert progress_text(IngestJob(seen=7)) == "7 files"


def test_a_terminal_gets_one_line_rewritten(folder):
    class Terminal(StringIO):
        def isatty(self):
            return True

    out = Terminal()
    call_command("ingest", str(folder), "--collection", "Trip", stdout=out)
    assert "\r\x1b[K" in out.getvalue()
    assert out.getvalue().splitlines()[-1].count("3 added") == 1


def test_thumbnails_that_a_crash_left_cut_are_written_again(folder):
    run(folder)
    image = ImageAsset.objects.get(path="a.jpg")
    path = default_storage.path(image.thumbnail_name(320))
    with open(path, "r+b") as f:
        f.truncate(50)
    image.delete()
    run(folder)
    with default_storage.open(image.thumbnail_name(320)) as f:
        Image.open(BytesIO(f.read())).load()


def test_a_file_too_large_for_memory_is_streamed(folder, monkeypatch):
    monkeypatch.setattr(reading, "MEMORY_LIMIT", 100)
    run(folder)
    image = ImageAsset.objects.get(path="a.jpg")
    assert image.sha256 == hashlib.sha256((folder / "a.jpg").read_bytes()).hexdigest()
    assert (image.state, image.width, image.size) == ("ready", 120, (folder / "a.jpg").stat().st_size)


def test_queries_do_not_grow_with_the_folder(folder, django_assert_max_num_queries):
    for i in range(300):
        write(folder / "many" / f"{i}.jpg", b"")
    run(folder)
    with django_assert_max_num_queries(25):
        run(folder)
    assert counts() == {"unchanged": 303}
