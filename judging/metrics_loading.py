"""From the database to arrays: what recipes said of an experiment's images, and what people decided.

A few queries for 500 images each, whatever the number of recipes; nothing of an image file is read. Places of images
follow their sha256, so that the same experiment gives the same draws in another database.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tagging.models import ChannelResult, ImageAsset, ImageTag, Prediction, Proposal, Tag

from .metrics import Said, Truth
from .metrics_words import Words, named_in
from .models import Experiment, ExperimentRecipe, ExperimentRun

IN_PROPOSAL = ("kept", "changed", "added")
_STEP = 500
_REVIEWED_CAPTION = (ImageAsset.CaptionState.ACCEPTED, ImageAsset.CaptionState.EDITED)


@dataclass(slots=True)
class Sheet:
    """An experiment as arrays. `images` are primary keys by place; `held_out` marks those of the last check."""

    truth: Truth
    rows: list[ExperimentRecipe]
    said: list[Said]
    images: list[int]
    held_out: npt.NDArray[np.bool_]
    tag_ids: list[int | None]
    captions: dict[int, str] = field(default_factory=dict)  # place → reviewed text
    settled: frozenset[int] = frozenset()  # places that a judge settled: no truth, and nothing to ask a person


@dataclass(slots=True)
class _Raw:
    """One recipe's proposals, before words became numbers."""

    samples: int
    words: list[tuple[int, int, list[str], list[float]]] = field(default_factory=list)  # sample, place, words, scores
    cells: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    currencies: set[str] = field(default_factory=set)
    errors: int = 0


def load(experiment: Experiment, *, only: Sequence[int] | None = None) -> Sheet:
    """The whole comparison. `only`: primary keys of the rows to read; all when left out."""
    order = _by_content(experiment)
    places = {pk: place for place, (_, _, pk) in enumerate(order)}
    held = experiment.held_out
    held_out = np.array([bool(held[at]) if at < len(held) else False for _, at, _ in order], bool)
    rows = list(experiment.rows.select_related("recipe").order_by("position"))
    if only is not None:
        rows = [row for row in rows if row.pk in set(only)]
    images = [pk for _, _, pk in order]
    links = _links(rows)
    words = Words()
    raw = [_read(links[row.pk], images, places, words) for row in rows]
    decisions, captions, reviewed = _decisions(images, places, words)
    words.resolve()
    truth = _truth(len(images), decisions, reviewed, words)
    denied = _denied(decisions, words)
    said = [_said(found, len(images), words, captions, denied) for found in raw]
    settled = _settled(images, places)
    return Sheet(truth, rows, said, images, held_out, words.tag_ids, captions, settled)


def load_runs(images: Sequence[int], runs: Mapping[int, int]) -> tuple[Truth, Said]:
    """What runs (run → sample) said of some images, as one recipe, and what people decided on them."""
    places = {pk: place for place, pk in enumerate(images)}
    words = Words()
    raw = _read(runs, images, places, words)
    decisions, captions, reviewed = _decisions(images, places, words)
    words.resolve()
    truth = _truth(len(images), decisions, reviewed, words)
    return truth, _said(raw, len(images), words, captions, _denied(decisions, words))


def truth_of(images: Sequence[int], words: Iterable[str]) -> tuple[Truth, Words]:
    """What people decided on these images (places are those of the sequence), in the numbers of `words`."""
    known = Words()
    known.add(words)
    decisions, _, reviewed = _decisions(images, {pk: place for place, pk in enumerate(images)}, known)
    known.resolve()
    return _truth(len(images), decisions, reviewed, known), known


def said_of(rows: Sequence[tuple[int, list[str], list[float]]], n: int, words: Words) -> Said:
    """(place, tags in order, their scores) as one recipe with one sample."""
    raw = _Raw(samples=1)
    for place, names, scores in rows:
        raw.words.append((0, place, names, scores))
        raw.cells[0, place] = {"caption": ""}
    return _said(raw, n, words, {}, {})


def _by_content(experiment: Experiment) -> list[tuple[str, int, int]]:
    """(sha256, place in the list, primary key), in order of content."""
    return sorted((sha, at, pk) for at, (sha, pk) in enumerate(zip(experiment.digests, experiment.images, strict=True)))


def _links(rows: Sequence[ExperimentRecipe]) -> dict[int, dict[int, int]]:
    """Row → {run: sample}. One query."""
    found: dict[int, dict[int, int]] = {row.pk: {} for row in rows}
    links = ExperimentRun.objects.filter(row__in=found).order_by("run_id")
    for row, run, sample in links.values_list("row_id", "run_id", "sample"):
        found[row][run] = sample
    return found


