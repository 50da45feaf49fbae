from __future__ import annotations

import csv
import datetime as dt
import io
import json
import tracemalloc

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from exports.actions import get_exporter
from exports.exporters import reading, registry
from exports.exporters.csv import DANGEROUS, escape_cell, join_text, split_text, unescape_cell
from tagging.models import ImageAsset, ImageTag, Tag

from .truth import State, collection, exported, image, run_of, table, tag

NASTY = [
    "=1+1", "==1", "+cmd|' /C calc'!A0", "-3", "@SUM(A1)", "\tx", "\rx", "\nx", "＝1", "＋1", "－1", "＠a", "'quoted'",
    "''", "'", "=_=", "+_+", ":-)", 'say "hi"', "a,b", "a;b", "a\\;b", "two\nlines", "a\rb", "été 🐈 שלום",
    "a|b", "type=Bag",
]  # fmt: skip


# -- cells ------------------------------------------------------------------------------------------------------------
@given(st.text())
def test_a_cell_reads_back_as_it_was(text):
    assert unescape_cell(escape_cell(text)) == text


@given(st.text())
def test_no_escaped_cell_is_a_formula(text):
    assert escape_cell(text)[:1] not in DANGEROUS


@pytest.mark.parametrize("text", NASTY)
def test_known_formulas(text):
    escaped = escape_cell(text)
    assert unescape_cell(escaped) == text
    assert (escaped != text) == (text[0] in "=+-@\t\r\n＝＋－＠'")


@given(st.lists(st.text(min_size=1).map(str.strip).filter(bool)))
def test_joined_names_split_again(names):
    assert split_text(join_text(names)) == names


# -- what is exported -------------------------------------------------------------------------------------------------
@pytest.mark.django_db
def test_reviewed_truth_only():
    c = collection()
    run = run_of(c)
    image(
        c, "a.jpg",
        [("cat", State.ACCEPTED, 0.9), ("dog", State.REJECTED, 0.8), ("sofa", State.ADDED, None), ("b", 1, 0.7)],
        run=run, caption="A cat", caption_state="accepted", rating="safe", rating_score=None,
    )  # fmt: skip
    image(c, "b.jpg", [("cat", State.ACCEPTED, 0.9)], reviewed=False, run=run)
    image(c, "c.jpg", caption="only proposed", caption_state="proposed", rating="explicit", rating_score=0.6)

    rows = table(exported(c))

    assert [r["path"] for r in rows] == ["a.jpg", "c.jpg"]
    assert json.loads(rows[0]["tags"]) == ["sofa", "cat"]
    assert json.loads(rows[0]["scores"]) == [None, 0.9]
    assert (rows[0]["caption"], rows[0]["rating"]) == ("A cat", "safe")
    assert (rows[1]["tags"], rows[1]["caption"], rows[1]["rating"]) == ("[]", "", "")


@pytest.mark.django_db
def test_proposed_on_request_from_a_score_on():
    c = collection()
    run = run_of(c)
    image(
        c, "a.jpg",
        [("cat", State.PROPOSED, 0.9), ("dog", State.PROPOSED, 0.2), ("bed", State.ACCEPTED, 0.1), ("x", 3, 0.9)],
        reviewed=False, run=run, caption="Maybe", caption_state="proposed", rating="safe", rating_score=0.8,
    )  # fmt: skip
    (row,) = table(exported(c, proposed=True, min_score=0.5))
    assert json.loads(row["tags"]) == ["cat", "bed"]
    assert json.loads(row["scores"]) == [0.9, 0.1]
    assert (row["caption"], row["rating"], row["review_state"]) == ("Maybe", "safe", "unreviewed")
    (row,) = table(exported(c, proposed=True))
    assert json.loads(row["tags"]) == ["cat", "dog", "bed"]


@pytest.mark.django_db
def test_the_wide_columns():
    c = collection()
    taken = dt.datetime(2024, 5, 1, 12, 30, tzinfo=dt.UTC)
    one = image(c, "2024/été.jpg", captured_at=taken)
    data = exported(c)
    assert data.decode().splitlines()[0] == (
        "id,path,sha256,width,height,captured_at,review_state,caption,rating,tags,scores"
    )
    (row,) = table(data)
    assert row["id"] == str(one.pk)
    assert row["sha256"] == one.sha256
    assert (row["path"], row["width"], row["height"]) == ("2024/été.jpg", "40", "30")
    assert row["captured_at"] == "2024-05-01T12:30:00"


