"""What is known of a recipe at the moment a label moves to it: its latest run, and how that agrees with people."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

from ..engine.progress import progress
from ..models import Collection, ImageAsset, ImageTag, Proposal, Recipe, Run, TagAlias
from ..policy.text import tag_key

#: Reviewed images that are compared at most, the latest first: a label is moved while somebody waits.
COMPARED = 1000
Z = 1.959964  # 95 %


def metrics_of(recipe: Recipe, collection: Collection | None = None) -> dict[str, Any]:
    """JSON-ready; empty when the recipe was never run (in that collection).

    {"run", "images", "ok", "empty", "error"} of its latest finished run, and, where reviewed
    images are among them, {"reviewed", "precision", "recall"}: shares of the tags it proposed that people kept, and of
    the tags in force that it proposed, each [share, low, high] with the 95 % Wilson interval over tags.
    """
    runs = Run.objects.filter(recipe=recipe, state=Run.State.DONE)
    run = (runs.filter(collection=collection) if collection else runs).order_by("-pk").first()
    if run is None:
        return {}
    at = progress([run])[run.pk]
    found: dict[str, Any] = {"run": run.pk, "images": at.total, "ok": at.ok, "empty": at.empty, "error": at.error}
    return {**found, **_agreement(run)}


def _agreement(run: Run) -> dict[str, Any]:
    """Some queries for 500 images each: a rejected tag was wrong, one that nobody spoke of counts for nothing."""
    reviewed = Proposal.objects.filter(run=run, image__review_state=ImageAsset.Review.REVIEWED).order_by("-pk")
    proposed = dict(reviewed.values_list("image_id", "tags")[:COMPARED])
    if not proposed:
        return {}
    truth: dict[int, dict[str, bool]] = defaultdict(dict)
    ids = list(proposed)
    for start in range(0, len(ids), 500):
        rows = ImageTag.objects.filter(image_id__in=ids[start : start + 500], state__in=ImageTag.TRUTH)
        for image, key, state in rows.values_list("image_id", "tag__key", "state"):
            truth[image][key] = state in ImageTag.POSITIVE
    said_of = {image: {tag_key(tag[0]) for tag in tags if tag[3] != "dropped"} for image, tags in proposed.items()}
    aliases = _aliases({key for said in said_of.values() for key in said})
    kept = wrong = missed = 0
    for image, keys in said_of.items():
        said = {aliases.get(key, key) for key in keys}
        for key, right in truth[image].items():
            kept += right and key in said
            wrong += not right and key in said
            missed += right and key not in said
    return {
        "reviewed": len(proposed),
        **({"precision": wilson(kept, kept + wrong)} if kept + wrong else {}),
        **({"recall": wilson(kept, kept + missed)} if kept + missed else {}),
    }


def _aliases(keys: set[str]) -> dict[str, str]:
    """Another spelling → the key of the tag that it means."""
    ordered = sorted(keys)
    found: dict[str, str] = {}
    for start in range(0, len(ordered), 500):
        rows = TagAlias.objects.filter(key__in=ordered[start : start + 500])
        found.update(rows.values_list("key", "tag__key"))
    return found


def wilson(hits: int, n: int) -> list[float]:
    """[share, lower, upper]: the score interval of E. B. Wilson (1927) at 95 %, for n > 0."""
    p, z2 = hits / n, Z * Z
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return [round(value, 4) for value in (p, max(0.0, middle - half), min(1.0, middle + half))]
