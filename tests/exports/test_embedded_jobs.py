"""Keywords into the images themselves: read by other programs, nothing else changed, undone to the byte."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from django.core.files.storage import default_storage
from django.core.management import call_command
from django.db import connections
from PIL import Image

from exports import in_place
from exports.models import ExportEntry, ExportJob
from exports.xmp import containers, fields
from exports.xmp.packet import Packet
from tagging.models import Collection, ImageAsset, ImageTag
from tagging.models.collections import thumbnail_name

from .folders import add_tag, hashes, planned, take_tag, undone, written
from .test_embedded_containers import FILES, JPEG_XMP, PACKET, behind_soi, exif, picture, saved, segment, shown
from .truth import tag

pytestmark = pytest.mark.django_db
OURS = ("Subject", "HierarchicalSubject", "TagsList", "Description")
# of the file and not of its content, or of where things stand in it
PLACES = ("File", "System", "ExifTool", "Composite", "MPImage", "XMP-x", "RIFF")


def needs(program):
    found = shutil.which(program)
    if found is None:
        message = f"no {program}: install Debian's libimage-exiftool-perl and exiv2"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


def exiftool(path, *options):
    out = subprocess.run(
        [needs("exiftool"), "-j", "-struct", "-G1", "-a", *options, str(path)], capture_output=True, check=False
    )
    return json.loads(out.stdout)[0]


def others(path):
    found = exiftool(path, "-b")
    return {
        k: v
        for k, v in found.items()
        if ":" in k and not k.startswith(PLACES) and not (k.startswith("XMP") and k.endswith(OURS))
    }


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "trip"
    path.mkdir()
    return path


def collection(root, contents, tags=("dog", "beach"), caption="A dog on the beach – früh"):
    """Indexed and reviewed images with these accepted tags; "dog" stands below "animal"."""
    for name, data in contents.items():
        (root / name).write_bytes(data)
    call_command("ingest", str(root), "--collection", "Trip", stdout=io.StringIO())
    c = Collection.objects.get(name="Trip")
    tag("dog", parent=tag("animal"))
    for image in c.images.all():
        for name in tags:
            ImageTag.objects.create(image=image, tag=tag(name), state=ImageTag.State.ACCEPTED, score=0.9)
    c.images.update(review_state="reviewed", caption=caption, caption_state="accepted" if caption else "")
    return c


def words(path):
    return Packet(containers.read_xmp(path.read_bytes())).values(fields.SUBJECT)


def notes(job):
    return {Path(e.target).name: (e.action, [*e.notes, e.error]) for e in job.entries.all()}


IMAGES = {
    "a.jpg": FILES["jpeg"],
    "b.JPEG": FILES["mpo"],
    "c.png": FILES["png"],
    "d.webp": FILES["webp"],
    "e.webp": FILES["animated webp"],
    "f.jpg": FILES["trailer"],
}


def test_it_is_off_unless_asked_for(root):
    c = collection(root, {"a.jpg": FILES["jpeg"]})
    written(c)
    assert (root / "a.jpg").read_bytes() == FILES["jpeg"]
    assert (root / "a.xmp").exists()


def test_every_format_is_written_and_nothing_beside_it(root):
    c = collection(root, IMAGES)
    job = written(c, embed=True)
    assert (job.state, job.summary["done"], job.summary["failed"]) == ("done", len(IMAGES), 0)
    assert sorted(p.name for p in root.iterdir()) == sorted(IMAGES)
    for name, before in IMAGES.items():
        assert words(root / name) == ["dog", "beach"]
        assert shown((root / name).read_bytes()) == shown(before)
    again = planned(c, embed=True)
    assert (again.summary["files"], again.summary["unchanged"]) == (0, len(IMAGES))


@pytest.mark.parametrize("name", IMAGES)
def test_exiftool_and_exiv2_read_it_and_find_all_else_as_it_was(root, tmp_path, name):
    original = tmp_path / f"original{Path(name).suffix}"
    original.write_bytes(IMAGES[name])
    written(collection(root, {name: IMAGES[name]}), embed=True)
    found = exiftool(root / name)
    assert found["XMP-dc:Subject"] == ["dog", "beach"]
    assert found["XMP-lr:HierarchicalSubject"] == ["animal|dog", "beach"]
    assert found["XMP-digiKam:TagsList"] == ["animal/dog", "beach"]
    assert found["XMP-dc:Description"] == "A dog on the beach – früh"
    assert others(root / name) == others(original)
    types = subprocess.run([needs("exiv2"), "-PXkyct", str(root / name)], capture_output=True, check=False)
    assert types.returncode == 0, types.stderr
    lines = [line.split(None, 3) for line in types.stdout.decode().splitlines()]
    assert {k: (t, v) for k, t, _, v in lines if k.endswith("ubject")} == {
        "Xmp.dc.subject": ("XmpBag", "dog, beach"),
        "Xmp.lr.hierarchicalSubject": ("XmpBag", "animal|dog, beach"),
    }
    complaints = {str(v) for k, v in exiftool(root / name, "-validate", "-warning", "-error").items() if "Warn" in k}
    assert complaints <= {
        str(v) for k, v in exiftool(original, "-validate", "-warning", "-error").items() if "Warn" in k
    }


@pytest.mark.parametrize("name", IMAGES)
def test_exiftool_hashes_the_same_image_data(root, tmp_path, name):
    version = subprocess.run([needs("exiftool"), "-ver"], capture_output=True, check=True).stdout.decode()
    if [int(x) for x in version.split(".")] < [12, 58]:
        pytest.skip(f"exiftool {version.strip()} cannot hash image data; 12.58 can")
    original = tmp_path / f"original{Path(name).suffix}"
    original.write_bytes(IMAGES[name])
    written(collection(root, {name: IMAGES[name]}), embed=True)
    ask = ("-api", "requesttags=imagedatahash", "-ImageDataHash")
    sums = [{k: v for k, v in exiftool(p, *ask).items() if "Hash" in k} for p in (root / name, original)]
    assert sums[0]
    assert sums[0] == sums[1]


def test_undo_brings_every_byte_back_and_the_tables_follow(root):
    c = collection(root, IMAGES)
    before = hashes(root)
    first = written(c, embed=True)
    add_tag(c, "sand")
    take_tag(c, "beach")
    second = written(c, embed=True)
    assert words(root / "a.jpg") == ["dog", "sand"]
    assert second.summary["done"] == len(IMAGES)
    assert undone(second).state == undone(first).state == "undone"
    assert hashes(root) == before
    assert {i.path: i.sha256 for i in c.images.all()} == before
    assert max(len(bytes(b)) for b in ExportEntry.objects.values_list("backup", flat=True)) < 2000


def test_the_next_ingest_finds_nothing_changed_and_thumbnails_are_there(root):
    c = collection(root, IMAGES)
    assert all(default_storage.exists(thumbnail_name(i.sha256, 320)) for i in c.images.all())
    written(c, embed=True)
    assert {i.path: i.sha256 for i in c.images.all()} == hashes(root)
    assert all(default_storage.exists(thumbnail_name(i.sha256, 320)) for i in c.images.all())
    call_command("ingest", str(root), "--collection", "Trip", stdout=io.StringIO())
    last = c.ingest_jobs.first()
    assert (last.changed, last.added, last.unchanged) == (0, 0, len(IMAGES))
    assert set(c.images.values_list("review_state", flat=True)) == {"reviewed"}


def test_undo_after_someone_wrote_takes_only_ours(root):
    c = collection(root, {"a.jpg": FILES["jpeg"]}, caption="")
    job = written(c, embed=True)
    path = root / "a.jpg"
    packet = Packet(containers.read_xmp(path.read_bytes()))
    packet.set_array(fields.SUBJECT, ["dog", "evening", "beach"])
    path.write_bytes(containers.write_xmp(path.read_bytes(), packet.to_bytes()))
    assert undone(job).state == "undone"
    assert words(path) == ["evening"]
    assert shown(path.read_bytes()) == shown(FILES["jpeg"])


def test_formats_that_are_never_written_to_get_sidecars_and_the_plan_says_so(root):
    contents = {
        "a.tif": saved("TIFF"),
        "b.gif": saved("GIF", "P"),
        "c.avif": saved("AVIF"),
        "d.bmp": saved("BMP"),
        "e.jpg": FILES["jpeg"],
    }
    c = collection(root, contents)
    for name in ("f.dng", "g.heic", "h.nef"):  # no picture needed: they are told by their names
        (root / name).write_bytes(b"kept as it is")
        image = ImageAsset.objects.create(collection=c, path=name, sha256="0" * 64, review_state="reviewed")
        ImageTag.objects.create(image=image, tag=tag("dog"), state=ImageTag.State.ACCEPTED, score=0.9)
    before = hashes(root)
    job = planned(c, embed=True, profile="darktable")
    found = notes(job)
    for name in ("a.tif", "b.gif", "c.avif", "d.bmp", "f.dng", "g.heic", "h.nef"):
        extension = name.rpartition(".")[2].upper()
        assert found[f"{name}.xmp"] == (
            "create",
            [f"not embedded: only JPEG, PNG and WebP are written to, not {extension}", ""],
        )
    assert found["e.jpg"] == ("update", [""])
    assert written(c, embed=True, profile="darktable").state == "done"
    after = hashes(root)
    assert {n: h for n, h in after.items() if n in before and n != "e.jpg"} == {
        n: h for n, h in before.items() if n != "e.jpg"
    }
    assert after["e.jpg"] != before["e.jpg"]
    assert (root / "h.nef.xmp").exists()


FULL = Packet.new().to_bytes() + b" " * (65_400 - len(Packet.new().to_bytes()))
MANIFEST = b"JP\0\1\0\0\0\1\0\0\0\x28jumbjumdc2pa" + bytes(20)


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("a.jpg", behind_soi(FILES["jpeg"], segment(0xEB, MANIFEST)), "it is signed (C2PA)"),
        ("a.jpg", FILES["png"], "its name says jpg, its content is PNG"),
        ("a.jpg", behind_soi(FILES["jpeg with xmp"], segment(0xE1, JPEG_XMP + PACKET)), "it has two XMP packets"),
        ("a.jpg", behind_soi(FILES["bare jpeg"], segment(0xE1, JPEG_XMP + b"<broken")), "not"),
        ("a.png", FILES["png"][:-3], "the PNG is cut off"),
        ("a.jpg", behind_soi(FILES["bare jpeg"], segment(0xE1, JPEG_XMP + FULL)), "a JPEG holds 65,502"),
    ],
)
def test_an_image_that_could_be_harmed_gets_a_sidecar_and_the_reason(root, name, data, why):
    c = collection(root, {"z.jpg": FILES["bare jpeg"]})
    (root / name).write_bytes(data)
    image = ImageAsset.objects.create(collection=c, path=name, sha256="0" * 64, review_state="reviewed")
    ImageTag.objects.create(image=image, tag=tag("dog"), state=ImageTag.State.ACCEPTED, score=0.9)
    job = written(c, embed=True, profile="darktable")
    action, said = notes(job)[f"{name}.xmp"]
    assert action == "create"
    assert said[0].startswith("not embedded: ")
    assert why in said[0]
    assert (root / name).read_bytes() == data


def test_a_picture_that_does_not_decode_is_skipped_when_it_comes_to_writing(root):
    c = collection(root, {"a.jpg": FILES["jpeg"]})
    data = FILES["bare jpeg"]
    at = data.index(b"\xff\xc0")  # the frame header, made nonsense
    (root / "b.jpg").write_bytes(data[: at + 4] + b"\x63" + data[at + 5 :])
    image = ImageAsset.objects.create(collection=c, path="b.jpg", sha256="0" * 64, review_state="reviewed")
    ImageTag.objects.create(image=image, tag=tag("dog"), state=ImageTag.State.ACCEPTED, score=0.9)
    before = (root / "b.jpg").read_bytes()
    job = written(c, embed=True)
    entry = job.entries.get(target=str(root / "b.jpg"))
    assert entry.state == "skipped"
    assert "cannot be read as a picture" in entry.error
    assert (root / "b.jpg").read_bytes() == before


def test_a_sidecar_that_is_there_is_brought_up_to_date_too(root):
    c = collection(root, {"a.jpg": FILES["jpeg"], "b.jpg": FILES["jpeg"][:-2] + b"\xff\xfe\0\4ok\xff\xd9"})
    (root / "a.jpg.xmp").write_bytes(Packet.new().to_bytes())
    written(c, embed=True)
    assert Packet((root / "a.jpg.xmp").read_bytes()).values(fields.SUBJECT) == ["dog", "beach"]
    assert sorted(p.name for p in root.iterdir()) == ["a.jpg", "a.jpg.xmp", "b.jpg"]


def test_a_raw_twin_keeps_its_shared_sidecar_while_the_jpeg_is_written_into(root):
    c = collection(root, {"a.jpg": FILES["jpeg"]})
    (root / "a.nef").write_bytes(b"raw")
    image = ImageAsset.objects.create(collection=c, path="a.nef", sha256="0" * 64, review_state="reviewed")
    ImageTag.objects.create(image=image, tag=tag("dog"), state=ImageTag.State.ACCEPTED, score=0.9)
    written(c, embed=True, twins="shared", profile="lightroom")
    assert words(root / "a.jpg") == ["dog", "beach"]
    assert Packet((root / "a.xmp").read_bytes()).values(fields.SUBJECT) == ["dog"]


def iptc(*datasets):
    return b"".join(b"\x1c" + bytes([r, d]) + len(v).to_bytes(2, "big") + v for r, d, v in datasets)


def photoshop(block, digest=None):
    def resource(number, data):
        return (
            b"8BIM"
            + number.to_bytes(2, "big")
            + b"\0\0"
            + len(data).to_bytes(4, "big")
            + data
            + b"\0" * (len(data) % 2)
        )

    body = resource(0x0404, block) + (resource(0x0425, digest) if digest else b"")
    return segment(0xED, b"Photoshop 3.0\0" + body)


def test_older_fields_that_would_win_are_told_and_stay(root):
    described = Image.Exif()
    described[270] = "OLYMPUS DIGITAL CAMERA"
    block = iptc((2, 25, b"old"), (2, 120, b"old caption"))
    contents = {
        "a.jpg": saved("JPEG", exif=described.tobytes()),
        "b.jpg": behind_soi(FILES["bare jpeg"], photoshop(block)),
        "c.jpg": behind_soi(FILES["bare jpeg"], photoshop(block, hashlib.md5(b"another").digest())),
        "d.jpg": FILES["bare jpeg"],
    }
    job = planned(collection(root, contents), embed=True, older="leave")
    said = {name: found[0] for name, (_, found) in notes(job).items()}
    assert "EXIF description stays" in said["a.jpg"]
    assert "IPTC keywords and caption stay" in said["b.jpg"]
    assert "newer than its XMP" in said["c.jpg"]
    assert said["d.jpg"] == ""


def test_the_warning_stands_where_the_option_is_asked():
    schema = in_place.options_of("xmp").model_json_schema()["properties"]["embed"]
    assert schema["default"] is False
    assert "Writes into your image files" in schema["description"]


def test_links_and_read_only_images_are_not_written_into(root):
    c = collection(root, {"a.jpg": FILES["jpeg"], "b.jpg": FILES["bare jpeg"]})
    os.link(root / "a.jpg", root.parent / "twice.jpg")
    (root / "b.jpg").chmod(0o444)
    before = hashes(root)
    job = written(c, embed=True, profile="darktable")
    assert "hard links" in notes(job)["a.jpg.xmp"][1][0]
    assert "read-only" in notes(job)["b.jpg.xmp"][1][0]
    assert {n: h for n, h in hashes(root).items() if n in before} == before


def undo_all(c):
    in_place.settle_orphans(c)
    for job in ExportJob.objects.filter(entries__state="done").distinct().order_by("-id"):
        undone(job)


@pytest.mark.django_db(transaction=True)
def test_fifteen_kills_in_the_middle_lose_nothing(root):
    """The command itself, killed at fifteen moments; every image is the old or the new one, and undo finds them all."""
    contents = {}
    for n in range(24):
        path = root / "one.jpg"
        picture(size=(300 + n, 200), shade=n * 9).save(path, exif=exif(), quality=90)
        contents[f"{n:02}.jpg"] = path.read_bytes()
        path.unlink()
    c = collection(root, contents)
    before = hashes(root)
    kills = 0
    for n in range(15):
        connections.close_all()
        looked = root.stat().st_mtime_ns
        child = os.fork()
        if child == 0:
            try:
                call_command("export", "xmp", "--collection", "Trip", "--option", "embed=true", stdout=io.StringIO())
            finally:
                os._exit(0)
        ended = 0
        while root.stat().st_mtime_ns == looked and not ended:  # until the first file is touched
            ended = os.waitpid(child, os.WNOHANG)[0]
        time.sleep(n * 0.0007)  # each time at another moment
        if not ended:
            os.kill(child, signal.SIGKILL)
            kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        for name, data in contents.items():
            now = (root / name).read_bytes()
            assert containers.payload_digest(now) == containers.payload_digest(data)
            assert now == data or words(root / name) == ["dog", "beach"]
        if all((root / name).read_bytes() != data for name, data in contents.items()):
            undo_all(c)
            assert hashes(root) == before
    assert kills >= 10
    written(c, embed=True)  # settles what the dead left, writes the rest
    assert {words(root / name) == ["dog", "beach"] for name in contents} == {True}
    assert {i.path: i.sha256 for i in c.images.all()} == hashes(root)
    undo_all(c)
    assert hashes(root) == before
    assert not list(root.glob(".iwtag-*"))
