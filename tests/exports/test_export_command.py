from __future__ import annotations

import io
import os
import stat

import pytest
from django.core.management import CommandError, call_command

from exports.exporters import csv as csv_module
from exports.exporters.base import ExportError

from .truth import State, collection, exported, image, run_of, table

pytestmark = pytest.mark.django_db


@pytest.fixture
def holiday():
    c = collection()
    run = run_of(c)
    image(c, "a.jpg", [("cat", State.ACCEPTED, 0.9)], run=run)
    image(c, "b.jpg", [("dog", State.PROPOSED, 0.9), ("cow", State.PROPOSED, 0.1)], run=run, reviewed=False)
    return c


def export(*args, **kwargs):
    out, err = io.StringIO(), io.StringIO()
    call_command("export", "csv", *args, stdout=out, stderr=err, **kwargs)
    return out.getvalue() + err.getvalue()


def code_of(*args) -> tuple[int, str]:
    """(exit code, what was said) as the shell would see them."""
    out = io.StringIO()
    try:
        call_command("export", *args, stdout=out, stderr=out)
    except CommandError as e:
        return e.returncode, str(e)
    except SystemExit as e:
        return int(e.code or 0), out.getvalue()
    return 0, out.getvalue()


def test_it_writes_a_file(holiday, tmp_path):
    said = export("--collection", "Holiday", "--out", str(tmp_path / "x.csv"))
    assert "1 rows" in said
    assert (tmp_path / "x.csv").read_bytes() == exported(holiday)
    assert os.listdir(tmp_path) == ["x.csv"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "x.csv").stat().st_mode) == 0o666 & ~mask


def test_it_writes_to_the_standard_output(holiday):
    assert export("--collection", "holiday", "--out", "-") == exported(holiday).decode()


def test_its_options(holiday, tmp_path):
    target = tmp_path / "x.csv"
    export(
        "--collection",
        "Holiday",
        "--out",
        str(target),
        "--proposed",
        "--min-score",
        "0.5",
        "--excel",
        "--layout",
        "long",
    )
    assert target.read_bytes() == exported(holiday, proposed=True, min_score=0.5, excel=True, layout="long")
    assert [r["tag"] for r in table(target.read_bytes())] == ["cat", "dog"]
    export("--collection", "Holiday", "--out", str(target), "--force", "--proposed", "--filter", "tag=dog")
    assert [r["path"] for r in table(target.read_bytes())] == ["b.jpg"]
    export("--collection", "Holiday", "--out", str(target), "--force", "--option", "tags_as=text")
    assert table(target.read_bytes())[0]["tags"] == "cat"


def test_a_file_that_is_there_is_kept_unless_forced(holiday, tmp_path):
    target = tmp_path / "x.csv"
    target.write_text("precious")
    target.chmod(0o640)
    code, said = code_of("csv", "--collection", "Holiday", "--out", str(target))
    assert code == 2
    assert "already there; --force replaces it" in said
    assert target.read_text() == "precious"
    export("--collection", "Holiday", "--out", str(target), "--force")
    assert target.read_bytes() == exported(holiday)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_failure_in_the_middle_leaves_the_old_file(holiday, tmp_path, monkeypatch):
    target = tmp_path / "x.csv"
    target.write_text("precious")

    def broken(self):
        yield b"half"
        raise ExportError("No more.")

    monkeypatch.setattr(csv_module.CsvExporter, "stream", broken)
    assert code_of("csv", "--collection", "Holiday", "--out", str(target), "--force") == (2, "No more.")
    assert target.read_text() == "precious"
    assert os.listdir(tmp_path) == ["x.csv"]


def test_dry_run_exit_codes(holiday, tmp_path):
    target = str(tmp_path / "x.csv")
    ask = ("csv", "--collection", "Holiday", "--out", target, "--dry-run")
    code, said = code_of(*ask)
    assert code == 1
    assert "1 images, 1 rows" in said
    assert "1 image is not reviewed" in said
    assert os.listdir(tmp_path) == []

    export("--collection", "Holiday", "--out", target)
    code, said = code_of(*ask)
    assert code == 0
    assert "already exactly this" in said

    (tmp_path / "x.csv").write_text("other")
    assert code_of(*ask)[0] == 2
    assert code_of(*ask, "--force")[0] == 1
    assert (tmp_path / "x.csv").read_text() == "other"


def test_dry_run_of_nothing(tmp_path):
    collection("Empty")
    assert code_of("csv", "--collection", "Empty", "--out", str(tmp_path / "x.csv"), "--dry-run")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("csv", "--collection", "Nowhere", "--out", "-"), "There is no collection 'Nowhere'; known: Holiday."),
        (("cvs", "--collection", "Holiday", "--out", "-"), "No export format 'cvs'; known: "),
        (("csv", "--collection", "Holiday", "--out", "/no/such/folder/x.csv"), "There is no folder /no/such/folder"),
        (("csv", "--collection", "Holiday", "--out", "/tmp"), "/tmp is a folder"),
        (("csv", "--collection", "Holiday", "--out", "/dev/null", "--force"), "not a plain file"),
        (("csv", "--collection", "Holiday", "--out", "-", "--min-score", "7"), "min_score"),
        (("csv", "--collection", "Holiday", "--out", "-", "--filter", "min_score=x"), "min_score"),
        (("csv", "--collection", "Holiday", "--out", "-", "--filter", "colour=red"), "'colour' is no filter"),
        (("csv", "--collection", "Holiday", "--out", "-", "--option", "colour=red"), "colour"),
        (("csv", "--collection", "Holiday", "--out", "-", "--option", "colour"), "write NAME=VALUE"),
    ],
)
def test_wrong_input_is_one_clear_line(holiday, arguments, said):
    code, text = code_of(*arguments)
    assert code == 2
    assert said in text
    assert "\n" not in text


def test_a_symbolic_link_is_not_followed(holiday, tmp_path):
    (tmp_path / "real.csv").write_text("precious")
    (tmp_path / "x.csv").symlink_to(tmp_path / "real.csv")
    code, said = code_of("csv", "--collection", "Holiday", "--out", str(tmp_path / "x.csv"), "--force")
    assert code == 2
    assert "symbolic link" in said
    assert (tmp_path / "real.csv").read_text() == "precious"
