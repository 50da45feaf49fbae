"""The leaderboard of an experiment: computed from stored results and people's decisions, kept until either changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from django.db.models import Count, Max, Sum
from django.utils import timezone

from prompts.models import WordlistVersion, digest
from tagging.models import Chunk, RecomputeJob, Run, Tag, TagAlias, TagEdit

from . import metrics, ranking
from .metrics_loading import Sheet, load
from .models import Experiment, ExperimentRecipe, ExperimentRun

#: of what the standings are made; the first that can be told is the one that ranks
RANKED = ("f1", "edits", "jaccard", "precision", "recall", "caption")
#: tags told one by one
TAGS = 300
VERSION = 2
_STEP = 500


def board(experiment: Experiment, *, fresh: bool = False) -> dict[str, Any]:
    """The leaderboard as it is now. What was computed before is kept while nothing it rests on has changed."""
    mark = fingerprint(experiment)
    if not fresh and experiment.board and experiment.board_of == mark:
        return dict(experiment.board)
    found = compute(experiment)
    now = timezone.now()
    Experiment.objects.filter(pk=experiment.pk).update(board=found, board_of=mark, board_at=now)
    experiment.board, experiment.board_of, experiment.board_at = found, mark, now
    return found


def fingerprint(experiment: Experiment) -> str:
    """Hash of everything a leaderboard follows from: runs and how far they are, decisions on the images, the words.
    Some queries that read indexes only."""
    links = list(
        ExperimentRun.objects.filter(row__experiment=experiment).order_by("pk").values_list("run_id", "sample")
    )
    runs = [run for run, _ in links]
    done = Chunk.objects.filter(run__in=runs).order_by("run_id").values_list("run_id")
    counted = list(done.annotate(ok=Sum("n_ok"), empty=Sum("n_empty"), error=Sum("n_error")))
    recomputed = RecomputeJob.objects.filter(run__in=runs).aggregate(last=Max("pk"), done=Sum("n_done"))
    rows = list(experiment.rows.order_by("position").values_list("pk", "recipe_id", "dropped_at", "name"))
    edits = 0
    images = sorted(experiment.images)
    for at in range(0, len(images), _STEP):
        last = TagEdit.objects.filter(image__in=images[at : at + _STEP]).aggregate(last=Max("pk"))["last"]
        edits = max(edits, last or 0)
    words = [
        Tag.objects.aggregate(last=Max("pk"), n=Count("pk")),
        TagAlias.objects.aggregate(last=Max("pk"), n=Count("pk")),
        WordlistVersion.objects.aggregate(last=Max("pk")),
    ]
    own = [experiment.baseline_id, experiment.margin, experiment.seed, experiment.n_images]
    return digest([VERSION, links, counted, recomputed, rows, edits, words, own])


def compute(experiment: Experiment) -> dict[str, Any]:
    """The leaderboard, JSON-ready."""
    return of_sheet(load(experiment), experiment)


def of_sheet(sheet: Sheet, experiment: Experiment, *, draws: int = ranking.DRAWS) -> dict[str, Any]:
    """The leaderboard of what was loaded. The same sheet and seed give the same leaderboard."""
    racing = [row.dropped_at is None for row in sheet.rows]
    within, ready = compared(sheet, racing)
    dev = within & ~sheet.held_out
    results = [
        metrics.measure(sheet.truth, said, (dev if good else said.done & ~sheet.held_out))
        for said, good in zip(sheet.said, ready, strict=True)
    ]
    base = baseline_of(sheet.rows, ready, experiment.baseline_id)
    standings = {m: standing(sheet, results, ready, dev, base, experiment, m, draws) for m in RANKED}
    told = [m for m in RANKED if any(s is not None for s in standings[m])]
    held = within & sheet.held_out
    last = standing(sheet, results, ready, held, base, experiment, (told or ["f1"])[0], draws) if held.any() else []
    judged = dev & sheet.truth.reviewed
    return {
        "metric": told[0] if told else "f1",
        "metrics": told,
        "images": int(dev.sum()),
        "judged_images": int(judged.sum()),
        "listed": experiment.n_images,
        "held_out": int(sheet.held_out.sum()),
        "margin": experiment.margin,
        "draws": draws,
        "seed": experiment.seed,
        "detectable": _detectable(standings, told, int(judged.sum())),
        "unjudged": len(unjudged_pairs(sheet, ready, dev)),
        "notices": _notices(sheet, ready, racing, experiment, int(judged.sum())),
        "rows": [
            {
                "row": row.pk,
                "position": row.position,
                "recipe": row.recipe_id,
                "key": row.recipe.key,
                "name": row.name,
                "values": row.values,
                "baseline": i == base,
                "compared": ready[i],
                "dropped_at": row.dropped_at,
                "dropped_why": row.dropped_why,
                "done": int(sheet.said[i].done.sum()),
                "standing": {m: _dict(standings[m][i]) for m in told},
                "held_out": _dict(last[i]) if last else None,
                "metrics": _rounded(results[i].values),
                "by_category": {name: _rounded(values) for name, values in results[i].by_category.items()},
                "by_tag": _most(results[i].by_tag),
                "reliability": results[i].reliability,
            }
            for i, row in enumerate(sheet.rows)
        ],
    }


def race_standings(
    sheet: Sheet, experiment: Experiment
) -> tuple[int, list[ranking.Standing | None], list[metrics.Result]] | None:
    """(leader's place, each row against the leader, results) of the rows loaded, on the images that are not held out;
    None where nothing is judged. The metric is the first that can be told."""
    within, ready = compared(sheet, [True] * len(sheet.rows))
    dev = within & ~sheet.held_out
    results = [metrics.measure(sheet.truth, said, dev) for said in sheet.said]
    base = baseline_of(sheet.rows, ready, experiment.baseline_id)
    for metric in RANKED:
        first = standing(sheet, results, ready, dev, base, experiment, metric)
        if all(s is None for s in first):
            continue
        sign = 1 if metrics.METRICS[metric] else -1
        values = {i: sign * s.value for i, s in enumerate(first) if s is not None and s.value is not None}
        if values:
            leader = max(values, key=lambda i: (values[i], -i))
            return leader, standing(sheet, results, ready, dev, leader, experiment, metric), results
    return None


def compared(sheet: Sheet, racing: Sequence[bool]) -> tuple[npt.NDArray[np.bool_], list[bool]]:
    """Images that all recipes compared have, and which are compared: those in the race that have enough images."""
    places = [i for i, still in enumerate(racing) if still]
    within, some = metrics.common([sheet.said[i] for i in places])
    ready = [False] * len(racing)
    for i, good in zip(places, some, strict=True):
        ready[i] = good
    return (within if len(within) else np.zeros(sheet.truth.n, bool)), ready


def baseline_of(rows: Sequence[ExperimentRecipe], ready: Sequence[bool], recipe: int | None) -> int | None:
    """The row to compare with: that of the baseline, else the first that is compared."""
    there = [i for i, good in enumerate(ready) if good]
    return next((i for i in there if rows[i].recipe_id == recipe), there[0] if there else None)


def standing(
    sheet: Sheet,
    results: Sequence[metrics.Result],
    ready: Sequence[bool],
    within: npt.NDArray[np.bool_],
    base: int | None,
    experiment: Experiment,
    metric: str,
    draws: int = ranking.DRAWS,
) -> list[ranking.Standing | None]:
    """Each row against row `base`, None for those that are not compared or where the metric says nothing."""
    found: list[ranking.Standing | None] = [None] * len(ready)
    places = [i for i, good in enumerate(ready) if good]
    if base is None or base not in places:
        return found
    pairs = [metrics.ratio(metric, results[i].counts, sheet.said[i]) for i in places]
    num, den = np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs])
    if metric == "caption":
        use = within & (den > 0).all(axis=0)
    else:
        use = within & sheet.truth.reviewed & _speaks(sheet, places)
    if not use.any() or (metric == "caption" and int(use.sum()) < 2):
        return found
    if not (den[:, use].sum(axis=1) > 0).any():
        return found
    standings = ranking.compare(
        num[:, use],
        den[:, use],
        places.index(base),
        draws=draws,
        seed=experiment.seed,
        margin=experiment.margin if metrics.METRICS[metric] else _margin_of_edits(experiment.margin),
        more_is_better=metrics.METRICS[metric],
        shares=metric in metrics.SHARES,
    )
    for i, one in zip(places, standings, strict=True):
        found[i] = one
    return found


def _margin_of_edits(margin: float) -> float:
    """Edits are counted, not shared: 0.02 of F1 is about a tenth of an edit an image."""
    return 5 * margin


def _speaks(sheet: Sheet, places: Iterable[int]) -> npt.NDArray[np.bool_]:
    """Images about which truth and tags say anything: with a caption-only recipe, F1 would compare silence."""
    if not any(len(sheet.said[i].tag) for i in places):
        return np.zeros(sheet.truth.n, bool)
    return np.ones(sheet.truth.n, bool)


def _detectable(standings: dict[str, list[ranking.Standing | None]], told: Sequence[str], n: int) -> float | None:
    """The smallest difference these images show, from the widths of the intervals where there are some. None where
    none is that large: shares differ by 1 at most."""
    if not n:
        return None
    widths = [
        (s.delta_high - s.delta_low) / 2 / ranking.Z
        for s in (standings[told[0]] if told else [])
        if s is not None and s.word != "baseline" and s.delta_low is not None and s.delta_high is not None
    ]
    widths = [w for w in widths if w > 0]
    if not widths:
        return round(ranking.detectable(n), 4)
    found = round((ranking.Z + ranking.Z_POWER) * float(np.median(widths)), 4)
    return None if told[0] in metrics.SHARES and found >= 1 else found


def unjudged_pairs(sheet: Sheet, ready: Sequence[bool], within: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(place of image, number of tag) that a recipe proposed and nobody has judged, each once."""
    found: list[npt.NDArray[np.int64]] = []
    size = max(1, len(sheet.truth.tags))
    within = within.copy()
    within[sorted(sheet.settled)] = False
    for said, good in zip(sheet.said, ready, strict=True):
        if good and len(said.tag):
            open_ = (sheet.truth.of(said.image, said.tag) == -1) & within[said.image]
            found.append(said.image[open_] * size + said.tag[open_])
    if not found:
        return []
    codes = np.unique(np.concatenate(found))
    return [(int(code // size), int(code % size)) for code in codes]


def _notices(
    sheet: Sheet, ready: Sequence[bool], racing: Sequence[bool], experiment: Experiment, judged: int
) -> list[str]:
    found = []
    if not any(ready):
        return ["No results yet."]
    if not judged:
        found.append(
            "Nobody has reviewed any of these images, so nothing can be said about who is right. Review some, or judge "
            "what was proposed."
        )
    waiting = [row.name for row, good, still in zip(sheet.rows, ready, racing, strict=True) if still and not good]
    if waiting:
        found.append(f"Not compared yet, too few images: {', '.join(waiting)}.")
    for row, said in zip(sheet.rows, sheet.said, strict=True):
        if said.errors:
            found.append(f"{row.name}: {said.errors} images ended in an error and are left out for all.")
    return found


def _dict(found: ranking.Standing | None) -> dict[str, Any] | None:
    return None if found is None else found.as_dict()


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}


def _most(tags: dict[str, list[float]]) -> dict[str, list[float]]:
    """The tags that matter most: by support, then by how often they were said."""
    ordered = sorted(tags.items(), key=lambda item: (-item[1][0], -sum(item[1][1:]), item[0]))
    return dict(ordered[:TAGS])


def runs_of(experiment: Experiment) -> list[Run]:
    """All runs it looks at."""
    return list(Run.objects.filter(experiment_links__row__experiment=experiment).order_by("pk"))


#: what a table of the leaderboard has of the metrics
TABLE = (
    "f1 f1_low f1_high precision recall coverage unjudged macro_f1 jaccard edits zero_edit acceptance p_at_1 p_at_3 "
    "p_at_5 map ece tags_per_image empty errors out_of_vocabulary banned parse_failures truncated seconds_p50 "
    "seconds_p95 tokens_in tokens_out cost_per_1000 currency stability caption_distance denied_objects"
).split()


def table(found: dict[str, Any]) -> Iterator[list[Any]]:
    """The leaderboard as lines: a header, then a line for each recipe."""
    standing_of = ("value", "low", "high", "delta", "delta_low", "delta_high", "p_holm", "p_best", "word", "more")
    metric = found["metric"]
    yield ["recipe", "recipe_key", "name", "baseline", "images", *(f"{metric} {s}" for s in standing_of), *TABLE]
    for row in found["rows"]:
        stands = row["standing"].get(metric) or {}
        yield [
            row["recipe"],
            row["key"],
            row["name"],
            row["baseline"],
            row["done"],
            *(stands.get(name) for name in standing_of),
            *(row["metrics"].get(name) for name in TABLE),
        ]
