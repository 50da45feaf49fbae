"""One HTML file that tells an experiment to somebody who has nothing else: no network, no script, pictures inside.

Bounded: so many pictures and recipes are shown as a reader looks at; every figure of every recipe is in the tables.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

from django.core.files.storage import default_storage
from django.db.models import Count, Q
from django.template.loader import render_to_string
from django.utils import timezone

from tagging.models import Channel, ImageAsset

from .board import board as board_of
from .curves import HEIGHT, WIDTH, curves, drawn, heat_map, swept
from .matrix import Query, index_of, select
from .models import Calibration, Experiment, ExperimentRecipe, JudgeProfileVersion, RunVerdict
from .outcomes import outcome
from .views.curves import axis_names, heat_rows, places_of
from .views.experiments import NAMES, lines
from .views.matrix_cells import Rows

#: longer side of the pictures inside, in pixels
SIDE = 160
#: rows and columns of the excerpt of the matrix; recipes told picture by picture; pictures for each
MATRIX_ROWS, MATRIX_COLUMNS, TOLD, PICTURES = 24, 8, 12, 8
MOST_CURVES = 3  # options


def report(experiment: Experiment) -> Iterator[str]:
    """The file in parts, in order. Reads the whole comparison once; each picture is opened when its part is made."""
    found = board_of(experiment)
    rows = list(experiment.rows.select_related("recipe__policy_version__policy").order_by("position"))
    pictures = Pictures()
    base = {"experiment": experiment, "board": found, "rows": rows, "now": timezone.now()}
    metric = found["metric"]
    ordered = lines(found, metric)
    yield _part("head", {**base})
    yield _part("leaderboard", {**base, "lines": ordered, "title": NAMES[metric][0], "metric": metric, "names": NAMES})
    yield _part("curves", {**base, **_curves(found, rows)})
    names = {row.pk: row for row in rows}
    baseline: int | None = next((row["row"] for row in found["rows"] if row["baseline"]), None)
    versus = names.get(baseline or 0)
    told = [names[line.row["row"]] for line in ordered if line.standing and line.row["row"] != baseline][:TOLD]
    for row in told:
        if versus is not None:
            moved = _moved(experiment, row, versus, pictures)
            yield _part("moved", {**base, "row": row, "base": versus, **moved})
    yield _part("matrix", {**base, **_matrix(experiment, [names[x.row["row"]] for x in ordered], baseline, pictures)})
    yield _part("judges", {**base, "judges": judges_of(experiment)})
    for line in ordered:
        yield _part("recipe", {**base, "row": names[line.row["row"]], **_recipe(names[line.row["row"]])})
    yield _part("foot", {**base, "plan": json.dumps(plan_of(experiment), indent=2, ensure_ascii=False)})


def _part(name: str, context: dict[str, Any]) -> str:
    return render_to_string(f"judging/report/{name}.html", context)


class Pictures:
    """Small renditions as data: URIs; each is made once."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def uri(self, image: ImageAsset) -> str:
        """Empty where there is no rendition to make it from."""
        if image.sha256 not in self._known:
            self._known[image.sha256] = self._make(image)
        return self._known[image.sha256]

    @staticmethod
    def _make(image: ImageAsset) -> str:
        from PIL import Image

        if not image.sha256:
            return ""
        try:
            with default_storage.open(image.thumbnail_name(320), "rb") as f, Image.open(f) as opened:
                opened.thumbnail((SIDE, SIDE))
                stream = io.BytesIO()
                opened.save(stream, "WEBP", quality=70)
        except OSError:  # never made, or broken: the report is no worse than the page
            return ""
        return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def _curves(found: dict[str, Any], rows: Sequence[ExperimentRecipe]) -> dict[str, Any]:
    names = axis_names(row.values for row in rows)
    metric = found["metric"] if found["metric"] in ("f1", "edits", "precision", "recall") else "f1"
    heat = heat_map(found, places_of(list(rows)), metric)
    return {
        "options": [
            (axis, [drawn(curve) for curve in curves(found, axis, names)]) for axis in swept(found)[:MOST_CURVES]
        ],
        "heat": heat,
        "heat_rows": heat_rows(heat, names) if heat else [],
        "models": [names.get(("adapter", m), m) for m in heat.models] if heat else [],
        "width": WIDTH,
        "height": HEIGHT,
    }


