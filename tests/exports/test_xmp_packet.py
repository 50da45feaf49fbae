"""The packet editor, read back by exiftool and exiv2."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exports.xmp.document import Refused
from exports.xmp.packet import Packet, Property

SIDECARS = Path(__file__).parent / "sidecars"
SUBJECT = Property("http://purl.org/dc/elements/1.1/", "dc", "subject")
DESCRIPTION = Property("http://purl.org/dc/elements/1.1/", "dc", "description")
HIERARCHY = Property("http://ns.adobe.com/lightroom/1.0/", "lr", "hierarchicalSubject")
TAGS_LIST = Property("http://www.digikam.org/ns/1.0/", "digiKam", "TagsList")
RATING = Property("http://ns.adobe.com/xap/1.0/", "xmp", "Rating")
OURS = ("XMP-dc:Subject", "XMP-lr:HierarchicalSubject", "XMP-digiKam:TagsList", "XMP-dc:Description")


def need(tool):
    if not shutil.which(tool):
        if os.environ.get("CI"):
            pytest.fail(f"{tool} is missing in CI")
        pytest.skip(f"{tool} is not installed")
    return tool


def exiftool(path):
    out = subprocess.run(
        [need("exiftool"), "-j", "-struct", "-G1", "-a", "-XMP:all", str(path)], capture_output=True, check=True
    )
    return json.loads(out.stdout)[0]


def others(fields):
    return {k: v for k, v in fields.items() if k not in OURS and not k.startswith(("SourceFile", "File", "System"))}


@pytest.mark.parametrize("name", ["lightroom", "darktable", "digikam"])
def test_it_changes_ours_and_nothing_else(name, tmp_path):
    before = SIDECARS / f"{name}.xmp"
    packet = Packet(before.read_bytes())
    assert packet.set_array(SUBJECT, [*(packet.values(SUBJECT) or []), "dog", "Øl & <brød>"])
    assert packet.set_array(HIERARCHY, [*(packet.values(HIERARCHY) or []), "iw|animal|dog"])
    assert packet.set_array(TAGS_LIST, [*(packet.values(TAGS_LIST) or []), "iw/animal/dog"], "Seq")
    assert packet.set_text(DESCRIPTION, "A dog, “here” 🐕")
    after = tmp_path / "after.xmp"
    after.write_bytes(packet.to_bytes())
    old, new = exiftool(before), exiftool(after)
    assert others(old) == others(new)
    assert new["XMP-dc:Subject"][-2:] == ["dog", "Øl & <brød>"]
    hierarchy = new["XMP-lr:HierarchicalSubject"]
    assert "iw|animal|dog" in (hierarchy if isinstance(hierarchy, list) else [hierarchy])
    kinds = subprocess.run(
        [need("exiv2"), "-PXkyct", "-K", "Xmp.dc.subject", "-K", "Xmp.digiKam.TagsList", str(after)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "XmpBag" in kinds
    assert "XmpSeq" in kinds


def test_nothing_set_gives_the_same_bytes():
    for path in SIDECARS.glob("*.xmp"):
        data = path.read_bytes()
        packet = Packet(data)
        assert not packet.set_array(SUBJECT, packet.values(SUBJECT) or [])
        if name_of_kind := packet.kind(SUBJECT):
            assert name_of_kind == "Bag"
        again = Packet(packet.to_bytes())
        assert again.to_bytes() == packet.to_bytes()


def test_other_languages_of_a_caption_stay():
    packet = Packet((SIDECARS / "lightroom.xmp").read_bytes())
    packet.set_text(DESCRIPTION, "Boats")
    text = packet.to_bytes().decode()
    assert "En havn" in text
    assert "A harbour" not in text
    packet.set_text(DESCRIPTION, "")
    assert "En havn" in packet.to_bytes().decode()


def test_it_reads_every_form_of_a_property(tmp_path):
    forms = {
        "attribute": '<rdf:Description rdf:about="" xmlns:q="http://purl.org/dc/elements/1.1/" q:subject="cat"/>',
        "text": '<rdf:Description rdf:about="" xmlns:q="http://purl.org/dc/elements/1.1/"><q:subject>cat</q:subject>'
        "</rdf:Description>",
        "Seq": '<rdf:Description rdf:about="" xmlns:q="http://purl.org/dc/elements/1.1/"><q:subject><rdf:Seq>'
        "<rdf:li>cat</rdf:li><rdf:li/></rdf:Seq></q:subject></rdf:Description>",
    }
    for form, xml in forms.items():
        packet = Packet(f'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">{xml}</rdf:RDF>'.encode())
        assert packet.kind(SUBJECT) == form
        assert packet.values(SUBJECT) == ["cat"]
        assert packet.set_array(SUBJECT, ["cat", "dog"])
        path = tmp_path / f"{form}.xmp"
        path.write_bytes(packet.to_bytes())
        assert Packet(packet.to_bytes()).kind(SUBJECT) == "Bag"
        assert exiftool(path)["XMP-dc:Subject"] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no XML"),
        (b"not xml at all", "no XML"),
        (b"<a><b></a>", "well-formed"),
        (b"<a/>", "not closed"),
        (b"<html></html>", "no rdf:RDF"),
        (b'<?xml version="1.0" encoding="ISO-8859-1"?><a></a>', "ISO-8859-1"),
        ("<a>é</a>".encode("latin-1"), "UTF-8"),
        ("\ufeff<a></a>".encode("utf-16-le"), "UTF-16"),
        (b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>', "document type"),
        (
            b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
            b'xmlns:dc="http://purl.org/dc/elements/1.1/" dc:subject="a"><dc:subject>b</dc:subject></rdf:Description>'
            b"</rdf:RDF>",
            "twice",
        ),
    ],
)
def test_it_refuses_what_it_could_damage(data, why):
    with pytest.raises(Refused, match=why):
        Packet(data)


def test_a_rating_keeps_its_form():
    packet = Packet((SIDECARS / "lightroom.xmp").read_bytes())
    assert packet.set_plain(RATING, "5")
    assert b'xmp:Rating="5"' in packet.to_bytes()
    fresh = Packet.new()
    assert fresh.set_plain(RATING, "3")
    assert Packet(fresh.to_bytes()).text(RATING) == "3"


WORDS = st.lists(
    st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"), min_size=1, max_size=30)
    .map(str.strip)
    .filter(bool),
    min_size=1,
    max_size=8,
    unique=True,
)


@settings(max_examples=150, deadline=None)
@given(words=WORDS, start=st.sampled_from(["new", *sorted(p.name for p in SIDECARS.glob("*.xmp"))]))
def test_any_word_survives_the_round_trip(words, start):
    packet = Packet.new() if start == "new" else Packet((SIDECARS / start).read_bytes())
    packet.set_array(SUBJECT, words)
    packet.set_text(DESCRIPTION, words[0])
    again = Packet(packet.to_bytes())
    assert again.values(SUBJECT) == words
    assert again.text(DESCRIPTION) == words[0]
    assert not again.set_array(SUBJECT, words)
