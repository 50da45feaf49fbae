"""The pages of labels and watches, in a browser: usable by keyboard and reader at both widths."""

from __future__ import annotations

import pytest

from tagging.actions.labels import move_label, resolve
from tagging.actions.recipes import ChannelSpec, get_recipe
from tagging.actions.watch import watch_of
from tagging.models import ModelAdapter

from .conftest import NARROW, WIDE, assert_accessible, assert_no_sideways_scroll

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def recipes(transactional_db):
    row, _ = ModelAdapter.objects.get_or_create(
        slug="photo-lite", defaults={"label": "photo-lite", "kind": "photo-lite"}
    )
    return [get_recipe([ChannelSpec(row, options={"general_threshold": t})], name=f"at {t}") for t in (0.3, 0.4)]


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "phone"])
def test_a_label_goes_back_in_one_click(open_page, holiday, curator, recipes, viewport):
    for recipe in recipes:
        move_label("champion", recipe, why="tried on the holiday", metrics={"precision": [0.5, 0.25, 0.75]})
    page = open_page("/labels/", user=curator, viewport=viewport)
    assert_accessible(page)
    assert_no_sideways_scroll(page)
    page.get_by_role("button", name="Back to at 0.3").click()
    page.get_by_text("points to at 0.3 again").wait_for()
    assert resolve("champion").recipe == recipes[0]


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "phone"])
def test_a_collection_is_set_to_watch(open_page, holiday, curator, recipes, viewport):
    move_label("champion", recipes[0], why="x")
    page = open_page(f"/c/{holiday.slug}/watch/", user=curator, viewport=viewport)
    assert_accessible(page)
    assert_no_sideways_scroll(page)
    page.get_by_label("Look for new files").check()
    page.get_by_label("Run the recipe on images that it has not seen").check()
    page.get_by_label("Export what was reviewed").check()
    page.get_by_label("Format").select_option("jsonl")
    page.get_by_role("button", name="Show its options").click()
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("Saved.").wait_for()
    watch = watch_of(holiday)
    assert watch.enabled == ["look", "tag", "export"]
    assert watch.steps["export"]["format"] == "jsonl"
    assert_accessible(page)
    page.get_by_role("button", name="Look now").click()
    page.get_by_text("A worker does it now.").wait_for()
