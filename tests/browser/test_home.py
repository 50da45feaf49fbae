"""The first page in a real browser: empty, at work, on both widths."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from playwright.sync_api import expect

from tagging.models import Chunk, Collection, IngestJob, Run

from .conftest import NARROW, WIDE, OpenPage, assert_accessible, assert_no_sideways_scroll
from .content import make_run

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["1280", "390"])
def test_empty_and_accessible(open_page: OpenPage, curator: User, viewport: dict[str, int]) -> None:
    page = open_page("/", curator, viewport)
    expect(page.get_by_role("heading", name="No collections yet")).to_be_visible()
    assert_accessible(page)
    assert_no_sideways_scroll(page)
    page.get_by_role("link", name="New collection").click()
    expect(page.locator("h1")).to_have_text("New collection")
    assert_accessible(page)
    assert_no_sideways_scroll(page)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["1280", "390"])
def test_running_work_moves_by_itself_and_keeps_the_focus(
    open_page: OpenPage, holiday: Collection, curator: User, viewport: dict[str, int], dark: bool
) -> None:
    run = make_run(holiday, "A long name of a run on a collection", Run.State.RUNNING)
    Run.objects.filter(pk=run.pk).update(n_total=100, started_at=timezone.now())
    chunk = Chunk.objects.create(run=run, lo=0, hi=100, model_key="m", image_ids=b"", n_ok=20, n_error=2)
    IngestJob.objects.create(collection=holiday, state="running", seen=10, total=40, rate=3.5)
    page = open_page("/", curator, viewport, dark)
    line = page.locator(".work-line").first
    expect(line.locator(".meter-text")).to_contain_text("22 of 100 · 2 failed")
    assert_accessible(page)
    assert_no_sideways_scroll(page)
    page.locator(f"#run-link-{run.pk}").focus()

    Chunk.objects.filter(pk=chunk.pk).update(n_ok=70)
    expect(line.locator(".meter-text")).to_contain_text("72 of 100")
    expect(page.locator(f"#run-link-{run.pk}")).to_be_focused()  # news do not take the keyboard away
    page.get_by_role("link", name=f"Review {holiday.name}").click()
    expect(page.locator("#image-name")).to_be_visible()


@pytest.mark.parametrize(("viewport", "dark"), [(WIDE, False), (NARROW, True)], ids=["1280-light", "390-dark"])
def test_the_smaller_pages_are_accessible(
    open_page: OpenPage, holiday: Collection, curator: User, viewport: dict[str, int], dark: bool
) -> None:
    make_run(holiday, "Failed", Run.State.FAILED)
    Run.objects.filter(name="Failed").update(error="model.onnx is missing. Put it there.")
    IngestJob.objects.create(collection=holiday, state="done", seen=6, added=6, notes=["a note"])
    image = holiday.images.first()
    assert image is not None
    holiday.images.filter(pk=image.pk).update(state="error", error="The file is cut short.")
    failed = Run.objects.get(name="Failed")
    page = open_page("/tags/", curator, viewport, dark)
    addresses = ["/tags/?collection=holiday", "/runs/", f"/runs/{failed.pk}/", "/c/holiday/settings/"]
    for address in ["/tags/", *addresses, "/c/holiday/ingest/status/", "/c/holiday/?q=nothing", "/c/holiday/?run=x"]:
        page.goto(address)
        assert_accessible(page)
        assert_no_sideways_scroll(page)


def test_names_of_tags_are_readable_on_a_phone(open_page: OpenPage, holiday: Collection, curator: User) -> None:
    page = open_page("/tags/", curator, NARROW)
    names = page.locator(".tags-table th[scope=row]")
    assert names.count() > 3
    # a word broken letter by letter makes its cell many lines high
    assert max(box["height"] for box in (cell.bounding_box() for cell in names.all()) if box) < 80
    assert_no_sideways_scroll(page)
