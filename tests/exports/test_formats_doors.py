"""All formats through the API, the command line and the browser; and in memory that does not grow."""

from __future__ import annotations

import gc
import io
import json
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command

from exports.actions import get_exporter, run_export
from exports.exporters import parquet, registry
from exports.forms import NewExport
from exports.models import ExportJob
from tagging import queue
from tagging.forms import SchemaForm
from tagging.models import ImageAsset, ImageTag

from .formats import on_disk
from .truth import State, collection, run_of, tag

pytestmark = pytest.mark.django_db
CAT = ("cat", State.ACCEPTED, 0.9)
FORMATS = sorted(registry.BUILT_IN)


@pytest.fixture(autouse=True)
def _silent_queue(monkeypatch):
    monkeypatch.setattr(queue, "defer", lambda *args, **kwargs: None)


@pytest.fixture
def disk(tmp_path):
    return on_disk(tmp_path / "photos", a_jpg=[CAT], sub__b_png=[CAT, ("dog", State.REJECTED, 0.5)])


@pytest.fixture
def curator(client):
    user = User.objects.create_user("curator")
    user.groups.add(Group.objects.get(name="curator"))
    client.force_login(user)
    return client


def post(client, **payload):
    return client.post("/api/exports", {"collection": "disk", **payload}, content_type="application/json")


# -- every format -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("format", FORMATS)
def test_every_format_by_job(curator, disk, format):
    counted = post(curator, format=format, dry_run=True)
    assert counted.status_code == 200
    assert counted.json()["problems"] == []
    assert counted.json()["images"] == 2
    job = post(curator, format=format)
    assert job.status_code == 202, job.content
    done = run_export(job.json()["id"])
    assert (done.state, done.error) == ("done", "")
    assert done.size > 0


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_says_what_it_is_and_asks_with_titles(format):
    found = registry.exporter_class(format)
    assert (found.identifier, found.label) == (format, registry.BUILT_IN[format][0])
    assert found.description.endswith(".")
    form = SchemaForm(found.Options)
    assert all(name != "json" for name in (f.kind for f in form))
    assert all("title" in form.properties[f.name] for f in form)
    assert "<select" in str(form) or "<input" in str(form)


@pytest.mark.parametrize("format", FORMATS)
def test_unknown_options_are_refused_by_name(curator, disk, format):
    answer = post(curator, format=format, options={"colour": "red"})
    assert answer.status_code == 422
    assert "colour" in answer.content.decode()
    assert not ExportJob.objects.exists()


@pytest.mark.parametrize(
    ("format", "options", "named"),
    [
        ("txt", {"template": "{tagz}"}, "{tagz}"),
        ("txt", {"template": "a\nb"}, "one line"),
        ("txt", {"drop": 1}, "drop"),
        ("txt", {"max_tags": -1}, "max_tags"),
        ("txt", {"trainer": "nobody"}, "trainer"),
        ("txt", {"clashes": "overwrite"}, "clashes"),
        ("txt", {"extension": ".exe"}, "extension"),
        ("imagefolder", {"table": "csv"}, "table"),
        ("webdataset", {"shard_mb": 0}, "shard_mb"),
        ("webdataset", {"files": "link"}, "files"),
        ("danbooru", {"at_least": 0}, "at_least"),
        ("preferences", {"proposed": True}, "decided"),
        ("label_studio", {"tags_name": ""}, "tags_name"),
    ],
)
def test_bad_options_are_one_line_and_a_4xx(curator, disk, format, options, named):
    answer = post(curator, format=format, options=options)
    assert answer.status_code == 422
    assert named in answer.content.decode()
    pairs = [part for name, value in options.items() for part in ("--option", f"{name}={value}")]
    with pytest.raises(CommandError) as e:
        call_command("export", format, "--collection", "Disk", "--out", "-", *pairs)
    assert e.value.returncode == 2
    assert len(str(e.value).splitlines()) == 1
    assert named in str(e.value)


def test_a_job_whose_names_clash_fails_with_the_reason(curator, disk):
    ImageAsset.objects.filter(path="sub/b.png").update(path="a.png")
    job = run_export(post(curator, format="txt").json()["id"])
    assert job.state == "failed"
    assert "share a file" in job.error


def test_a_download_in_the_browser_is_the_same_zip(curator, disk):
    answer = curator.get("/exports/c/disk/txt?options-files=copy&options-trigger=ohwx&options-categories=general")
    assert answer.status_code == 200
    z = zipfile.ZipFile(io.BytesIO(answer.getvalue()))
    assert z.read("a.txt").decode() == "ohwx, cat"
    assert curator.get("/exports/c/disk/txt?options-drop=7").status_code == 400


def test_a_download_that_would_be_refused_says_so_first(curator, disk):
    ImageAsset.objects.filter(path="sub/b.png").update(path="a.png")
    answer = curator.get("/exports/c/disk/txt")
    assert answer.status_code == 400
    assert "share a file" in answer.content.decode()
    assert curator.get("/exports/c/disk/txt?options-clashes=rename").status_code == 200


