"""IPTC and the EXIF description of images: brought up to date, others' words kept, read by exiftool, undone exactly."""

from __future__ import annotations

import hashlib
import io
import random
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from exports import undoing
from exports.xmp import exif as exif_block
from exports.xmp.document import Refused
from exports.xmp.iptc import Iptc
from tagging.models import ImageAsset

from .folders import add_tag, hashes, planned, take_tag, undone, written
from .test_embedded_containers import FILES, behind_soi, mpo, picture, saved, shown
from .test_embedded_jobs import collection, exiftool, iptc, needs, notes, others, photoshop

pytestmark = pytest.mark.django_db
CAPTION = "A dog on the beach – früh"


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "trip"
    path.mkdir()
    return path


def described(text, format="JPEG", **more):
    found = Image.Exif()
    found[0x010E], found[0x010F] = text, "Camera & Sons"
    found.get_ifd(0x8769)[0x9003] = "2024:05:06 07:08:09"
    return saved(format, exif=found.tobytes(), **more)


def rest(path):
    """Everything exiftool sees but what is ours to write."""
    ours = ("Keywords", "Caption-Abstract", "ImageDescription", "CodedCharacterSet", "ApplicationRecordVersion")
    places = ("IFD0:ExifOffset", "ExifByteOrder", "CurrentIPTCDigest", "Photoshop:IPTCDigest")
    return {k: v for k, v in others(path).items() if not k.endswith(ours + places)}


def read(path):
    found = exiftool(
        path, "-use", "MWG", "-MWG:Keywords", "-MWG:Description", "-a", "-IPTC:all", "-IFD0:ImageDescription"
    )
    return {k.rpartition(":")[2] if k.startswith(("IFD0", "MWG")) else k: v for k, v in found.items()}


def test_iptc_that_is_there_is_brought_up_to_date(root):
    block = iptc((2, 5, b"A title"), (2, 25, b"old"), (2, 90, b"Wien"))
    digest = hashlib.md5(block).digest()
    c = collection(root, {"a.jpg": behind_soi(FILES["jpeg"], photoshop(block, digest))})
    path = root / "a.jpg"
    before, picture_before = rest(path), shown(path.read_bytes())[:2]
    job = written(c, embed=True)
    assert notes(job)["a.jpg"] == ("update", [""])
    found = read(path)
    assert found["IPTC:Keywords"] == ["old", "dog", "beach"]
    assert found["IPTC:Caption-Abstract"] == CAPTION
    assert found["IPTC:CodedCharacterSet"] == "UTF8"
    assert (found["Keywords"], found["Description"]) == (["dog", "beach"], CAPTION)  # what XMP says counts again
    assert (found["IPTC:ObjectName"], found["IPTC:City"]) == ("A title", "Wien")
    digests = exiftool(path, "-IPTCDigest", "-CurrentIPTCDigest")
    assert digests["Photoshop:IPTCDigest"] == digests["File:CurrentIPTCDigest"]
    assert rest(path) == before
    assert shown(path.read_bytes())[:2] == picture_before
    assert planned(c, embed=True).summary["files"] == 0


def test_what_others_said_in_iptc_stays_and_what_they_took_out_stays_out(root):
    block = iptc((2, 25, b"mine"), (2, 120, b"My own caption"))
    c = collection(root, {"a.jpg": behind_soi(FILES["bare jpeg"], photoshop(block))})
    job = written(c, embed=True)
    assert "was written by someone else" in notes(job)["a.jpg"][1][0]
    path = root / "a.jpg"
    assert read(path)["IPTC:Caption-Abstract"] == "My own caption"
    subprocess.run(
        [needs("exiftool"), "-q", "-overwrite_original", "-IPTC:Keywords-=dog", "-XMP-dc:Subject-=dog", str(path)],
        check=True,
    )
    take_tag(c, "beach")
    add_tag(c, "wave")
    written(c, embed=True)
    assert read(path)["IPTC:Keywords"] == ["mine", "wave"]