@pytest.mark.django_db
def test_the_long_layout_says_where_a_tag_comes_from():
    c = collection()
    animal = tag("animal")
    tag("cat", "creature", animal)
    run = run_of(c, "wd")
    ann = User.objects.create_user("ann")
    image(
        c, "a.jpg",
        [("cat", State.ACCEPTED, 0.87654), ("sofa", State.ADDED, None), ("dog", State.REJECTED, 0.5)],
        run=run, reviewed_by=ann,
    )  # fmt: skip
    rows = table(exported(c, layout="long"))
    assert [(r["path"], r["tag"], r["state"], r["score"]) for r in rows] == [
        ("a.jpg", "sofa", "added", ""),
        ("a.jpg", "cat", "accepted", "0.8765"),
    ]
    assert rows[1] | {"id": "", "path": ""} == {
        "id": "", "path": "", "tag": "cat", "category": "creature", "parent": "animal", "state": "accepted",
        "score": "0.8765", "run": "Run with wd", "adapter": "wd", "reviewer": "ann",
    }  # fmt: skip
    states = [r["state"] for r in table(exported(c, layout="long", rejected=True))]
    assert states == ["added", "accepted", "rejected"]


@pytest.mark.django_db
@pytest.mark.parametrize("excel", [False, True])
def test_nasty_words_survive_a_round_trip(excel):
    c = collection()
    names = [name for name in NASTY if name.strip() == name and "\n" not in name and "\r" not in name]
    tags = [Tag(name=name, key=f"key {i}") for i, name in enumerate(names)]
    Tag.objects.bulk_create(tags)
    for i, text in enumerate(NASTY):
        one = image(c, f"{text}.jpg", caption=text, caption_state="edited", rating=text[:32])
        if i == 0:
            ImageTag.objects.bulk_create([ImageTag(image=one, tag=t, state=State.ADDED) for t in tags])

    data = exported(c, excel=excel)
    rows = table(data)
    assert [unescape_cell(r["caption"]) for r in rows] == NASTY
    assert [unescape_cell(r["path"]) for r in rows] == [f"{text}.jpg" for text in NASTY]
    assert [unescape_cell(r["rating"]) for r in rows] == [text[:32] for text in NASTY]
    assert json.loads(unescape_cell(rows[0]["tags"])) == names
    assert not any(cell[:1] in DANGEROUS for row in rows for cell in row.values())

    text = table(exported(c, excel=excel, tags_as="text"))
    assert split_text(unescape_cell(text[0]["tags"])) == names

    long = table(exported(c, excel=excel, layout="long"))
    assert [unescape_cell(r["tag"]) for r in long] == names
    assert not any(cell[:1] in DANGEROUS for row in long for cell in row.values())


@pytest.mark.django_db
def test_flavours():
    c = collection()
    image(c, "a.jpg", [("cat", State.ADDED, None)])
    plain, excel = exported(c), exported(c, excel=True)
    assert not plain.startswith(b"\xef\xbb\xbf")
    assert b"\r" not in plain
    assert excel.startswith(b"\xef\xbb\xbf")
    assert excel[3:].replace(b"\r\n", b"\n") == plain
    assert excel.count(b"\r\n") == excel.count(b"\n") == 2


@pytest.mark.django_db
def test_a_carriage_return_in_a_path_is_quoted_in_the_plain_flavour():
    c = collection()
    image(c, "odd\rname.jpg")
    rows = list(csv.reader(io.StringIO(exported(c).decode(), newline=""), strict=True))
    assert rows[1][1] == "odd\rname.jpg"


@pytest.mark.django_db
def test_a_collection_without_images_gives_the_header():
    assert exported(collection()).count(b"\n") == 1


# -- selection --------------------------------------------------------------------------------------------------------
@pytest.mark.django_db
def test_a_filter_narrows_the_export():
    c = collection()
    run = run_of(c)
    for i in range(6):
        image(c, f"{i}.jpg", [("cat" if i % 2 else "dog", State.ACCEPTED, i / 10)], run=run)
    assert [r["path"] for r in table(exported(c, {"tag": ["cat"]}))] == ["1.jpg", "3.jpg", "5.jpg"]
    assert [r["path"] for r in table(exported(c, {"q": "4", "sort": "-id"}))] == ["4.jpg"]
    assert table(exported(c, {"tag": "no such tag"})) == []


