"""A small laboratory: images, the fake model in several variants, people's decisions, a worker in this process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from judging.actions.advance import advance
from judging.actions.experiments import create_experiment
from judging.models import Experiment
from tagging.actions import review
from tagging.actions.recipes import ChannelSpec, get_recipe
from tagging.actions.runs import start_run
from tagging.engine import worker
from tagging.models import Collection, ImageAsset, ModelAdapter, Recipe, Run
from tests.fakes import adapter as fakes


def collection(n: int = 40, name: str = "Trip") -> Collection:
    made = Collection.objects.create(name=name, slug=name.lower(), kind="upload")
    ImageAsset.objects.bulk_create(
        ImageAsset(collection=made, path=f"{i:03}.jpg", sha256=hashlib.sha256(f"{name} {i}".encode()).hexdigest())
        for i in range(n)
    )
    for i in range(n):
        default_storage.save(f"{made.upload_prefix}/{i:03}.jpg", ContentFile(b""))
    return made


def recipe(fake: ModelAdapter, **options: Any) -> Recipe:
    return get_recipe([ChannelSpec(fake, options=options)])


def said(image: ImageAsset, **options: Any) -> list[str]:
    """What the fake model proposes for an image."""
    return fakes.expected(image.name, fakes.Fake.Options(**options))


def decide(images: Iterable[ImageAsset], right: Mapping[str, Any], wrong: Mapping[str, Any] | None = None) -> None:
    """A person adds what the model says with the options `right`; and rejects what it says with `wrong`."""
    for image in images:
        names = said(image, **right)
        review.decide(image.pk, by=None, door="review", add=names, review="reviewed")
        if wrong is not None:
            reject(image, [name for name in said(image, **wrong) if name not in names])


def reject(image: ImageAsset, names: Iterable[str]) -> None:
    """A person says that these are not on the image."""
    from tagging.actions.tags import resolve_tags

    ids = [tag.pk for tag in resolve_tags(names).values()]
    review.decide(image.pk, by=None, door="review", reject=ids, seen=ids)


def work(times: int = 200) -> None:
    """A worker of all queues, until nothing waits."""
    for _ in range(times):
        if not any(worker.drain(queue) for queue in ("gpu", "io", "iwtag")):
            return


def run(made: Recipe, of: Collection, **more: Any) -> Run:
    """A run, done."""
    found = start_run(made, collection=of, **more)
    work()
    found.refresh_from_db()
    assert found.state == Run.State.DONE
    return found


def finish(experiment: Experiment, times: int = 50) -> Experiment:
    """Controller and worker by turns, until the experiment has ended."""
    for _ in range(times):
        advance(experiment.pk)
        work()
        experiment.refresh_from_db()
        if experiment.state != Experiment.State.RUNNING:
            return experiment
    raise AssertionError(f"{experiment} is still {experiment.state} after {times} rounds")


def experiment(of: Collection, axes: Mapping[str, Any], **more: Any) -> Experiment:
    return create_experiment(of, axes, **more)


def recipe_of(slug: str, **options: Any) -> Recipe:
    return recipe(ModelAdapter.objects.get(slug=slug), **options)
