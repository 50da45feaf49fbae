"""Prompts, wordlists, policies and labels in a real browser: the whole way without a line of code, and each page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from prompts import actions as prompts
from prompts.models import Prompt, Wordlist
from tagging.actions import policies
from tagging.actions.ingest import create_collection
from tagging.actions.recipes import ChannelSpec, default_policy_version, get_recipe
from tagging.actions.recompute import run_recompute
from tagging.actions.runs import start_run
from tagging.adapters import registry
from tagging.engine import contexts, worker
from tagging.engine import work as engine_work
from tagging.engine.propose import compiled_policy
from tagging.models import Collection, ModelAdapter, Policy, RecomputeJob, Run

from .conftest import NARROW, WIDE, OpenPage, assert_accessible, assert_no_sideways_scroll
from .content import add_image

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
FILES = ("raccoon.jpg", "pagoda.jpg", "honey-bee.jpg")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ids of a database come again in the next test."""
    monkeypatch.setattr(engine_work, "FLUSH", 0.0)
    contexts.words_of.cache_clear()
    compiled_policy.cache_clear()
    yield
    compiled_policy.cache_clear()


@pytest.fixture
def talker(monkeypatch: pytest.MonkeyPatch, transactional_db: None) -> Iterator[ModelAdapter]:
    """A model that takes a prompt and says what it always says."""
    monkeypatch.setitem(registry.BUILT_IN, "fake-talker", ("Fake talker", "tests.fakes.adapter:Talker"))
    registry.registered.cache_clear()
    says = {"says": "dog, mood, window, a picture"}
    yield ModelAdapter.objects.create(slug="talker", label="Talker", kind="fake-talker", options=says)
    registry.registered.cache_clear()


@pytest.fixture
def trip(transactional_db: None, samples: Path, tmp_path: Path) -> Collection:
    folder = tmp_path / "trip"
    folder.mkdir()
    made = create_collection(name="Trip", kind="folder", root=str(folder))
    for name in FILES:
        add_image(made, samples / name)
    return made


def work() -> None:
    """What the workers would do: all runs and recomputes that wait."""
    while worker.drain("gpu"):
        pass
    for job in RecomputeJob.objects.filter(state__in=RecomputeJob.OPEN):
        run_recompute(job.pk)


def chips(page: Page) -> list[str]:
    return page.locator("#tags .chip-name").all_inner_texts()


