"""Rows of the matrix as ready HTML: one image, and what each recipe said of it.

Joined in Python, as the grid's pictures are: some dozens of images times twenty recipes are thousands of chips.
Everything that comes from data goes through `escape`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

from django.urls import reverse
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

from tagging.models import ImageAsset, ImageTag, Proposal, TagAlias
from tagging.policy.text import tag_key
from tagging.queries import tags_of
from tagging.views.chips import mark, probability

from ..metrics_loading import IN_PROPOSAL
from ..models import ExperimentRecipe, ExperimentRun, JudgedTag, RunVerdict

_STATES = {state.value: state.label for state in ImageTag.State}
_WORDS = re.compile(r"\s+|[^\s]+")


@dataclass(slots=True)
class Tagged:
    """A tag in a cell. `times` of `of` samples said it."""

    name: str
    score: float | None
    source: str
    times: int = 1
    banned: str = ""


@dataclass(slots=True)
class Cell:
    """What one recipe said of one image."""

    samples: int = 0
    tags: dict[str, Tagged] = field(default_factory=dict)  # by key, in order
    banned: dict[str, Tagged] = field(default_factory=dict)
    caption: str = ""
    error: str = ""
    judged: list[tuple[str, float | None, str]] = field(default_factory=list)  # judge, overall, outcome


@dataclass(frozen=True, slots=True)
class Doubt:
    """A judge's word against a tag."""

    judge: str
    word: str
    evidence: str


