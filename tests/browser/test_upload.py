"""Uploads in a real browser: chosen and dropped files, one bar, what was refused."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from PIL import Image
from playwright.sync_api import expect

from tagging.actions.ingest import run_ingest
from tagging.models import Collection, IngestJob

from .conftest import NARROW, WIDE, OpenPage, assert_accessible, assert_no_sideways_scroll

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def picture(n: int) -> dict[str, object]:
    stream = io.BytesIO()
    Image.new("RGB", (48, 32), (n * 5 % 255, 90, 120)).save(stream, "PNG")
    return {"name": f"p{n:03}.png", "mimeType": "image/png", "buffer": stream.getvalue()}


@pytest.fixture
def phone(transactional_db: None) -> Collection:
    return Collection.objects.create(name="Phone", slug="phone", kind="upload")


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["1280", "390"])
def test_from_a_new_collection_to_indexed_pictures(
    open_page: OpenPage, curator: User, viewport: dict[str, int]
) -> None:
    page = open_page("/collections/new/", curator, viewport)
    page.locator("#id_name").fill("Phone")
    page.get_by_text("Uploaded files").click()
    expect(page.locator("#id_root")).to_be_hidden()
    page.get_by_role("button", name="Create").click()
    expect(page.locator("h1")).to_have_text("Add images")
    assert_accessible(page)
    assert_no_sideways_scroll(page)

    # more than one portion
    page.locator("#id_files").set_input_files([picture(n) for n in range(45)])
    expect(page.locator("#send")).to_have_text("Upload 45 files")
    page.locator("#send").click()
    expect(page.locator("h1")).to_have_text("Indexing")
    assert_accessible(page)
    assert_no_sideways_scroll(page)
    for job in IngestJob.objects.order_by("pk"):
        run_ingest(job.pk)
    expect(page.locator("#job")).to_contain_text("done")
    page.locator("#to-grid").click()
    expect(page.locator(".cell")).to_have_count(45)


def test_a_refused_file_is_told_and_the_others_are_kept(
    open_page: OpenPage, curator: User, phone: Collection, tmp_path: Path
) -> None:
    page = open_page("/c/phone/upload/", curator)
    text = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"hello"}
    page.locator("#id_files").set_input_files([picture(1), text])
    page.locator("#send").click()
    expect(page.locator("#refused")).to_contain_text("notes.txt: Not a picture")
    expect(page.locator("#upload-meter")).to_contain_text("1 file received.")
    assert_accessible(page)
    page.get_by_role("link", name="See the indexing").click()
    expect(page.locator("h1")).to_have_text("Indexing")


def test_dropped_files(open_page: OpenPage, curator: User, phone: Collection) -> None:
    page = open_page("/c/phone/upload/", curator)
    data = page.evaluate_handle(
        """() => {
          const data = new DataTransfer();
          data.items.add(new File(["not a real picture"], "dropped.jpg", { type: "image/jpeg" }));
          return data;
        }"""
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": data})
    expect(page.locator("h1")).to_have_text("Indexing")
    run_ingest(IngestJob.objects.get().pk)
    image = phone.images.get()
    assert (image.path, image.state) == ("dropped.jpg", "error")
    page.reload()
    expect(page.locator("#job")).to_contain_text(image.error)


def test_without_scripts(open_page: OpenPage, curator: User, phone: Collection) -> None:
    page = open_page("/c/phone/upload/", curator, scripts=False)
    page.locator("#id_files").set_input_files([picture(1), picture(2)])
    page.locator("#send").click()
    expect(page.locator("h1")).to_have_text("Indexing")
    expect(page.locator(".message").first).to_contain_text("2 files received.")