@pytest.mark.django_db
def test_only_the_named_collection():
    image(collection("Other"), "x.jpg")
    assert table(exported(collection())) == []


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"format": "cvs"}, "format"),
        ({"options": {"layuot": "wide"}}, "layuot"),
        ({"options": {"layout": "tall"}}, "layout"),
        ({"options": {"min_score": 7}}, "min_score"),
        ({"filter": {"min_score": "x"}}, "filter"),
        ({"filter": {"colour": "red"}}, "filter"),
    ],
)
def test_wrong_input_names_its_field(arguments, field):
    with pytest.raises(ValidationError) as error:
        get_exporter(collection(), **{"format": "csv", **arguments})
    assert list(error.value.message_dict) == [field]


def test_an_unknown_format_lists_the_known_ones():
    with pytest.raises(registry.UnknownFormat, match=r"known: .*csv"):
        registry.exporter_class("nope")


# -- plan, queries, memory --------------------------------------------------------------------------------------------
@pytest.mark.django_db
def test_the_plan_counts_what_the_stream_writes():
    c = collection()
    run = run_of(c)
    image(c, "a.jpg", [("cat", State.ACCEPTED, 0.9), ("dog", State.REJECTED, 0.5)], run=run)
    image(c, "b.jpg", [("cat", State.PROPOSED, 0.9)], reviewed=False, run=run)
    for options in ({}, {"layout": "long"}, {"proposed": True}, {"proposed": True, "layout": "long"}):
        exporter = get_exporter(c, "csv", options)
        plan = exporter.plan()
        written = len(table(b"".join(exporter.stream())))
        assert plan.rows == exporter.rows == written
    plan = get_exporter(c, "csv").plan()
    assert (plan.images, plan.skipped) == (1, 1)
    assert "1 image is not reviewed" in plan.warnings[0]


def fill(c, n, tags=3):
    names = [tag(f"tag {i}") for i in range(tags)]
    ImageAsset.objects.bulk_create(
        [ImageAsset(collection=c, path=f"{i:05}.jpg", sha256=f"{i:064x}", review_state="reviewed") for i in range(n)],
        batch_size=500,
    )
    ids = list(c.images.order_by("pk").values_list("pk", flat=True))
    ImageTag.objects.bulk_create(
        [ImageTag(image_id=pk, tag=t, state=State.ACCEPTED, score=0.5) for pk in ids for t in names], batch_size=500
    )


@pytest.mark.django_db
@pytest.mark.parametrize("layout", ["wide", "long"])
def test_two_queries_a_page_whatever_the_number_of_images(layout, monkeypatch):
    monkeypatch.setattr(reading, "PAGE", 50)
    c = collection()
    fill(c, 210)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        rows = table(exported(c, layout=layout))
    assert len(rows) == (210 if layout == "wide" else 630)
    assert [r["path"] for r in rows] == sorted(r["path"] for r in rows)
    # five pages of two, the end, and names once
    assert len([q for q in queries if not q["sql"].startswith("PRAGMA")]) <= 5 * 2 + 1 + 1


@pytest.mark.django_db
def test_ids_far_apart_are_read_without_their_neighbours(monkeypatch):
    monkeypatch.setattr(reading, "PAGE", 50)
    c = collection()
    fill(c, 300)
    c.images.exclude(path__endswith="0.jpg").update(review_state="unreviewed")
    rows = table(exported(c))
    assert len(rows) == 30
    assert all(json.loads(r["tags"]) == ["tag 0", "tag 1", "tag 2"] for r in rows)


@pytest.mark.django_db
def test_memory_does_not_grow_with_the_number_of_images(monkeypatch):
    monkeypatch.setattr(reading, "PAGE", 100)
    c = collection()
    fill(c, 2500)

    def peak(limit):
        chosen = {"q": "000"} if limit else None
        exporter = get_exporter(c, "csv", {}, chosen)
        tracemalloc.start()
        for _ in exporter.stream():
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(True)  # what is loaded once
    peak(False)
    assert peak(False) < 2_000_000


@pytest.mark.django_db
def test_the_first_piece_comes_before_any_image_is_read():
    c = collection()
    stream = get_exporter(c, "csv").stream()
    with CaptureQueriesContext(connection) as queries:
        assert next(stream).startswith(b"id,path")
    assert len(queries) == 0


@pytest.mark.django_db
def test_the_connection_gets_its_settings_back_when_the_reader_goes_away():
    def settings():
        with connection.cursor() as cursor:
            return [cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in ("cache_size", "mmap_size")]

    if connection.vendor != "sqlite":
        pytest.skip("SQLite only")
    c = collection()
    image(c, "a.jpg")
    before = settings()
    stream = get_exporter(c, "csv").stream()
    next(stream)
    next(stream)
    assert settings()[0] == -4096
    stream.close()
    assert settings() == before