def _moved(
    experiment: Experiment, row: ExperimentRecipe, baseline: ExperimentRecipe, pictures: Pictures
) -> dict[str, Any]:
    """Where a recipe is worse than the baseline, first, and where it is better."""
    found = outcome(index_of(experiment), baseline.pk, row.pk)
    worse, better = found.worse[:PICTURES], found.better[:PICTURES]
    images = ImageAsset.objects.in_bulk([pk for pk, _ in (*worse, *better)])

    def shown(given: Sequence[tuple[int, float]]) -> list[tuple[ImageAsset, str, float]]:
        return [(images[pk], pictures.uri(images[pk]), change) for pk, change in given if pk in images]

    return {"outcome": found, "worse": shown(worse), "better": shown(better)}


def _matrix(
    experiment: Experiment, columns: Sequence[ExperimentRecipe], baseline: int | None, pictures: Pictures
) -> dict[str, Any]:
    """The images on which the recipes disagree most, for the baseline and the recipes at the head."""
    chosen = sorted(columns, key=lambda c: c.pk != baseline)[:MATRIX_COLUMNS]
    index = index_of(experiment)
    hidden = tuple(pk for pk in index.rows if pk not in {c.pk for c in chosen})
    places = select(experiment, index, Query(hidden=hidden), baseline).places[:MATRIX_ROWS]
    rows = Rows(chosen, [int(index.images[at]) for at in places], baseline)
    body = []
    for image in rows.images:
        decided = rows.truth[image.pk]
        cells = []
        for column in chosen:
            cell = rows.cells[column.pk, image.pk]
            tags = [(tag.name, decided.get(key, "unjudged"), tag.times) for key, tag in cell.tags.items()]
            cells.append({"cell": cell, "tags": tags})
        body.append({"image": image, "uri": pictures.uri(image), "cells": cells})
    return {"columns": chosen, "body": body, "n_rows": len(index.images), "baseline": baseline}


def judges_of(experiment: Experiment) -> list[dict[str, Any]]:
    """Judges that looked at what the recipes proposed, with the badge they have now."""
    counted = (
        RunVerdict.objects.filter(run__experiment_links__row__experiment=experiment)
        .order_by()
        .values("version")
        .annotate(n=Count("pk", distinct=True), own=Count("pk", filter=Q(own_family=True), distinct=True))
    )
    by_version = {row["version"]: row for row in counted}
    versions = JudgeProfileVersion.objects.filter(pk__in=by_version).select_related("profile", "adapter")
    found = []
    for version in versions.order_by("profile__name", "-number"):
        last = Calibration.objects.filter(version=version, category="").order_by("-pk").first()
        count = by_version[version.pk]
        found.append({"version": version, "calibration": last, "verdicts": count["n"], "own": count["own"]})
    return found


def _recipe(row: ExperimentRecipe) -> dict[str, Any]:
    channels = Channel.objects.filter(recipe=row.recipe_id).select_related("adapter", "prompt_version__prompt")
    policy = row.recipe.policy_version
    return {
        "channels": [
            {
                "of": channel,
                "config": _pairs(channel.adapter_config),
                "options": _pairs(channel.options),
                "variables": _pairs(channel.variables or {}),
            }
            for channel in channels.order_by("position")
        ],
        "combine": json.dumps(row.recipe.combine, ensure_ascii=False),
        "spec": json.dumps(policy.spec, indent=2, ensure_ascii=False) if policy.spec else "",
        "lists": list(policy.wordlists.select_related("wordlist").order_by("wordlist__slug")),
    }


def _pairs(values: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in values.items()
        if value not in (None, "", [], {})
    ]


def plan_of(experiment: Experiment) -> dict[str, Any]:
    """What `manage.py experiment FILE` reads to ask the same again."""
    found: dict[str, Any] = {
        "collection": experiment.collection.slug,
        "name": experiment.name,
        "question": experiment.question,
        "axes": experiment.axes,
        "filter": experiment.filter,
        "sample": experiment.sample,
        "seed": experiment.seed,
        "samples": experiment.samples,
        "margin": experiment.margin,
    }
    if experiment.baseline is not None:
        found["base"] = experiment.baseline.key[:16]
    return {name: value for name, value in found.items() if value not in (None, "", {})}
