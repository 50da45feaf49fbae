"""How far people agree with each other: the ceiling for a judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tagging.actions.settle import DOOR
from tagging.models import ImageAsset, ImageTag, TagEdit

from ..judges.statistics import kappa_interval
from .compared import triple


def people_kappa(image_ids: Sequence[int]) -> dict[str, Any]:
    """How far people agree with each other: the ceiling for a judge. Images that two different people reviewed, one
    after the other: what each left as right and wrong when they were done."""
    per_image: list[list[int]] = []
    for at in range(0, len(image_ids), 500):
        edits = TagEdit.objects.filter(image__in=image_ids[at : at + 500]).exclude(door=DOOR)
        edits = edits.filter(kind__in=(TagEdit.Kind.TAG, TagEdit.Kind.REVIEW)).order_by("image_id", "id")
        history: dict[int, list[tuple[str, int | None, Any, int | None]]] = {}
        for image, kind, tag, after, by in edits.values_list("image_id", "kind", "tag_id", "after", "by_id"):
            history.setdefault(image, []).append((kind, tag, after, by))
        per_image += [row for changes in history.values() if (row := _two_people(changes))]
    found = kappa_interval(per_image)
    return {"images": len(per_image), "decisions": sum(map(sum, per_image)), "kappa": triple(found)}


def _two_people(changes: Sequence[tuple[str, int | None, Any, int | None]]) -> list[int] | None:
    """(both wrong, only first, only second, neither) over the tags that both left decided; None with one reviewer."""
    states: dict[int, int] = {}
    left: dict[int, dict[int, int]] = {}
    for kind, tag, after, by in changes:
        if kind == TagEdit.Kind.TAG and tag is not None:
            if after in ImageTag.TRUTH:
                states[tag] = after
            else:
                states.pop(tag, None)
        elif kind == TagEdit.Kind.REVIEW and by is not None and after and after["state"] == ImageAsset.Review.REVIEWED:
            left.setdefault(by, dict(states))
    if len(left) < 2:
        return None
    first, second = list(left.values())[:2]
    row = [0, 0, 0, 0]
    for tag in first.keys() & second.keys():
        a, b = (state == ImageTag.State.REJECTED for state in (first[tag], second[tag]))
        row[0 if a and b else 1 if a else 2 if b else 3] += 1
    return row if sum(row) else None
