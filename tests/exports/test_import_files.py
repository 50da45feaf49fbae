"""Sidecars, embedded metadata and text files read back, and edits made in another tool since the export."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from django.core.exceptions import ValidationError
from PIL import Image

from exports import ledger
from exports.import_models import ImportRow
from exports.models import ExportJob
from exports.xmp import fields
from exports.xmp.packet import Packet
from tagging.models import Collection, ImageAsset, ImageTag, Tag

from .importing import applied, fates, folder, planned, row, tags

pytestmark = pytest.mark.django_db
SIDECARS = Path(__file__).parent / "sidecars"
STYLE = fields.Style(prefix="iw")


def put(root: Path, name: str, data: bytes | str = b"x") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def keyword(*path: str) -> fields.Keyword:
    return fields.Keyword(path)


def export(c: Collection, target: Path, *keywords: fields.Keyword, image: ImageAsset | None = None, **more) -> None:
    """Write a sidecar through the ledger, as a job does."""
    job = ExportJob.objects.create(collection=c, format="xmp", options={"prefix": "iw", **more.pop("options", {})})
    last = ledger.last_written([str(target)]).get(str(target), {})
    entry = ledger.plan_sidecar(target, fields.Wanted(keywords, **more), last, STYLE)
    assert entry is not None
    entry.job, entry.image = job, image
    entry.save()
    ledger.apply([entry], fsync=False)
    entry.refresh_from_db()
    assert entry.state == "done", entry.error


# -- sidecars ---------------------------------------------------------------------------------------------------------
def test_sidecars_of_lightroom_digikam_and_darktable(tmp_path):
    for name in ("a.NEF", "b.jpg", "c.ORF"):
        put(tmp_path, name)
    c = folder(tmp_path, "a.NEF", "b.jpg", "c.ORF")
    shutil.copy(SIDECARS / "lightroom.xmp", tmp_path / "a.xmp")
    shutil.copy(SIDECARS / "digikam.xmp", tmp_path / "b.jpg.xmp")
    shutil.copy(SIDECARS / "darktable.xmp", tmp_path / "c.ORF.XMP")
    job = planned(c, "sidecars")
    assert (job.summary["unmatched"], job.summary["problems"]) == (0, 0)
    assert fates(row(job, "a.NEF")) == {"Oslo": "new", "Ærlig & blå": "new"}
    assert row(job, "a.NEF").texts == {"caption": ["", "A harbour"], "rating": ["", "4"]}
    assert fates(row(job, "b.jpg")) == {"Alps": "new"}
    assert row(job, "c.ORF").texts == {"rating": ["", "1"]}
    applied(job)
    assert Tag.objects.get(name="Oslo").parent.name == "Norway"
    assert Tag.objects.get(name="Norway").parent.name == "Places"
    assert tags("a.NEF") == {"Oslo", "Ærlig & blå"}  # not the levels above them
    assert ImageAsset.objects.get(path="a.NEF").caption_state == "edited"


def test_our_sidecars_come_back_without_the_prefix(tmp_path):
    put(tmp_path, "x/a.jpg")
    c = folder(tmp_path, "x/a.jpg")
    names = ["fate/stay night", "a|b", "c,d", "type=Bag", "=cmd", '"', "🙂", "שלום"]
    export(c, tmp_path / "x" / "a.xmp", *(keyword("animal", n) for n in names), caption="Two\nlines", label="general")
    job = planned(c, "sidecars")
    applied(job)
    assert tags("x/a.jpg") == set(names)
    assert not row(job, "x/a.jpg").elsewhere
    found = ImageAsset.objects.get(path="x/a.jpg")
    assert (found.caption, found.rating) == ("Two\nlines", "general")
    assert Tag.objects.get(name="a|b").parent.name == "animal"
    assert planned(c, "sidecars").summary["changes"] == 0  # nothing new the second time


def test_the_first_field_that_is_not_empty_is_believed(tmp_path):
    put(tmp_path, "a.jpg")
    packet = Packet.new()
    packet.set_array(fields.TAGS_LIST, ["animal/dog", "_Digikam_Internal_Tags_/x"], "Seq")
    packet.set_array(fields.HIERARCHY, ["pets|dog", "extra"])
    packet.set_array(fields.SUBJECT, ["dog", "animal", "flat"])
    put(tmp_path, "a.jpg.xmp", packet.to_bytes())
    c = folder(tmp_path, "a.jpg")
    job = planned(c, "sidecars")
    assert fates(row(job, "a.jpg")) == {"dog": "new"}
    assert row(job, "a.jpg").notes == ["not in digiKam:TagsList, and so left out: extra, flat"]
    assert fates(row(planned(c, "sidecars", every_field=True), "a.jpg")) == dict.fromkeys(
        ("dog", "extra", "flat"), "new"
    )


def test_edits_made_elsewhere_since_the_export_are_shown_as_such(tmp_path):
    put(tmp_path, "a.jpg")
    c = folder(tmp_path, "a.jpg")
    a = c.images.get()
    applied(planned(c, "csv", "path,tags\na.jpg,animal|dog;animal|cat\n"))
    sidecar = tmp_path / "a.jpg.xmp"
    put(tmp_path, "a.jpg.xmp", (SIDECARS / "digikam.xmp").read_bytes())  # with words of somebody's own
    export(c, sidecar, keyword("animal", "dog"), keyword("animal", "cat"), caption="ours", image=a)

    # as darktable does: it rewrites the flat list and the hierarchy, and leaves digiKam's alone
    packet = Packet(sidecar.read_bytes())
    packet.set_array(fields.SUBJECT, [w for w in packet.values(fields.SUBJECT) if w != "cat"] + ["beach"])
    packet.set_array(fields.HIERARCHY, [w for w in packet.values(fields.HIERARCHY) if "cat" not in w] + ["beach"])
    packet.set_text(fields.DESCRIPTION, "theirs")
    sidecar.write_bytes(packet.to_bytes())

    job = planned(c, "sidecars")
    found = row(job, "a.jpg")
    assert fates(found) == {"Alps": "new", "dog": "there", "beach": "new", "cat": "removed"}
    why = {w[0]: w[3] for w in found.words}
    assert why["beach"].startswith("added elsewhere since the export of ")
    assert why["cat"].startswith("removed elsewhere since the export of ")
    assert (why["dog"], why["Alps"]) == ("", "")
    assert found.notes[0].startswith("caption changed elsewhere since the export of ")
    assert (found.elsewhere, job.summary["elsewhere"], job.summary["removed"]) == (True, 1, 1)

    applied(job)
    assert tags(a) == {"dog", "cat", "beach", "Alps"}  # a removal is taken over only on request
    applied(planned(c, "sidecars"), removals=True)
    assert tags(a) == {"dog", "beach", "Alps"}
    assert tags(a, ImageTag.State.REJECTED) == {"cat"}


def test_a_word_that_was_moved_is_not_removed(tmp_path):
    put(tmp_path, "a.jpg")
    c = folder(tmp_path, "a.jpg")
    applied(planned(c, "csv", "path,tags\na.jpg,dog\n"))
    export(c, tmp_path / "a.jpg.xmp", keyword("animal", "dog"))
    text = (tmp_path / "a.jpg.xmp").read_text().replace("animal", "pets")
    put(tmp_path, "a.jpg.xmp", text)
    found = row(planned(c, "sidecars"), "a.jpg")
    assert fates(found) == {"dog": "there"}


def test_whose_a_shared_sidecar_is(tmp_path):
    for name in ("a.NEF", "a.jpg", "b.NEF", "b.jpg"):
        put(tmp_path, name)
    c = folder(tmp_path, "a.NEF", "a.jpg", "b.NEF", "b.jpg")
    shutil.copy(SIDECARS / "lightroom.xmp", tmp_path / "a.xmp")  # says SidecarForExtension NEF
    packet = Packet.new()
    packet.set_array(fields.SUBJECT, ["sea"])
    put(tmp_path, "b.xmp", packet.to_bytes())
    job = planned(c, "sidecars")
    assert row(job, "a.NEF").n_new == 2
    unclear = ImportRow.objects.get(job=job, state="unmatched")
    assert unclear.error == "it could mean b.NEF, b.jpg"
    job = planned(c, "sidecars", shared=True)
    assert {r.image.path for r in ImportRow.objects.filter(job=job)} == {"a.NEF", "a.jpg", "b.NEF", "b.jpg"}


def test_two_sidecars_of_one_image_are_taken_together(tmp_path):
    put(tmp_path, "a.jpg")
    for name, word in (("a.jpg.xmp", "x"), ("a.xmp", "y")):
        packet = Packet.new()
        packet.set_array(fields.SUBJECT, [word, "both"])
        put(tmp_path, name, packet.to_bytes())
    job = planned(folder(tmp_path, "a.jpg"), "sidecars")
    assert fates(row(job, "a.jpg")) == {"x": "new", "both": "new", "y": "new"}
    assert row(job, "a.jpg").n_new == 3


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no XML element"),
        (b"<x", "not closed"),
        ("<a/>".encode("utf-16"), "UTF-16"),
        (b"\xff\xfe\xfa", "UTF-16"),
        (b"<!DOCTYPE x [<!ENTITY e 'f'>]><x/>", "document type"),
        (b"<html><body>hello</body></html>", "not an XMP"),
    ],
)
def test_sidecars_that_cannot_be_read_are_rows(tmp_path, data, says):
    put(tmp_path, "a.jpg")
    put(tmp_path, "a.jpg.xmp", data)
    job = planned(folder(tmp_path, "a.jpg"), "sidecars")
    found = ImportRow.objects.get(job=job)
    assert (found.state, says in found.error) == ("problem", True), found.error


def test_a_sidecar_that_a_link_fetches_from_elsewhere_is_not_read(tmp_path):
    secret = put(tmp_path, "outside/secret.xmp", (SIDECARS / "digikam.xmp").read_bytes())
    put(tmp_path, "in/a.jpg")
    (tmp_path / "in" / "a.jpg.xmp").symlink_to(secret)
    found = ImportRow.objects.get(job=planned(folder(tmp_path / "in", "a.jpg"), "sidecars"))
    assert "leads out of the folder" in found.error


def test_uploads_have_no_folder_but_a_zip_does(tmp_path):
    c = Collection.objects.create(name="Up", slug="up", kind="upload")
    ImageAsset.objects.create(collection=c, path="x/a.jpg", sha256="1" * 64)
    with pytest.raises(ValidationError, match="Upload the files as a zip"):
        planned(c, "sidecars")
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as z:
        z.write(SIDECARS / "digikam.xmp", "x/a.jpg.xmp")
        z.writestr("../evil.xmp", "<x/>")
    job = planned(c, "sidecars", data.getvalue(), name="side.zip")
    assert fates(row(job, "x/a.jpg")) == {"Alps": "new"}
    with pytest.raises(ValidationError, match="zip cannot be read"):
        planned(c, "txt", b"PK no", name="a.zip")


# -- text files -------------------------------------------------------------------------------------------------------
def test_kohya_lines_captions_and_hydrus(tmp_path):
    for name, text in {"a.jpg": "", "b.png": "", "sub/c.webp": "", "d.jpg": "", "d.png": ""}.items():
        put(tmp_path, name, text)
    put(tmp_path, "a.txt", "1girl, saber \\(fate\\), , 1girl\nsecond line\n")
    put(tmp_path, "b.png.txt", "\ufeffcat,dog")
    put(tmp_path, "sub/c.caption", "A cat\non a sofa.\n")
    put(tmp_path, "d.txt", "x")
    put(tmp_path, "readme.txt", "hello")
    put(tmp_path, "bad.txt", b"\xff\xfe\xfa")
    c = folder(tmp_path, "a.jpg", "b.png", "sub/c.webp", "d.jpg", "d.png")
    job = planned(c, "txt")
    assert fates(row(job, "a.jpg")) == {"1girl": "new", "saber (fate)": "new"}
    assert fates(row(job, "b.png")) == {"cat": "new", "dog": "new"}
    errors = dict(ImportRow.objects.filter(job=job).exclude(error="").values_list("key", "error"))
    assert errors == {
        "d": "it could mean d.jpg, d.png",
        "readme": "no image of the collection has this path or name",
        "bad": "bad.txt is not UTF-8 text",
    }
    assert "more than one line" in job.summary["warnings"][0]
    job = planned(c, "txt", content="caption", extension="caption")
    assert row(job, "sub/c.webp").texts == {"caption": ["", "A cat\non a sofa."]}
    job = planned(c, "txt", content="lines")
    assert "saber \\(fate\\), , 1girl" not in fates(row(job, "a.jpg"))
    assert "second line" in fates(row(job, "a.jpg"))


def test_text_files_of_another_folder(tmp_path):
    put(tmp_path, "texts/one.txt", "cat")
    c = folder(tmp_path / "photos", "deep/one.jpg")
    assert fates(row(planned(c, "txt", folder=str(tmp_path / "texts")), "deep/one.jpg")) == {"cat": "new"}


# -- embedded ---------------------------------------------------------------------------------------------------------
needs_exiftool = pytest.mark.skipif(
    shutil.which("exiftool") is None and not os.environ.get("CI"), reason="exiftool is not installed"
)


def exiftool(*args: str) -> None:
    subprocess.run(["exiftool", "-q", "-overwrite_original", *args], check=True, timeout=60)


def picture(root: Path, name: str) -> Path:
    path = root / name
    Image.new("RGB", (16, 12), (40, 90, 160)).save(path)
    return path


@needs_exiftool
def test_metadata_that_exiftool_wrote(tmp_path):
    names = ["a.jpg", "b.png", "c.webp", "d.tif"]
    paths = [str(picture(tmp_path, name)) for name in names]
    exiftool("-XMP-dc:Subject=dog", "-XMP-dc:Subject=été", "-XMP-lr:HierarchicalSubject=animal|dog",
             "-XMP-lr:HierarchicalSubject=été", "-XMP-dc:Description=A dog", "-XMP-xmp:Rating=3", *paths)  # fmt: skip
    only = picture(tmp_path, "iptc.jpg")
    exiftool("-IPTC:Keywords=Straße", "-IPTC:Keywords=sea", "-IPTC:Caption-Abstract=By the sea",
             "-IPTC:CodedCharacterSet=UTF8", str(only))  # fmt: skip
    exif = picture(tmp_path, "exif.jpg")
    exiftool("-EXIF:ImageDescription=OLYMPUS DIGITAL CAMERA", "-EXIF:XPKeywords=one;two", "-EXIF:XPComment=said",
             str(exif))  # fmt: skip
    c = folder(tmp_path, *names, "iptc.jpg", "exif.jpg", "plain.jpg", "e.nef")
    for path, kind in {"b.png": "PNG", "c.webp": "WEBP", "d.tif": "TIFF", "e.nef": "RAW"}.items():
        c.images.filter(path=path).update(format=kind)
    picture(tmp_path, "plain.jpg")
    job = planned(c, "embedded")
    assert list(ImportRow.objects.filter(job=job).exclude(error="").values_list("key", "error")) == []
    for name in names:
        assert fates(row(job, name)) == {"dog": "new", "été": "new"}, name
        assert row(job, name).texts == {"caption": ["", "A dog"], "rating": ["", "3"]}, name
    assert fates(row(job, "iptc.jpg")) == {"Straße": "new", "sea": "new"}
    assert row(job, "iptc.jpg").texts == {"caption": ["", "By the sea"]}
    assert fates(row(job, "exif.jpg")) == {"one": "new", "two": "new"}
    assert row(job, "exif.jpg").texts == {"caption": ["", "said"]}
    assert any("1 RAW files" in w for w in job.summary["warnings"])
    assert any("1 images have no keywords" in w for w in job.summary["warnings"])
    before = [Path(p).read_bytes() for p in paths]
    applied(job)
    assert [Path(p).read_bytes() for p in paths] == before  # only read
    assert Tag.objects.get(name="dog").parent.name == "animal"


@needs_exiftool
def test_iptc_that_was_changed_after_xmp_is_believed(tmp_path):
    path = picture(tmp_path, "a.jpg")
    exiftool("-XMP-dc:Subject=old", "-IPTC:Keywords=old", "-Photoshop:IPTCDigest=new", str(path))
    c = folder(tmp_path, "a.jpg")
    assert fates(row(planned(c, "embedded"), "a.jpg")) == {"old": "new"}
    exiftool("-IPTC:Keywords=newer", "-Photoshop:IPTCDigest=00112233445566778899aabbccddeeff", str(path))
    found = row(planned(c, "embedded"), "a.jpg")
    assert fates(found) == {"newer": "new"}
    assert "IPTC was changed after XMP" in found.notes[0]


def test_damaged_images_are_rows_with_a_reason(tmp_path):
    good = picture(tmp_path, "a.jpg").read_bytes()
    put(tmp_path, "cut.jpg", good[:30])
    put(tmp_path, "empty.jpg", b"")
    put(tmp_path, "none.png", b"\x89PNG\r\n\x1a\n" + b"\xff" * 40)
    c = folder(tmp_path, "a.jpg", "cut.jpg", "empty.jpg", "none.png", "gone.jpg")
    job = planned(c, "embedded")
    assert job.state == "planned", job.error
    errors = dict(ImportRow.objects.filter(job=job).values_list("key", "error"))
    assert set(errors) >= {"empty.jpg", "gone.jpg"}
    assert all(e.startswith("cannot be read: ") for e in errors.values()), errors
