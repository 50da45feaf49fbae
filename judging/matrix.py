"""What the matrix needs to know of a whole experiment at once: who said which tag where, as arrays.

The page shows some dozens of images at a time; sorting and filtering look at all of them. The arrays are made from the
stored proposals once, kept by this process for as long as no run moves, and hold no decision of a person: those change
while one looks, and are read anew.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from django.db.models import Max, Sum

from prompts.models import digest
from tagging.models import Chunk, ImageTag, RecomputeJob, Tag, TagAlias

from .metrics_loading import load
from .models import Experiment, ExperimentRun, JudgedTag, RunVerdict

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

SORTS = {
    "disagreement": "most disagreement first",
    "order": "as the experiment drew them",
    "edits": "most to mend first",
    "unjudged": "most unjudged tags first",
}
FILTERS = {
    "disagree": "recipes disagree",
    "single": "a tag only one recipe says",
    "fails": "a judge doubts a tag",
    "regressed": "worse than the baseline",
    "unstable": "samples differ",
    "unjudged": "unjudged tags",
}
_KEPT = 4
_STEP = 500


@dataclass(frozen=True, slots=True)
class Query:
    """What the address says: sort, filters, a tag that must be said, columns that are hidden, the compared column."""

    sort: str = "disagreement"
    filters: tuple[str, ...] = ()
    tag: str = ""
    hidden: tuple[int, ...] = ()


@dataclass(slots=True)
class Index:
    """`images` are primary keys in the order of the experiment's list. One entry of the four arrays for each
    (image, tag, row): place of the image, number of the tag, place of the row, in how many samples."""

    rows: list[int]
    images: Ints
    tags: list[str]
    tag_ids: list[int | None]
    image: Ints
    tag: Ints
    row: Ints
    times: Ints
    samples: npt.NDArray[np.int64]  # (rows, images) samples that are there
    places: dict[int, int] = field(default_factory=dict)


_INDEXES: OrderedDict[tuple[int, str], Index] = OrderedDict()
_LOCK = threading.Lock()


def mark_of(experiment: Experiment) -> str:
    """Changes when anything that a recipe said of these images does: a few queries on indexes."""
    links = list(
        ExperimentRun.objects.filter(row__experiment=experiment).order_by("pk").values_list("run_id", "sample")
    )
    runs = [run for run, _ in links]
    counted = list(
        Chunk.objects.filter(run__in=runs)
        .order_by("run_id")
        .values_list("run_id")
        .annotate(ok=Sum("n_ok"), empty=Sum("n_empty"), error=Sum("n_error"))
    )
    recomputed = RecomputeJob.objects.filter(run__in=runs).aggregate(last=Max("pk"), done=Sum("n_done"))
    rows = list(experiment.rows.order_by("position").values_list("pk", "recipe_id"))
    words = [Tag.objects.aggregate(last=Max("pk")), TagAlias.objects.aggregate(last=Max("pk"))]
    return digest([links, counted, recomputed, rows, words, experiment.n_images])


def index_of(experiment: Experiment, mark: str | None = None) -> Index:
    """The arrays of an experiment as it is now."""
    key = (experiment.pk, mark or mark_of(experiment))
    with _LOCK:
        found = _INDEXES.get(key)
        if found is not None:
            _INDEXES.move_to_end(key)
            return found
        found = _INDEXES[key] = _build(experiment)
        while len(_INDEXES) > _KEPT:
            _INDEXES.popitem(last=False)
    return found


def _build(experiment: Experiment) -> Index:
    sheet = load(experiment)
    listed = {pk: place for place, pk in enumerate(experiment.images)}
    place = np.array([listed[pk] for pk in sheet.images], np.int64)  # of the sheet's places
    n = max(1, len(sheet.truth.tags))
    parts: list[tuple[Ints, Ints, Ints, Ints]] = []
    samples = np.zeros((len(sheet.rows), len(place)), np.int64)
    for number, said in enumerate(sheet.said):
        samples[number, place] = said.seen.sum(axis=0)
        codes, times = np.unique(said.image * n + said.tag, return_counts=True)
        parts.append((place[codes // n], codes % n, np.full(len(codes), number), times))
    image, tag, row, times = (
        np.concatenate([part[i] for part in parts]) if parts else np.zeros(0, np.int64) for i in range(4)
    )
    images = np.array(list(experiment.images), np.int64)
    return Index(
        [r.pk for r in sheet.rows],
        images,
        list(sheet.truth.tags),
        list(sheet.tag_ids),
        image,
        tag,
        row,
        times,
        samples,
        {int(pk): at for at, pk in enumerate(images)},
    )


@dataclass(slots=True)
class Selected:
    """Places of images in the order to show them, with what sorted them."""

    places: list[int]
    disagreement: npt.NDArray[np.float64]


def select(experiment: Experiment, index: Index, query: Query, baseline: int | None = None) -> Selected:
    """The images that pass the filters, sorted. `baseline` is the row's primary key that others are held against."""
    shown = [i for i, pk in enumerate(index.rows) if pk not in query.hidden] or list(range(len(index.rows)))
    visible = np.isin(index.row, shown)
    image, tag, row, times = (a[visible] for a in (index.image, index.tag, index.row, index.times))
    n = len(index.images)
    disagreement, partial, single = _agreement(index, image, tag, row, shown)
    keep = np.ones(n, bool)
    truth = None
    if {"regressed", "unjudged"} & set(query.filters) or query.sort in ("edits", "unjudged"):
        truth = truth_of(index)
    for name in query.filters:
        if name == "disagree":
            keep &= partial
        elif name == "single":
            keep &= single
        elif name == "fails":
            keep &= _doubted(experiment, index)
        elif name == "unstable":
            keep &= _unstable(index, image, row, times, n)
        elif name == "unjudged" and truth is not None:
            keep &= _unjudged(index, image, tag, truth, n) > 0
        elif name == "regressed" and truth is not None:
            keep &= _regressed(index, image, tag, row, times, truth, shown, baseline)
    if query.tag:
        wanted = query.tag.casefold().strip()
        numbers = np.array([number for number, name in enumerate(index.tags) if wanted in name], np.int64)
        keep &= np.bincount(image[np.isin(tag, numbers)], minlength=n) > 0
    value = {
        "order": np.zeros(n),
        "disagreement": -disagreement,
        "edits": -_edits(index, image, tag, row, times, truth, shown).sum(axis=0) if truth is not None else np.zeros(n),
        "unjudged": -_unjudged(index, image, tag, truth, n).astype(float) if truth is not None else np.zeros(n),
    }[query.sort]
    places = np.flatnonzero(keep)
    return Selected(places[np.argsort(value[places], kind="stable")].tolist(), disagreement)


