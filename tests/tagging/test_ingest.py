from __future__ import annotations

import hashlib
import os
import shutil
from io import BytesIO

import pytest
from django.core.files.storage import default_storage
from django.core.management import CommandError
from PIL import Image

from tagging.actions import ingest
from tagging.ingest import reading, scan
from tagging.models import Collection, ImageAsset
from tests.imaging import files

from .ingesting import counts, folder_fixture, last, paths, run, rung_fixture, write  # noqa: F401

pytestmark = pytest.mark.django_db


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


def test_a_file_that_vanishes_while_it_is_looked_at_is_left_out(folder, monkeypatch):
    real = scan.examine

    def examine(tree, found, known):
        if found.path == "a.jpg":
            (folder / "a.jpg").unlink()
        return real(tree, found, known)

    monkeypatch.setattr(scan, "examine", examine)
    run(folder)
    assert counts() == {"added": 2, "skipped": 1}
    assert paths() == ["trip/b.png", "trip/day 2/c.webp"]
