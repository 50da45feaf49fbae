"""What tests of pages need: people with roles, collections with tagged images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone

from tagging.actions.counts import rebuild
from tagging.actions.recipes import ChannelSpec, get_recipe
from tagging.actions.runs import start_run
from tagging.actions.tags import resolve_tags
from tagging.models import Chunk, Collection, ImageAsset, ImageTag, ModelAdapter, Proposal, Run


def person(role: str = "", name: str = "") -> User:
    """A user in the group of that role; none for no role."""
    user = User.objects.create_user(name or role or "nobody", password="pw")
    if role:
        user.groups.add(Group.objects.get(name=role))
    return user


def signed_in(role: str, name: str = "") -> Client:
    client = Client()
    client.force_login(person(role, name))
    return client


def collection(name: str = "Holiday", **fields: Any) -> Collection:
    return Collection.objects.create(name=name, slug=name.lower(), kind="upload", **fields)


def sha(n: int) -> str:
    return hashlib.sha256(str(n).encode()).hexdigest()


def images(into: Collection, n: int, **fields: Any) -> list[ImageAsset]:
    """`n` ready images img000.jpg …"""
    first = ImageAsset.objects.count()
    return ImageAsset.objects.bulk_create(
        ImageAsset(
            collection=into,
            **{"path": f"img{i:04}.jpg", "sha256": sha(i), "format": "JPEG", "width": 40, "height": 30, **fields},
        )
        for i in range(first, first + n)
    )


def tagged(image: ImageAsset, names: Sequence[str], state: int = ImageTag.State.PROPOSED, score: float = 0.9) -> None:
    """Put tags in force on an image; call `rebuild(collection)` (or `count`) when the counters matter."""
    rows = [ImageTag(image=image, tag=tag, state=state, score=score) for tag in resolve_tags(names).values()]
    ImageTag.objects.bulk_create(rows)


def count(of: Collection) -> None:
    rebuild(of)


def states(image: ImageAsset) -> dict[str, int]:
    """Tag name → state on that image."""
    return dict(ImageTag.objects.filter(image=image).values_list("tag__name", "state"))


def photo_lite(**fields: Any) -> ModelAdapter:
    row, _ = ModelAdapter.objects.get_or_create(
        slug="photo-lite", defaults={"label": "photo-lite", "kind": "photo-lite", **fields}
    )
    return row


def a_run(
    of: Collection,
    on: Sequence[ImageAsset],
    *,
    state: str = "running",
    done: int = 0,
    errors: int = 0,
    seconds: float = 0.0,
    error: str = "",
) -> Run:
    """A run of photo-lite over these images, `done` of them worked on (`errors` of those failed)."""
    recipe = get_recipe([ChannelSpec(adapter=photo_lite())])
    now = timezone.now()
    run = start_run(recipe, collection=of, images=ImageAsset.objects.filter(pk__in=[i.pk for i in on]))
    Chunk.objects.filter(run=run).update(n_ok=done - errors, n_error=errors, seconds=seconds, touched_at=now)
    for image in on[:errors]:
        Proposal.objects.create(run=run, image=image, state="error", error=f"{image.path}: the data ends too early")
    for image in on[errors:done]:
        Proposal.objects.create(run=run, image=image, state="ok")
    finished = None if state in Run.OPEN else now
    Run.objects.filter(pk=run.pk).update(
        state=state, error=error, finished_at=finished, started_at=now if done else None
    )
    run.refresh_from_db()
    return run