def _slices(images: Sequence[int]) -> Iterator[Sequence[int]]:
    ordered = sorted(images)
    yield from (ordered[at : at + _STEP] for at in range(0, len(ordered), _STEP))


_Wanted = dict[int, list[tuple[int, int]]]  # prediction → the (sample, place) it is for
_SUMMED = ("seconds", "tokens_in", "tokens_out", "cost")
_FIELDS = ("run_id", "image_id", "state", "tags", "caption", "prediction_id")


def _read(runs: Mapping[int, int], images: Sequence[int], places: Mapping[int, int], words: Words) -> _Raw:
    """What the runs proposed for the images. Where two runs have the same sample of an image, the later one counts."""
    raw = _Raw(samples=max(runs.values(), default=0) + 1)
    if not runs:
        return raw
    latest: dict[tuple[int, int], tuple[list[str], list[float]]] = {}
    predictions: _Wanted = {}
    for part in _slices(images):
        rows = Proposal.objects.filter(run__in=list(runs), image__in=part).order_by("run_id")
        for run, image, state, tags, caption, prediction in rows.values_list(*_FIELDS).iterator(chunk_size=2000):
            key = (runs[run], places[image])
            if state == Proposal.State.ERROR:
                raw.errors += 1
                continue
            kept = [tag for tag in tags if tag[3] in IN_PROPOSAL]
            latest[key] = ([tag[0] for tag in kept], [np.nan if tag[2] is None else tag[2] for tag in kept])
            banned = sum(1 for tag in tags if tag[3] == "dropped" and str(tag[4]).startswith("banned"))
            raw.cells[key] = {"banned": banned, "caption": caption}
            if prediction is not None:
                predictions.setdefault(prediction, []).append(key)
        _channels(runs, part, places, predictions)
        _read_predictions(predictions, raw)
        predictions.clear()
    for (sample, place), (names, scores) in latest.items():
        words.add(names)
        raw.words.append((sample, place, names, scores))
    return raw


def _channels(runs: Mapping[int, int], part: Sequence[int], places: Mapping[int, int], wanted: _Wanted) -> None:
    """The predictions of recipes with several channels: all that were asked count, for time and money."""
    results = ChannelResult.objects.filter(run__in=list(runs), image__in=part, prediction__isnull=False)
    for run, image, prediction in results.values_list("run_id", "image_id", "prediction_id"):
        if prediction is not None:
            wanted.setdefault(prediction, []).append((runs[run], places[image]))


def _read_predictions(wanted: _Wanted, raw: _Raw) -> None:
    ids = sorted(wanted)
    fields = ("pk", "seconds", "tokens_in", "tokens_out", "cost", "currency", "flags", "finish_reason")
    for at in range(0, len(ids), _STEP):
        rows = Prediction.objects.filter(pk__in=ids[at : at + _STEP]).values_list(*fields)
        for pk, seconds, tokens_in, tokens_out, cost, currency, flags, reason in rows:
            for key in wanted[pk]:
                cell = raw.cells.get(key)
                if cell is None:  # one channel answered, the recipe ended in an error
                    continue
                for name, value in zip(_SUMMED, (seconds, tokens_in, tokens_out, cost), strict=True):
                    if value is not None:
                        cell[name] = cell.get(name, 0) + value
                raw.currencies |= {currency} if cost else set()
                cell["parse_failed"] = cell.get("parse_failed", False) or "parse_failed" in (flags or ())
                cut = "truncated" in (flags or ()) or reason == "length"
                cell["truncated"] = cell.get("truncated", False) or cut


# -- what people decided ----------------------------------------------------------------------------------------------
_Decisions = list[tuple[int, int, bool]]  # place, tag's primary key, right


def _decisions(
    images: Sequence[int], places: Mapping[int, int], words: Words
) -> tuple[_Decisions, dict[int, str], npt.NDArray[np.bool_]]:
    found: _Decisions = []
    captions: dict[int, str] = {}
    reviewed = np.zeros(len(images), bool)
    tags: set[int] = set()
    for part in _slices(images):
        rows = ImageTag.objects.decided_by_people().filter(image__in=part)
        for image, tag, state in rows.values_list("image_id", "tag_id", "state"):
            found.append((places[image], tag, state in ImageTag.POSITIVE))
            tags.add(tag)
        assets = ImageAsset.objects.filter(pk__in=part)
        fields = ("pk", "review_state", "caption_state", "caption")
        for image, review, caption_state, caption in assets.values_list(*fields):
            reviewed[places[image]] = review == ImageAsset.Review.REVIEWED
            if caption_state in _REVIEWED_CAPTION and caption:
                captions[places[image]] = caption
    ids = sorted(tags)
    for at in range(0, len(ids), _STEP):
        for pk, key, category in Tag.objects.filter(pk__in=ids[at : at + _STEP]).values_list("pk", "key", "category"):
            words.add_tag(pk, key, category)
    for place, _, _ in found:
        reviewed[place] = True
    return found, captions, reviewed