def _agreement(
    index: Index, image: Ints, tag: Ints, row: Ints, shown: Sequence[int]
) -> tuple[npt.NDArray[np.float64], Flags, Flags]:
    """Per image: 1 − Σ|A∩B| / Σ|A∪B| over all pairs of recipes that have a result; is any tag not said by all; is any
    said by one alone (of two or more)."""
    n, width = len(index.images), max(1, len(index.tags))
    there = (index.samples[shown] > 0).sum(axis=0)
    codes, count = np.unique(image * width + tag, return_counts=True)
    at = codes // width
    both = np.bincount(at, weights=count * (count - 1) / 2, minlength=n)
    either = np.bincount(image, minlength=n) * np.maximum(there - 1, 0) - both
    disagreement = np.where(either > 0, 1 - both / np.maximum(either, 1), 0.0)
    partial = np.bincount(at[count < there[at]], minlength=n) > 0
    single = (np.bincount(at[count == 1], minlength=n) > 0) & (there > 1)
    return disagreement, partial & (there > 1), single


def _unstable(index: Index, image: Ints, row: Ints, times: Ints, n: int) -> Flags:
    return np.asarray(np.bincount(image[times < index.samples[row, image]], minlength=n) > 0)


def _doubted(experiment: Experiment, index: Index) -> Flags:
    """Images where a judge said that a proposed tag is wrong, or failed the whole."""
    found = np.zeros(len(index.images), bool)
    runs = list(ExperimentRun.objects.filter(row__experiment=experiment).values_list("run_id", flat=True))
    verdicts = RunVerdict.objects.filter(run__in=runs)
    wrong = JudgedTag.objects.filter(role=JudgedTag.Role.CANDIDATE, word=JudgedTag.Word.WRONG)
    for images in (
        wrong.filter(verdict__of_runs__in=verdicts).values_list("image_id", flat=True),
        verdicts.filter(verdict__outcome="fail").values_list("image_id", flat=True),
    ):
        for pk in images.distinct():
            if pk in index.places:
                found[index.places[pk]] = True
    return found


