"""Wordlists as files of other programs: text, CSV, Danbooru CSV, WD selected_tags.csv, Lightroom keywords, RAM list.

Sources of the formats: Danbooru CSV as the tag-completion lists of image generators use it (name, category number, post
count, "alias,alias", no heading); `selected_tags.csv` as published beside the WD taggers (tag_id,name,category,count);
Lightroom Classic's "Export Keywords" (one keyword a line, tabs for the hierarchy, {synonym} one level below its
keyword, [keyword] not written on export); RAM's `ram_tag_list.txt` (one tag a line, the Chinese one beside it).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence

from pydantic import ValidationError

from .wordlists import (
    MAX_ENTRIES,
    Entry,
    LineProblem,
    WordlistError,
    check_entries,
    first_error,
    format_text,
    parse_text,
)

#: category numbers of the booru lists; 9 is WD's rating
BOORU_CATEGORIES = {0: "general", 1: "artist", 3: "copyright", 4: "character", 5: "meta", 9: "rating"}
NOT_EXPORTED = "not exported"
_COLUMNS = ("text", "match", "case", "aliases", "parent", "category", "replacement", "note")


def decode(data: bytes) -> str:
    """Text of a file: UTF-8 with or without mark, or UTF-16 with mark. WordlistError names the first bad line."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError:
            raise WordlistError([LineProblem(0, "the file begins like UTF-16 but is not: save it as UTF-8")]) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise WordlistError([LineProblem(line, "not UTF-8: save the file as UTF-8")]) from None


def _entry(line: int, problems: list[LineProblem], kind: str, **values: object) -> Entry | None:
    """An entry of a foreign list: its words are literal, so in a banned list they mean whole tags."""
    if kind == "banned" and "match" not in values:
        values["match"] = "exact"
    try:
        return Entry.model_validate(values)
    except ValidationError as error:
        problems.append(LineProblem(line, first_error(error)))
        return None


def _done(entries: Iterable[Entry | None], problems: list[LineProblem], kind: str) -> list[Entry]:
    found = [entry for entry in entries if entry is not None]
    if not problems and len(found) > MAX_ENTRIES:
        problems.append(LineProblem(0, f"a list holds at most {MAX_ENTRIES:,} entries"))
    if problems:
        raise WordlistError(sorted(problems, key=lambda p: p.line))
    return check_entries(found, kind)


# -- CSV -------------------------------------------------------------------------------------------------------------
def _rows(text: str) -> Iterable[tuple[int, list[str]]]:
    """(line number, cells) of non-empty rows."""
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise WordlistError([LineProblem(reader.line_num, f"not CSV: {error}")]) from None


def import_csv(text: str, kind: str) -> list[Entry]:
    """Our own columns, in any order, `text` required; aliases are separated by |."""
    rows = iter(_rows(text))
    line, heading = next(rows, (1, [""]))
    names = [cell.strip().casefold() for cell in heading]
    if "text" not in names or (unknown := [n for n in names if n and n not in _COLUMNS]):
        wrong = "no column `text`" if "text" not in names else f"unknown column {unknown[0]!r}"
        raise WordlistError([LineProblem(line, f"{wrong}; the columns are {', '.join(_COLUMNS)}")])
    problems: list[LineProblem] = []
    found = []
    for line, row in rows:
        cells = dict(zip(names, row, strict=False))
        values: dict[str, object] = {k: v.strip() for k, v in cells.items() if k and v.strip()}
        if "aliases" in values:
            values["aliases"] = [part.strip() for part in cells["aliases"].split("|") if part.strip()]
        if kind == "replacement":
            values.setdefault("replacement", "")
        found.append(_entry(line, problems, kind, **{"match": "word", **values}))
    return _done(found, problems, kind)


