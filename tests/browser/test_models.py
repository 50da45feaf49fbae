"""Models in a real browser: options that are changed and reset, presets, and the page of models."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from playwright.sync_api import expect

from tagging.models import Collection, ModelAdapter, ModelDownload, OptionPreset, Run, UnloadRequest, Worker

from .conftest import NARROW, WIDE, OpenPage, assert_accessible, assert_no_sideways_scroll

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["1280", "390"])
def test_options_are_marked_reset_and_saved_as_a_preset(
    open_page: OpenPage, holiday: Collection, curator: User, viewport: dict[str, int]
) -> None:
    ModelAdapter.objects.create(slug="wd", label="WD", kind="wd", source="/nowhere")
    page = open_page(f"/runs/new/?collection={holiday.slug}&adapter=photo-lite", curator, viewport)
    threshold = page.locator("[id='id_options-general_threshold']")
    field = page.locator("[data-field=general_threshold]")
    state = page.locator("[data-reset-line]")
    start = threshold.input_value()
    expect(state).to_be_hidden()

    # the slider moves the number, the field says what it was, and one key puts it back
    page.locator("input[data-slider='id_options-general_threshold']").focus()
    page.keyboard.press("ArrowRight")
    expect(field.locator(".changed")).to_contain_text(f"instead of {start}")
    expect(state).to_contain_text("1 not at their defaults")
    field.get_by_role("button", name=re.compile("reset")).press("Enter")
    expect(threshold).to_have_value(start)
    expect(threshold).to_be_focused()
    expect(state).to_be_hidden()

    # saved under a name with Enter, which does not start the run
    threshold.fill("0.61")
    page.locator(".preset-menu > summary").click()
    page.get_by_label("Name", exact=True).first.fill("strict")
    page.keyboard.press("Enter")
    expect(page.locator(".presets .help")).to_contain_text("Saved “strict”")
    preset = OptionPreset.objects.get()
    assert preset.values["general_threshold"] == 0.61
    assert not Run.objects.filter(recipe__channels__options__general_threshold=0.61).exists()
    expect(threshold).to_have_value("0.61")
    assert_accessible(page)
    assert_no_sideways_scroll(page)

    # reset all, then chosen from the list
    page.get_by_role("button", name="reset all", exact=True).click()
    expect(threshold).to_have_value(start)
    page.select_option("#id_preset", "")
    page.select_option("#id_preset", str(preset.pk))
    expect(threshold).to_have_value("0.61")
    expect(field.locator(".changed")).to_contain_text("instead of")

    # another model knows no such preset; what was changed and applies there stays
    page.select_option("#id_adapter", "wd")
    expect(page.locator("#id_preset")).to_have_value("")
    expect(page.get_by_label("Character threshold").first).to_be_visible()
    expect(page.locator("[id='id_options-general_threshold']")).to_have_value("0.61")

    # renamed and deleted where it is used
    page.select_option("#id_adapter", "photo-lite")
    page.select_option("#id_preset", str(preset.pk))
    page.locator(".preset-menu > summary").click()
    page.get_by_label("Name", exact=True).first.fill("very strict")
    page.get_by_role("button", name="Only rename").click()
    expect(page.locator("#id_preset")).to_contain_text("very strict")
    page.on("dialog", lambda dialog: dialog.accept())
    page.locator(".preset-menu > summary").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.locator("#id_preset")).to_contain_text("none saved yet")
    assert not OptionPreset.objects.exists()

    # a run with it
    page.get_by_role("button", name="Start the run").click()
    expect(page).to_have_url(re.compile(r"/runs/\d+/$"))
    assert Run.objects.latest("pk").recipe.channels.get().options["general_threshold"] == 0.61


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["1280", "390"])
def test_the_page_of_models(
    open_page: OpenPage,
    holiday: Collection,
    viewport: dict[str, int],
    dark: bool,
    tmp_path: Path,
    settings,
    monkeypatch,
) -> None:
    (tmp_path / "m" / "wd-x").mkdir(parents=True)
    (tmp_path / "m" / "wd-x" / "model.onnx").write_text("x")
    (tmp_path / "m" / "wd-x" / "selected_tags.csv").write_text("tag_id,name,category,count\n")
    settings.IWTAG_MODELS_DIRS = [tmp_path / "m"]
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    now = timezone.now()
    resident = {"key": "k", "slug": "photo-lite", "place": "cpu", "provider": "CPUExecutionProvider", "load_seconds": 1}
    Worker.objects.create(owner="h|1|1", queue="gpu", host="h", pid=1, started_at=now, beat_at=now, resident=[resident])
    job = ModelDownload.objects.create(
        source="owner/model", kind="vlm", state="running", phase="downloading", bytes_total=10**9, bytes_done=10**8
    )
    root = User.objects.create_superuser("root", password="root-secret")
    page = open_page("/models/", root, viewport, dark)
    expect(page.locator("#live-models")).to_contain_text("100 MB of 1.0 GB")
    assert_accessible(page)
    assert_no_sideways_scroll(page)

    # progress comes by itself, and a button stays focused meanwhile
    page.locator("#unload-photo-lite").focus()
    ModelDownload.objects.filter(pk=job.pk).update(bytes_done=5 * 10**8)
    expect(page.locator("#live-models")).to_contain_text("500 MB of 1.0 GB")
    expect(page.locator("#unload-photo-lite")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#messages")).to_contain_text("It goes within seconds")
    assert UnloadRequest.objects.get().model_key == "k"

    page.get_by_role("button", name="Add wd-x").click()
    expect(page.locator("#messages")).to_contain_text("wd-x can be used now")
    expect(page.locator("#model-wd-x")).to_contain_text("wd")
