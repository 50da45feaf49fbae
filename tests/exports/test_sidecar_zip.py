"""Sidecars of uploads, as a zip."""

from __future__ import annotations

import io
import zipfile

import pytest

from exports.actions import get_exporter
from exports.exporters.base import ExportError
from exports.xmp import fields
from exports.xmp.packet import Packet

from .truth import State, collection, image, tag

pytestmark = pytest.mark.django_db


def unzipped(c, **options):
    data = b"".join(get_exporter(c, "xmp_zip", options).stream())
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        return {n: z.read(n) for n in z.namelist() if n.endswith(".xmp")}


def test_new_sidecars_with_the_words_of_each():
    c = collection()
    tag("dog", parent=tag("animal"))
    image(c, "x/a.jpg", [("dog", State.ACCEPTED, 0.9)], caption="A dog", caption_state="accepted")
    image(c, "b.jpg", [])
    found = unzipped(c, prefix="iw")
    assert list(found) == ["x/a.jpg.xmp"]
    packet = Packet(found["x/a.jpg.xmp"])
    assert packet.values(fields.SUBJECT) == ["dog"]
    assert packet.values(fields.HIERARCHY) == ["iw|animal|dog"]
    assert packet.values(fields.TAGS_LIST) == ["iw/animal/dog"]
    assert packet.text(fields.DESCRIPTION) == "A dog"


def test_short_names_clash_and_say_so():
    c = collection()
    for name in ("a.jpg", "a.nef"):
        image(c, name, [("dog", State.ACCEPTED, 0.9)])
    assert sorted(unzipped(c)) == ["a.jpg.xmp", "a.nef.xmp"]
    with pytest.raises(ExportError, match="share a file"):
        unzipped(c, names="short")
    assert sorted(unzipped(c, names="short", clashes="keep_extension")) == ["a.jpg.xmp", "a.nef.xmp"]


def test_a_word_that_no_field_can_hold_is_named():
    c = collection()
    image(c, "a.jpg", [("two\nlines", State.ADDED, None)])
    with pytest.raises(ExportError, match="cannot hold"):
        unzipped(c)