class Rows:
    """Images of an experiment with everything their rows show: about ten queries for any number of images."""

    def __init__(self, columns: Sequence[ExperimentRecipe], images: Sequence[int], baseline: int | None) -> None:
        self.columns = list(columns)
        self.baseline = next((i for i, c in enumerate(self.columns) if c.pk == baseline), 0)
        assets = ImageAsset.objects.in_bulk(list(images))
        self.images = [assets[pk] for pk in images if pk in assets]
        self.cells: dict[tuple[int, int], Cell] = defaultdict(Cell)
        self._read_proposals()
        self._read_truth()
        self._read_judges()

    # -- reading ------------------------------------------------------------------------------------------------
    def _read_proposals(self) -> None:
        links = ExperimentRun.objects.filter(row__in=self.columns).order_by("run_id")
        self._runs: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for row, run, sample in links.values_list("row_id", "run_id", "sample"):
            self._runs[run].append((row, sample))
        found = Proposal.objects.filter(run__in=list(self._runs), image__in=[i.pk for i in self.images])
        fields = ("run_id", "image_id", "state", "tags", "caption", "error")
        latest: dict[tuple[int, int, int], tuple[Any, ...]] = {}
        for run, image, *rest in found.order_by("run_id").values_list(*fields):
            for row, sample in self._runs[run]:
                latest[row, image, sample] = tuple(rest)
        for (row, image, _), (state, tags, caption, error) in sorted(latest.items(), key=lambda item: item[0]):
            cell = self.cells[row, image]
            if state == Proposal.State.ERROR:
                cell.error = cell.error or error
                continue
            cell.samples += 1
            cell.caption = cell.caption or caption
            self._add_tags(cell, tags)

    @staticmethod
    def _add_tags(cell: Cell, tags: list[Any]) -> None:
        once: set[str] = set()
        for name, _, score, state, reason, source, *_ in tags:
            key = tag_key(name)
            if state in IN_PROPOSAL:
                if key in once:
                    continue
                once.add(key)
                there = cell.tags.get(key)
                if there is None:
                    cell.tags[key] = Tagged(name, score, source)
                else:
                    there.times += 1
            elif reason.startswith("banned") and key not in cell.banned:
                cell.banned[key] = Tagged(name, score, source, banned=reason)

    def _read_truth(self) -> None:
        self.truth: dict[int, dict[str, str]] = {}
        for image, rows in tags_of([i.pk for i in self.images]).items():
            decided = {tag_key(row.name): _STATES[row.state] for row in rows if row.state in ImageTag.TRUTH}
            self.truth[image] = decided
        keys = {key for cell in self.cells.values() for key in cell.tags}
        aliases = dict(TagAlias.objects.filter(key__in=sorted(keys)[:5000]).values_list("key", "tag__key"))
        for decided in self.truth.values():
            for key, meant in aliases.items():
                if meant in decided:
                    decided.setdefault(key, decided[meant])

    def _read_judges(self) -> None:
        ids = [i.pk for i in self.images]
        self.doubts: dict[int, dict[str, Doubt]] = defaultdict(dict)
        judged = JudgedTag.objects.filter(image__in=ids, role=JudgedTag.Role.CANDIDATE)
        judged = judged.exclude(word=JudgedTag.Word.CORRECT).order_by("pk")
        for image, name, word, evidence, judge in judged.values_list(
            "image_id", "name", "word", "evidence", "version__profile__name"
        ):
            self.doubts[image][tag_key(name)] = Doubt(judge, str(JudgedTag.Word(word).label), evidence)
        verdicts = RunVerdict.objects.filter(run__in=list(self._runs), image__in=ids).order_by("pk")
        fields = ("run_id", "image_id", "version__profile__name", "verdict__overall", "verdict__outcome", "own_family")
        for run, image, judge, overall, outcome, own in verdicts.values_list(*fields):
            for row, _ in self._runs[run]:
                said = (f"{judge} (own family)" if own else judge, overall, outcome)
                if said not in self.cells[row, image].judged:
                    self.cells[row, image].judged.append(said)

    # -- HTML ---------------------------------------------------------------------------------------------------
    def html(self, *, editable: bool) -> SafeString:
        """<tr> elements, one for each image."""
        thumb = reverse("tagging:thumb", args=["-", 320]).split("-")
        review = reverse("tagging:review", args=[0]).partition("0")
        return mark_safe("".join(self._row(image, thumb, review, editable) for image in self.images))

    def _row(self, image: ImageAsset, thumb: Sequence[str], review: Sequence[str], editable: bool) -> str:
        cells = [self.cells[column.pk, image.pk] for column in self.columns]
        there = [cell for cell in cells if cell.samples]
        shared = {key for key in there[0].tags if all(key in c.tags for c in there)} if len(there) > 1 else set()
        name = escape(image.path.rpartition("/")[2])
        head = (
            f'<th scope="row" class="matrix-image"><a href="{review[0]}{image.pk}{review[2]}">'
            f'<img src="{thumb[0]}{image.sha256}{thumb[1]}" alt="{name}" loading="lazy" width="160" height="120"></a>'
            f'<span class="matrix-name clip" title="{escape(image.path)}">{name}</span>'
            f"{self._shared(image, there, shared, editable)}</th>"
        )
        others = "".join(
            f'<td data-row="{column.pk}">{self._cell(image, i, cell, shared, editable)}</td>'
            for i, (column, cell) in enumerate(zip(self.columns, cells, strict=True))
        )
        return f'<tr data-image="{image.pk}">{head}{others}</tr>'

    def _shared(self, image: ImageAsset, there: Sequence[Cell], shared: set[str], editable: bool) -> str:
        if not shared:
            return ""
        chips = "".join(self._chip(image, key, tag, 1, editable) for key, tag in there[0].tags.items() if key in shared)
        open_ = sum(1 for key in shared if key not in self.truth[image.pk])
        more = f", {open_} unjudged" if open_ else ""
        return (
            f'<details class="matrix-shared"><summary>{len(shared)} said by all{more}</summary>'
            f'<ul class="chips">{chips}</ul></details>'
        )

    def _cell(self, image: ImageAsset, at: int, cell: Cell, shared: set[str], editable: bool) -> str:
        column = self.columns[at]
        if not cell.samples:
            text = f'<span class="matrix-error">{escape(cell.error[:160])}</span>' if cell.error else "…"
            return f'<div class="matrix-cell muted">{text}</div>'
        chips = "".join(
            self._chip(image, key, tag, cell.samples, editable) for key, tag in cell.tags.items() if key not in shared
        )
        chips += "".join(_banned_chip(tag) for tag in cell.banned.values())
        parts = [f'<ul class="chips">{chips}</ul>' if chips else ""]
        if not cell.tags and not cell.caption:
            parts.append('<span class="muted small">nothing proposed</span>')
        if cell.caption:
            base = self.cells[self.columns[self.baseline].pk, image.pk].caption
            parts.append(f'<p class="matrix-caption">{caption_html(cell.caption, base, first=at == self.baseline)}</p>')
        foot = [f"{_outcome(*said)}" for said in cell.judged]
        if cell.samples > 1:
            same = all(tag.times == cell.samples for tag in cell.tags.values())
            foot.append(f"{cell.samples} samples, " + ("all the same" if same else "not the same"))
        if cell.error:
            foot.append("an error in a sample")
        line = f'<span class="matrix-foot small muted">{" · ".join(foot)}</span>' if foot else ""
        detail = (
            f'<button class="btn btn-quiet btn-icon btn-small matrix-more" data-detail="{column.pk}" '
            f'aria-label="Everything {escape(column.name)} said of {escape(image.path)}" title="Details">⋯</button>'
        )
        return f'<div class="matrix-cell">{detail}{"".join(parts)}{line}</div>'

    def _chip(self, image: ImageAsset, key: str, tag: Tagged, samples: int, editable: bool) -> str:
        state = self.truth[image.pk].get(key, "unjudged")
        doubt = self.doubts[image.pk].get(key)
        inner = f'<span class="chip-name">{escape(tag.name)}</span>'
        if samples > 1 and tag.times < samples:
            inner += f' <span class="chip-p">{tag.times}/{samples}</span>'
        elif tag.score is not None:
            inner += f' <span class="chip-p">{probability(tag.score)}</span>'
        said = state
        extra = title = ""
        if doubt and state in ("unjudged", "proposed"):
            extra, said = ' data-doubt=""', f"{state}, {doubt.judge} says {doubt.word}"
            title = f' title="{escape(f"{doubt.judge}: {doubt.word}. {doubt.evidence}".strip())}"'
        if said != "unjudged":
            inner += f'<span class="visually-hidden">, {escape(said)}</span>'
        if not editable:
            return f'<li><span class="chip" data-state="{state}"{extra}{title}>{inner}</span></li>'
        return f'<li><button class="chip" data-state="{state}"{extra}{title}>{inner}</button></li>'


