"""The review screen in a real browser: everything by keyboard, on wide and narrow windows, light and dark."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from tagging.models import Collection, ImageAsset, ImageTag, TagEdit

from .conftest import NARROW, WIDE, OpenPage, assert_accessible, assert_no_sideways_scroll

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
State = ImageTag.State


def states(image: ImageAsset) -> dict[str, int]:
    return dict(image.image_tags.values_list("tag__name", "state"))


def images(collection: Collection) -> list[ImageAsset]:
    return list(collection.images.order_by("id"))


def chip(page: Page, name: str):
    return page.locator("#tags .chip").filter(has=page.locator(".chip-name", has_text=name)).first


def expect_heading(page: Page, text: str) -> None:
    expect(page.locator("#image-name")).to_have_text(text)
    expect(page.locator("#image-name")).to_be_focused()


def expect_saved(page: Page) -> None:
    expect(page.locator("#save-state")).to_contain_text("Saved")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["1280", "390"])
def test_it_reviews_a_collection_by_keyboard_alone(
    open_page: OpenPage, holiday: Collection, reviewer: User, viewport: dict[str, int], dark: bool
) -> None:
    dogs, pagoda, raccoon, sunset, bee, hills = images(holiday)
    page = open_page(f"/c/{holiday.slug}/review/", reviewer, viewport, dark)
    expect(page.locator("#image-name")).to_have_text(dogs.name)
    assert_accessible(page)
    assert_no_sideways_scroll(page)

    # numbers toggle, each change is saved
    page.keyboard.press("3")
    expect(chip(page, "curtain")).to_have_attribute("data-state", "rejected")
    expect_saved(page)
    assert states(dogs)["curtain"] == State.REJECTED
    page.keyboard.press("3")
    expect(chip(page, "curtain")).to_have_attribute("data-state", "accepted")
    page.keyboard.press("3")
    expect(chip(page, "curtain")).to_have_attribute("data-state", "rejected")

    # a tag of one's own; typing fires no keys
    page.keyboard.press("/")
    expect(page.locator("#add")).to_be_focused()
    page.keyboard.type("xs kennel")
    page.keyboard.press("Enter")
    expect(chip(page, "xs kennel")).to_have_attribute("data-state", "added")
    page.keyboard.press("Escape")

    # on
    page.keyboard.press("Enter")
    expect_heading(page, pagoda.name)
    expect(page.locator("#progress")).to_contain_text("1 of 6 reviewed")
    dogs.refresh_from_db()
    assert dogs.review_state == "reviewed"
    assert dogs.caption_state == "accepted"
    assert states(dogs) == {
        "dog": State.ACCEPTED,
        "spaniel": State.ACCEPTED,
        "window": State.ACCEPTED,
        "curtain": State.REJECTED,
        "xs kennel": State.ADDED,
    }
    page.keyboard.press("x")
    expect_heading(page, raccoon.name)
    assert set(states(pagoda).values()) == {State.REJECTED}
    page.keyboard.press("s")
    expect_heading(page, sunset.name)
    expect(page.locator("#progress")).to_contain_text("2 of 6 reviewed · 1 skipped")

    # moving decides nothing
    page.keyboard.press("ArrowRight")
    expect_heading(page, bee.name)
    page.keyboard.press("k")
    expect_heading(page, sunset.name)
    page.keyboard.press("j")
    expect_heading(page, bee.name)
    page.keyboard.press("ArrowLeft")
    expect_heading(page, sunset.name)

    # back in time, to the image of each decision
    page.keyboard.press("u")
    expect_heading(page, raccoon.name)
    raccoon.refresh_from_db()
    assert raccoon.review_state == "unreviewed"
    page.keyboard.press("Control+z")
    expect_heading(page, pagoda.name)
    assert set(states(pagoda).values()) == {State.PROPOSED}
    assert TagEdit.objects.filter(undoes__isnull=False).exists()

    for following in (raccoon, sunset, bee, hills):
        page.keyboard.press("Enter")
        expect_heading(page, following.name)
    page.keyboard.press("Enter")
    expect_heading(page, "All reviewed")
    assert_accessible(page)
    page.keyboard.press("u")
    expect_heading(page, hills.name)
    assert_accessible(page)


def test_it_suggests_tags_and_takes_the_best(open_page: OpenPage, holiday: Collection, reviewer: User) -> None:
    hills = images(holiday)[-1]
    page = open_page(f"/images/{hills.pk}/", reviewer)
    page.keyboard.press("t")
    page.keyboard.type("sun")
    options = page.get_by_role("option")
    expect(options.first).to_contain_text("sunset")
    expect(options.first).to_have_attribute("aria-selected", "true")
    expect(page.locator("#add")).to_have_attribute("aria-expanded", "true")
    assert_accessible(page)
    page.keyboard.press("Tab")
    expect(chip(page, "sunset")).to_have_attribute("data-state", "added")
    expect(page.locator("#add")).to_be_focused()
    # faster than the server: two tags in one go
    page.keyboard.type("flo")
    page.keyboard.press("Tab")
    page.keyboard.type("bee")
    page.keyboard.press("Enter")
    expect(chip(page, "flower")).to_be_visible()
    expect(chip(page, "bee")).to_be_visible()
    # exactly what is typed
    page.keyboard.type("sun")
    page.keyboard.press("Shift+Enter")
    expect(page.locator("#tags .chip-name").get_by_text("sun", exact=True)).to_be_visible()
    # the list by arrows
    page.keyboard.type("sun")
    expect(page.get_by_role("option")).to_have_count(2)
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("option").nth(1)).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Escape")
    expect(page.locator(".suggestions")).to_be_hidden()
    expect(page.locator("#add")).to_have_value("")
    assert set(states(hills)) == {"sunset", "flower", "bee", "sun"}


def test_it_takes_a_change_back_when_it_cannot_be_saved(
    open_page: OpenPage, holiday: Collection, reviewer: User
) -> None:
    dogs = images(holiday)[0]
    page = open_page(f"/images/{dogs.pk}/", reviewer)
    page.context.set_offline(True)
    page.keyboard.press("1")
    expect(page.locator("#problem")).to_contain_text("The server cannot be reached")
    expect(chip(page, "dog")).to_have_attribute("data-state", "proposed")
    assert states(dogs)["dog"] == State.PROPOSED
    page.keyboard.press("Enter")
    expect(page.locator("#problem")).to_contain_text("Not saved")
    expect(page.locator("#image-name")).to_have_text(dogs.name)
    page.context.set_offline(False)
    page.keyboard.press("1")
    expect(page.locator("#problem")).to_be_hidden()
    expect(chip(page, "dog")).to_have_attribute("data-state", "rejected")
    expect_saved(page)
    assert states(dogs)["dog"] == State.REJECTED


def test_try_again_saves_it(open_page: OpenPage, holiday: Collection, reviewer: User) -> None:
    dogs = images(holiday)[0]
    page = open_page(f"/images/{dogs.pk}/", reviewer)
    page.route("**/decide/**", lambda route: route.fulfill(status=503, body="busy"))
    page.keyboard.press("2")
    expect(page.locator("#problem")).to_contain_text("503")
    page.unroute("**/decide/**")
    page.get_by_role("button", name="Try again").click()
    expect_saved(page)
    assert states(dogs)["spaniel"] == State.REJECTED


def test_it_marks_what_others_changed(open_page: OpenPage, holiday: Collection, reviewer: User) -> None:
    from tagging.actions.review import decide

    dogs, pagoda = images(holiday)[:2]
    page = open_page(f"/c/{holiday.slug}/review/", reviewer)
    decide(dogs.pk, by=None, door="api", add=["kennel"])
    page.keyboard.press("Enter")
    expect(page.locator("#problem")).to_contain_text("Somebody else changed a tag")
    expect(chip(page, "kennel")).to_have_attribute("data-conflict", "")
    expect(page.locator("#image-name")).to_have_text(dogs.name)
    page.keyboard.press("Enter")
    expect_heading(page, pagoda.name)


def test_it_saves_the_caption_when_the_field_is_left(open_page: OpenPage, holiday: Collection, reviewer: User) -> None:
    dogs, pagoda = images(holiday)[:2]
    page = open_page(f"/images/{dogs.pk}/", reviewer)
    page.locator("#caption").fill("Two dogs, waiting.")
    page.keyboard.press("Escape")
    expect_saved(page)
    dogs.refresh_from_db()
    assert (dogs.caption, dogs.caption_state) == ("Two dogs, waiting.", "edited")
    # and by itself, after a moment without typing
    page.goto(f"/images/{pagoda.pk}/")
    page.locator("#caption").press_sequentially("A pagoda")
    expect_saved(page)
    pagoda.refresh_from_db()
    assert pagoda.caption == "A pagoda"


def test_a_caption_that_others_changed_is_not_overwritten_unseen(
    open_page: OpenPage, holiday: Collection, reviewer: User
) -> None:
    dogs = images(holiday)[0]
    page = open_page(f"/images/{dogs.pk}/", reviewer)
    ImageAsset.objects.filter(pk=dogs.pk).update(caption="Theirs", caption_state="edited")
    page.locator("#caption").fill("Mine")
    page.keyboard.press("Escape")
    expect(page.locator("#problem")).to_contain_text("Somebody else changed the caption")
    page.get_by_role("button", name="Try again").click()
    expect_saved(page)
    dogs.refresh_from_db()
    assert dogs.caption == "Mine"


def test_it_zooms_by_keys_wheel_and_double_click(open_page: OpenPage, holiday: Collection, reviewer: User) -> None:
    bee = images(holiday)[4]
    page = open_page(f"/images/{bee.pk}/", reviewer)
    view, picture = page.locator("zoom-view"), page.locator("zoom-view img")
    expect(picture).to_have_js_property("complete", True)
    fitted = picture.bounding_box()
    assert fitted
    page.keyboard.press("+")
    expect(view).to_have_attribute("zoomed", "")
    assert picture.bounding_box()["width"] == pytest.approx(fitted["width"] * 1.4, rel=0.02)
    page.keyboard.press("0")
    expect(view).not_to_have_attribute("zoomed", "")
    page.keyboard.press("z")
    expect(view).to_have_attribute("zoomed", "")
    expect(picture).to_have_attribute("src", re.compile(f"/images/{bee.pk}/original$"))
    before = picture.bounding_box()
    page.mouse.move(400, 400)
    page.mouse.down()
    page.mouse.move(450, 430, steps=3)
    page.mouse.up()
    assert picture.bounding_box()["x"] == pytest.approx(before["x"] + 50, abs=1)
    page.keyboard.press("Shift+ArrowRight")
    assert picture.bounding_box()["x"] == pytest.approx(before["x"] - 30, abs=1)
    expect(page.locator("#image-name")).to_have_text(bee.name)
    page.mouse.dblclick(400, 400)
    expect(view).not_to_have_attribute("zoomed", "")
    page.mouse.wheel(0, -300)
    expect(view).to_have_attribute("zoomed", "")


def test_it_zooms_by_two_fingers(open_page: OpenPage, holiday: Collection, reviewer: User) -> None:
    bee = images(holiday)[4]
    page = open_page(f"/images/{bee.pk}/", reviewer, NARROW, touch=True)
    picture = page.locator("zoom-view img")
    expect(picture).to_have_js_property("complete", True)
    before = picture.bounding_box()
    assert before
    x, y = before["x"] + before["width"] / 2, before["y"] + before["height"] / 2
    touch = page.context.new_cdp_session(page)

    def fingers(kind: str, apart: float) -> None:
        points = [] if kind == "touchEnd" else [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    fingers("touchStart", 30)
    for apart in (40, 50, 60):
        fingers("touchMove", apart)
    fingers("touchEnd", 0)
    expect(page.locator("zoom-view")).to_have_attribute("zoomed", "")
    assert picture.bounding_box()["width"] == pytest.approx(before["width"] * 2, rel=0.1)
    assert page.evaluate("window.visualViewport.scale") == 1  # the picture grew, not the page


def test_enter_goes_on_after_clicks_on_tags_and_zoom(open_page: OpenPage, holiday: Collection, reviewer: User) -> None:
    dogs, pagoda, raccoon = images(holiday)[:3]
    page = open_page(f"/c/{holiday.slug}/review/", reviewer)
    chip(page, "curtain").click()
    expect(chip(page, "curtain")).to_have_attribute("data-state", "rejected")
    page.keyboard.press("Enter")
    expect_heading(page, pagoda.name)
    assert states(dogs)["curtain"] == State.REJECTED
    page.get_by_role("button", name="Zoom in").click()
    page.keyboard.press("Enter")
    expect_heading(page, raccoon.name)


def test_quick_presses_lose_nothing(open_page: OpenPage, holiday: Collection, reviewer: User) -> None:
    dogs, pagoda = images(holiday)[:2]
    page = open_page(f"/c/{holiday.slug}/review/", reviewer)
    page.route(re.compile("/decide/"), lambda route: (page.wait_for_timeout(60), route.continue_()))
    for key in ("1", "2", "4", "4", "Enter"):
        page.keyboard.press(key)
    expect_heading(page, pagoda.name)
    assert states(dogs) == {
        "dog": State.REJECTED,
        "spaniel": State.REJECTED,
        "curtain": State.ACCEPTED,
        "window": State.ACCEPTED,
    }


def test_there_is_nothing_before_the_first(open_page: OpenPage, holiday: Collection, reviewer: User) -> None:
    dogs = images(holiday)[0]
    page = open_page(f"/images/{dogs.pk}/", reviewer)
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#save-state")).to_contain_text("no other image this way")
    expect(page).to_have_url(re.compile(f"/images/{dogs.pk}/$"))


def test_the_browser_goes_back(open_page: OpenPage, holiday: Collection, reviewer: User) -> None:
    dogs, pagoda = images(holiday)[:2]
    page = open_page(f"/images/{dogs.pk}/", reviewer)
    page.keyboard.press("ArrowRight")
    expect_heading(page, pagoda.name)
    expect(page).to_have_title(f"{pagoda.name} · Holiday · iwtag")
    page.go_back()
    expect(page.locator("#image-name")).to_have_text(dogs.name)


def test_the_keys_are_listed_and_do_nothing_under_the_list(
    open_page: OpenPage, holiday: Collection, reviewer: User
) -> None:
    dogs = images(holiday)[0]
    page = open_page(f"/images/{dogs.pk}/", reviewer)
    page.keyboard.press("?")
    dialog = page.locator("#keys")
    expect(dialog).to_be_visible()
    for text in ("Accept the tags shown", "Reject what is proposed", "Turn a tag off or on", "Undo your last decision"):
        expect(dialog).to_contain_text(text)
    assert_accessible(page)
    page.keyboard.press("x")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    dogs.refresh_from_db()
    assert dogs.review_state == "unreviewed"


def test_the_next_two_pictures_are_fetched_ahead(open_page: OpenPage, holiday: Collection, reviewer: User) -> None:
    dogs, pagoda, raccoon = images(holiday)[:3]
    page = open_page("/login/", reviewer)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with page.expect_request(lambda r: raccoon.sha256 in r.url), page.expect_request(f"**/images/{pagoda.pk}/**"):
        page.goto(f"/images/{dogs.pk}/?review=unreviewed")
    page.wait_for_load_state("networkidle")
    assert any(pagoda.sha256 in url for url in asked)
    asked.clear()
    page.keyboard.press("Enter")
    expect_heading(page, pagoda.name)
    # the page itself was there already; only the decision and what comes after it were asked for
    assert not [url for url in asked if f"/images/{pagoda.pk}/?" in url]


def test_tags_appear_when_the_run_reaches_the_image(
    open_page: OpenPage, holiday: Collection, reviewer: User, samples, tmp_path
) -> None:
    from .content import add_image, make_run, propose

    late = add_image(holiday, samples / "dahlia.jpg")
    run = make_run(holiday, "Slow run", "running")
    page = open_page(f"/images/{late.pk}/", reviewer)
    expect(page.locator("#tags")).to_contain_text("has not reached this image yet")
    propose(late, run, [("dahlia", "nature", "flower", 0.9)])
    expect(chip(page, "dahlia")).to_be_visible()
    expect(page.locator("#tags")).not_to_have_attribute("hx-trigger", "every 2s")


def test_it_shows_history_and_the_file(open_page: OpenPage, holiday: Collection, reviewer: User) -> None:
    dogs = images(holiday)[0]
    page = open_page(f"/images/{dogs.pk}/", reviewer)
    page.keyboard.press("i")
    more = page.locator("#more-body")
    expect(more).to_contain_text("CPUExecutionProvider")
    expect(more).to_contain_text("Nobody has changed anything yet.")
    page.keyboard.press("1")
    expect(more).to_contain_text("rosa rejected dog")
    assert_accessible(page)


def test_touch_targets_are_large_enough(open_page: OpenPage, holiday: Collection, reviewer: User) -> None:
    dogs, pagoda = images(holiday)[:2]
    page = open_page(f"/images/{dogs.pk}/", reviewer, NARROW, touch=True)
    for target in page.locator("#tags .chip, .review-bar .btn:visible").all():
        box = target.bounding_box()
        assert box
        assert box["height"] >= 44, target.inner_text()
        assert box["width"] >= 44, target.inner_text()
    chip(page, "curtain").tap()
    expect(chip(page, "curtain")).to_have_attribute("data-state", "rejected")
    page.get_by_role("button", name="Accept").tap()
    expect(page.locator("#image-name")).to_have_text(pagoda.name)


def test_a_viewer_sees_and_cannot_decide(open_page: OpenPage, holiday: Collection, transactional_db: None) -> None:
    from django.contrib.auth.models import Group

    viewer = User.objects.create_user("vera")
    viewer.groups.add(Group.objects.get(name="viewer"))
    dogs, pagoda = images(holiday)[:2]
    page = open_page(f"/images/{dogs.pk}/", viewer)
    expect(page.locator("#tags .chip")).to_have_count(4)
    expect(page.locator("#tags button")).to_have_count(0)
    expect(page.get_by_role("button", name="Accept")).to_have_count(0)
    page.keyboard.press("ArrowRight")
    expect_heading(page, pagoda.name)
    assert_accessible(page)


def test_it_works_without_scripts(open_page: OpenPage, holiday: Collection, reviewer: User) -> None:
    dogs, pagoda = images(holiday)[:2]
    page = open_page(f"/c/{holiday.slug}/review/", reviewer, scripts=False)
    chip(page, "curtain").click()
    expect(chip(page, "curtain")).to_have_attribute("data-state", "rejected")
    page.locator("#add").fill("kennel")
    page.get_by_role("button", name="Add").click()
    expect(chip(page, "kennel")).to_have_attribute("data-state", "added")
    page.get_by_role("button", name="Accept").click()
    expect(page.locator("#image-name")).to_have_text(pagoda.name)
    assert states(dogs)["dog"] == State.ACCEPTED
