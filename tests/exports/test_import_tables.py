"""CSV and JSON Lines read back: our own exactly, those of others by their columns."""

from __future__ import annotations

import json
import time
import tracemalloc

import pytest
from django.core.exceptions import ValidationError

from exports.import_models import ImportRow
from tagging.models import Collection, ImageAsset, ImageTag, Tag

from .importing import add, applied, fates, folder, planned, row, tags
from .truth import State, exported, image, run_of, tag

pytestmark = pytest.mark.django_db

NASTY = [
    "=cmd|' /C calc'!A0",
    "'quoted",
    "a; b",
    "a\\b",
    'say "hi"',
    "fate/stay night",
    "c,d",
    "été",
    "🙂",
    "-3",
    "+1",
    "@x",
]


def copy_of(c: Collection) -> Collection:
    """The same images, undecided, as another installation has them."""
    other = Collection.objects.create(name="Copy", slug="copy", kind="upload")
    for one in c.images.all():
        ImageAsset.objects.create(collection=other, path=one.path, sha256=one.sha256, width=40, height=30)
    return other


def truth(c: Collection) -> dict[str, tuple[set[str], str, str]]:
    found = {}
    for one in c.images.order_by("path"):
        found[one.path] = (tags(one), one.caption, one.rating)
    return found


@pytest.fixture
def holiday():
    c = Collection.objects.create(name="Holiday", slug="holiday", kind="upload")
    run = run_of(c)
    image(c, "2020/a.jpg", [(name, State.ADDED, None) for name in NASTY], caption="=1+1; \"two\"\nlines",
          caption_state="edited", rating="general")  # fmt: skip
    image(c, "b.jpg", [("cat", State.ACCEPTED, 0.9), ("dog", State.REJECTED, 0.3)], run=run)
    image(c, "'c.jpg", [])
    return c


@pytest.mark.parametrize("options", [{}, {"tags_as": "text"}, {"excel": True}, {"tags_as": "text", "excel": True}])
def test_our_wide_table_comes_back_exactly(holiday, options):
    other = copy_of(holiday)
    job = planned(other, "csv", exported(holiday, **options))
    assert (job.state, job.error) == ("planned", "")
    assert job.summary["unmatched"] == job.summary["problems"] == 0
    applied(job)
    assert truth(other) == truth(holiday)


def test_our_long_table_brings_rejections_and_parents(holiday):
    parent = tag("animal")
    Tag.objects.filter(name="cat").update(parent=parent)
    data = exported(holiday, layout="long", rejected=True)
    Tag.objects.filter(name__in=("cat", "dog", "animal")).delete()
    other = copy_of(holiday)
    applied(planned(other, "csv", data))
    b = other.images.get(path="b.jpg")
    assert tags(b) == {"cat"}
    assert tags(b, ImageTag.State.REJECTED) == {"dog"}
    assert Tag.objects.get(name="cat").parent == Tag.objects.get(name="animal")
    assert tags(other.images.get(path="2020/a.jpg")) == set(NASTY)


def test_what_is_only_proposed_is_not_taken_for_a_decision(holiday):
    run = run_of(holiday, "wd")
    image(holiday, "d.jpg", [("cow", State.PROPOSED, 0.8)], run=run, reviewed=False)
    other = copy_of(holiday)
    job = applied(planned(other, "csv", exported(holiday, layout="long", proposed=True)))
    assert fates(row(job, "d.jpg")) == {"cow": "undecided"}
    assert tags(other.images.get(path="d.jpg")) == set()


def test_a_foreign_table_from_excel(tmp_path):
    c = folder(tmp_path, "x/eins.jpg", "x/zwei.jpg")
    table = '\ufeffDatei;Schlagworte;Text\r\nX\\EINS.JPG;Hund, Tier|Katze ;Ein "Satz"\r\nzwei.jpg;;\r\n'
    job = planned(c, "csv", table, path_column="datei", tags_column="Schlagworte", caption_column="Text", separator=",")
    assert fates(row(job, "x/eins.jpg")) == {"Hund": "new", "Katze": "new"}
    applied(job)
    assert tags("x/eins.jpg") == {"Hund", "Katze"}
    assert Tag.objects.get(name="Katze").parent.name == "Tier"
    assert ImageAsset.objects.get(path="x/eins.jpg").caption == 'Ein "Satz"'
    assert row(job, "x/zwei.jpg").state == "same"


