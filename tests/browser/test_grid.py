"""The grid in a real browser: keyboard selection, decisions on many images, undo, filters."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from tagging.models import Collection, ImageAsset, ImageTag

from .conftest import NARROW, WIDE, OpenPage, assert_accessible, assert_no_sideways_scroll

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
State = ImageTag.State


def images(collection: Collection) -> list[ImageAsset]:
    return list(collection.images.order_by("id"))


def states(image: ImageAsset) -> dict[str, int]:
    return dict(image.image_tags.values_list("tag__name", "state"))


def selected(page: Page) -> list[int]:
    found = page.locator(".cell.is-selected")
    return [int(pk or 0) for pk in found.evaluate_all("cells => cells.map((c) => c.dataset.id)")]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["1280", "390"])
def test_select_by_keyboard_accept_and_undo(
    open_page: OpenPage, holiday: Collection, reviewer: User, viewport: dict[str, int], dark: bool
) -> None:
    dogs, pagoda, raccoon, sunset, *_ = images(holiday)
    page = open_page(f"/c/{holiday.slug}/", reviewer, viewport, dark)
    expect(page.locator(".count")).to_have_text("6 images")
    assert_accessible(page)
    assert_no_sideways_scroll(page)
    expect(page.locator("#bulk")).to_be_hidden()

    # the list is one tab stop; arrows move within it
    page.keyboard.press("ArrowRight")
    expect(page.locator(f"#cell-{dogs.pk}")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator(f"#cell-{pagoda.pk}")).to_be_focused()
    page.keyboard.press("x")
    assert selected(page) == [pagoda.pk]
    expect(page.locator("#bulk-count")).to_have_text("1 selected")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    assert selected(page) == [pagoda.pk, raccoon.pk, sunset.pk]
    page.keyboard.press("Escape")
    assert selected(page) == []
    expect(page.locator("#bulk")).to_be_hidden()

    page.keyboard.press("Home")
    page.keyboard.press("x")
    page.keyboard.press("Shift+ArrowRight")
    assert selected(page) == [dogs.pk, pagoda.pk]
    assert_accessible(page)
    page.get_by_role("button", name="Accept", exact=True).click()

    expect(page.locator("h1")).to_have_text("Accept all proposed tags?")
    expect(page.locator(".cell")).to_have_count(2)
    assert_accessible(page)
    assert_no_sideways_scroll(page)
    assert states(dogs)["dog"] == State.PROPOSED
    expect(page.locator("button[name=confirmed]")).to_be_focused()
    page.keyboard.press("Enter")

    expect(page.locator(".message")).to_contain_text("Accepted: 2 images changed.")
    assert set(states(dogs).values()) == set(states(pagoda).values()) == {State.ACCEPTED}
    assert_accessible(page)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".message")).to_contain_text("Undone on 2 images.")
    assert set(states(dogs).values()) == {State.PROPOSED}


def test_mouse_ranges_up_and_down_and_opening(open_page: OpenPage, holiday: Collection, reviewer: User) -> None:
    all_images = images(holiday)
    page = open_page(f"/c/{holiday.slug}/", reviewer, {"width": 700, "height": 800})
    cells = page.locator(".cell-link")
    page.locator(".cell").nth(1).locator("input").check(force=True)
    cells.nth(3).click(modifiers=["Shift"])
    assert selected(page) == [i.pk for i in all_images[1:4]]
    cells.nth(5).click(modifiers=["Control"])
    assert selected(page) == [all_images[n].pk for n in (1, 2, 3, 5)]
    page.locator("#bulk-all").click()
    assert len(selected(page)) == 6
    page.keyboard.press("Escape")
    assert selected(page) == []

    # up and down keep the column
    page.keyboard.press("Home")
    tops = page.locator(".cell").evaluate_all("cells => cells.map((cell) => cell.offsetTop)")
    columns = tops.count(tops[0])
    assert 1 < columns < 6
    page.keyboard.press("ArrowDown")
    expect(cells.nth(columns)).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(cells.nth(0)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#image-name")).to_have_text(all_images[0].name)


def test_add_a_tag_to_all_that_match_with_the_tag_box(open_page: OpenPage, holiday: Collection, reviewer: User) -> None:
    page = open_page(f"/c/{holiday.slug}/?tag=dog", reviewer)
    expect(page.locator(".cell")).to_have_count(2)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    page.locator("#bulk-scope").check()
    expect(page.locator("#bulk-count")).to_have_text("All that match")
    page.locator("#bulk-tags").fill("summer trip")
    page.keyboard.press("Enter")
    expect(page.locator("#bulk .chosen")).to_contain_text("summer trip")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("h1")).to_have_text("Add “summer trip”?")
    expect(page.locator(".badge")).to_have_text("tag dog")
    page.locator("button[name=confirmed]").click()
    expect(page.locator(".message")).to_contain_text("2 images changed")
    assert [states(i).get("summer trip") for i in images(holiday)].count(State.ADDED) == 2
    assert page.url.endswith("?tag=dog")


def test_filters_by_panel_chips_and_facets(open_page: OpenPage, holiday: Collection, reviewer: User) -> None:
    page = open_page(f"/c/{holiday.slug}/", reviewer, NARROW)
    page.get_by_text("More filters").click()
    expect(page.locator("#p_not_tag")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#p_not_tag")).to_be_hidden()
    page.keyboard.press("Enter")  # the focus is back on what opened it
    page.locator("#p_not_tag").fill("spaniel")
    page.keyboard.press("Enter")
    page.locator("#p_tag").fill("dog")
    page.keyboard.press("Enter")
    page.locator("#p_min").fill("0.1")
    assert_accessible(page)
    page.get_by_role("button", name="Apply").click()
    expect(page.locator(".cell")).to_have_count(1)
    expect(page.locator(".word")).to_have_count(3)
    assert "=&" not in page.url  # only what was chosen
    assert not page.url.endswith("=")
    page.locator(".word", has_text="not spaniel").click()
    expect(page.locator(".cell")).to_have_count(2)
    page.get_by_role("link", name="Clear all").click()
    expect(page.locator(".cell")).to_have_count(6)
    page.locator(".facet", has_text="bee").click()
    expect(page.locator(".cell")).to_have_count(1)
    page.keyboard.press("/")
    expect(page.locator("#find")).to_be_focused()
    page.keyboard.type("x")  # typing selects nothing
    assert selected(page) == []


def test_endless_scrolling_keeps_the_selection(open_page: OpenPage, holiday: Collection, reviewer: User) -> None:
    ImageAsset.objects.bulk_create(
        ImageAsset(collection=holiday, path=f"more{n:03}.jpg", state="error", error="zero bytes") for n in range(100)
    )
    page = open_page(f"/c/{holiday.slug}/", reviewer)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    page.locator(".more").scroll_into_view_if_needed()
    expect(page.locator(".cell")).to_have_count(106)
    expect(page.locator("#bulk-count")).to_have_text("1 selected")
    page.keyboard.press("End")
    expect(page.locator(".cell-link").nth(105)).to_be_focused()


def test_without_scripts_the_boxes_and_buttons_work(open_page: OpenPage, holiday: Collection, reviewer: User) -> None:
    dogs, *_ = images(holiday)
    page = open_page(f"/c/{holiday.slug}/", reviewer, scripts=False)
    page.locator(f"input[name=image][value='{dogs.pk}']").check(force=True)
    page.get_by_role("button", name="Reject", exact=True).click()
    page.locator("button[name=confirmed]").click()
    expect(page.locator(".message")).to_contain_text("1 image changed")
    assert set(states(dogs).values()) == {State.REJECTED}
    page.get_by_role("button", name="Undo").click()
    assert set(states(dogs).values()) == {State.PROPOSED}
