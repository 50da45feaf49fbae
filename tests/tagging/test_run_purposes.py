"""Trials of the workbench and runs of experiments are left out of what lists runs, unless they are asked for."""

from __future__ import annotations

import pytest
from django.utils import timezone

from tagging.actions.recipes import ChannelSpec, get_recipe
from tagging.actions.recompute import runs_of
from tagging.actions.setup import ensure_default_adapter
from tagging.actions.watch import new_images
from tagging.models import Collection, ImageAsset, Run

pytestmark = pytest.mark.django_db


@pytest.fixture
def runs():
    collection = Collection.objects.create(name="Trip", slug="trip", kind="upload")
    image = ImageAsset.objects.create(collection=collection, path="a.jpg", sha256="a" * 64)
    recipe = get_recipe([ChannelSpec(ensure_default_adapter())])
    found = {}
    for purpose in Run.Purpose.values:
        found[purpose] = Run.objects.create(
            recipe=recipe,
            collection=collection,
            purpose=purpose,
            name=f"Run for {purpose}",
            state="done",
            finished_at=timezone.now(),
            n_total=1,
        )
        found[purpose].proposals.create(image=image, state="empty")
    return found


def names(page) -> set[str]:
    text = page.content.decode()
    return {purpose for purpose in Run.Purpose.values if f"Run for {purpose}" in text}


@pytest.mark.parametrize(
    ("query", "seen"),
    [("", {"tagging"}), ("?purpose=trial", {"trial"}), ("?purpose=experiment&state=done", {"experiment"})],
)
def test_the_page_of_runs(admin_client, runs, query, seen):
    assert names(admin_client.get(f"/runs/{query}")) == seen


def test_an_unknown_purpose_is_said(admin_client):
    page = admin_client.get("/runs/?purpose=fun")
    assert page.status_code == 400
    assert "fun" in page.content.decode()


@pytest.mark.parametrize(
    ("query", "seen"),
    [("", {"tagging"}), ("?purpose=experiment", {"experiment"}), ("?purpose=any", set(Run.Purpose.values))],
)
def test_the_api(admin_client, runs, query, seen):
    items = admin_client.get(f"/api/runs{query}").json()["items"]
    assert {item["purpose"] for item in items} == seen
    assert admin_client.get("/api/runs?purpose=fun").status_code == 422


def test_home_shows_only_what_tags(admin_client, runs):
    Run.objects.update(state="running", finished_at=None)
    assert names(admin_client.get("/")) == {"tagging"}


def test_an_image_lists_experiments_but_no_trials(admin_client, runs):
    image = ImageAsset.objects.get()
    assert names(admin_client.get(f"/images/{image.pk}/more/")) == {"tagging", "experiment"}


def test_only_tagging_counts_as_seen_and_is_recomputed(runs):
    collection, recipe = runs["tagging"].collection, runs["tagging"].recipe
    assert runs_of(collection) == [runs["tagging"]]
    assert not new_images(collection, recipe).exists()
    runs["tagging"].delete()
    assert new_images(collection, recipe).count() == 1