def test_the_form_carries_lists_into_the_address(rf, disk):
    request = rf.post("/", {"collection": "disk", "format": "txt", "options-categories": "general\ncharacter"})
    form = NewExport(request.POST, bound=True)
    assert form.is_valid()
    assert "options-categories=general%0Acharacter" in form.query_string()


# -- the command line -------------------------------------------------------------------------------------------------
def command(*arguments) -> tuple[int, str]:
    out = io.StringIO()
    try:
        call_command("export", *arguments, stdout=out, stderr=out)
    except CommandError as e:
        return e.returncode, str(e)
    except SystemExit as e:
        return int(e.code or 0), out.getvalue()
    return 0, out.getvalue()


def test_a_dataset_into_a_zip(disk, tmp_path):
    code, said = command("txt", "--collection", "Disk", "--out", str(tmp_path / "x.zip"), "--option", "files=copy")
    assert code == 0, said
    assert zipfile.ZipFile(tmp_path / "x.zip").testzip() is None
    again = command(
        "txt", "--collection", "Disk", "--out", str(tmp_path / "x.zip"), "--option", "files=copy", "--dry-run"
    )
    assert again[0] == 0
    assert "already exactly this" in again[1]


def test_a_dataset_into_a_folder(disk, tmp_path):
    out = tmp_path / "set"
    arguments = ["imagefolder", "--collection", "Disk", "--out", str(out), "--option", "files=link"]
    assert command(*arguments, "--dry-run")[0] == 1
    assert not out.exists()
    code, said = command(*arguments)
    assert code == 0
    assert "2 of them hard links" in said
    assert (out / "a.jpg").samefile(Path(disk.root, "a.jpg"))
    code, said = command(*arguments)
    assert (code, "not empty" in said) == (2, True)
    assert command(*arguments, "--force")[0] == 0
    assert json.loads((out / "manifest.json").read_text())["format"] == "imagefolder"


def test_categories_on_the_command_line(disk, tmp_path):
    out = tmp_path / "set"
    command("txt", "--collection", "Disk", "--out", str(out), "--option", "categories=character,artist")
    assert (out / "a.txt").read_text() == ""


# -- memory -----------------------------------------------------------------------------------------------------------
IMAGES = 1200


@pytest.fixture
def many():
    """1,200 images with five tags each, one of them rejected."""
    c = collection("Many")
    run = run_of(c)
    tags = [tag(f"tag {i}") for i in range(40)]
    made = ImageAsset.objects.bulk_create(
        [
            ImageAsset(
                collection=c,
                path=f"dir{i % 50}/{i:06d}.jpg",
                sha256=f"{i:064x}",
                review_state="reviewed",
                caption=f"caption number {i}",
                caption_state="edited",
                width=4,
                height=3,
            )
            for i in range(IMAGES)
        ],
        batch_size=500,
    )
    states = [State.ACCEPTED] * 4 + [State.REJECTED]
    ImageTag.objects.bulk_create(
        [
            ImageTag(image=one, tag=tags[(one.pk + 7 * k) % 40], state=states[k], score=0.5, run=run)
            for one in made
            for k in range(5)
        ],
        batch_size=2000,
    )
    return c


def peak(c, format: str, options: dict[str, object], filter: dict[str, str]) -> tuple[int, int]:
    """(most bytes in use while it was written, rows written)."""
    exporter = get_exporter(c, format, options, filter)
    stream = exporter.stream()
    # what other tests left in this process must not put off the collector: it waits for a quarter of all there is
    gc.collect()
    gc.freeze()
    gc.collect()
    tracemalloc.start()
    try:
        for _ in stream:
            pass
        return tracemalloc.get_traced_memory()[1], exporter.rows
    finally:
        tracemalloc.stop()
        gc.unfreeze()


def test_memory_does_not_grow_with_the_images(many, monkeypatch):
    monkeypatch.setattr("exports.exporters.reading.PAGE", 50)
    monkeypatch.setattr("exports.exporters.zipping.SPOOLED", 1000)
    monkeypatch.setattr(parquet.Table.__init__, "__defaults__", (50,))
    grown = {}
    for format in FORMATS:
        if format in ("csv", "danbooru", "lightroom", "hydrus"):  # of their own test, or of a vocabulary, or as txt
            continue
        options: dict[str, object] = {"files": "none"} if format in ("imagefolder", "webdataset") else {}
        for _ in get_exporter(many, format, options).stream():
            pass  # what is made once is not counted
        for _ in range(3):  # what a thread of an earlier test takes meanwhile is there once, what grows each time
            few, few_rows = peak(many, format, options, {"q": "dir1/"})
            most, rows = peak(many, format, options, {})
            assert (few_rows, rows) == (IMAGES // 50, IMAGES), format
            grown[format] = min(grown.get(format, 1 << 30), (most - few) // (rows - few_rows))
            if grown[format] < 600:
                break
    assert max(grown.values()) < 600, grown  # bytes an image; a record kept is more than a kilobyte
