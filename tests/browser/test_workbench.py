"""The workbench and the builder of recipes in a real browser, by mouse and keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import expect

from prompts.actions import create_prompt, create_version
from tagging.actions.recipes import default_policy_version
from tagging.engine import work as engine_work
from tagging.engine.propose import compiled_policy
from tagging.models import Collection, ModelAdapter, Prediction, Recipe, Run

from .conftest import NARROW, OpenPage, assert_accessible, assert_no_sideways_scroll
from .test_library import talker, trip, work  # noqa: F401

# ruff: noqa: F811 (fixtures of another module)
pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(engine_work, "FLUSH", 0.0)
    compiled_policy.cache_clear()
    yield
    compiled_policy.cache_clear()


@pytest.fixture
def asked(talker: ModelAdapter) -> None:
    create_version(create_prompt(slug="short", name="Short"), template="Tag {{ image.stem }}", message="First")


def test_two_panes_compared_a_policy_changed_one_kept_and_promoted(
    open_page: OpenPage, trip: Collection, talker: ModelAdapter, asked: None, curator: User, tmp_path: Path
) -> None:
    default_policy_version()
    page = open_page("/workbench/", curator)
    expect(page.locator(".picked-image")).to_have_count(2)
    page.locator(".picked-drop").first.click()
    expect(page.locator(".bench-row:not(.bench-heads)")).to_have_count(1)
    page.keyboard.press("1")
    expect(page.locator("#id_a-adapter")).to_be_focused()
    for letter in "ab":
        page.locator(f"#id_{letter}-prompt").select_option(label="short v1 · First")
        expect(page.locator(f"#id_{letter}-prompt")).to_have_value(re.compile(r"\d+"))
        expect(page).to_have_url(re.compile(f"{letter}-prompt="))
    page.locator("#id_b-options-says").fill("dog, sofa")
    page.locator("#id_b-options-says").press("Control+Enter")
    expect(page.locator("#results")).to_contain_text("asking")
    work()
    expect(page.locator("#results")).to_contain_text("all answered")
    expect(page.locator(".bench-cell").nth(1).locator(".chip[data-in=some]")).to_contain_text(["sofa"])
    expect(page.locator(".bench-cell").nth(1).locator(".chip[data-in=all]")).to_contain_text(["dog"])
    assert_accessible(page)

    # -- another policy in one pane: at once, with no run
    runs, calls = Run.objects.count(), Prediction.objects.count()
    page.locator("#b-rules").get_by_role("button", name="Edit the rules").click()
    page.locator("#b-rules summary", has_text="Limits").click()
    page.locator("#id_b-rule-max_tags").fill("1")
    page.locator("#id_b-rule-max_tags").press("Tab")
    expect(page.locator(".bench-cell").nth(1).locator(".chip")).to_have_count(1)
    expect(page.locator(".bench-cell").nth(1)).to_contain_text("1 dropped")
    expect(page).to_have_url(re.compile("b-rule-max_tags=1"))
    assert (Run.objects.count(), Prediction.objects.count()) == (runs, calls)

    # -- the address is the state: opened anew, and gone back from
    address = page.url
    page.go_back()
    expect(page.locator(".bench-cell").nth(1).locator(".chip")).to_have_count(2)
    page.goto(address)
    expect(page.locator(".bench-cell").nth(1).locator(".chip")).to_have_count(1)
    expect(page.locator("#id_b-options-says")).to_have_value("dog, sofa")

    # -- kept and promoted
    page.get_by_role("button", name="Keep pane 2").click()
    dialog = page.locator("#keep-b")
    dialog.get_by_label("Name").fill("Dogs only")
    dialog.get_by_role("button", name="Keep and promote").click()
    expect(page.locator("#keep-b")).to_contain_text("Say in a line what changed")
    page.locator("#keep-b").get_by_label("What changed, in a line").fill("One tag is enough")
    page.locator("#keep-b").get_by_role("button", name="Keep and promote").click()
    expect(page).to_have_url(re.compile(r"/labels/\?recipe=\d+"))
    page.locator("#id_why").fill("It says dog")
    page.get_by_role("button", name="Move the label").click()
    expect(page.locator("#messages")).to_contain_text("points to")
    made = Recipe.objects.get(name="Dogs only")
    assert made.policy_version.spec == {"max_tags": 1}
    assert made.labels.get().name == "candidate"


def test_a_recipe_is_built_by_keys_with_its_mistakes_beside_the_fields(
    open_page: OpenPage, talker: ModelAdapter, asked: None, curator: User
) -> None:
    page = open_page("/recipes/new/", curator)
    expect(page.locator("#recipe-check")).to_contain_text("to mend")
    expect(page.locator(".channel .errors")).to_contain_text(["Choose what it is asked."])
    page.locator("#id_c1-prompt").select_option(index=1)
    expect(page.locator("#recipe-check")).to_contain_text("key")
    page.locator("body").press("+")
    expect(page.locator(".channel")).to_have_count(2)
    page.locator("#id_c2-prompt").select_option(index=1)
    page.locator("#id_rule").select_option("votes")
    page.locator("#id_votes").fill("3")
    expect(page.locator(".field", has=page.locator("#id_votes")).locator(".errors")).to_contain_text("cannot be had")
    expect(page.locator("#id_at_least")).not_to_be_visible()
    page.locator("#id_votes").fill("2")
    expect(page.locator("#recipe-check")).to_contain_text("votes, parallel")
    assert_accessible(page)
    page.locator("#id_name").fill("Both")
    page.locator("#id_name").press("Control+s")
    expect(page.locator("h1")).to_contain_text("Both")
    page.get_by_role("link", name="Open in the workbench").click()
    expect(page.locator("#id_a-recipe")).to_have_value(str(Recipe.objects.get(name="Both").pk))


@pytest.mark.parametrize("address", ["/workbench/", "/recipes/new/", "/recipes/"])
@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone(
    open_page: OpenPage, trip: Collection, talker: ModelAdapter, asked: None, curator: User, address: str, dark: bool
) -> None:
    page = open_page(address, curator, viewport=NARROW, dark=dark, touch=True)
    expect(page.locator("h1")).to_be_visible()
    assert_no_sideways_scroll(page)
    assert_accessible(page)
