"""Every cell of an experiment, one by one: what a recipe said of an image, and what people made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tagging.models import ImageAsset, ImageTag, Proposal, Tag

from .metrics_loading import IN_PROPOSAL
from .metrics_words import Words
from .models import Experiment, ExperimentRun

_STEP = 100
_STATES = {ImageTag.State.ACCEPTED: "right", ImageTag.State.ADDED: "right", ImageTag.State.REJECTED: "wrong"}
COLUMNS = (
    "experiment image path sha256 row name recipe recipe_key run sample prediction_key state tags right wrong unjudged "
    "missed caption error tokens_in tokens_out seconds"
).split()


def cells(experiment: Experiment) -> Iterator[dict[str, Any]]:
    """In the order of the images, and of the recipes for each. A hundred images are in memory at a time."""
    links = list(
        ExperimentRun.objects.filter(row__experiment=experiment)
        .select_related("row__recipe")
        .order_by("row__position", "sample", "run_id")
    )
    by_run = {link.run_id: link for link in links}
    places = {run: at for at, run in enumerate(by_run)}
    images = experiment.images
    for at in range(0, len(images), _STEP):
        part = list(images[at : at + _STEP])
        assets = ImageAsset.objects.in_bulk(part)
        proposals = list(
            Proposal.objects.filter(run__in=list(by_run), image__in=part).select_related("prediction").defer(
                "prediction__scores", "prediction__text"
            )
        )  # fmt: skip
        words, decided = _decided(part, proposals)
        order = {pk: place for place, pk in enumerate(part)}
        proposals.sort(key=lambda p: (order[p.image_id], places[p.run_id]))
        for proposal in proposals:
            yield _cell(experiment, by_run[proposal.run_id], proposal, assets[proposal.image_id], words, decided)


def _decided(images: Sequence[int], proposals: Sequence[Proposal]) -> tuple[Words, dict[int, dict[int, str]]]:
    """Image → {number of a tag: right or wrong}."""
    rows = list(
        ImageTag.objects.decided_by_people().filter(image__in=images).values_list("image_id", "tag_id", "state")
    )
    words = Words()
    for pk, key, category in Tag.objects.filter(pk__in={tag for _, tag, _ in rows}).values_list(
        "pk", "key", "category"
    ):
        words.add_tag(pk, key, category)
    for proposal in proposals:
        words.add(tag[0] for tag in proposal.tags)
    words.resolve()
    found: dict[int, dict[int, str]] = {}
    for image, tag, state in rows:
        found.setdefault(image, {})[words.number_of(tag)] = _STATES[ImageTag.State(state)]
    return words, found


def _cell(
    experiment: Experiment,
    link: ExperimentRun,
    proposal: Proposal,
    image: ImageAsset,
    words: Words,
    decided: Mapping[int, Mapping[int, str]],
) -> dict[str, Any]:
    truth = decided.get(image.pk, {})
    tags, said = [], set()
    for name, category, score, state, reason, source, *_ in proposal.tags:
        number = words.tag_of(name)
        kept = state in IN_PROPOSAL
        if kept:
            said.add(number)
        verdict = truth.get(number, "unjudged") if kept else None
        tags.append(
            {"name": name, "category": category, "score": score, "state": state, "reason": reason, "source": source,
             "verdict": verdict}
        )  # fmt: skip
    missed = [words.names[number] for number, how in truth.items() if how == "right" and number not in said]
    prediction = proposal.prediction
    return {
        "experiment": experiment.pk,
        "image": image.pk,
        "path": image.path,
        "sha256": image.sha256,
        "row": link.row_id,
        "name": link.row.name,
        "recipe": link.row.recipe_id,
        "recipe_key": link.row.recipe.key,
        "run": proposal.run_id,
        "sample": link.sample,
        "prediction_key": prediction.key if prediction else None,
        "state": proposal.state,
        "tags": tags,
        "missed": sorted(missed),
        "caption": proposal.caption,
        "error": proposal.error,
        "tokens_in": prediction.tokens_in if prediction else None,
        "tokens_out": prediction.tokens_out if prediction else None,
        "seconds": prediction.seconds if prediction else None,
    }


def columns(found: Iterator[dict[str, Any]]) -> Iterator[list[Any]]:
    """Cells as lines of a table: a header, then tags joined by semicolons."""
    yield list(COLUMNS)
    for cell in found:
        kept = [tag for tag in cell["tags"] if tag["verdict"]]
        by: dict[str, list[str]] = {"right": [], "wrong": [], "unjudged": []}
        for tag in kept:
            by[tag["verdict"]].append(tag["name"])
        flat = {**cell, **{how: "; ".join(names) for how, names in by.items()}}
        flat["tags"] = "; ".join(tag["name"] for tag in kept)
        flat["missed"] = "; ".join(cell["missed"])
        yield [flat[name] for name in COLUMNS]
