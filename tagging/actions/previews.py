"""What rules or lists that are not saved yet would change in a run: bounded in images and in time, nothing written."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import ValidationError

from prompts.models import WordlistVersion

from ..adapters.base import ModelUnavailable
from ..engine.reproposing import Change, Reproposer, Row
from ..models import Proposal, Run
from .policies import compile_checked

#: images that a preview looks at unless asked for others, and at most: the latest of the run
LIMIT, MOST = 1000, 4000
#: after so many seconds a preview says what it has
SECONDS = 2.0
_SLICE = 200


@dataclass(frozen=True, slots=True)
class TagChange:
    """One tag of one image that would be another. `what`: dropped, mapped (to `to`) or added; `reason` says why."""

    what: str
    name: str
    reason: str = ""
    to: str = ""


@dataclass(frozen=True, slots=True)
class TagFate:
    """A tag as the new rules see it. `mark` compares with what is proposed now: same, new or gone."""

    name: str
    category: str
    score: float | None
    state: str
    reason: str
    original: str
    mark: str = "same"


@dataclass
class Example:
    """One image before and after."""

    image: int
    before: list[str]
    after: list[TagFate]
    changes: list[TagChange] = field(default_factory=list)
    caption_before: str = ""
    caption: str = ""  # the new caption where it changed

    @property
    def gained(self) -> list[str]:
        return [fate.name for fate in self.after if fate.mark == "new"]

    @property
    def lost(self) -> list[str]:
        there = {fate.name for fate in self.after if fate.state != "dropped"}
        return [name for name in self.before if name not in there]

    @property
    def kept(self) -> list[TagFate]:
        return [fate for fate in self.after if fate.state != "dropped"]

    @property
    def dropped(self) -> list[TagFate]:
        return [fate for fate in self.after if fate.state == "dropped"]


@dataclass
class Preview:
    """What would change in `n_images` of the `n_total` images of a run. Counts are of tags on images; an image on which
    only the reason of a dropped tag would be another one does not count as changed."""

    n_total: int = 0
    n_images: int = 0
    n_changed: int = 0
    tags_before: int = 0
    tags_after: int = 0
    dropped: int = 0
    mapped: int = 0
    added: int = 0
    captions: int = 0
    gained: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    hurried: bool = False  # ended by the time limit

    @property
    def sampled(self) -> bool:
        """Not all images of the run were looked at."""
        return self.n_images < self.n_total


def preview(
    run: Run,
    spec: Mapping[str, Any],
    lists: Iterable[WordlistVersion] = (),
    *,
    limit: int = LIMIT,
    examples: int = 24,
    unchanged: bool = False,
    seconds: float = SECONDS,
) -> Preview:
    """What rules and lists would change in the latest `limit` images of a run, those with the most changes as examples.

    `unchanged`: fill the examples up with images that stay as they are. The lists may be versions that are not saved
    (`unsaved`). ValidationError as `policies.compile_checked`, and under "run" where its adapter cannot be used here.
    """
    began = time.monotonic()
    policy = compile_checked(spec, lists)
    try:
        reproposer = Reproposer(run, policy)
    except ModelUnavailable as error:
        raise ValidationError({"run": str(error)}) from None
    found = Preview(n_total=Proposal.objects.filter(run=run).count())
    gained: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    best: list[tuple[Change, list[TagChange]]] = []
    same: list[Row] = []
    after, left = _start(run, limit), min(limit, MOST)
    while left > 0:
        rows = reproposer.rows(after, min(_SLICE, left))
        if not rows:
            break
        after, left = rows[-1].id, left - len(rows)
        part = reproposer.apply(rows)
        found.n_images += part.done - part.skipped
        found.tags_before += part.tags_before
        found.tags_after += part.tags_after
        gained.update(part.gained)
        lost.update(part.lost)
        for change in part.changes:
            changes = explain(change)
            if changes or change.caption != change.row.caption or set(change.old) != set(change.new):
                _count(found, changes, change)
                best.append((change, changes))
        best.sort(key=lambda one: (-len(one[1]), -one[0].row.id))
        del best[examples:]
        if unchanged and len(same) < examples:
            there = set(part.unchanged)
            same += [row for row in rows if row.id in there][: examples - len(same)]
        if time.monotonic() - began > seconds and left > 0:
            found.hurried = True
            break
    found.gained, found.lost = _ordered(gained), _ordered(lost)
    found.examples = [_example(change, changes) for change, changes in best]
    found.examples += [_as_it_is(row) for row in same[: examples - len(best)]]
    found.problems = list(policy.problems)
    found.seconds = time.monotonic() - began
    return found


def unsaved(wordlist: Any, entries: Sequence[Mapping[str, Any]]) -> WordlistVersion:
    """A version of a list that is tried and not saved. `entries` as they are stored."""
    return WordlistVersion(wordlist=wordlist, number=0, entries=list(entries))


def _start(run: Run, limit: int) -> int:
    """The id after which the run's latest `limit` proposals begin."""
    ids = Proposal.objects.filter(run=run).order_by("-pk").values_list("pk", flat=True)
    return next(iter(ids[limit : limit + 1]), 0)


