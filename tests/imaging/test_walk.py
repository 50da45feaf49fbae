from __future__ import annotations

import random
import threading

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, InMemoryStorage

from tagging.imaging import storing
from tagging.imaging.walk import Cursor, Excludes, FolderTree, StorageTree


@pytest.mark.parametrize(
    ("glob", "path", "out"),
    [
        ("*.tif", "a.tif", True),
        ("*.tif", "a/b.tif", True),
        ("*.tif", "a.tiff", False),
        ("*/previews/*", "previews/x.jpg", True),
        ("*/previews/*", "a/b/previews/c/x.jpg", True),
        ("*/previews/*", "my previews/x.jpg", False),
        ("a/*", "a/x.jpg", True),
        ("a/*", "b/a/x.jpg", False),
        ("IMG_????.jpg", "a/IMG_0001.jpg", True),
        ("IMG_????.jpg", "a/IMG_00012.jpg", False),
        ("./a/", "a", True),
        ("", "a.jpg", False),
        ("/", "a.jpg", False),
        ("[", "a.jpg", False),
    ],
)
def test_excludes(glob, path, out):
    assert Excludes([glob]).file(path) is out


def test_excluded_folders_are_not_entered(tmp_path):
    for path in ("keep/a.jpg", "cache/b.jpg", "keep/cache/c.jpg", "x/previews/d.jpg"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    tree = FolderTree(tmp_path, ["cache", "*/previews/*"])
    assert [f.path for f in tree.walk()] == ["keep/a.jpg"]
    assert [tree.has(p) for p in ("keep/a.jpg", "cache/b.jpg", "keep/cache/c.jpg", "x/previews/d.jpg")] == [
        True,
        False,
        False,
        False,
    ]


def some_tree(seed):
    rng = random.Random(seed)
    folders = [""]
    for _ in range(8):
        folders.append(
            f"{rng.choice(folders)}/{rng.choice(['a', 'a b', 'a-', 'B', 'é'])}{rng.randint(0, 3)}".lstrip("/")
        )
    return {
        f"{folder}/{n}.{rng.choice(['jpg', 'jpg', 'txt'])}".lstrip("/")
        for folder in folders
        for n in range(rng.randint(0, 4))
    }


def storage_tree(paths):
    storage = InMemoryStorage()
    for path in paths:
        storage.save(f"up/{path}", ContentFile(b"x"))
    return lambda: StorageTree(storage, "up")


def folder_tree(paths, root):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return lambda: FolderTree(root)


@pytest.mark.parametrize("kind", ["folder", "storage"])
@pytest.mark.parametrize("seed", range(6))
def test_a_walk_can_be_cut_anywhere(tmp_path, kind, seed):
    paths = some_tree(seed)
    make = folder_tree(paths, tmp_path) if kind == "folder" else storage_tree(paths)
    whole = make()
    expected = [f.path for f in whole.walk()]
    assert sorted(expected) == sorted(p for p in paths if p.endswith("jpg"))
    assert whole.skipped == sum(p.endswith("txt") for p in paths)
    assert make().count(threading.Event()) == len(expected)
    for cut in range(1, len(expected)):
        first = make()
        files = first.walk()
        before = [next(files).path for _ in range(cut)]
        cursor = Cursor(**first.cursor.as_dict())
        second = make()
        after = [f.path for f in second.walk(cursor)]
        assert after[: cursor.files] == before[cut - cursor.files :], "the folder of the cut comes again"
        assert before + after[cursor.files :] == expected
        assert first.skipped + second.skipped == whole.skipped


def test_a_walk_goes_on_where_its_folder_was_removed(tmp_path):
    make = folder_tree(["a/1.jpg", "b/1.jpg", "c/1.jpg"], tmp_path)
    (tmp_path / "b" / "1.jpg").unlink()
    (tmp_path / "b").rmdir()
    assert [f.path for f in make().walk(Cursor("b", 1, 0))] == ["c/1.jpg"]


def test_counting_stops_when_told(tmp_path):
    make = folder_tree([f"{i}.jpg" for i in range(1500)], tmp_path)
    stop = threading.Event()
    stop.set()
    assert make().count(stop) is None


# -- writing ---------------------------------------------------------------------------------------------------------
@pytest.fixture(params=["folder", "memory"])
def storage(request, tmp_path):
    return FileSystemStorage(location=tmp_path / "media") if request.param == "folder" else InMemoryStorage()


def content(storage, name):
    with storage.open(name) as f:
        return f.read()


def test_add_never_overwrites(storage):
    names = [storing.add(storage, "a/b.jpg", [bytes([n]), b"x"]) for n in range(3)]
    assert names == ["a/b.jpg", "a/b (2).jpg", "a/b (3).jpg"]
    assert [content(storage, n) for n in names] == [b"\0x", b"\1x", b"\2x"]
    assert sorted(storage.listdir("a")[1]) == sorted(n[2:] for n in names), "nothing else is left behind"


def test_add_from_many_threads_loses_nothing(tmp_path):
    storage = FileSystemStorage(location=tmp_path)
    names: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: names.append(storing.add(storage, "a.jpg", [str(n).encode()])))
        for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {content(storage, n) for n in names} == {str(n).encode() for n in range(20)}


def test_add_leaves_nothing_when_its_source_fails(storage):
    def fails():
        yield b"first"
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        storing.add(storage, "a/b.jpg", fails())
    assert not storage.exists("a/b.jpg")
    if storage.exists("a"):
        assert storage.listdir("a")[1] == []


def test_put_keeps_what_is_whole_and_mends_what_is_cut(storage):
    storing.put(storage, "x/y.webp", b"whole")
    storing.put(storage, "x/y.webp", b"WHOLE")
    assert content(storage, "x/y.webp") == b"whole", "same name, same content: nothing is written"
    storage.delete("x/y.webp")
    storage.save("x/y.webp", ContentFile(b"cut"))
    storing.put(storage, "x/y.webp", b"whole")
    assert content(storage, "x/y.webp") == b"whole"
    assert storage.listdir("x")[1] == ["y.webp"]