def test_from_a_prompt_to_the_champion_without_a_line_of_code(
    open_page: OpenPage, trip: Collection, talker: ModelAdapter, curator: User
) -> None:
    # -- a prompt, with a mistake that is shown beside its line, kept as a draft, saved as a version
    page = open_page("/prompts/", curator)
    page.get_by_role("link", name="New prompt").first.click()
    page.get_by_label("Name", exact=True).fill("Short tags")
    expect(page.get_by_label("Short name")).to_have_value("short-tags")
    page.get_by_role("button", name="Write it").click()
    template = page.locator("#id_template")
    template.fill("Tag the picture {{ image.name }}\nand {{ nothing }}")
    expect(page.locator("#errors-template")).to_contain_text("Line 2: unknown variable 'nothing'")
    expect(page.locator("#area-template .code-line.is-bad")).to_have_text("and {{ nothing }}")
    expect(page.locator("#draft-state")).to_contain_text("Draft saved")
    page.reload()
    expect(template).to_have_value("Tag the picture {{ image.name }}\nand {{ nothing }}")
    template.fill("Tag the picture ")
    template.press("End")
    page.get_by_role("button", name="image.stem").click()
    expect(template).to_have_value("Tag the picture {{ image.stem }}")
    expect(page.locator("#preview")).to_contain_text("Tag the picture ")
    page.get_by_label("What changed, in a line").fill("First try")
    template.press("Control+s")
    expect(page.locator("h1")).to_contain_text("v1")

    # -- a second version, compared word by word, and a fork
    template.fill("Tag the photograph {{ image.stem }} briefly")
    expect(page.locator("#difference del").last).to_have_text("picture")
    expect(page.locator("#difference ins").nth(1)).to_have_text("photograph")
    page.get_by_label("What changed, in a line").fill("A photograph, briefly")
    page.get_by_role("button", name="Save as version 2").click()
    expect(page.locator("h1")).to_contain_text("v2")
    page.get_by_role("button", name="Fork…").click()
    fork = page.locator("#fork-dialog")
    fork.get_by_label("Name", exact=True).fill("Long tags")
    fork.get_by_role("button", name="Fork").click()
    expect(page.locator("h1")).to_contain_text("Long tags")
    expect(page.locator(".version-use")).to_contain_text("forked from short-tags v2")
    page.go_back()

    # -- tried on two images
    page.get_by_role("button", name="Choose images").click()
    page.locator("#pick-q").fill("pagoda")
    expect(page.locator(".pick-image")).to_have_count(1)
    page.locator(".pick-image").click()
    page.get_by_role("button", name="Done").click()
    page.get_by_role("button", name=re.compile("Try on")).click()
    expect(page.locator(".trial")).to_be_visible()
    work()
    expect(page.locator(".trial .fate").first).to_have_text("dog")
    expect(page.locator(".trial")).to_contain_text("tokens in")

    # -- a run with it, a banned list, a vocabulary
    version = Prompt.objects.get(slug="short-tags").versions.get(number=2)
    page.goto(f"/runs/new/?collection={trip.slug}&adapter=talker&prompt={version.pk}")
    page.get_by_role("button", name="Start the run").click()
    expect(page).to_have_url(re.compile(r"/runs/\d+/$"))
    run = Run.objects.listed().get()
    assert run.recipe.channels.get().prompt_version == version
    work()
    animals = "hound = dog\nwindow\na picture"
    for name, kind, words in (("No-go", "Banned", "=mood"), ("Animals", "Vocabulary", animals)):
        page.goto("/wordlists/new/")
        page.get_by_label(kind).check()
        page.get_by_label("Name", exact=True).fill(name)
        page.get_by_role("button", name="Make the list").click()
        page.locator("#id_words").fill(words)
        expect(page.locator("#list-count")).to_contain_text("entr")
        page.get_by_label("What changed, in a line").fill("First words")
        page.get_by_role("button", name="Save", exact=True).first.click()
        expect(page.locator("h1")).to_contain_text("v1")

    # -- the policy: what it would do is seen before it is saved
    page.goto("/policy/default/")
    page.get_by_label("No-go v1").check()
    expect(page.locator("#changes")).to_contain_text("banned by 'no-go'")
    page.get_by_label("Animals v1").check()
    page.get_by_label("Vocabulary", exact=True).select_option("only")
    expect(page.locator("#changes .change", has_text="hound").first).to_contain_text("mapped from 'dog' (alias)")
    page.get_by_label("What changed, in a line").fill("Only animals, no mood")
    page.get_by_role("button", name="Save and recompute").click()
    expect(page.locator(".recompute")).to_be_visible()
    work()
    expect(page.locator(".recompute")).to_contain_text("3 of 3 images changed")
    expect(page.locator(".versions")).to_contain_text("List no-go:")

    # -- on the image the chips are others; a word is banned from its chip, and taken back
    image = trip.images.order_by("pk").first()
    page.goto(f"/images/{image.pk}/")
    assert chips(page) == ["a picture", "hound", "window"]
    page.locator("#tags .chip", has_text="window").click(button="right")
    dialog = page.locator("#word-dialog")
    expect(dialog).to_contain_text("3 of 3 images change: 3 dropped")
    assert_accessible(page)
    dialog.get_by_role("button", name="Save and recompute").click()
    expect(dialog).to_contain_text("Banned window")
    work()
    expect(dialog).to_contain_text("3 of 3 images changed")
    dialog.get_by_role("button", name="Done").click()
    expect(page.locator("#tags .chip")).to_have_count(2)
    assert Wordlist.objects.get(slug="no-go").current.entries[-1] == {"text": "window", "match": "exact"}

    # -- a label: to this recipe, to another, and back in one click
    other = get_recipe(
        [ChannelSpec(talker, Prompt.objects.get(slug="long-tags").versions.get())],
        policy_version=Policy.objects.get(slug="default").current,
    )
    for recipe, why in ((run.recipe, "It is short"), (other, "Longer is better")):
        page.goto(f"/labels/?recipe={recipe.pk}&collection={trip.slug}")
        page.locator("#id_name").fill("champion")
        page.locator("#id_why").fill(why)
        page.get_by_role("button", name="Move the label").click()
        expect(page.locator("#messages")).to_contain_text("points to")
    page.get_by_role("button", name=re.compile("^Back to")).first.click()
    label = run.recipe.labels.get()
    assert (label.name, label.collection, label.events.count()) == ("champion", trip, 3)
    page.goto("/prompts/")
    expect(page.locator(".prompts-table tr", has_text="Short tags")).to_contain_text("v2 in Trip")