@dataclass(slots=True)
class Decisions:
    """Decisions as codes place * width + number, ascending, and which are right; all right ones per image."""

    codes: Ints
    right: Flags
    missable: npt.NDArray[np.int64]  # (n,) right tags of each image, whether any recipe said them or not
    decided: Flags  # (n,) images of which a person has spoken


def truth_of(index: Index) -> Decisions:
    """What people decided on the images, now. Two queries for 500 images."""
    number = {pk: at for at, pk in enumerate(index.tag_ids) if pk is not None}
    codes: list[int] = []
    right: list[bool] = []
    missable = np.zeros(len(index.images), np.int64)
    decided = np.zeros(len(index.images), bool)
    pks = sorted(index.places)
    width = max(1, len(index.tags))
    for at in range(0, len(pks), _STEP):
        rows = ImageTag.objects.decided_by_people().filter(image__in=pks[at : at + _STEP])
        for image, tag, state in rows.values_list("image_id", "tag_id", "state"):
            positive = state in ImageTag.POSITIVE
            missable[index.places[image]] += positive
            decided[index.places[image]] = True
            if tag in number:
                codes.append(index.places[image] * width + number[tag])
                right.append(positive)
    order = np.argsort(np.array(codes, np.int64), kind="stable")
    return Decisions(np.array(codes, np.int64)[order], np.array(right, bool)[order], missable, decided)


def _said_is(index: Index, image: Ints, tag: Ints, truth: Decisions) -> npt.NDArray[np.int8]:
    """1 right, 0 wrong, -1 unjudged."""
    wanted = image * max(1, len(index.tags)) + tag
    found = np.full(len(wanted), -1, np.int8)
    if len(truth.codes) and len(wanted):
        at = np.minimum(np.searchsorted(truth.codes, wanted), len(truth.codes) - 1)
        hit = truth.codes[at] == wanted
        found[hit] = truth.right[at[hit]]
    return found


def _unjudged(index: Index, image: Ints, tag: Ints, truth: Decisions, n: int) -> npt.NDArray[np.int64]:
    width = max(1, len(index.tags))
    codes = np.unique(image * width + tag)
    at, number = codes // width, codes % width
    return np.bincount(at[_said_is(index, at, number, truth) == -1], minlength=n)


def _edits(
    index: Index,
    image: Ints,
    tag: Ints,
    row: Ints,
    times: Ints,
    truth: Decisions,
    shown: Sequence[int],
) -> npt.NDArray[np.float64]:
    """(rows, images) wrong tags plus missed ones, averaged over samples; 0 where there is no result."""
    n = len(index.images)
    found = np.zeros((len(index.rows), n))
    verdict = _said_is(index, image, tag, truth)
    share = times / np.maximum(index.samples[row, image], 1)
    for i in shown:
        mine = row == i
        wrong = np.bincount(image[mine & (verdict == 0)], weights=share[mine & (verdict == 0)], minlength=n)
        right = np.bincount(image[mine & (verdict == 1)], weights=share[mine & (verdict == 1)], minlength=n)
        found[i] = np.where(index.samples[i] > 0, wrong + truth.missable - right, 0.0)
    return found


def edits_of(index: Index, truth: Decisions, rows: Sequence[int]) -> npt.NDArray[np.float64]:
    """(rows, images) edits of these places of rows: see `_edits`."""
    return _edits(index, index.image, index.tag, index.row, index.times, truth, rows)


def _regressed(
    index: Index,
    image: Ints,
    tag: Ints,
    row: Ints,
    times: Ints,
    truth: Decisions,
    shown: Sequence[int],
    baseline: int | None,
) -> Flags:
    base = index.rows.index(baseline) if baseline in index.rows else (shown[0] if shown else 0)
    everything = sorted({*shown, base})
    edits = _edits(index, image, tag, row, times, truth, everything)
    there = index.samples > 0
    worse = [(edits[i] > edits[base] + 1e-9) & there[i] & there[base] for i in shown if i != base]
    return np.asarray(np.any(worse, axis=0)) if worse else np.zeros(len(index.images), bool)
