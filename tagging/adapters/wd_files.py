"""Label files of Danbooru taggers: `selected_tags.csv` as WD, pixai and Camie exports have it."""

from __future__ import annotations

import csv
from pathlib import Path

from .base import LabelSet, ModelUnavailable

MODEL, TAGS = "model.onnx", "selected_tags.csv"
#: Danbooru's category numbers. The WD label files use 0, 4 and 9 of them; 10 is Camie's.
CATEGORIES = {
    "0": "general",
    "1": "artist",
    "3": "copyright",
    "4": "character",
    "5": "meta",
    "9": "rating",
    "10": "year",
}


def read_labels(path: Path) -> LabelSet:
    """The label set of all lines. ModelUnavailable, also when there are more labels than a set may have."""
    names, categories = read_rows(path)
    try:
        return LabelSet(tuple(names), tuple(categories))
    except ValueError as error:
        raise ModelUnavailable(f"{path}: {error}.") from error


def read_rows(path: Path) -> tuple[list[str], list[str]]:
    """The columns `name` and `category` of selected_tags.csv, in file order, which is the order of the outputs.

    Names stay as written, underscores included. ModelUnavailable names the file, the line and the fault.
    """
    names: list[str] = []
    categories: list[str] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            rows = csv.DictReader(lines)
            missing = {"name", "category"} - set(rows.fieldnames or ())
            if missing:
                raise ModelUnavailable(f"{path} has no column {', '.join(sorted(missing))}: not a label file.")
            for row in rows:
                category = (row["category"] or "").strip()
                if not row["name"] or not category.isdigit():
                    raise ModelUnavailable(f"{path}, line {rows.line_num}: a tag needs a name and a category number.")
                names.append(row["name"])
                categories.append(CATEGORIES.get(category, f"category {category}"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ModelUnavailable(f"{path} cannot be read ({error}). Download the file again.") from error
    if not names:
        raise ModelUnavailable(f"{path} has no tags. Download the file again.")
    return names, categories