def test_a_draft_of_another_window_is_not_overwritten(open_page: OpenPage, curator: User) -> None:
    prompts.create_prompt(slug="tags", name="Tags")
    one = open_page("/prompt/tags/", curator)
    other = open_page("/prompt/tags/", curator)
    one.locator("#id_template").fill("from the first window")
    expect(one.locator("#draft-state")).to_contain_text("Draft saved")
    other.locator("#id_template").fill("from the second")
    expect(other.locator("#draft-conflict")).to_contain_text("changed in another window")
    assert_accessible(other)
    other.get_by_role("button", name="Show that text").click()
    expect(other.locator("#id_template")).to_have_value("from the first window")
    other.locator("#id_template").fill("from the second, then")
    expect(other.locator("#draft-state")).to_contain_text("Draft saved")
    one.locator("#id_template").fill("mine")
    one.get_by_role("button", name="Keep this one").click()
    expect(one.locator("#draft-state")).to_contain_text("Draft saved")
    one.reload()
    expect(one.locator("#id_template")).to_have_value("mine")


def test_a_list_as_a_table_and_as_text_and_its_mistakes(open_page: OpenPage, curator: User) -> None:
    prompts.create_wordlist(slug="animals", kind="vocabulary", name="Animals", entries=["dog", "cat"])
    page = open_page("/wordlist/animals/", curator)
    page.get_by_label("Other names of dog").fill("hound, doggo")
    page.get_by_role("button", name="Add a row").click()
    page.keyboard.type("bee")
    expect(page.locator("#list-count")).to_have_text("3 entries")
    expect(page.locator("#changes")).to_contain_text("bee")
    page.get_by_role("button", name="Text", exact=True).click()
    words = page.locator("#id_words")
    expect(words).to_have_value("dog = hound, doggo\ncat\nbee\n")
    words.fill("dog = hound\n/(/\nbee")
    expect(page.locator("#line-errors")).to_contain_text("Line 2")
    page.get_by_role("button", name="Table", exact=True).click()
    expect(words).to_be_visible()  # not while a line cannot be read
    words.fill("dog = hound\nbee")
    expect(page.locator("#line-errors")).to_be_empty()
    page.get_by_role("button", name="Table", exact=True).click()
    page.get_by_role("button", name="Remove bee").click()
    page.get_by_label("What changed, in a line").fill("Fewer")
    page.keyboard.press("Control+s")
    expect(page.locator("h1")).to_contain_text("v2")
    assert Wordlist.objects.get().current.entries == [{"text": "dog", "aliases": ["hound"]}]


@pytest.mark.parametrize(("viewport", "dark"), [(WIDE, False), (NARROW, True)], ids=["1280-light", "390-dark"])
def test_every_page_can_be_read_and_reached(
    open_page: OpenPage, trip: Collection, talker: ModelAdapter, curator: User, viewport: dict[str, int], dark: bool
) -> None:
    row = prompts.create_prompt(slug="tags", name="Tags")
    first = prompts.create_version(row, template="Tag it", message="first")
    prompts.create_version(row, template="Tag {{ image.name }} now", system="Brief", message="second", parent=first)
    bans = prompts.create_wordlist(slug="no-go", kind="banned", name="No-go", entries=["mood", "=sea"])
    prompts.save_wordlist(bans, ["mood"], message="no sea")
    base = default_policy_version()
    policies.create_policy_version(base.policy, {"max_tags": 3}, [bans.current], message="Three")
    run = start_run(get_recipe([ChannelSpec(talker, first)]), collection=trip)
    work()
    run.refresh_from_db()
    assert run.state == "done"
    page = open_page("/prompts/", curator, viewport, dark)
    of_prompts = ("/prompts/", "/prompts/new/", "/prompts/import/", "/prompt/tags/")
    of_lists = ("/wordlists/", "/wordlists/new/", "/wordlist/no-go/?diff=1..2")
    for address in (*of_prompts, *of_lists, "/policies/", "/policies/new/", "/policy/default/", "/labels/"):
        page.goto(address)
        page.wait_for_load_state("networkidle")
        assert_accessible(page)
        assert_no_sideways_scroll(page)
    page.get_by_text("Library", exact=True).click()
    expect(page.get_by_role("link", name="Wordlists").first).to_be_visible()
    assert_accessible(page)
    page.keyboard.press("Escape")
    expect(page.locator(".nav-menu .menu-items")).to_be_hidden()