@pytest.mark.parametrize("name", ["a.jpg", "b.jpg", "c.png", "d.webp"])
def test_the_exif_description_of_a_camera_is_nobodys(root, name):
    format = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[name.rpartition(".")[2]]
    contents = described("OLYMPUS DIGITAL CAMERA", format, **({"lossless": True} if format == "WEBP" else {}))
    c = collection(root, {name: contents})
    path = root / name
    before, picture_before = rest(path), shown(path.read_bytes())[:2]
    job = written(c, embed=True)
    assert read(path)["ImageDescription"] == CAPTION
    assert rest(path) == before
    assert shown(path.read_bytes())[:2] == picture_before
    undone(job)
    assert path.read_bytes() == contents


def test_an_exif_description_of_a_person_stays_unless_it_is_what_the_xmp_said(root):
    c = collection(root, {"a.jpg": described("Our holiday")})
    assert "was written by someone else" in notes(written(c, embed=True))["a.jpg"][1][0]
    assert read(root / "a.jpg")["ImageDescription"] == "Our holiday"
    assert notes(planned(c, embed=True, mode="replace_own"))["a.jpg"][0] == "update"


def test_our_caption_follows_a_change(root):
    c = collection(root, {"a.jpg": described("SONY DSC")})
    jobs = [written(c, embed=True)]
    ImageAsset.objects.update(caption="Short")
    jobs.append(written(c, embed=True))
    assert read(root / "a.jpg")["ImageDescription"] == "Short"
    ImageAsset.objects.update(caption="A much longer caption than that, so that it needs another place in the block")
    jobs.append(written(c, embed=True))
    assert read(root / "a.jpg")["ImageDescription"].startswith("A much longer caption")
    for job in reversed(jobs):
        undone(job)
    assert (root / "a.jpg").read_bytes() == described("SONY DSC")


def test_iptc_that_a_program_changed_alone_is_left_and_told(root):
    block = iptc((2, 25, b"newer"))
    c = collection(root, {"a.jpg": behind_soi(FILES["bare jpeg"], photoshop(block, hashlib.md5(b"x").digest()))})
    job = written(c, embed=True)
    assert "IPTC stays as it is" in notes(job)["a.jpg"][1][0]
    assert read(root / "a.jpg")["IPTC:Keywords"] == "newer"


def test_iptc_in_an_unknown_character_set_is_left_and_told(root):
    c = collection(root, {"a.jpg": behind_soi(FILES["bare jpeg"], photoshop(iptc((2, 90, "Köln".encode("latin-1")))))})
    job = written(c, embed=True)
    assert "unknown character set" in notes(job)["a.jpg"][1][0]
    assert read(root / "a.jpg").get("IPTC:Keywords") is None


def test_always_makes_them_and_undo_takes_them_away(root):
    contents = {"a.jpg": FILES["bare jpeg"], "b.jpg": FILES["jpeg"], "c.jpg": mpo()}
    c = collection(root, contents)
    job = written(c, embed=True, older="always")
    for name in contents:
        found = read(root / name)
        assert (found["IPTC:Keywords"], found["IPTC:Caption-Abstract"]) == (["dog", "beach"], CAPTION)
        assert found["ImageDescription"] == CAPTION
        warned = exiftool(root / name, "-validate", "-warning", "-a")
        assert "Warning" not in str({k for k in warned if k.endswith("Warning")} - {"ExifTool:Warning"})
    with Image.open(root / "c.jpg") as image:
        assert image.n_frames == 2
        image.seek(1)
        assert image.convert("RGB").getpixel((2, 2)) is not None
    assert planned(c, embed=True, older="always").summary["files"] == 0
    undone(job)
    assert {name: (root / name).read_bytes() for name in contents} == contents


