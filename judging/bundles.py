"""An experiment as one file, to be read elsewhere: recipes, answers and decisions; only the images are left out.

JSON lines: a header (the experiment, its recipes with all they are made of, the words as the vocabulary takes them),
then a line for each image. Images are named by their content. The leaderboard of an imported experiment is the one it
had here (`actions.bundles`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prompts.models import PromptVersion
from tagging.models import Channel, ChannelResult, ImageAsset, ImageTag, Prediction, Proposal, Recipe, Tag, TagAlias
from tagging.policy.text import tag_key

from .metrics_words import Words
from .models import Experiment, ExperimentRecipe, ExperimentRun

FORMAT, VERSION = "iwtag experiment", 1
_STEP = 200
PREDICTION = ("seconds", "tokens_in", "tokens_out", "cost", "currency", "flags", "finish_reason")


def lines(experiment: Experiment) -> Iterator[str]:
    """The file, a line at a time; 200 images are in memory at once."""
    rows = list(experiment.rows.select_related("recipe__policy_version__policy").order_by("position"))
    links = list(ExperimentRun.objects.filter(row__experiment=experiment).order_by("run_id"))
    runs = {link.run_id: link for link in links}
    place = {row.pk: row.position for row in rows}
    yield _line(
        {
            "format": FORMAT,
            "version": VERSION,
            "experiment": _experiment(experiment, rows),
            "rows": [_row(row) for row in rows],
            "words": _words(experiment, list(runs)),
        }
    )
    images = list(zip(experiment.images, experiment.digests, experiment.held_out, strict=True))
    for at in range(0, len(images), _STEP):
        yield from _images(images[at : at + _STEP], runs, place)


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


def _experiment(experiment: Experiment, rows: Sequence[ExperimentRecipe]) -> dict[str, Any]:
    names = ("name", "question", "filter", "seed", "sample", "axes", "notices", "samples", "margin", "stage", "racing")
    baseline = next((row.position for row in rows if row.recipe_id == experiment.baseline_id), None)
    more = {"reached": experiment.reached, "log": experiment.log, "images": experiment.n_images, "baseline": baseline}
    return {**{name: getattr(experiment, name) for name in names}, **more}


def _row(row: ExperimentRecipe) -> dict[str, Any]:
    names = ("position", "name", "values", "dropped_at", "dropped_why")
    return {**{name: getattr(row, name) for name in names}, "recipe": recipe_content(row.recipe)}


def recipe_content(recipe: Recipe) -> dict[str, Any]:
    """All that a recipe is made of, by content."""
    version = recipe.policy_version
    channels = Channel.objects.filter(recipe=recipe).select_related("adapter", "prompt_version__prompt")
    return {
        "key": recipe.key,
        "name": recipe.name,
        "combine": recipe.combine,
        "policy": {
            "slug": version.policy.slug,
            "name": version.policy.name,
            "spec": version.spec,
            "digest": version.digest,
            "message": version.message,
            "lists": [
                {"slug": v.wordlist.slug, "name": v.wordlist.name, "kind": v.wordlist.kind, "entries": v.entries}
                for v in version.wordlists.select_related("wordlist").order_by("wordlist__slug")
            ],
        },
        "channels": [
            {
                "position": channel.position,
                "name": channel.name,
                "role": channel.role,
                "adapter": {"slug": channel.adapter.slug, "label": channel.adapter.label},
                "config": channel.adapter_config,
                "options": channel.options,
                "variables": channel.variables,
                "prompt": _prompt(channel.prompt_version),
            }
            for channel in channels.order_by("position")
        ],
    }


def _prompt(version: PromptVersion | None) -> dict[str, Any] | None:
    if version is None:
        return None
    return {
        "slug": version.prompt.slug,
        "name": version.prompt.name,
        "task": version.prompt.task,
        "system": version.system,
        "template": version.template,
        "response_schema": version.response_schema,
        "message": version.message,
        "digest": version.digest,
    }


def _words(experiment: Experiment, runs: Sequence[int]) -> dict[str, Any]:
    """What the vocabulary knows of the words: tags (key → [name, category]) and aliases (key → key of the tag)."""
    words = Words()
    images = sorted(experiment.images)
    for at in range(0, len(images), _STEP):
        proposals = Proposal.objects.filter(run__in=runs, image__in=images[at : at + _STEP])
        for fates in proposals.values_list("tags", flat=True):
            words.add(fate[0] for fate in fates)
    said = {tag_key(word) for word in words.waiting}
    words.resolve()
    ids = [pk for pk in words.tag_ids if pk is not None]
    tags: dict[str, list[str]] = {}
    aliases: dict[str, str] = {}
    for at in range(0, len(ids), _STEP):
        part = ids[at : at + _STEP]
        for key, name, category in Tag.objects.filter(pk__in=part).values_list("key", "name", "category"):
            tags[key] = [name, category]
        for key, tag in TagAlias.objects.filter(tag__in=part).values_list("key", "tag__key"):
            if key in said:
                aliases[key] = tag
    return {"tags": tags, "aliases": aliases}


def _images(
    part: Sequence[tuple[int, str, int]], runs: Mapping[int, ExperimentRun], place: Mapping[int, int]
) -> Iterator[str]:
    pks = [pk for pk, _, _ in part]
    assets = ImageAsset.objects.in_bulk(pks)
    truth: dict[int, list[list[Any]]] = {pk: [] for pk in pks}
    decided = ImageTag.objects.decided_by_people().filter(image__in=pks).select_related("tag").order_by("tag__key")
    for row in decided:
        truth[row.image_id].append([row.tag.name, row.tag.category, int(row.state in ImageTag.POSITIVE)])
    cells: dict[int, list[dict[str, Any]]] = {pk: [] for pk in pks}
    proposals = list(Proposal.objects.filter(run__in=list(runs), image__in=pks).order_by("run_id"))
    spent = _predictions(proposals, list(runs))
    for proposal in proposals:
        link = runs[proposal.run_id]
        cells[proposal.image_id].append(
            {
                "row": place[link.row_id],
                "sample": link.sample,
                "state": proposal.state,
                "tags": proposal.tags,
                "caption": proposal.caption,
                "error": proposal.error,
                "predictions": spent.get((proposal.run_id, proposal.image_id), []),
            }
        )
    for pk, sha256, held in part:
        image = assets.get(pk)
        yield _line(
            {
                "sha256": sha256,
                "path": image.path if image else "",
                "held_out": held,
                "reviewed": bool(image and image.review_state == ImageAsset.Review.REVIEWED),
                "caption": image.caption if image and image.caption_state in ("accepted", "edited") else None,
                "truth": truth[pk],
                "cells": cells[pk],
            }
        )


def _predictions(proposals: Sequence[Proposal], runs: Sequence[int]) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """(run, image) → what its answers took; not the answers themselves."""
    of: dict[tuple[int, int], list[int]] = {}
    for proposal in proposals:
        if proposal.prediction_id is not None:
            of.setdefault((proposal.run_id, proposal.image_id), []).append(proposal.prediction_id)
    several = ChannelResult.objects.filter(
        run__in=runs, image__in={p.image_id for p in proposals}, prediction__isnull=False
    )
    for run, image, prediction in several.values_list("run_id", "image_id", "prediction_id"):
        if prediction is not None and prediction not in of.get((run, image), ()):
            of.setdefault((run, image), []).append(prediction)
    wanted = sorted({pk for pks in of.values() for pk in pks})
    there: dict[int, dict[str, Any]] = {}
    for at in range(0, len(wanted), 500):
        for row in Prediction.objects.filter(pk__in=wanted[at : at + 500]).values("pk", "key", *PREDICTION):
            there[row.pop("pk")] = row
    return {key: [there[pk] for pk in pks if pk in there] for key, pks in of.items()}