@pytest.mark.parametrize(
    ("encoding", "option"), [("utf-16", "auto"), ("cp1252", "cp1252"), ("utf-8", "auto"), ("utf-8-sig", "utf-8")]
)
def test_encodings(tmp_path, encoding, option):
    c = folder(tmp_path, "a.jpg")
    job = planned(c, "csv", "file\ttags\na.jpg\tcafé\n".encode(encoding), encoding=option)
    assert fates(row(job, "a.jpg")) == {"café": "new"}


def test_a_known_tag_keeps_its_place_in_the_hierarchy(tmp_path):
    c = folder(tmp_path, "a.jpg")
    tag("dog", parent=tag("pets"))
    applied(planned(c, "csv", "path,tags\na.jpg,animal|dog|spaniel\na.jpg,x\n"))
    assert Tag.objects.get(name="dog").parent.name == "pets"
    assert not Tag.objects.filter(name="dog", parent__name="animal").exists()
    applied(planned(c, "csv", "path,tags\na.jpg,animal|dog;mammal|animal;animal|mammal\n"))
    for one in Tag.objects.all():  # no circles
        seen = set()
        while one is not None:
            assert one.pk not in seen
            seen.add(one.pk)
            one = one.parent


def test_rows_find_their_image_and_are_never_guessed(tmp_path):
    c = folder(tmp_path, "a/one.jpg", "b/one.jpg", "b/two.jpg", "B/Two.jpg", "three.jpg", "copy/three2.jpg")
    third = ImageAsset.objects.get(path="three.jpg")
    table = "path,tags,sha256\n" + "".join(
        f"{path},t,{sha}\n"
        for path, sha in [
            ("a/one.jpg", ""),  # 2 exact
            ("one.jpg", ""),  # 3 two of that name
            ("b/two.jpg", ""),  # 4 exact spelling wins
            (f"{tmp_path}/b/one.jpg", ""),  # 5 absolute
            ("old/name.jpg", third.sha256),  # 6 by content
            ("elsewhere/three2.jpg", "f" * 64),  # 7 unique name, other content
            ("nothing.jpg", ""),  # 8
            ("", ""),  # 9
        ]
    )
    job = planned(c, "csv", table)
    by_number = {r.number: r for r in ImportRow.objects.filter(job=job).select_related("image")}
    assert {n: r.image.path for n, r in by_number.items() if r.image} == {
        2: "a/one.jpg",
        4: "b/two.jpg",
        5: "b/one.jpg",
        6: "three.jpg",
        7: "copy/three2.jpg",
    }
    assert by_number[3].error == "2 images have this name: a/one.jpg, b/one.jpg"
    assert by_number[8].error == "no image of the collection has this path or name"
    assert by_number[9].error == "the row names no image"
    assert by_number[6].notes == ["found by its content: three.jpg"]
    assert by_number[7].notes == ["the file is not the one it was: its sha256 differs"]
    assert (job.summary["unmatched"], job.summary["rows"]) == (3, 8)


def test_the_same_image_twice_is_said(tmp_path):
    c = folder(tmp_path, "a.jpg")
    job = planned(c, "csv", "path,tags\na.jpg,x\n./a.jpg,y\n")
    assert [r.error for r in ImportRow.objects.filter(job=job).order_by("pk")] == [
        "",
        "a.jpg was named before, in row 2: only that one is taken",
    ]
    assert tags(applied(job) and "a.jpg") == {"x"}


