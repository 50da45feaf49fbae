"""Formats of many files, read back by Hugging Face datasets, webdataset, Pillow, zipfile and json."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pyarrow.parquet
import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from PIL import Image

from exports.actions import get_exporter
from exports.exporters import webdataset as webdataset_format
from exports.exporters.base import ExportError
from exports.folder import write_folder
from tagging.models import ImageAsset

from .formats import NASTY, add_file, load_with_datasets, on_disk, picture, zipped
from .truth import State, collection, image, run_of

pytestmark = pytest.mark.django_db
CAT, DOG = ("cat", State.ACCEPTED, 0.9), ("dog", State.ADDED, None)


@pytest.fixture
def disk(tmp_path):
    root = tmp_path / "photos"
    c = on_disk(root, a_jpg=[CAT], sub__b_png=[DOG, CAT])
    ImageAsset.objects.filter(path="a.jpg").update(caption="A cat,\nasleep", caption_state="edited", rating="general")
    return c


def manifest(z: zipfile.ZipFile) -> dict:
    return json.loads(z.read("manifest.json"))


# -- caption files ----------------------------------------------------------------------------------------------------
def test_kohya_reads_one_line_beside_each_image(disk):
    z = zipped(disk, "txt", files="copy", trigger="ohwx")
    assert z.testzip() is None
    assert z.namelist() == ["a.jpg", "a.txt", "sub/b.png", "sub/b.txt", "manifest.json"]
    assert z.read("a.txt").decode() == "ohwx, A cat, asleep, cat"
    assert z.read("sub/b.txt").decode() == "ohwx, dog, cat"
    assert z.read("a.jpg") == Path(disk.root, "a.jpg").read_bytes()
    assert Image.open(io.BytesIO(z.read("sub/b.png"))).size == (40, 30)
    assert z.getinfo("a.jpg").compress_type == zipfile.ZIP_STORED
    assert z.getinfo("a.txt").compress_type == zipfile.ZIP_DEFLATED


def test_ai_toolkit_keeps_the_lines_of_a_caption(disk):
    z = zipped(disk, "txt", trainer="ai_toolkit", extension=".caption", template="{caption}")
    assert z.read("a.caption").decode() == "A cat,\nasleep"
    assert z.read("sub/b.caption") == b""


def test_empty_texts_are_left_out_on_request(disk):
    assert zipped(disk, "txt", template="{caption}", skip_empty=True).namelist() == ["a.txt", "manifest.json"]


def test_flat_puts_all_into_one_folder(disk):
    names = zipped(disk, "txt", files="copy", flat=True).namelist()
    assert names == ["a.jpg", "a.txt", "sub__b.png", "sub__b.txt", "manifest.json"]


@pytest.mark.parametrize("trainer", ["kohya", "ai_toolkit", "onetrainer"])
def test_nasty_tags_stay_one_tag_each_and_can_be_found_again(trainer):
    c = collection()
    image(c, "x.jpg", [(name, State.ACCEPTED, 0.5) for name in NASTY], run=run_of(c))
    z = zipped(c, "txt", trainer=trainer, template="{tags}", order="alphabet")
    text = z.read("x.txt").decode()
    assert "\n" not in text
    written = text.split(", ")
    assert len(written) == len(NASTY)
    changed = manifest(z)["words_changed"]
    back = {new: old for old, new in changed.items()}
    assert sorted(back.get(word, word) for word in written) == sorted(NASTY)
    if trainer == "kohya":
        assert not set("|{}") & set(text)
    (warning,) = get_exporter(c, "txt", {"trainer": trainer}).plan().warnings
    assert f"{len(changed):,} tags are written otherwise" in warning
    assert "'a,b' → 'a，b'" in warning


def test_only_words_of_these_images_are_warned_of():
    c, other = collection(), collection("Other")
    image(other, "x.jpg", [("a,b", State.ACCEPTED, 0.5)])
    image(c, "x.jpg", [("c,d", State.REJECTED, 0.5)])
    assert get_exporter(c, "txt").plan().warnings == []


def test_order_limit_categories_and_drop_out():
    c = collection()
    x = image(c, "x.jpg", [(f"t{i}", State.ACCEPTED, i / 20) for i in range(20)])
    x.image_tags.get(tag__name="t3").tag.__class__.objects.filter(name="t3").update(category="character")
    read = lambda **o: zipped(c, "txt", template="{tags}", **o).read("x.txt").decode().split(", ")  # noqa: E731
    assert read(max_tags=3) == ["t19", "t18", "t17"]
    assert read(order="character_first", max_tags=1) == ["t3"]
    assert read(categories=["character"]) == ["t3"]
    dropped = read(drop=0.5)
    assert 2 < len(dropped) < 18
    assert dropped == read(drop=0.5)
    assert dropped != read(drop=0.5, seed=1)
    shuffled = read(order="shuffled")
    assert sorted(shuffled) == sorted(read())
    assert shuffled == read(order="shuffled") != read()


# -- names ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def clashing():
    c = collection()
    for path in ("a.jpg", "a.png", "B.jpg", "b.JPG", "CON.jpg", "x" * 260 + ".jpg", "fine.jpg"):
        image(c, path, [CAT])
    return c


def test_clashes_are_refused_before_anything_is_written(clashing):
    exporter = get_exporter(clashing, "txt")
    problems = " ".join(exporter.plan().problems)
    assert "4 images would share a file" in problems
    assert "a.png" in problems
    assert "CON" in problems
    assert "longer than 255 bytes" in problems
    with pytest.raises(ExportError, match="share a file"):
        b"".join(exporter.stream())


def test_renamed_names_are_free_and_possible_everywhere(clashing):
    exporter = get_exporter(clashing, "txt", {"clashes": "rename"})
    assert exporter.plan().problems == []
    assert "renamed" in exporter.plan().warnings[0]
    names = [n for n in zipped(clashing, "txt", clashes="rename").namelist() if n.endswith(".txt")]
    assert len({n.casefold() for n in names}) == 7
    assert {"a_jpg.txt", "a_png.txt", "_CON.txt", "fine.txt"} <= set(names)
    assert max(len(n) for n in names) <= 255


def test_kept_extensions_settle_what_differs_by_them_only():
    c = collection()
    for path in ("a.jpg", "a.png", "b.jpg"):
        image(c, path, [CAT])
    assert zipped(c, "txt", clashes="keep_extension").namelist()[:3] == ["a.jpg.txt", "a.png.txt", "b.txt"]
    image(c, "A.PNG", [CAT])
    assert "only by case" in get_exporter(c, "txt", {"clashes": "keep_extension"}).plan().problems[0]


def test_nothing_clashes_where_no_names_are_written(clashing):
    assert get_exporter(clashing, "webdataset", {"files": "none"}).plan().problems == []
    assert get_exporter(clashing, "coco").plan().problems == []


# -- missing and uploaded images --------------------------------------------------------------------------------------
def test_an_image_that_is_gone_is_left_out_with_its_text_and_named(disk):
    Path(disk.root, "a.jpg").unlink()
    z = zipped(disk, "imagefolder")
    assert z.namelist() == ["sub/b.png", "metadata.jsonl", "manifest.json"]
    assert [json.loads(line)["file_name"] for line in z.read("metadata.jsonl").splitlines()] == ["sub/b.png"]
    assert manifest(z)["left_out"] == [{"name": "a.jpg", "why": "No such file or directory"}]
    ImageAsset.objects.filter(path="a.jpg").update(missing_since="2026-01-01T00:00Z")
    plan = get_exporter(disk, "imagefolder").plan()
    assert (plan.images, plan.skipped) == (1, 1)
    assert "missing at the last look" in plan.warnings[0]


def test_uploads_have_no_path_and_work_all_the_same():
    c = collection()
    data = picture()
    default_storage.save(f"{c.upload_prefix}/up.jpg", ContentFile(data))
    image(c, "up.jpg", [CAT])
    z = zipped(c, "txt", files="link")
    assert z.read("up.jpg") == data


# -- the zip and its manifest -----------------------------------------------------------------------------------------
def test_the_manifest_names_the_hash_of_every_file(disk):
    z = zipped(disk, "txt", files="copy")
    listed = {f["name"]: (f["size"], f["sha256"]) for f in manifest(z)["files"]}
    assert listed == {
        name: (len(z.read(name)), hashlib.sha256(z.read(name)).hexdigest())
        for name in z.namelist()
        if name != "manifest.json"
    }
    assert manifest(z)["options"]["files"] == "copy"


@pytest.mark.parametrize("format", ["txt", "hydrus", "imagefolder", "webdataset", "coco", "fiftyone"])
def test_the_same_truth_gives_the_same_bytes(disk, format):
    first, second = (b"".join(get_exporter(disk, format).stream()) for _ in range(2))
    assert first == second


def test_names_of_any_script_survive_the_zip(tmp_path):
    c = on_disk(tmp_path)
    for path in ("été 🐈.jpg", "שלום.jpg", "a;b,c'd&e.jpg"):
        add_file(c, path, [CAT])
    z = zipped(c, "txt", files="copy")
    assert {"été 🐈.jpg", "שלום.txt", "a;b,c'd&e.jpg"} <= set(z.namelist())


# -- folders ----------------------------------------------------------------------------------------------------------
def files_below(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_folder_gets_the_files_and_the_manifest(disk, tmp_path):
    out = tmp_path / "out"
    written = write_folder(get_exporter(disk, "txt", {"files": "copy"}), out)
    assert files_below(out) == ["a.jpg", "a.txt", "manifest.json", "sub/b.png", "sub/b.txt"]
    assert (written.files, written.linked, written.left_out) == (4, 0, 0)
    for listed in json.loads((out / "manifest.json").read_text())["files"]:
        assert hashlib.sha256((out / listed["name"]).read_bytes()).hexdigest() == listed["sha256"]
    assert not (out / "a.jpg").samefile(Path(disk.root, "a.jpg"))


def test_hard_links_cost_no_space(disk, tmp_path):
    out = tmp_path / "out"
    exporter = get_exporter(disk, "txt", {"files": "link"})
    assert write_folder(exporter, out).linked == 2
    assert (out / "a.jpg").samefile(Path(disk.root, "a.jpg"))
    assert write_folder(exporter, out, force=True).linked == 2
    assert files_below(out) == ["a.jpg", "a.txt", "manifest.json", "sub/b.png", "sub/b.txt"]


def test_a_folder_that_is_not_empty_is_refused_unless_told(disk, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    exporter = get_exporter(disk, "txt")
    with pytest.raises(ExportError, match="not empty"):
        write_folder(exporter, out)
    assert files_below(out) == ["mine.txt"]
    write_folder(exporter, out, force=True)
    assert (out / "mine.txt").read_text() == "mine"


def test_the_collections_own_folder_is_refused(disk):
    with pytest.raises(ExportError, match="own folder"):
        write_folder(get_exporter(disk, "txt"), Path(disk.root, "out"))


def test_a_link_that_leads_out_is_refused(disk, tmp_path):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (out / "sub").symlink_to(elsewhere)
    with pytest.raises(ExportError, match="leads out"):
        write_folder(get_exporter(disk, "txt"), out, force=True)
    assert files_below(elsewhere) == []


def test_paths_that_climb_are_refused(tmp_path):
    c = collection()
    image(c, "../../evil.jpg", [CAT])
    assert ".. in it" in get_exporter(c, "txt").plan().problems[0]
    with pytest.raises(ExportError):
        write_folder(get_exporter(c, "txt"), tmp_path / "out")
    assert zipped(c, "txt", clashes="rename").namelist()[0] == "evil.txt"


# -- ImageFolder ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("table", ["jsonl", "parquet"])
def test_datasets_loads_the_image_folder(disk, tmp_path, table):
    out = tmp_path / "out"
    write_folder(get_exporter(disk, "imagefolder", {"table": table, "template": "{caption}{tags}"}), out)
    rows = load_with_datasets("imagefolder", data_dir=str(out), cache_dir=str(tmp_path / "cache"))
    assert [row["image"].size for row in rows] == [(40, 30), (40, 30)]
    assert [row["tags"] for row in rows] == [["cat"], ["dog", "cat"]]
    assert [row["caption"] for row in rows] == ["A cat,\nasleep", ""]
    assert rows[1]["text"] == "dog, cat"
    assert rows[1]["scores"][0] is None
    assert rows[0]["reviewed"] is True


def test_the_parquet_table_of_an_image_folder_alone(disk):
    z = zipped(disk, "imagefolder", table="parquet", files="none")
    table = pyarrow.parquet.read_table(io.BytesIO(z.read("metadata.parquet")))
    assert table.column_names[:2] == ["file_name", "text"]
    assert table["file_name"].to_pylist() == ["a.jpg", "sub/b.png"]


# -- WebDataset -------------------------------------------------------------------------------------------------------
def test_webdataset_reads_the_shards(tmp_path, monkeypatch):
    import webdataset

    c = on_disk(tmp_path / "photos")
    pictures = [add_file(c, f"IMG.v{i}.JPG", [CAT], caption=f"no {i}", caption_state="edited") for i in range(5)]
    out = tmp_path / "out"
    monkeypatch.setattr(webdataset_format, "MEGABYTE", 4000)
    write_folder(get_exporter(c, "webdataset", {"template": "{caption}, {tags}", "shard_mb": 1}), out)
    shards = sorted(str(p) for p in out.glob("*.tar"))
    assert len(shards) > 1
    assert shards[0].endswith("disk-000000.tar")
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert [s["__key__"] for s in samples] == [f"{i:09d}" for i in range(5)]
    assert [s["jpg"] for s in samples] == pictures
    assert [s["txt"].decode() for s in samples] == [f"no {i}, cat" for i in range(5)]
    assert [json.loads(s["json"])["path"] for s in samples] == [f"IMG.v{i}.JPG" for i in range(5)]
    for shard in shards:
        with tarfile.open(shard) as tar:
            assert tar.getnames()


def test_a_sample_whose_image_is_gone_is_left_out_whole(disk):
    Path(disk.root, "a.jpg").unlink()
    z = zipped(disk, "webdataset")
    with tarfile.open(fileobj=io.BytesIO(z.read("disk-000000.tar"))) as tar:
        assert tar.getnames() == ["000000001.png", "000000001.txt", "000000001.json"]
    assert manifest(z)["left_out"] == [{"name": "a.jpg", "why": "No such file or directory"}]


# -- COCO, FiftyOne ---------------------------------------------------------------------------------------------------
def test_coco_captions(disk):
    z = zipped(disk, "coco", files="copy")
    coco = json.loads(z.read("captions.json"))
    assert set(coco) == {"info", "licenses", "images", "annotations"}
    by_id = {i["id"]: i for i in coco["images"]}
    (annotation,) = coco["annotations"]
    assert annotation["caption"] == "A cat,\nasleep"
    assert by_id[annotation["image_id"]]["file_name"] == "a.jpg"
    assert {f"images/{i['file_name']}" for i in coco["images"]} <= set(z.namelist())
    assert all(type(i["id"]) is int and i["width"] == 40 for i in coco["images"])


def test_pycocotools_reads_the_captions(disk, tmp_path, capsys):
    from pycocotools.coco import COCO

    (tmp_path / "captions.json").write_bytes(zipped(disk, "coco", files="copy").read("captions.json"))
    coco = COCO(str(tmp_path / "captions.json"))
    images = coco.loadImgs(coco.getImgIds())
    assert sorted(i["file_name"] for i in images) == ["a.jpg", "sub/b.png"]
    said = {i["file_name"]: [a["caption"] for a in coco.loadAnns(coco.getAnnIds(imgIds=[i["id"]]))] for i in images}
    assert said == {"a.jpg": ["A cat,\nasleep"], "sub/b.png": []}
    capsys.readouterr()  # it prints


def test_fiftyone_with_and_without_images(disk):
    z = zipped(disk, "fiftyone", files="copy")
    labels = json.loads(z.read("labels.json"))
    assert labels["classes"] is None
    assert labels["labels"] == {
        "a": [{"label": "cat", "confidence": 0.9}],
        "sub/b": [{"label": "dog"}, {"label": "cat", "confidence": 0.9}],
    }
    # the importer finds images by their path below data/ without the extension
    below = {n.removeprefix("data/").rpartition(".")[0] for n in z.namelist() if n.startswith("data/")}
    assert below == set(labels["labels"])
    data = json.loads(zipped(disk, "fiftyone").read("data.json"))
    assert data == {"a": f"{disk.root}/a.jpg", "sub/b": f"{disk.root}/sub/b.png"}


# -- Hydrus -----------------------------------------------------------------------------------------------------------
def split_as_hydrus(tag: str) -> tuple[str, str]:
    """Namespace and subtag: what is before the first colon."""
    namespace, colon, subtag = tag.partition(":")
    return (namespace, subtag) if colon else ("", tag)


def test_hydrus_sidecars(disk):
    ImageAsset.objects.get(path="a.jpg").image_tags.get().tag.__class__.objects.filter(name="cat").update(
        category="character"
    )
    z = zipped(disk, "hydrus", caption=True)
    assert z.read("a.jpg.txt").decode() == "character:cat\nrating:general\ncaption:A cat, asleep\n"
    assert z.read("sub/b.png.txt").decode() == "dog\ncharacter:cat\n"


def test_nasty_tags_reach_hydrus_in_no_namespace():
    c = collection()
    image(c, "x.jpg", [(name, State.ACCEPTED, 0.5) for name in [*NASTY, "a:b"]])
    z = zipped(c, "hydrus")
    lines = z.read("x.jpg.txt").decode().splitlines()
    back = {new: old for old, new in manifest(z)["words_changed"].items()}
    found = [split_as_hydrus(line) for line in lines]
    assert all(namespace == "" for namespace, _ in found)
    assert sorted(back.get(tag, tag) for _, tag in found) == sorted([*NASTY, "a:b"])
    assert any("'-3'" in w for w in get_exporter(c, "hydrus").plan().warnings)
