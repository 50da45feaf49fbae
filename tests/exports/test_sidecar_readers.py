"""What others read in our sidecars, and that all else in theirs stays."""

from __future__ import annotations

import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from exports.models import ExportEntry
from exports.xmp import fields
from exports.xmp.packet import Packet
from tagging.actions.tags import resolve_tags
from tagging.models import ImageTag

from . import readers
from .folders import SIDECARS, folder, hashes, undone, words, written
from .truth import image, run_of

pytestmark = pytest.mark.django_db
NAMES = ("lightroom", "darktable", "digikam")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "trip"
    path.mkdir()
    return path


@pytest.fixture
def exported(root):
    """A sidecar of each program and one of our own, written to."""
    c = folder(
        root, [f"{name}.jpg" for name in (*NAMES, "new")], caption="A dog, at the “beach”", caption_state="accepted"
    )
    c.images.first().image_tags.update(run=run_of(c))
    for name in NAMES:
        shutil.copy(SIDECARS / f"{name}.xmp", root / f"{name}.jpg.xmp")
    written(c, profile="darktable", prefix="iw", details=True)
    return root


@pytest.mark.parametrize("name", NAMES)
def test_all_that_is_not_ours_is_as_before(exported, name):
    before, after = readers.exiftool(SIDECARS / f"{name}.xmp", exported / f"{name}.jpg.xmp")
    assert "dog" in after["XMP-dc:Subject"]
    assert readers.others(after) == readers.others(before)
    assert len(readers.others(before)) >= 4


def test_exiftool_reads_lists_and_texts(exported):
    (found,) = readers.exiftool(exported / "new.jpg.xmp")
    assert found["XMP-dc:Subject"] == ["dog", "beach"]
    assert found["XMP-lr:HierarchicalSubject"] == ["iw|animal|dog", "iw|beach"]
    assert found["XMP-digiKam:TagsList"] == ["iw/animal/dog", "iw/beach"]
    assert found["XMP-dc:Description"] == "A dog, at the “beach”"
    assert [k["Name"] for k in found["XMP-iwtag:Keywords"]] == ["dog", "beach"]


@pytest.mark.parametrize("name", [*NAMES, "new"])
def test_exiv2_reads_the_right_containers(exported, name):
    found = readers.exiv2_types(exported / f"{name}.jpg.xmp")
    theirs = len(Packet((SIDECARS / f"{name}.xmp").read_bytes()).values(fields.SUBJECT) or []) if name in NAMES else 0
    assert found["Xmp.dc.subject"] == ("XmpBag", theirs + 2)
    assert found["Xmp.lr.hierarchicalSubject"][0] == "XmpBag"
    assert found["Xmp.digiKam.TagsList"][0] == "XmpSeq"
    assert found["Xmp.dc.description"][0] == "LangAlt"


def test_categories_of_acdsee_and_digikam_follow_where_they_are(exported):
    found = readers.exiftool(exported / "digikam.jpg.xmp")[0]["XMP-acdsee:Categories"]
    levels = [(e.get("Assigned"), (e.text or "")) for e in ElementTree.fromstring(found).iter("Category")]
    assert levels == [("1", "Alps"), ("0", "iw"), ("0", "animal"), ("1", "dog"), ("1", "beach")]
    assert "XMP-acdsee:Categories" not in readers.exiftool(exported / "lightroom.jpg.xmp")[0]


def test_categories_that_cannot_be_read_leave_the_file_alone(root):
    c = folder(root, ["a.jpg"])
    text = (SIDECARS / "digikam.xmp").read_text().replace("&lt;Categories&gt;", "&lt;Sorts&gt;")
    (root / "a.jpg.xmp").write_text(text)
    (entry,) = written(c, profile="darktable").entries.all()
    assert (entry.action, (root / "a.jpg.xmp").read_text()) == ("refuse", text)
    assert "acdsee:categories" in entry.error