def _banned_chip(tag: Tagged) -> str:
    return (
        f'<li><span class="chip" data-state="banned" title="{escape(tag.banned)}">'
        f'<span class="chip-name">{escape(tag.name)}</span><span class="visually-hidden">, banned</span></span></li>'
    )


def _outcome(judge: str, overall: float | None, outcome: str) -> str:
    value = "" if overall is None else f" {overall:.2f}"
    word = {"pass": " passes", "fail": " fails"}.get(outcome, "")
    return f"{escape(judge)}{value}{word}"


def caption_html(text: str, base: str, *, first: bool = False) -> str:
    """The caption with what it says beyond the compared one marked, and what it leaves out struck."""
    if first or not base or text == base:
        return escape(text)
    return words_diff(base, text)


def words_diff(before: str, after: str) -> str:
    """Word-level difference as escaped HTML with <del> and <ins>."""
    a, b = _WORDS.findall(before), _WORDS.findall(after)
    out: list[str] = []
    for what, i, j, k, m in SequenceMatcher(a=a, b=b, autojunk=False).get_opcodes():
        old, new = escape("".join(a[i:j])), escape("".join(b[k:m]))
        if what == "equal":
            out.append(new)
            continue
        out += [f"<del>{old}</del>" if old.strip() else "", f"<ins>{new}</ins>" if new.strip() else new]
    return "".join(out)


def heads(columns: Sequence[ExperimentRecipe], board: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """What stands over each column: name, mark, the ranking metric with its interval, the verdict's word."""
    by_row = {row["row"]: row for row in (board or {}).get("rows", ())}
    metric = (board or {}).get("metric", "f1")
    found = []
    for column in columns:
        row = by_row.get(column.pk, {})
        standing = (row.get("standing") or {}).get(metric) or {}
        found.append(
            {
                "pk": column.pk,
                "name": column.name,
                "recipe": column.recipe_id,
                "mark": mark(column.position),
                "metric": metric,
                "value": standing.get("value"),
                "low": standing.get("low"),
                "high": standing.get("high"),
                "word": standing.get("word", ""),
                "done": row.get("done"),
                "edits": (row.get("metrics") or {}).get("edits"),
                "dropped": column.dropped_why,
            }
        )
    return found
