"""Three-way merges, the fields of the photo tools, and which sidecar is whose."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exports.xmp import fields, naming
from exports.xmp.merge import compare_key, merge
from exports.xmp.packet import Packet

WORD = st.sampled_from(["dog", "Dog", "cat", "é", "e\u0301", "sea", "boat", "sky"])
WORDS = st.lists(WORD, max_size=6, unique_by=compare_key)


def test_a_persons_words_stay_and_ours_follow_the_truth():
    found = merge(["Oslo", "dog", "cat"], ["dog", "cat"], ["cat", "boat"])
    assert found.words == ["Oslo", "cat", "boat"]
    assert [(c.word, c.kind) for c in found.changes] == [
        ("Oslo", "kept"),
        ("dog", "removed"),
        ("cat", "kept"),
        ("boat", "added"),
    ]


def test_a_word_that_someone_took_out_is_not_put_back():
    assert merge(["Oslo"], ["dog"], ["dog"]).words == ["Oslo"]
    assert merge(["Oslo"], ["dog"], ["dog"], "replace_own").words == ["Oslo", "dog"]


def test_only_empty_writes_nothing_beside_a_word():
    assert merge(["Oslo"], [], ["dog"], "only_empty").words == ["Oslo"]
    assert merge([], [], ["dog"], "only_empty").words == ["dog"]


@settings(max_examples=300, deadline=None)
@given(disk=WORDS, last=WORDS, wanted=WORDS, mode=st.sampled_from(["merge", "replace_own", "only_empty"]))
def test_laws_of_the_merge(disk, last, wanted, mode):
    found = merge(disk, last, wanted, mode)
    keys = [compare_key(w) for w in found.words]
    assert len(keys) == len(set(keys))
    theirs = {compare_key(w) for w in disk} - {compare_key(w) for w in last}
    assert theirs <= set(keys)
    ours = [w for w in found.words if compare_key(w) in {compare_key(x) for x in wanted}]
    again = merge(found.words, ours, wanted, mode)
    assert not [c for c in again.changes if c.kind == "removed"]
    if mode != "merge":
        assert again.words == found.words


def keywords(*paths):
    return tuple(fields.Keyword(tuple(p.split(">"))) for p in paths)


def test_every_tool_finds_every_tag():
    packet = Packet.new()
    wanted = fields.Wanted(keywords("animal>dog>spaniel", "harbour"), caption="A dog by the sea")
    plan = fields.plan(packet, wanted, {}, fields.Style(prefix="iw"))
    assert fields.apply(packet, plan)
    again = Packet(packet.to_bytes())
    assert again.values(fields.SUBJECT) == ["spaniel", "harbour"]
    assert again.values(fields.HIERARCHY) == ["iw|animal|dog|spaniel", "iw|harbour"]
    assert again.values(fields.TAGS_LIST) == ["iw/animal/dog/spaniel", "iw/harbour"]
    assert again.kind(fields.TAGS_LIST) == "Seq"
    assert again.text(fields.DESCRIPTION) == "A dog by the sea"
    assert not fields.plan(again, wanted, plan.written, fields.Style(prefix="iw")).changed


def test_a_separator_in_a_name_does_not_make_a_level():
    packet = Packet.new()
    fields.apply(packet, fields.plan(packet, fields.Wanted(keywords("fate/stay_night", "|_|")), {}, fields.Style()))
    assert packet.values(fields.SUBJECT) == ["fate/stay_night", "|_|"]
    assert packet.values(fields.HIERARCHY) == ["fate/stay_night", "\uff5c_\uff5c"]
    assert packet.values(fields.TAGS_LIST) == ["fate\u2215stay_night", "|_|"]


def test_a_persons_word_stays_theirs_when_it_was_wanted_too():
    packet = Packet.new()
    packet.set_array(fields.SUBJECT, ["dog"])
    plan = fields.plan(packet, fields.Wanted(keywords("dog", "cat")), {}, fields.Style())
    fields.apply(packet, plan)
    assert plan.written["dc:subject"] == ["cat"]
    later = fields.plan(packet, fields.Wanted(()), plan.written, fields.Style())
    fields.apply(packet, later)
    assert packet.values(fields.SUBJECT) == ["dog"]


def test_a_word_taken_out_stays_out_however_often_one_exports():
    packet = Packet.new()
    plan = fields.plan(packet, fields.Wanted(keywords("dog", "cat")), {}, fields.Style())
    fields.apply(packet, plan)
    packet.set_array(fields.SUBJECT, ["cat"])  # someone takes dog out in another tool
    for _ in range(3):
        plan = fields.plan(packet, fields.Wanted(keywords("dog", "cat")), plan.written, fields.Style())
        fields.apply(packet, plan)
        assert packet.values(fields.SUBJECT) == ["cat"]


def test_a_caption_of_someone_else_is_left():
    packet = Packet.new()
    packet.set_text(fields.DESCRIPTION, "My own words")
    plan = fields.plan(packet, fields.Wanted(caption="A model's words"), {}, fields.Style())
    assert not plan.changed
    assert "left as it is" in plan.notes[0]


def test_our_caption_goes_when_the_truth_has_none():
    packet = Packet.new()
    plan = fields.plan(packet, fields.Wanted(caption="A dog"), {}, fields.Style())
    fields.apply(packet, plan)
    later = fields.plan(packet, fields.Wanted(caption=""), plan.written, fields.Style())
    assert fields.apply(packet, later)
    assert packet.text(fields.DESCRIPTION) == ""
    packet.set_text(fields.DESCRIPTION, "Someone's")
    assert not fields.plan(packet, fields.Wanted(caption=""), plan.written, fields.Style()).changed


@pytest.mark.parametrize("word", ["two\nlines", "\x00", "bad\uffff", "\ud800", "  "])
def test_words_no_field_can_hold_are_refused(word):
    with pytest.raises(fields.UnwritableWord):
        fields.plan(Packet.new(), fields.Wanted((fields.Keyword((word,)),)), {}, fields.Style())


@pytest.mark.parametrize(
    ("image", "siblings", "profile", "twins", "names"),
    [
        ("IMG.NEF", ["IMG.NEF"], "lightroom", "exact", ("IMG.xmp",)),
        ("IMG.NEF", ["IMG.NEF"], "darktable", "exact", ("IMG.NEF.xmp",)),
        ("IMG.NEF", ["IMG.NEF", "IMG.JPG"], "lightroom", "exact", ("IMG.NEF.xmp",)),
        ("IMG.NEF", ["IMG.NEF", "IMG.JPG"], "lightroom", "shared", ("IMG.xmp",)),
        ("IMG.NEF", ["IMG.NEF", "IMG.JPG"], "lightroom", "jpeg_only", ()),
        ("IMG.NEF", ["IMG.NEF", "img.XMP"], "darktable", "exact", ("img.XMP",)),
        ("IMG.JPG", ["IMG.JPG", "IMG.JPG.xmp", "IMG.xmp"], "immich", "exact", ("IMG.xmp", "IMG.JPG.xmp")),
        ("a.b.jpg", ["a.b.jpg"], "both", "exact", ("a.b.xmp", "a.b.jpg.xmp")),
    ],
)
def test_which_sidecar(image, siblings, profile, twins, names):
    assert naming.sidecars(image, naming.Folder(siblings), profile, twins).names == names


def test_lightroom_and_a_jpeg_is_warned_about():
    assert "reads no sidecar" in naming.sidecars("a.jpg", naming.Folder(["a.jpg"]), "lightroom").warning
