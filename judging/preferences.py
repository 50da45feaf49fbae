"""Preference pairs of an experiment: of two recipes' answers for one image, the better and the worse.

From decisions: where every tag of both answers is judged, the one with more right and fewer wrong and missing is
chosen. From votes: what people and usable judges preferred. (What a person made of an answer, against the answer, is
the export "preferences".)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .cells import cells
from .models import Experiment, Vote


def pairs(experiment: Experiment) -> Iterator[dict[str, Any]]:
    """{"image", "sha256", "path", "source", "chosen": {…}, "rejected": {…}, "margin"}: each side with recipe, keys,
    tags and caption. One image in memory at a time, but for the votes on it."""
    group: list[dict[str, Any]] = []
    for cell in cells(experiment):
        if group and cell["image"] != group[0]["image"]:
            yield from _of_image(experiment, group)
            group = []
        group.append(cell)
    if group:
        yield from _of_image(experiment, group)


def _of_image(experiment: Experiment, group: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    answers = [cell for cell in group if cell["state"] != "error" and cell["sample"] == 0]
    judged = [(_worth(cell), cell) for cell in answers if _judged(cell)]
    for i, (worth, one) in enumerate(judged):
        for other_worth, other in judged[i + 1 :]:
            if worth != other_worth and one["recipe"] != other["recipe"]:
                better, worse = (one, other) if worth > other_worth else (other, one)
                yield _pair(better, worse, "decisions", abs(worth - other_worth))
    by_recipe = {cell["recipe"]: cell for cell in answers}
    votes = Vote.objects.filter(experiment=experiment, image=group[0]["image"]).exclude(winner=Vote.Winner.TIE)
    for vote in votes:
        a, b = by_recipe.get(vote.a_id), by_recipe.get(vote.b_id)
        if a and b:
            chosen, rejected = (a, b) if vote.winner == Vote.Winner.A else (b, a)
            yield _pair(chosen, rejected, f"judge {vote.judge}" if vote.judge else "vote", None)


def _judged(cell: dict[str, Any]) -> bool:
    """Has a person decided on every tag of it, and on anything at all?"""
    verdicts = [tag["verdict"] for tag in cell["tags"] if tag["verdict"]]
    return "unjudged" not in verdicts and bool(verdicts or cell["missed"])


def _worth(cell: dict[str, Any]) -> int:
    verdicts = [tag["verdict"] for tag in cell["tags"]]
    return verdicts.count("right") - verdicts.count("wrong") - len(cell["missed"])


def _pair(chosen: dict[str, Any], rejected: dict[str, Any], source: str, margin: int | None) -> dict[str, Any]:
    return {
        "image": chosen["image"],
        "sha256": chosen["sha256"],
        "path": chosen["path"],
        "source": source,
        "chosen": _side(chosen),
        "rejected": _side(rejected),
        "margin": margin,
    }


def _side(cell: dict[str, Any]) -> dict[str, Any]:
    return {
        "recipe": cell["recipe"],
        "recipe_key": cell["recipe_key"],
        "prediction_key": cell["prediction_key"],
        "tags": [tag["name"] for tag in cell["tags"] if tag["verdict"]],
        "caption": cell["caption"],
    }