def test_a_row_for_each_tag_may_stand_anywhere(tmp_path):
    c = folder(tmp_path, "a.jpg", "b.jpg")
    job = planned(c, "csv", "file,keyword\na.jpg,x\nb.jpg,y\na.jpg,z\na.jpg,x\n")
    assert fates(row(job, "a.jpg")) == {"x": "new", "z": "new"}
    assert row(job, "a.jpg").n_new == 2


@pytest.mark.parametrize(
    ("data", "field", "says"),
    [
        ("", "file", "empty"),
        ("colour,size\n1,2\n", "path_column", "colour, size"),
        ("path,size\n1,2\n", "tags_column", "path, size"),
        (b"\xff\xfe\x00", "file", ""),
        (b"caf\xe9,tags\n", "file", "UTF-8"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_in_a_line(tmp_path, data, field, says):
    c = folder(tmp_path, "a.jpg")
    with pytest.raises(ValidationError) as e:
        planned(c, "csv", data)
    assert list(e.value.message_dict) == [field]
    assert says in e.value.message_dict[field][0]
    assert not c.imports.exists()


def test_a_column_that_is_not_there(tmp_path):
    with pytest.raises(ValidationError, match=r"There is no column 'Tgs'. The table has: path, tags"):
        planned(folder(tmp_path, "a.jpg"), "csv", "path,tags\n", tags_column="Tgs")


def test_broken_rows_are_rows_with_a_reason(tmp_path):
    c = folder(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    many = json.dumps([f"t{i}" for i in range(501)]).replace('"', '""')
    table = (
        'path,tags\na.jpg,x,too many\n"b.jpg","[""x"""\na.jpg\nb.jpg,"[1, 2]"\n'
        f'c.jpg,"{many}"\na.jpg,good;\u200b;{"y" * 300}\n'
    )
    job = planned(c, "csv", table)
    assert job.state == "planned", job.error
    found = list(ImportRow.objects.filter(job=job).order_by("pk"))
    errors = [r.error for r in found]
    assert errors[0] == "3 cells where the table has 2 columns"
    assert "no JSON list" in errors[1] or found[1].words
    assert errors[2] == "1 cells where the table has 2 columns"
    assert errors[3] == "the tags are no JSON list of words"
    assert errors[4] == "501 words; one image takes at most 500"
    assert list(fates(found[5]).values()) == ["new", "unfit", "unfit"]
    applied(job)
    assert tags("a.jpg") == {"good"}


def test_bytes_that_are_no_text_in_the_middle(tmp_path):
    c = folder(tmp_path, "a.jpg")
    data = b"path,tags\na.jpg,x\n" + b"b.jpg,y\n" * 4000 + b"c.jpg,caf\xe9\n"
    job = planned(c, "csv", data)
    assert job.state == "planned"
    last = ImportRow.objects.filter(job=job).order_by("-pk")[0]
    assert (last.state, "not UTF-8" in last.error) == ("problem", True)


# -- JSON Lines -------------------------------------------------------------------------------------------------------
def imageworks(path: str, *words: str, **fields: object) -> str:
    scored = [{"keyword": w, "score": 1 - i / len(words)} for i, w in enumerate(words)]
    record = {"image": path, "keywords": scored, "caption": "A dog.", "description": "A dog runs over a meadow.",
              "critique": "", "metadata_written": False, "backend": "vllm", "models": {"caption": "m"}, "notes": "",
              "duration_seconds": 1.2, "schema_version": "1.0"}  # fmt: skip
    return json.dumps(record | fields) + "\n"


def test_imageworks(tmp_path):
    c = folder(tmp_path, "2024/a.jpg", "b.jpg", "c.jpg")
    lines = (
        imageworks("/home/me/photos/2024/a.jpg", "dog", "meadow")
        + imageworks("b.jpg", notes="inference_failed: timeout", caption="", description="")
        + "{broken\n[1]\n\n"
        + json.dumps({"file_name": "c.jpg", "text": "a cat", "tags": "cat, sofa"})
    )
    job = planned(c, "jsonl", lines, text="both")
    assert fates(row(job, "2024/a.jpg")) == {"dog": "new", "meadow": "new"}
    assert [w[4] for w in row(job, "2024/a.jpg").words] == [None, None]
    assert row(job, "2024/a.jpg").texts["caption"] == ["", "A dog.\n\nA dog runs over a meadow."]
    assert "ranks" in job.summary["warnings"][0]
    problems = {r.number: r.error for r in ImportRow.objects.filter(job=job, state="problem")}
    assert problems == {
        2: "Imageworks failed on it: inference_failed: timeout",
        3: "not a line of JSON",
        4: "not an object",
    }
    assert fates(row(job, "c.jpg")) == {"cat": "new", "sofa": "new"}


def test_our_json_lines_come_back(holiday):
    from exports.actions import get_exporter

    other = copy_of(holiday)
    applied(planned(other, "jsonl", b"".join(get_exporter(holiday, "jsonl", {}, None).stream())))
    assert truth(other) == truth(holiday)


def test_text_that_no_database_keeps(tmp_path):
    c = folder(tmp_path, "a.jpg", "b.jpg")
    lines = (
        r'{"path": "a.jpg", "caption": "A\u0000 \ud800 dog", "tags": ["do\u0000g", "ca\ud800t"], "rating": "\ud800"}'
    )
    job = applied(planned(c, "jsonl", lines + "\n" + r'{"path": "\ud800\u0000.jpg", "tags": ["x"]}'))
    assert (job.state, tags("a.jpg")) == ("done", {"dog", "ca?t"})
    assert ImageAsset.objects.get(path="a.jpg").caption == "A ? dog"
    job = applied(planned(c, "csv", "path,tags\nb\x00.jpg,x\x00y;z\nnowhere\x00.jpg,x\n"))
    assert (job.state, job.summary["unmatched"]) == ("done", 1), job.error
    assert tags("b.jpg") == {"xy", "z"}


@pytest.mark.parametrize("data", ["[{}]", "hello", ""])
def test_no_json_lines(tmp_path, data):
    with pytest.raises(ValidationError):
        planned(folder(tmp_path, "a.jpg"), "jsonl", data)


def big(n: int) -> tuple[Collection, str]:
    c = Collection.objects.create(name="Big", slug="big", kind="upload")
    ImageAsset.objects.bulk_create(
        [ImageAsset(collection=c, path=f"{i % 100}/img{i}.jpg", sha256=f"{i:064x}") for i in range(n)]
    )
    words = [";".join(f"word {(i * 7 + k) % 500}" for k in range(5)) for i in range(n)]
    rows = [f"{i % 100}/img{i}.jpg,{words[i]},Picture {i}\n" for i in range(n)]
    return c, "path,tags,caption\n" + "".join(rows)


def test_ten_thousand_rows(tmp_path):
    c, table = big(10_000)
    start = time.process_time()
    job = applied(planned(c, "csv", table))
    assert (job.state, job.result) == ("done", {"applied": 10_000, "left": 0})
    assert ImageTag.objects.filter(image__collection=c, state=ImageTag.State.ADDED).count() == 50_000
    assert time.process_time() - start < 60  # seconds of one core


def test_memory_does_not_grow_with_the_table(tmp_path):
    c, table = big(600)
    head, *rows = table.splitlines(keepends=True)
    long = head + "".join(rows) + "".join(f"nowhere{i}.jpg,a;b;c,\n" for i in range(1400))
    peaks = []
    for data in (head + "".join(rows[:300]), long):
        tracemalloc.start()
        job = planned(c, "csv", data)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert job.state == "planned"
    assert peaks[1] < 1.5 * peaks[0] + 2 * len(long)


def test_paths_are_compared_as_disks_do(tmp_path):
    c = folder(tmp_path)
    add(c, "Caf\u0065\u0301/ä.jpg")
    job = planned(c, "csv", "path,tags\ncafé/Ä.JPG,x\n")
    assert job.summary["changes"] == 1