def _ordered(counts: Counter[str], n: int = 500) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:n])


def _count(found: Preview, changes: Sequence[TagChange], change: Change) -> None:
    for one in changes:
        if one.what == "dropped":
            found.dropped += 1
        elif one.what == "mapped":
            found.mapped += 1
        else:
            found.added += 1
    found.n_changed += 1
    found.captions += change.caption != change.row.caption


def _fates(text: str) -> list[list[Any]]:
    """Stored fates, each with all seven fields."""
    return [[*fate, *[""] * (7 - len(fate))] for fate in json.loads(text)]


def explain(change: Change) -> list[TagChange]:
    """The tags of an image that would be dropped, mapped to another word, or added, each with its reason."""
    old, new = _fates(change.row.tags), _fates(change.tags)
    before = {fate[0]: (fate[6] or fate[0]) for fate in old if fate[3] != "dropped"}  # name → as the model said it
    after: dict[str, list[Any]] = {}
    for fate in new:
        after.setdefault(fate[6] or fate[0], fate)
    kept = {fate[0]: fate for fate in new if fate[3] != "dropped"}
    found: list[TagChange] = []
    targets: set[str] = set()
    for name, original in before.items():
        if name in kept:
            continue
        there = after.get(original)
        if there is not None and there[3] != "dropped":
            targets.add(there[0])
            found.append(TagChange("mapped", name, there[4], there[0]))
        elif there is not None and there[4].startswith("same as "):
            to = there[4].removeprefix("same as ").strip("'\"")
            found.append(TagChange("mapped", name, there[4], to))
        else:
            found.append(TagChange("dropped", name, there[4] if there is not None else "below its threshold"))
    for name, fate in kept.items():
        if name not in before and name not in targets:
            found.append(TagChange("added", name, fate[4] or "passes now"))
    return found


def _example(change: Change, changes: list[TagChange]) -> Example:
    old = set(change.old)
    fates = [
        TagFate(f[0], f[1], f[2], f[3], f[4], f[6] if f[6] != f[0] else "", _mark(f, old)) for f in _fates(change.tags)
    ]
    new_caption = change.caption if change.caption != change.row.caption else ""
    return Example(change.row.image_id, change.old, fates, changes, change.row.caption, new_caption)


def _mark(fate: Sequence[Any], old: set[str]) -> str:
    if fate[3] == "dropped":
        return "gone" if fate[0] in old or fate[6] in old else "same"
    return "same" if fate[0] in old else "new"


def _as_it_is(row: Row) -> Example:
    fates = [TagFate(f[0], f[1], f[2], f[3], f[4], f[6] if f[6] != f[0] else "") for f in _fates(row.tags)]
    return Example(row.image_id, [f.name for f in fates if f.state != "dropped"], fates, [], row.caption)