def export_csv(entries: Sequence[Entry], kind: str) -> str:
    """All fields, with a heading."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for e in entries:
        writer.writerow(
            (e.text, e.match, e.case, "|".join(e.aliases), e.parent, e.category, e.replacement or "", e.note)
        )
    return out.getvalue()


def _category(line: int, cell: str, problems: list[LineProblem]) -> str:
    try:
        return BOORU_CATEGORIES.get(int(cell or 0), "general")
    except ValueError:
        problems.append(LineProblem(line, f"{cell!r} is no category number"))
        return ""


def import_danbooru(text: str, kind: str) -> list[Entry]:
    """name, category number, post count, "alias,alias"; the last three may be missing. Underscores stay."""
    problems: list[LineProblem] = []
    found = []
    for line, row in _rows(text):
        if line == 1 and row[0].strip().casefold() in ("name", "tag"):
            continue
        cells = [cell.strip() for cell in row] + ["", "", ""]
        category = _category(line, cells[1], problems)
        found.append(_entry(line, problems, kind, text=cells[0], category=category, aliases=cells[3]))
    return _done(found, problems, kind)


def export_danbooru(entries: Sequence[Entry], kind: str) -> str:
    """As `import_danbooru` reads it; the post count is 0."""
    numbers = {name: number for number, name in BOORU_CATEGORIES.items()}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for e in entries:
        writer.writerow((e.text, numbers.get(e.category, 0), 0, ",".join(e.aliases)))
    return out.getvalue()


def import_wd(text: str, kind: str) -> list[Entry]:
    """`selected_tags.csv`: columns by their heading, at least name and category. The ratings are no words."""
    rows = iter(_rows(text))
    line, heading = next(rows, (1, [""]))
    names = [cell.strip().casefold() for cell in heading]
    if not {"name", "category"} <= set(names):
        raise WordlistError([LineProblem(line, "a selected_tags.csv has the columns name and category")])
    at, category_at = names.index("name"), names.index("category")
    problems: list[LineProblem] = []
    found = []
    for line, row in rows:
        if len(row) <= max(at, category_at):
            problems.append(LineProblem(line, f"{len(row)} cells where the heading has {len(names)}"))
            continue
        category = _category(line, row[category_at].strip(), problems)
        if category != "rating":
            found.append(_entry(line, problems, kind, text=row[at].strip(), category=category))
    return _done(found, problems, kind)


# -- Lightroom -------------------------------------------------------------------------------------------------------
def import_lightroom(text: str, kind: str) -> list[Entry]:
    """Hierarchy by tabs, {synonyms} as aliases; [not exported] keywords keep that as their note."""
    problems: list[LineProblem] = []
    path: list[str] = []
    values: list[tuple[int, dict[str, object]]] = []
    owners: list[int] = []
    for line, raw in enumerate(text.splitlines(), 1):
        word = raw.strip()
        if not word:
            continue
        depth = len(raw) - len(raw.lstrip("\t"))
        if depth > len(path):
            problems.append(LineProblem(line, f"{word!r} is {depth} tabs deep, at most {len(path)} can follow here"))
            continue
        if word.startswith("{") and word.endswith("}"):
            if depth == 0:
                problems.append(LineProblem(line, f"the synonym {word} has no keyword above it"))
                continue
            aliases = values[owners[depth - 1]][1].setdefault("aliases", [])
            aliases.append(word[1:-1].strip())  # type: ignore[attr-defined]
            continue
        hidden = word.startswith("[") and word.endswith("]")
        name = word[1:-1].strip() if hidden else word
        del path[depth:], owners[depth:]
        entry: dict[str, object] = {"text": name, "parent": path[-1] if path else ""}
        if hidden:
            entry["note"] = NOT_EXPORTED
        path.append(name)
        owners.append(len(values))
        values.append((line, entry))
    return _done((_entry(line, problems, kind, **entry) for line, entry in values), problems, kind)


def export_lightroom(entries: Sequence[Entry], kind: str) -> str:
    """The hierarchy with tabs. Parents that are no entries themselves come in [brackets]."""
    children: dict[str, list[Entry]] = {}
    known = {entry.text for entry in entries}
    for entry in entries:
        children.setdefault(entry.parent, []).append(entry)
    lines: list[str] = []
    written: set[Entry] = set()

    def write(entry: Entry, depth: int) -> None:
        if entry in written:
            return
        written.add(entry)
        name = f"[{entry.text}]" if entry.note == NOT_EXPORTED else entry.text
        lines.append("\t" * depth + name)
        lines.extend("\t" * (depth + 1) + "{" + alias + "}" for alias in entry.aliases)
        stack.extend((child, depth + 1) for child in reversed(children.get(entry.text, [])))

    roots = [(parent, None) for parent in children if parent and parent not in known]
    stack: list[tuple[Entry, int]] = []
    for parent, _ in roots:
        lines.append(f"[{parent}]")
        stack.extend((child, 1) for child in reversed(children[parent]))
        while stack:
            write(*stack.pop())
    # what hangs in a circle of parents is written flat at the end
    for entry in (*children.get("", []), *entries):
        stack.append((entry, 0))
        while stack:
            write(*stack.pop())
    return "".join(line + "\n" for line in lines)


# -- RAM -------------------------------------------------------------------------------------------------------------
def import_ram(text: str, kind: str, variants: str = "") -> list[Entry]:
    """One tag a line, further names after tabs. `variants`: the same list in another language, line for line."""
    problems: list[LineProblem] = []
    lines = text.splitlines()
    others = variants.splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    while others and not others[-1].strip():
        others.pop()
    if others and len(others) != len(lines):
        raise WordlistError(
            [
                LineProblem(
                    min(len(others), len(lines)) + 1, f"{len(lines)} tags but {len(others)} in the other language"
                )
            ]
        )
    found = []
    for line, raw in enumerate(lines, 1):
        name, *aliases = (part.strip() for part in raw.split("\t"))
        if others:
            aliases.append(others[line - 1].strip())
        if name or aliases:
            found.append(_entry(line, problems, kind, text=name, aliases=[a for a in aliases if a]))
    return _done(found, problems, kind)


def export_ram(entries: Sequence[Entry], kind: str) -> str:
    """One tag a line, aliases after tabs."""
    return "".join("\t".join((e.text, *e.aliases)) + "\n" for e in entries)


#: name → (label, import, export); export is None where the format cannot hold a list of ours
FORMATS: dict[str, tuple[str, Callable[[str, str], list[Entry]], Callable[[Sequence[Entry], str], str] | None]] = {
    "text": ("Text, one entry a line", parse_text, lambda entries, kind: format_text(entries)),
    "csv": ("CSV", import_csv, export_csv),
    "danbooru": ("Danbooru CSV", import_danbooru, export_danbooru),
    "wd": ("WD selected_tags.csv", import_wd, None),
    "lightroom": ("Lightroom keyword list", import_lightroom, export_lightroom),
    "ram": ("RAM tag list", import_ram, export_ram),
}


def import_entries(data: bytes | str, format: str, kind: str, *, variants: bytes | str = "") -> list[Entry]:
    """Entries of a file. WordlistError names each line that is wrong; LookupError an unknown format."""
    if format not in FORMATS:
        raise LookupError(f"no list format {format!r}; known: {', '.join(FORMATS)}")
    text = (decode(data) if isinstance(data, bytes) else data).lstrip("\ufeff")
    if variants:
        if format != "ram":
            raise LookupError("only the format 'ram' has a second file of variants")
        return import_ram(text, kind, decode(variants) if isinstance(variants, bytes) else variants)
    return FORMATS[format][1](text, kind)


def export_entries(entries: Sequence[Entry], format: str, kind: str) -> str:
    """A list as a file of that format. LookupError where there is none; fields that it cannot hold are left out."""
    if format not in FORMATS:
        raise LookupError(f"no list format {format!r}; known: {', '.join(FORMATS)}")
    export = FORMATS[format][2]
    if export is None:
        raise LookupError(f"{FORMATS[format][0]} can be imported but not exported")
    return export(entries, kind)
