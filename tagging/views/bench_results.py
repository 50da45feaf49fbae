"""What the panes say, side by side beside each image. Chips are joined in Python, as those of the grid are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise

from django.core.exceptions import ValidationError
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

from prompts.diffing import words

from ..actions.answers import Answer, Waiting, answers, waiting
from ..adapters.base import ModelUnavailable
from ..engine.purse import amount
from ..models import ImageAsset, Run
from ..policy.spec import Fate
from ..policy.text import tag_key
from .bench_panes import Bench, Pane
from .chips import mark, probability
from .home import served, workers


@dataclass
class Cell:
    """One pane's word on one image."""

    pane: Pane
    answer: Answer | None = None
    waiting: Waiting | None = None
    tags: dict[str, Fate] = field(default_factory=dict)  # those that stay, by key, in order
    chips: str = ""  # HTML
    caption: str = ""  # HTML

    @property
    def dropped(self) -> list[Fate]:
        return self.answer.proposed.noted if self.answer and self.answer.proposed else []

    @property
    def price(self) -> str:
        cost = self.answer.cost if self.answer else None
        return f"{amount(cost)} {self.answer.currency}" if self.answer and cost is not None else ""

    @property
    def empty(self) -> bool:
        return bool(self.answer and self.answer.proposed and self.answer.proposed.empty)


@dataclass
class Row:
    image: ImageAsset
    cells: list[Cell]
    shared: int = 0
    different: int = 0


@dataclass
class Head:
    """Over a pane's column."""

    pane: Pane
    problems: list[str]
    done: int = 0
    seconds: float = 0.0


@dataclass
class Results:
    heads: list[Head]
    rows: list[Row]
    open_runs: list[Run] = field(default_factory=list)
    unattended: bool = False
    missing: int = 0

    @property
    def complete(self) -> bool:
        return bool(self.rows) and not self.missing

    @property
    def token(self) -> str:
        """Changes when what is shown does: a poll that finds the same sends nothing."""
        said = [
            (cell.answer.proposal if cell.answer else 0, cell.waiting.error if cell.waiting else "")
            for row in self.rows
            for cell in row.cells
        ]
        phases = [(run.pk, run.state, run.phase) for run in self.open_runs]
        return sha256(repr((said, phases, self.unattended)).encode()).hexdigest()[:16]


def results(bench: Bench) -> Results:
    """Of what is stored; no model is asked. About thirty queries for two panes, whatever the number of images."""
    heads: list[Head] = []
    cells: dict[tuple[int, str], Cell] = {}
    runs: dict[int, Run] = {}
    for pane in bench.panes:
        found, under_way = _of_pane(bench, pane)
        done = [found[i.pk] for i in bench.images if i.pk in found]
        heads.append(Head(pane, pane.problems, len(done), sum(a.seconds for a in done)))
        for image in bench.images:
            cell = Cell(pane, found.get(image.pk), under_way.get(image.pk))
            if cell.answer and cell.answer.proposed:
                cell.tags = {tag_key(fate.name): fate for fate in cell.answer.proposed.kept}
            cells[image.pk, pane.letter] = cell
        runs |= {w.run.pk: w.run for w in under_way.values() if not w.error}
    rows = [_row(image, [cells[image.pk, p.letter] for p in bench.panes]) for image in bench.images]
    waits = any(run.started_at is None and run.state == Run.State.RUNNING for run in runs.values())
    missing = sum(1 for row in rows for cell in row.cells if cell.answer is None)
    return Results(heads, rows, list(runs.values()), waits and not served(workers(), "gpu", "io"), missing)


def _of_pane(bench: Bench, pane: Pane) -> tuple[Mapping[int, Answer], Mapping[int, Waiting]]:
    if pane.recipe is None:
        return {}, {}
    try:
        found = answers(
            pane.recipe, bench.images, policy=pane.compiled, sample=bench.sample, recipes=pane.recipes
        ) if bench.images else {}  # fmt: skip
    except ModelUnavailable as error:
        pane.errors.setdefault("form", []).append(str(error))
        return {}, {}
    except ValidationError as error:
        pane.errors.setdefault("policy", []).extend(error.messages)
        return {}, {}
    return found, waiting(pane.recipes, bench.images, bench.sample)


def _row(image: ImageAsset, cells: Sequence[Cell]) -> Row:
    there = [cell for cell in cells if cell.answer and cell.answer.proposed]
    said = [set(cell.tags) for cell in there]
    shared = set.intersection(*said) if len(said) > 1 else set()
    everything = set().union(*said)
    for cell in there:
        cell.chips = mark_safe("".join(_chip(key, fate, there, shared) for key, fate in cell.tags.items()))
    _captions(there)
    return Row(image, list(cells), len(shared), len(everything - shared) if len(there) > 1 else 0)


def _chip(key: str, fate: Fate, there: Sequence[Cell], shared: set[str]) -> str:
    """A shared tag is plain. One that not all have bears the marks of those that do."""
    inner = f'<span class="chip-name">{escape(fate.name)}</span>'
    if fate.score is not None:
        inner += f' <span class="chip-p">{probability(fate.score)}</span>'
    where = "all"
    if len(there) > 1 and key not in shared:
        have = [cell.pane for cell in there if key in cell.tags]
        marks = "".join(mark(p.position) for p in have)
        where = "some"
        inner += f' <span class="chip-marks">{marks}</span>'
        inner += f'<span class="visually-hidden">, only in pane {" and ".join(str(p.number) for p in have)}</span>'
    elif len(there) > 1:
        inner += '<span class="visually-hidden">, in all panes</span>'
    reason = fate.reason or (f"{fate.state} from {fate.original}" if fate.state == "changed" else "")
    title = f' title="{escape(reason)}"' if reason else ""
    changed = f' data-fate="{escape(fate.state)}"' if fate.state != "kept" else ""
    return f'<li class="chip" data-in="{where}"{changed}{title}>{inner}</li>'


def _captions(there: Sequence[Cell]) -> None:
    """The first caption as it is; each further one against it, word by word."""
    texts = [(cell, cell.answer.proposed.caption) for cell in there if cell.answer and cell.answer.proposed]
    texts = [(cell, text) for cell, text in texts if text]
    for cell, text in texts[:1]:
        cell.caption = mark_safe(escape(text))
    for (_, _), (cell, text) in pairwise(texts):
        cell.caption = _difference(texts[0][1], text)


def _difference(old: str, new: str) -> SafeString:
    tags = {"gone": "del", "new": "ins"}
    parts = [
        f"<{tags[p.op]}>{escape(p.text)}</{tags[p.op]}>" if p.op in tags else escape(p.text) for p in words(old, new)
    ]
    return mark_safe("".join(parts))
