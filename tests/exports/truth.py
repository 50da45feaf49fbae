"""Images with decisions on them, for the tests of exports."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

from django.utils import timezone

from exports.actions import get_exporter
from tagging.actions import counts
from tagging.models import (
    Channel,
    Collection,
    ImageAsset,
    ImageTag,
    ModelAdapter,
    Policy,
    PolicyVersion,
    Recipe,
    Run,
    Tag,
)

State = ImageTag.State


def collection(name: str = "Holiday") -> Collection:
    return Collection.objects.create(name=name, slug=name.lower().replace(" ", "-"), kind="upload")


def tag(name: str, category: str = "general", parent: Tag | None = None) -> Tag:
    found = Tag.objects.filter(name=name).first()
    return found or Tag.objects.create(name=name, category=category, parent=parent)


def run_of(c: Collection, slug: str = "photo-lite") -> Run:
    adapter, _ = ModelAdapter.objects.get_or_create(slug=slug, defaults={"label": slug, "kind": "photo-lite"})
    policy, _ = Policy.objects.get_or_create(slug="default", defaults={"name": "Default"})
    version, _ = PolicyVersion.objects.get_or_create(policy=policy, number=1)
    recipe = Recipe.objects.create(key=f"{Recipe.objects.count():064x}", policy_version=version)
    Channel.objects.create(recipe=recipe, adapter=adapter)
    return Run.objects.create(
        recipe=recipe, collection=c, name=f"Run with {slug}", state="done", finished_at=timezone.now()
    )


def image(
    c: Collection,
    path: str,
    tags: Iterable[tuple[Any, ...]] = (),
    *,
    reviewed: bool = True,
    run: Run | None = None,
    **fields: Any,
) -> ImageAsset:
    """`tags` are (name, state, score)."""
    row = ImageAsset.objects.create(
        collection=c,
        path=path,
        sha256=f"{ImageAsset.objects.count():064x}",
        width=40,
        height=30,
        review_state="reviewed" if reviewed else "unreviewed",
        **fields,
    )
    deltas = counts.Deltas()
    for name, state, score in tags:
        one = tag(name)
        ImageTag.objects.create(image=row, tag=one, state=state, score=score, run=run if state != State.ADDED else None)
        deltas.move(c.pk, one.pk, None, state)
    deltas.apply()
    return row


def exported(c: Collection, filter: dict[str, Any] | None = None, **options: Any) -> bytes:
    return b"".join(get_exporter(c, "csv", options, filter).stream())


def table(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
