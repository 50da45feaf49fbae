"""Small worlds for tests: people with roles, images with proposals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib.auth.models import Group, User
from django.test import Client

from tagging.actions.counts import Deltas
from tagging.actions.keys import create_key
from tagging.models import Collection, ImageAsset, ImageTag, Policy, PolicyVersion, Recipe, Run, Tag


def person(name: str, role: str = "", **more: Any) -> User:
    user = User.objects.create(username=name, **more)
    if role:
        user.groups.add(Group.objects.get(name=role))
    return user


def key_of(user: User, scopes: Iterable[str] = ("read", "write", "run")) -> str:
    return create_key(user, f"key {user.api_keys.count()}", scopes)[1]


def keyed(user: User, scopes: Iterable[str] = ("read", "write", "run")) -> Client:
    """A client that sends a key of that user."""
    return Client(headers={"X-API-Key": key_of(user, scopes)})


def collection(name: str = "Trip") -> Collection:
    return Collection.objects.create(name=name, slug=name.lower(), kind="upload")


def run_of(collection: Collection) -> Run:
    policy, _ = Policy.objects.get_or_create(slug="p", defaults={"name": "p"})
    version, _ = PolicyVersion.objects.get_or_create(policy=policy, number=1, defaults={"digest": "d"})
    recipe, _ = Recipe.objects.get_or_create(key="k" * 64, defaults={"policy_version": version})
    return Run.objects.create(recipe=recipe, collection=collection)


def image(
    collection: Collection, path: str, *, run: Run | None = None, tags: dict[str, float] | None = None, **more: Any
):
    """An image with proposals of `run`, counters kept."""
    made = ImageAsset.objects.create(collection=collection, path=path, proposed_by=run, **more)
    deltas = Deltas()
    for name, score in (tags or {}).items():
        tag, _ = Tag.objects.get_or_create(key=name, defaults={"name": name})
        ImageTag.objects.create(image=made, tag=tag, state=ImageTag.State.PROPOSED, run=run, score=score)
        deltas.move(collection.pk, tag.pk, None, ImageTag.State.PROPOSED)
    deltas.apply()
    return made