def _settled(images: Sequence[int], places: Mapping[int, int]) -> frozenset[int]:
    auto = ImageAsset.objects.filter(review_state=ImageAsset.Review.AUTO)
    return frozenset(
        places[pk] for part in _slices(images) for pk in auto.filter(pk__in=part).values_list("pk", flat=True)
    )


def _truth(n: int, decisions: _Decisions, reviewed: npt.NDArray[np.bool_], words: Words) -> Truth:
    size = len(words)
    pairs = np.array([place * size + words.number_of(tag) for place, tag, _ in decisions], np.int64)
    right = np.array([right for _, _, right in decisions], bool)
    order = np.argsort(pairs, kind="stable")
    return Truth(
        n,
        tuple(words.names),
        tuple(words.categories),
        np.array(words.known, bool),
        pairs[order],
        right[order],
        reviewed,
    )


def _denied(decisions: _Decisions, words: Words) -> dict[int, list[str]]:
    """Place → keys of the tags that people rejected there."""
    found: dict[int, list[str]] = {}
    for place, tag, right in decisions:
        if not right:
            found.setdefault(place, []).append(words.names[words.number_of(tag)])
    return found


# -- arrays -----------------------------------------------------------------------------------------------------------
def _said(raw: _Raw, n: int, words: Words, captions: Mapping[int, str], denied: Mapping[int, list[str]]) -> Said:
    image: list[int] = []
    tag: list[int] = []
    sample: list[int] = []
    rank: list[int] = []
    score: list[float] = []
    tag_of = words.tag_of
    for s, place, names, scores in raw.words:
        there: set[int] = set()
        for name, value in zip(names, scores, strict=True):
            number = tag_of(name)
            if number >= 0 and number not in there:  # two spellings of one tag count once
                rank.append(len(there))
                there.add(number)
                tag.append(number)
                score.append(value)
        sample += [s] * len(there)
        image += [place] * len(there)
    shape = (raw.samples, n)
    cells: dict[str, npt.NDArray[np.float64]] = {name: np.full(shape, np.nan) for name in _CELLS}
    seen = np.zeros(shape, bool)
    for key, cell in raw.cells.items():
        seen[key] = True
        for name in _CELLS[:7]:
            if (measured := cell.get(name)) is not None:
                cells[name][key] = measured
        _caption(cell["caption"], key, cells, captions, denied)
    return Said(
        image=np.array(image, np.int64),
        tag=np.array(tag, np.int64),
        sample=np.array(sample, np.int64),
        rank=np.array(rank, np.int64),
        score=np.array(score, float),
        seen=seen,
        seconds=cells["seconds"],
        tokens_in=cells["tokens_in"],
        tokens_out=cells["tokens_out"],
        cost=cells["cost"],
        banned=cells["banned"],
        parse_failed=cells["parse_failed"],
        truncated=cells["truncated"],
        caption=cells["caption"],
        denied=cells["denied"],
        errors=raw.errors,
        currency=" + ".join(sorted(raw.currencies)),
    )


_CELLS = ("seconds", "tokens_in", "tokens_out", "cost", "banned", "parse_failed", "truncated", "caption", "denied")


def _caption(
    text: str,
    key: tuple[int, int],
    cells: Mapping[str, npt.NDArray[np.float64]],
    captions: Mapping[int, str],
    denied: Mapping[int, list[str]],
) -> None:
    if not text:
        return
    place = key[1]
    if reference := captions.get(place):
        cells["caption"][key] = caption_distance(text, reference)
    if keys := denied.get(place):
        cells["denied"][key] = len(named_in(text, keys))


def caption_distance(text: str, reference: str) -> float:
    """Edits by words over the longer of the two (Levenshtein, normalised): 0 the same, 1 nothing in common. Case and
    spacing do not count: a person who only mends a comma has changed little."""
    from rapidfuzz.distance import Levenshtein

    return float(Levenshtein.normalized_distance(text.casefold().split(), reference.casefold().split()))
