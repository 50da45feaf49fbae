"""How far people agree with each other: the ceiling for a judge. From blind second looks, and where there are none from
images that two people reviewed one after the other."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from tagging.actions.settle import DOOR
from tagging.models import ImageAsset, ImageTag, TagEdit

from ..judges.statistics import kappa_interval
from ..models import SecondLook
from .compared import triple

Rows = dict[int, list[int]]  # image → (both wrong, only the first, only the second, neither)


def people_agreement(image_ids: Sequence[int], collection_ids: Collection[int]) -> dict[str, Any]:
    """κ of people on these collections, whole and by category, with its interval by bootstrap over images.

    `second`: how many of the decisions are blind second looks. An image that has such is not taken from history, where
    the second person saw what the first had decided.
    """
    blind = second_looks(collection_ids)
    whole = dict(blind.get("", {}))
    second = sum(map(sum, whole.values()))
    for image, row in reviewed_twice(image_ids).items():
        whole.setdefault(image, row)
    categories = {name: _told(rows.values()) for name, rows in blind.items() if name}
    return {**_told(whole.values()), "second": second, "categories": categories}


def _told(rows: Iterable[Sequence[int]]) -> dict[str, Any]:
    per_image = list(rows)
    decisions = sum(map(sum, per_image))
    return {"images": len(per_image), "decisions": decisions, "kappa": triple(kappa_interval(per_image))}


def second_looks(collection_ids: Collection[int]) -> dict[str, Rows]:
    """Category ("" for all) → image → counts. Of one person's answers to a question the newest counts."""
    newest: dict[tuple[int, int, int | None], tuple[str, bool, bool | None]] = {}
    looks = SecondLook.objects.filter(image__collection__in=collection_ids).order_by("pk")
    names = ("image_id", "tag_id", "by_id", "category", "first_right", "right")
    for image, tag, by, category, first, right in looks.values_list(*names).iterator(chunk_size=5000):
        newest[image, tag, by] = (category, first, right)
    found: dict[str, Rows] = {}
    for (image, _, _), (category, first, right) in newest.items():
        if right is not None:
            for name in ("", category):
                found.setdefault(name, {}).setdefault(image, [0, 0, 0, 0])[_cell(not first, not right)] += 1
    return found


def _cell(first_wrong: bool, second_wrong: bool) -> int:
    return 0 if first_wrong and second_wrong else 1 if first_wrong else 2 if second_wrong else 3


def reviewed_twice(image_ids: Sequence[int]) -> Rows:
    """Images that two different people reviewed, one after the other: what each left as right and wrong when done."""
    found: Rows = {}
    for at in range(0, len(image_ids), 500):
        edits = TagEdit.objects.filter(image__in=image_ids[at : at + 500]).exclude(door=DOOR)
        edits = edits.filter(kind__in=(TagEdit.Kind.TAG, TagEdit.Kind.REVIEW)).order_by("image_id", "id")
        history: dict[int, list[tuple[str, int | None, Any, int | None]]] = {}
        for image, kind, tag, after, by in edits.values_list("image_id", "kind", "tag_id", "after", "by_id"):
            history.setdefault(image, []).append((kind, tag, after, by))
        found |= {image: row for image, changes in history.items() if (row := _two_people(changes))}
    return found


def _two_people(changes: Sequence[tuple[str, int | None, Any, int | None]]) -> list[int] | None:
    """The counts over the tags that both left decided; None with one reviewer."""
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
        row[_cell(*(state == ImageTag.State.REJECTED for state in (first[tag], second[tag])))] += 1
    return row if sum(row) else None
