"""What must hold of the truth at any time, however it came about."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from django.db.models import Count

from tagging.actions.counts import Deltas
from tagging.actions.edits import caption_of, rating_of, review_of, truth
from tagging.models import ImageAsset, ImageTag, Run, TagCount, TagEdit

COLUMNS = {1: "proposed", 2: "accepted", 3: "rejected", 4: "added"}


def violations() -> list[str]:
    """Counters are the GROUP BY of the rows; what people said is the fold of their edits, link by link."""
    return [*_counters(), *_fold()]


def _counters() -> list[str]:
    wanted: dict[tuple[int, int], dict[str, int]] = defaultdict(lambda: dict.fromkeys(COLUMNS.values(), 0))
    rows = ImageTag.objects.order_by().values_list("image__collection", "tag", "state").annotate(n=Count("image_id"))
    for collection, tag, state, n in rows:
        wanted[(collection, tag)][COLUMNS[state]] = n
    kept = {(c.collection_id, c.tag_id): {n: getattr(c, n) for n in COLUMNS.values()} for c in TagCount.objects.all()}
    return [
        f"counter of tag {key[1]}: {kept.get(key)} is not {wanted[key]}"
        for key in {*wanted, *kept}
        if kept.get(key, dict.fromkeys(COLUMNS.values(), 0)) != wanted[key]
    ]


def _fold() -> list[str]:
    found: list[str] = []
    last: dict[tuple[int, str, int | None], Any] = {}
    for edit in TagEdit.objects.order_by("pk"):
        key = (edit.image_id, edit.kind, edit.tag_id)
        before = truth(edit.kind, edit.before)
        if key in last and last[key] != before:
            found.append(f"edit {edit.pk} says {before} came before, the one before says {last[key]}")
        last[key] = truth(edit.kind, edit.after)
    images = {image.pk: image for image in ImageAsset.objects.all()}
    rows = {(r.image_id, r.tag_id): r.state for r in ImageTag.objects.all()}
    fields = {"caption": caption_of, "rating": rating_of, "review": review_of}
    for (image, kind, tag), wanted in last.items():
        value = rows.get((image, tag)) if kind == "tag" else fields[kind](images[image])
        if truth(kind, value) != wanted:
            found.append(f"{kind} {tag or ''} of image {image} is {value}, the edits say {wanted}")
    for (image, tag), state in rows.items():
        if state in ImageTag.TRUTH and (image, "tag", tag) not in last:
            found.append(f"tag {tag} of image {image} is {state} and nobody said so")
    return found


def propose(run: Run, image: ImageAsset, scores: dict[int, float]) -> None:
    """What a shown run does to an image: its proposals take the place of the last ones, people's words stay.

    Expects to be in a transaction.
    """
    locked = ImageAsset.objects.select_for_update(no_key=True).get(pk=image.pk)
    deltas = Deltas()
    for row in ImageTag.objects.filter(image=locked):
        if row.state == ImageTag.State.PROPOSED:
            ImageTag.objects.filter(image=locked, tag=row.tag_id).delete()
            deltas.move(locked.collection_id, row.tag_id, row.state, None)
        else:
            scores = {tag: score for tag, score in scores.items() if tag != row.tag_id}
    for tag_id, score in scores.items():
        ImageTag.objects.create(image=locked, tag_id=tag_id, state=ImageTag.State.PROPOSED, run=run, score=score)
        deltas.move(locked.collection_id, tag_id, None, ImageTag.State.PROPOSED)
    if locked.caption_state in ("", "proposed"):
        ImageAsset.objects.filter(pk=locked.pk).update(caption=f"{len(scores)} things", caption_state="proposed")
    deltas.apply()
