"""Runs in a real browser: the form that changes with the model, and a run's page while it works."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from playwright.sync_api import expect

from tagging.models import Chunk, Collection, ModelAdapter, Run

from .conftest import NARROW, WIDE, OpenPage, assert_accessible, assert_no_sideways_scroll
from .content import make_run

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["1280", "390"])
def test_a_new_run_with_another_model(
    open_page: OpenPage, holiday: Collection, curator: User, viewport: dict[str, int]
) -> None:
    ModelAdapter.objects.create(slug="wd", label="WD", kind="wd", source="/nowhere")
    page = open_page(f"/runs/new/?collection={holiday.slug}", curator, viewport)
    assert_accessible(page)
    assert_no_sideways_scroll(page)
    expect(page.locator("#id_adapter")).to_have_value("photo-lite")
    floor = page.locator("[id='id_options-score_floor']")
    page.get_by_text("Advanced").click()
    floor.fill("0.12")

    # another model: its own fields, what was typed stays where it applies
    page.select_option("#id_adapter", "wd")
    expect(page.get_by_label("Character threshold").first).to_be_visible()
    expect(floor).to_have_value("0.12")
    expect(page.locator("#options .message")).to_contain_text("/nowhere")
    assert_accessible(page)

    # the slider and the number say the same
    slider = page.locator("input[data-slider='id_options-character_threshold']")
    expect(slider).to_be_visible()
    page.locator("[id='id_options-character_threshold']").fill("0.5")
    expect(slider).to_have_value("0.5")

    # an error stands beside its field, which is not hidden any more
    page.select_option("#id_adapter", "photo-lite")
    expect(page.get_by_label("Character threshold")).to_have_count(0)
    page.locator("[id='id_options-score_floor']").fill("7")
    page.get_by_role("button", name="Start the run").click()
    expect(page.locator("[id='id_options-score_floor_error']")).to_contain_text("At most")
    expect(page.locator("[id='id_options-score_floor']")).to_have_value("7")
    assert_accessible(page)
    page.locator("[id='id_options-score_floor']").fill("0.2")
    page.get_by_role("button", name="Start the run").click()
    expect(page).to_have_url(re.compile(r"/runs/\d+/$"))
    run = Run.objects.latest("pk")
    assert run.n_total == 6
    assert run.recipe.channels.get().options["score_floor"] == 0.2


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["1280", "390"])
def test_a_run_at_work(
    open_page: OpenPage, holiday: Collection, curator: User, viewport: dict[str, int], dark: bool
) -> None:
    run = make_run(holiday, "photo-lite on Holiday", Run.State.RUNNING)
    Run.objects.filter(pk=run.pk).update(n_total=100, started_at=timezone.now(), phase="loading photo-lite")
    chunk = Chunk.objects.create(run=run, lo=0, hi=100, model_key="m", image_ids=b"", n_ok=10, n_empty=2)
    page = open_page(f"/runs/{run.pk}/", curator, viewport, dark)
    status = page.locator("#status")
    expect(status).to_contain_text("loading photo-lite")
    expect(status).to_contain_text("12 of 100 images")
    assert_accessible(page)
    assert_no_sideways_scroll(page)

    page.locator("#verb-pause").focus()
    Chunk.objects.filter(pk=chunk.pk).update(n_ok=60)
    expect(status).to_contain_text("62 of 100 images")
    expect(page.locator("#verb-pause")).to_be_focused()
    page.keyboard.press("Enter")
    expect(status).to_contain_text("paused")
    run.refresh_from_db()
    assert run.state == Run.State.PAUSED

    page.on("dialog", lambda dialog: dialog.accept())
    page.locator("#verb-cancel").click()
    expect(status).to_contain_text("cancelled")
    run.refresh_from_db()
    assert run.state == Run.State.CANCELLED


def test_polling_ends_with_the_run(open_page: OpenPage, holiday: Collection, curator: User) -> None:
    run = make_run(holiday, "Short", Run.State.RUNNING)
    Chunk.objects.create(run=run, lo=0, hi=6, model_key="m", image_ids=b"", n_ok=6)
    page = open_page(f"/runs/{run.pk}/", curator)
    Run.objects.filter(pk=run.pk).update(state=Run.State.DONE, n_total=6, finished_at=timezone.now())
    expect(page.locator("#status")).to_contain_text("every image has its result")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(2200)  # two turns of the poll that must not come
    assert asked == []
