"""The words themselves: a Danbooru table for tag completion, and a keyword list for Lightroom."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field

from tagging.models import Tag, TagAlias

from .base import Exporter, ExportOptions, Plan, Selection
from .captions import changed_warning, one_line
from .counting import left_out, some
from .lookups import UNKNOWN, Names
from .reading import Source

AT_ONCE = 500


class _Vocabulary(Exporter[Any]):
    """What both have in common: the tags in use in the selection, and how often."""

    def __init__(self, selection: Selection, options: Any) -> None:
        super().__init__(selection, options)
        self.source = Source(selection, options)

    def counts(self) -> dict[int, int]:
        """Tag id → number of images that carry it. As large as the vocabulary in use."""
        return self.source.used()

    def plan(self) -> Plan:
        images = self.source.images.count()
        skipped, warnings = left_out(self.selection, self.options, images)
        counts = self.counts()
        return Plan(images, len(counts), skipped, [*warnings, *self.warnings(counts)])

    def warnings(self, counts: dict[int, int]) -> list[str]:
        return []


def _aliases(ids: Sequence[int]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    rows = TagAlias.objects.filter(tag__in=ids).order_by("key")
    for tag, name in rows.values_list("tag_id", "name"):
        found.setdefault(tag, []).append(name)
    return found


def _parts(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    for at in range(0, len(ids), AT_ONCE):
        yield ids[at : at + AT_ONCE]


# -- Danbooru, tagcomplete --------------------------------------------------------------------------------------------
CATEGORIES = {"general": 0, "artist": 1, "copyright": 3, "character": 4, "meta": 5}


class DanbooruOptions(ExportOptions):
    underscores: bool = Field(True, title="Underscores for spaces", description="As Danbooru writes tags.")
    at_least: int = Field(1, ge=1, le=10**9, title="On at least so many images")


class DanbooruExporter(_Vocabulary):
    """`name,category,count,"alias,alias"`, no header, most frequent first, as a1111-sd-webui-tagcomplete reads it.

    Categories: 0 general, 1 artist, 3 copyright, 4 character, 5 meta; others count as general. Nothing is escaped for
    spreadsheets: the programs that read it would take the escapes for part of the tag.
    """

    identifier = "danbooru"
    label = "Danbooru tag list (CSV)"
    description = "The vocabulary with counts and aliases, for tag completion. Not for spreadsheets."
    extension = "csv"
    content_type = "text/csv; charset=utf-8"
    Options = DanbooruOptions

    def stream(self) -> Iterator[bytes]:
        counts = {pk: n for pk, n in self.counts().items() if n >= self.options.at_least}
        for ids in _parts(sorted(counts, key=lambda pk: (-counts[pk], pk))):
            aliases = _aliases(ids)
            self.source.names.learn(ids)
            out = io.StringIO()
            writer = csv.writer(out, lineterminator="\n")
            for pk in ids:
                tag = self.source.names.tags[pk]
                others = [self._spelled(alias) for alias in aliases.get(pk, ()) if "," not in alias]
                row = [self._spelled(tag.name), CATEGORIES.get(tag.category, 0), counts[pk], ",".join(others)]
                writer.writerow(row)
            self.rows += len(ids)
            yield out.getvalue().encode(errors="replace")

    def _spelled(self, name: str) -> str:
        name = one_line(name)
        return name.replace(" ", "_") if self.options.underscores else name

    def warnings(self, counts: dict[int, int]) -> list[str]:
        changed: dict[str, str] = {}
        lost: list[str] = []
        for ids in _parts(list(counts)):
            self.source.names.learn(ids)
            for name in (self.source.names.tags[pk].name for pk in ids):
                if one_line(name) != name:
                    changed[name] = one_line(name)
            lost += TagAlias.objects.filter(tag__in=ids, name__contains=",").values_list("name", flat=True)
        found = changed_warning(changed, "written on one line")
        if lost:
            found.append(f"{len(lost):,} aliases with a comma are left out: {some(lost)}.")
        return found


# -- Lightroom --------------------------------------------------------------------------------------------------------
#: What the keyword list cannot hold inside a name: separators, and the marks of synonyms and categories.
_LOOK_ALIKES = str.maketrans({",": "，", ";": "；", "|": "｜"})
_MARKS = {"{": "｛", "}": "｝", "[": "［", "]": "］"}
_WRAPPED = re.compile(r"^[{\[]|[}\]]$")


def keyword(name: str) -> str:
    """A name as a keyword list can hold it: on one line, separators and marks as their full-width look-alikes."""
    text = one_line(name).translate(_LOOK_ALIKES)
    return _WRAPPED.sub(lambda found: _MARKS[found.group()], text)


class LightroomOptions(ExportOptions):
    synonyms: bool = Field(True, title="Aliases as synonyms", description="{alias}, one level deeper.")
    groups: bool = Field(
        False,
        title="Broader tags only as groups",
        description="[animal]: tags above others that are on no image themselves are not exported with photos.",
    )


class LightroomExporter(_Vocabulary):
    """UTF-8 text, one keyword a line, a tab for each level, `{synonym}`, `[not exported]`: Metadata → Import Keywords.

    Tags above those in use are written too, so that the hierarchy is whole.
    """

    identifier = "lightroom"
    label = "Lightroom keyword list"
    description = "The vocabulary as a hierarchy with synonyms, for Lightroom Classic, Bridge and Photo Mechanic."
    extension = "txt"
    content_type = "text/plain; charset=utf-8"
    Options = LightroomOptions

    def stream(self) -> Iterator[bytes]:
        counts = self.counts()
        rows = _with_ancestors(counts, self.source.names)
        synonyms: dict[int, list[str]] = {}
        if self.options.synonyms:
            for ids in _parts(list(rows)):
                synonyms.update(_aliases(ids))
        children: dict[int | None, list[int]] = {}
        for pk, (_, above) in rows.items():
            children.setdefault(above if above in rows else None, []).append(pk)
        for below in children.values():
            below.sort(key=lambda pk: rows[pk][0].casefold())
        lines: list[str] = []
        seen: set[int] = set()
        stack = [(pk, 0) for pk in reversed(_roots(rows, children))]
        while stack:
            pk, depth = stack.pop()
            if pk in seen:  # a circle of parents
                continue
            seen.add(pk)
            name = keyword(rows[pk][0])
            lines.append("\t" * depth + (f"[{name}]" if self.options.groups and pk not in counts else name) + "\n")
            lines += ["\t" * (depth + 1) + "{" + keyword(alias) + "}\n" for alias in synonyms.get(pk, ())]
            stack += [(child, depth + 1) for child in reversed(children.get(pk, []))]
            self.rows += 1
            if len(lines) >= AT_ONCE:
                yield "".join(lines).encode(errors="replace")
                lines.clear()
        yield "".join(lines).encode(errors="replace")

    def warnings(self, counts: dict[int, int]) -> list[str]:
        rows = _with_ancestors(counts, self.source.names)
        changed = {name: keyword(name) for name, _ in rows.values() if keyword(name) != name}
        return changed_warning(changed, "written otherwise, because Lightroom would split or hide them")


def _with_ancestors(ids: Mapping[int, int], names: Names) -> dict[int, tuple[str, int | None]]:
    """Tag id → (name, parent) of these tags and all above them."""
    found: dict[int, tuple[str, int | None]] = {pk: (names.unknown[pk].name, None) for pk in ids if pk >= UNKNOWN}
    todo = [pk for pk in ids if pk < UNKNOWN]
    while todo:
        for part in _parts(todo):
            for pk, name, parent in Tag.objects.filter(pk__in=part).values_list("pk", "name", "parent_id"):
                found[pk] = (name, parent)
        above = (found[pk][1] for pk in todo if pk in found)
        todo = list({pk for pk in above if pk is not None and pk not in found})
    return found


def _roots(rows: dict[int, tuple[str, int | None]], children: dict[int | None, list[int]]) -> list[int]:
    """Where to begin: tags without a parent, and one of every circle."""
    reached: set[int] = set()
    roots = list(children.get(None, []))
    for start in [*roots, *rows]:
        if start not in reached and start not in roots:
            roots.append(start)
        todo = [start]
        while todo:
            pk = todo.pop()
            if pk not in reached:
                reached.add(pk)
                todo += children.get(pk, [])
    return roots