def test_undo_among_others_edits_takes_only_our_words(root):
    block = iptc((2, 25, b"old"))
    c = collection(root, {"a.jpg": behind_soi(described("SONY DSC"), photoshop(block))})
    job = written(c, embed=True)
    path = root / "a.jpg"
    subprocess.run(
        [needs("exiftool"), "-q", "-overwrite_original", "-IPTC:Keywords+=theirs", "-Artist=Ann", str(path)], check=True
    )
    assert undoing.undo(job.entries.all(), fsync=False) == (1, [])
    found = exiftool(path)
    assert found["IPTC:Keywords"] == ["old", "theirs"]
    assert found.get("IPTC:Caption-Abstract") is None
    assert (found["IFD0:ImageDescription"], found["IFD0:Artist"]) == ("SONY DSC", "Ann")


def test_long_words_and_captions_are_cut_where_the_standard_says(root):
    c = collection(root, {"a.jpg": FILES["bare jpeg"]}, tags=("w" * 80, "dog"), caption="é" * 1500)
    job = written(c, embed=True, older="always")
    assert "64 bytes" in " ".join(notes(job)["a.jpg"][1])
    found = read(root / "a.jpg")
    assert found["IPTC:Keywords"] == "dog"
    assert found["IPTC:Caption-Abstract"] == "é" * 1000
    assert found["ImageDescription"] == "é" * 1500


def test_nothing_is_written_where_it_is_left(root):
    contents = {"a.jpg": behind_soi(described("SONY DSC"), photoshop(iptc((2, 25, b"old"))))}
    c = collection(root, contents)
    before = hashes(root)
    planned(c, embed=True)
    assert hashes(root) == before  # a plan writes nothing
    written(c, embed=True, older="leave")
    assert (read(root / "a.jpg")["ImageDescription"], read(root / "a.jpg")["IPTC:Keywords"]) == ("SONY DSC", "old")


# -- the blocks by themselves ----------------------------------------------------------------------------------------
def blocks():
    """EXIF blocks of both byte orders, with and without a description, with further directories."""
    found = []
    for endian in ("<", ">"):
        for text in (None, "x", "abc", "A camera's own words"):
            made = Image.Exif()
            made.endian = endian
            if text is not None:
                made[0x010E] = text
            made[0x010F], made[0x0112] = "Make", 6
            made.get_ifd(0x8769)[0x927C] = bytes(range(200))  # a maker's note, with offsets of its own
            found.append(made.tobytes().removeprefix(b"Exif\0\0"))
    return found


def entries(block):
    made = Image.Exif()
    made.load(b"Exif\0\0" + block)
    values = {k: v for k, v in made.items() if k not in (0x010E, 0x8769)}
    return values, dict(made.get_ifd(0x8769))


@given(
    st.sampled_from(blocks()), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)
)
def test_a_description_changes_nothing_else_in_its_block(block, text):
    new = exif_block.with_description(block, text)
    assert exif_block.description(new) == text.strip()
    assert entries(new) == entries(block)
    note = bytes(range(200))
    assert new.find(note) == block.find(note)
    again = exif_block.with_description(new, "other")
    assert exif_block.description(again) == "other"
    assert entries(again) == entries(block)


def test_damaged_blocks_are_refused_or_read_never_crash():
    rng = random.Random(7)
    originals = [*blocks(), photoshop(iptc((2, 25, b"old"), (2, 120, b"text")))[18:]]
    for _ in range(4000):
        data = bytearray(rng.choice(originals))
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        del data[rng.randint(0, len(data)) if rng.random() < 0.3 else len(data) :]
        for do in (
            lambda d: exif_block.with_description(d, "new words"),
            lambda d: Iptc(d).with_words(["new"], "words"),
        ):
            try:
                do(bytes(data))
            except Refused:
                continue


def test_png_text_chunks_around_exif_stay(root):
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a dog, steps: 20")
    made = Image.Exif()
    made[0x010E] = "DIGITAL CAMERA"
    buffer = io.BytesIO()
    picture().save(buffer, "PNG", pnginfo=info, exif=made.tobytes())
    c = collection(root, {"a.png": buffer.getvalue()})
    written(c, embed=True)
    with Image.open(root / "a.png") as image:
        image.load()
        assert image.info["parameters"] == "a dog, steps: 20"
    assert read(root / "a.png")["ImageDescription"] == CAPTION