def test_stars_go_where_there_are_none_and_into_every_field_that_is_there(root):
    c = folder(root, ["new.jpg", "theirs.jpg", "several.jpg", "general.jpg"], rating="4")
    c.images.filter(path="general.jpg").update(rating="general")
    shutil.copy(SIDECARS / "darktable.xmp", root / "theirs.jpg.xmp")  # one star
    more = 'acdsee:rating="2" MicrosoftPhoto:Rating="25" acdsee:categories='
    several = (SIDECARS / "digikam.xmp").read_text().replace("acdsee:categories=", more)
    (root / "several.jpg.xmp").write_text(several)
    job = written(c, profile="darktable", stars=True, mode="replace_own")
    stars = {p: readers.exiftool(root / f"{p}.jpg.xmp")[0] for p in ("new", "theirs", "several", "general")}
    assert stars["new"]["XMP-xmp:Rating"] == 4
    assert stars["theirs"]["XMP-xmp:Rating"] == 4
    found = stars["several"]
    assert [found[f"XMP-{n}"] for n in ("xmp:Rating", "acdsee:Rating", "microsoft:RatingPercent")] == [4, 4, 75]
    assert "XMP-xmp:Rating" not in stars["general"]
    undone(job)
    assert (root / "theirs.jpg.xmp").read_bytes() == (SIDECARS / "darktable.xmp").read_bytes()


def test_stars_of_another_program_stay_in_a_merge(root):
    c = folder(root, ["theirs.jpg"], rating="4")
    shutil.copy(SIDECARS / "darktable.xmp", root / "theirs.jpg.xmp")
    written(c, profile="darktable", stars=True)
    assert readers.exiftool(root / "theirs.jpg.xmp")[0]["XMP-xmp:Rating"] == 1


@pytest.mark.parametrize("name", [*NAMES, "new"])
def test_each_tool_by_its_own_precedence(exported, name):
    path = exported / f"{name}.jpg.xmp"
    assert {"iw|animal|dog", "iw|beach"} <= set(readers.darktable(path))
    assert {"iw/animal/dog", "iw/beach"} <= set(readers.digikam(path))
    assert {"iw/animal/dog", "iw/beach"} <= set(readers.immich(path))
    assert {"dog", "beach"} <= set(readers.photoprism(path))


def test_the_caption_as_language_alternative(exported):
    assert readers.caption(exported / "new.jpg.xmp") == "A dog, at the “beach”"


NASTY = [
    "fate/stay_night", ":/", "|_|", "a,b", "a;b", 'say "cheese"', "it's", "<b>&amp;</b>", "=cmd", "+_+", "-3", "@home",
    "type=Bag", 'type="Seq"', 'x, lang="fr" y', "🏖️ beach", "👩‍👩‍👧", "שלום", "مرحبا", "Ærlig & blå", "e\u0301",
    "Straße",     "日本語", "{a|b}", "|||", ";;;", "]]>", "<!--", "-->", "${x}", "%s", "\\n", "a  b",
]  # fmt: skip


def test_nasty_words_survive_every_reader_and_the_way_back(root):
    c = folder(root, ["a.jpg"], [])
    tags = resolve_tags(NASTY)
    one = c.images.get()
    for t in set(tags.values()):
        ImageTag.objects.create(image=one, tag=t, state=ImageTag.State.ADDED)
    names = sorted(t.name for t in set(tags.values()))
    before = hashes(root)
    job = written(c, profile="immich")
    assert job.summary["done"] == 1, job.entries.values_list("error", flat=True)
    path = root / "a.jpg.xmp"
    assert sorted(words(path)) == names
    (found,) = readers.exiftool(path)
    assert sorted(map(str, found["XMP-dc:Subject"])) == names
    assert readers.exiv2_types(path)["Xmp.dc.subject"] == ("XmpBag", len(names))
    assert sorted(readers.photoprism(path)) == names
    # no word is split into levels by a separator in it
    assert len(readers.darktable(path)) == len(names)
    assert not [p for p in readers.darktable(path) if "|" in p]
    assert not [p for p in readers.digikam(path) if "/" in p]
    assert written(c, profile="immich").summary["files"] == 0
    undone(job)
    assert hashes(root) == before


@pytest.mark.parametrize("word", ["two\nlines", "nul\x01", "\ufffe", "tab\tbed"])
def test_words_that_no_field_can_hold_are_refused_by_name(root, word):
    c = folder(root, [], [])
    (root / "a.jpg").write_bytes(b"x")
    image(c, "a.jpg", [(word, ImageTag.State.ADDED, None), ("dog", ImageTag.State.ADDED, None)])
    written(c, profile="immich")
    entry = ExportEntry.objects.get()
    assert (entry.action, entry.state) == ("refuse", "refused")
    assert "cannot hold" in entry.error
    assert not list(root.glob("*.xmp"))
