"""JSON Lines and Parquet, read back by json, pandas, pyarrow and Hugging Face datasets."""

from __future__ import annotations

import io
import json
import os
import sys

import pandas
import pyarrow.parquet
import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.test.utils import CaptureQueriesContext

from exports.actions import get_exporter
from exports.exporters import parquet
from exports.exporters.base import ExportError

from .formats import NASTY, holiday, load_with_datasets
from .truth import State, collection, image, run_of

pytestmark = pytest.mark.django_db


def written(c, format, **options) -> bytes:
    return b"".join(get_exporter(c, format, options).stream())


def lines(c, **options):
    return [json.loads(line) for line in written(c, "jsonl", **options).splitlines()]


def test_jsonl_says_what_the_csv_says():
    c = holiday()
    first, second = lines(c)
    assert first["path"] == "a.jpg"
    assert (first["tags"], first["scores"]) == (["mine", "cat"], [None, 0.9])
    assert (first["caption"], first["rating"], first["width"]) == ("A cat, asleep", "general", 40)
    assert first["captured_at"] is None
    assert (second["tags"], second["review_state"]) == ([], "reviewed")
    assert [len(row["tags"]) for row in lines(c, proposed=True, min_score=0.5)] == [3, 0, 1]


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_nasty_words_survive_exactly(format):
    c = collection()
    run = run_of(c)
    image(
        c,
        "x.jpg",
        [(name, State.ACCEPTED, 0.5) for name in NASTY],
        run=run,
        caption="\n".join(NASTY),
        caption_state="edited",
    )
    data = written(c, format)
    if format == "jsonl":
        row = json.loads(data)
    else:
        row = pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()[0]
    assert sorted(row["tags"]) == sorted(NASTY)
    assert row["caption"] == "\n".join(NASTY)


def test_parquet_has_its_schema_and_reads_back(tmp_path):
    c = holiday()
    path = tmp_path / "x.parquet"
    path.write_bytes(written(c, "parquet", proposed=True))
    file = pyarrow.parquet.ParquetFile(path)
    assert {f.name: str(f.type) for f in file.schema_arrow} == {
        "file_name": "string",
        "sha256": "string",
        "width": "int32",
        "height": "int32",
        "caption": "string",
        "rating": "string",
        "tags": "list<element: string>",
        "scores": "list<element: float>",
        "source": "list<element: string>",
        "reviewed": "bool",
        "updated": "timestamp[us, tz=UTC]",
    }
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    frame = pandas.read_parquet(path)
    assert list(frame["file_name"]) == ["a.jpg", "b.png", "c.jpg"]
    assert list(frame["tags"][0]) == ["mine", "cat", "car"]
    assert [None if pandas.isna(s) else round(float(s), 4) for s in frame["scores"][0]] == [None, 0.9, 0.6]
    assert list(frame["source"][0]) == ["person", "model", "model"]
    assert list(frame["reviewed"]) == [True, True, False]
    assert frame["updated"].notna().all()


def test_parquet_names_the_models_on_request():
    c = holiday()
    table = pyarrow.parquet.read_table(io.BytesIO(written(c, "parquet", origins=True)))
    assert table.to_pylist()[0]["source"] == ["person", "photo-lite"]


def test_parquet_of_nothing_is_a_table_of_no_rows():
    table = pyarrow.parquet.read_table(io.BytesIO(written(collection(), "parquet")))
    assert table.num_rows == 0
    assert "tags" in table.column_names


def test_row_groups(monkeypatch):
    monkeypatch.setattr(parquet, "ROW_GROUP", 2)
    monkeypatch.setattr("exports.exporters.reading.PAGE", 2)
    c = collection()
    for i in range(5):
        image(c, f"{i}.jpg")
    monkeypatch.setattr(parquet.Table.__init__, "__defaults__", (2,))
    file = pyarrow.parquet.ParquetFile(io.BytesIO(written(c, "parquet")))
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [2, 2, 1]
    assert [row["file_name"] for row in file.read().to_pylist()] == [f"{i}.jpg" for i in range(5)]


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_datasets_loads_them(format, tmp_path):
    path = tmp_path / f"x.{format}"
    path.write_bytes(written(holiday(), format))
    rows = load_with_datasets(
        "json" if format == "jsonl" else "parquet", data_files=str(path), cache_dir=str(tmp_path / "cache")
    )
    assert [row["tags"] for row in rows] == [["mine", "cat"], []]


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_the_first_bytes_cost_the_same_however_many_images(format, monkeypatch):
    monkeypatch.setattr("exports.exporters.reading.PAGE", 2)
    c = collection()
    asked = []
    for _ in range(2):
        for i in range(4):
            image(c, f"{len(asked)}-{i}.jpg", [("cat", State.ACCEPTED, 0.5)])
        with CaptureQueriesContext(connection) as queries:
            stream = get_exporter(c, format).stream()
            assert next(stream)
            stream.close()
        asked.append(len(queries))
    assert asked[0] == asked[1]
    assert asked[0] <= 12


def test_without_pyarrow_the_mend_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    exporter = get_exporter(holiday(), "parquet")
    assert "pip install" in exporter.plan().problems[0]
    with pytest.raises(ExportError, match=r"\.\[parquet\]"):
        next(exporter.stream())


def test_unknown_options_are_refused_by_name():
    with pytest.raises(ValidationError) as e:
        get_exporter(holiday(), "jsonl", {"excel": True})
    assert "excel" in e.value.message_dict


def test_nothing_asks_the_network():
    assert os.environ["HF_HUB_OFFLINE"] == "1"
