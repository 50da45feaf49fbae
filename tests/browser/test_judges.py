"""Judges in a real browser: made, given a model, let loose on a run, measured, corrected, and set before a gate."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from judging.actions.calibrating import calibrate
from judging.actions.judge_jobs import run_job, start_job
from judging.actions.judges import change
from judging.models import Gate, InboxAnswer, JudgeJob, JudgeProfile
from tagging.models import Collection, ImageAsset, ImageTag, Run
from tests.judging.judges import conftest as judges
from tests.judging.judges.world import adapter, decide, judge, recipe, run
from tests.tagging.world import collection

from .conftest import NARROW, WIDE, OpenPage, assert_accessible, assert_no_sideways_scroll

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
scripted = judges.scripted
GOOD = ["dog", "grass", "tree"]
SAID = {f"{i}.jpg": [*GOOD, *(["cat"] if i < 20 else [])] for i in range(80)}
PEOPLE = dict.fromkeys(SAID, GOOD)
#: the judge sees no tree on 70.jpg, and the cat that people rejected on 3.jpg
JUDGE = {**PEOPLE, "70.jpg": ["dog", "grass"], "3.jpg": [*GOOD, "cat"], "new.jpg": GOOD}


@dataclass
class Trip:
    collection: Collection
    run: Run


@pytest.fixture
def trip(transactional_db: None, reviewer: User) -> Trip:
    """Eighty images with the proposals of a run, all of them reviewed by a person."""
    made = collection()
    proposed = run(made, SAID)
    decide(made, PEOPLE, reviewer)
    return Trip(made, proposed)


@pytest.fixture
def measured(trip: Trip, scripted: Any) -> JudgeProfile:
    """A judge that was compared with people."""
    profile = judge(truth=JUDGE)
    run_job(start_job(profile.current, runs=[trip.run]).pk)
    calibrate(profile.current)
    return profile


def looks_right(page: Page) -> None:
    assert_accessible(page)
    assert_no_sideways_scroll(page)


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["1280", "390"])
def test_from_no_judge_to_a_badge(
    open_page: OpenPage,
    trip: Trip,
    curator: User,
    scripted: Any,
    viewport: dict[str, int],
) -> None:
    adapter("blunt", manner="yes")
    adapter("vision", truth=JUDGE)
    page = open_page("/judging/judges/", curator, viewport)
    looks_right(page)
    page.get_by_role("button", name="Make the judges that come with iwtag").click()
    page.get_by_role("link", name="Tag verifier").click()
    expect(page.locator("#lacks")).to_contain_text("Choose the model")
    looks_right(page)

    # the options are those of the chosen model; an error stands beside its field
    page.select_option("#id_adapter", "blunt")
    expect(page.locator("#judge-options input[name=options_for]")).to_have_value("blunt")
    page.select_option("#id_adapter", "vision")
    expect(page.locator("#judge-options input[name=options_for]")).to_have_value("vision")
    limit = page.locator("[id='id_rules-tags_per_call']")
    limit.fill("99")
    page.get_by_role("button", name="Save as a new version").click()
    expect(page.locator("[id='id_rules-tags_per_call_error']")).to_contain_text("At most 15")
    expect(page.locator("#id_adapter")).to_have_value("vision")
    looks_right(page)
    page.locator("[id='id_rules-tags_per_call']").fill("12")
    page.get_by_role("button", name="Save as a new version").click()
    expect(page.locator("body")).to_contain_text("tag-verifier v2 is current")
    page.get_by_role("button", name="Switch on").click()

    # a run is judged; the page of the job sees the end of it by itself
    page.select_option("#id_run", str(trip.run.pk))
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url(re.compile(r"/judges/jobs/\d+/$"))
    looks_right(page)
    job = run_job(JudgeJob.objects.latest("pk").pk)
    assert (job.state, job.n_verdicts) == ("done", 80)
    expect(page.locator("main")).to_contain_text("done")
    assert job.version.rules["tags_per_call"] == 12

    # its badge: compared with people, and lied to
    calibrate(job.version)
    page.goto("/judging/judges/tag-verifier/")
    trust = page.locator("section[aria-labelledby=trust-title]")
    expect(trust.locator(".spread .badge").first).to_contain_text("trusted")
    absent = trust.locator(".facts-grid > div", has_text="takes absent tags for true")
    expect(absent.locator("dd")).to_contain_text("0 %")
    expect(absent.locator("dd")).to_contain_text("of 160")
    looks_right(page)
    page.goto("/judging/judges/")
    expect(page.locator(".judge-row", has_text="Tag verifier")).to_contain_text("trusted")


def test_a_judge_that_says_yes_to_everything_shows_it(
    open_page: OpenPage,
    trip: Trip,
    reviewer: User,
    scripted: Any,
) -> None:
    profile = judge(manner="yes")
    run_job(start_job(profile.current, runs=[trip.run]).pk)
    calibrate(profile.current)
    page = open_page(profile.get_absolute_url(), reviewer)
    trust = page.locator("section[aria-labelledby=trust-title]")
    expect(trust.locator(".spread .badge").first).to_contain_text("off")
    expect(trust).to_contain_text("100 %")
    expect(trust).to_contain_text("160 of 160")


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["1280", "390"])
def test_the_gate_is_set_by_keyboard_and_lets_a_run_through(
    open_page: OpenPage, trip: Trip, measured: JudgeProfile, curator: User, viewport: dict[str, int]
) -> None:
    page = open_page(measured.get_absolute_url(), curator, viewport)
    promise = page.locator("#promise")
    expect(promise).to_have_text(
        re.compile(r"^saves \d+ % of reviews, lets [\d.]+ % of bad tags through \([\d.]+–[\d.]+ %\)")
    )
    slider = page.locator("#gate-accept")
    slider.focus()
    page.keyboard.press("End")  # nothing is that sure
    expect(promise).to_contain_text("saves 0 % of reviews")
    page.keyboard.press("Home")
    expect(promise).to_contain_text("saves 75 % of reviews")
    expect(page.locator("output[for=gate-accept]")).to_have_text("0.50")
    page.locator("#gate-reject").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    expect(page.locator("output[for=gate-reject]")).to_have_text("0.05")
    expect(promise).to_contain_text("saves 100 % of reviews")

    page.goto(f"/judging/gate/{trip.collection.slug}/")
    looks_right(page)
    page.locator("#id_accept_at").fill("0.9")
    page.locator("#id_reject_at").fill("")
    page.locator("#id_audit_share").fill("0.01")
    page.locator("#id_audit_share").press("Enter")
    expect(page.locator("body")).to_contain_text("The gate is set.")
    assert Gate.objects.get().accept_at == 0.9
    more = run(trip.collection, {"new.jpg": GOOD}, of=recipe("next"))
    page.reload()
    page.select_option("#id_run", str(more.pk))
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url(re.compile(r"/judges/jobs/\d+/$"))
    assert run_job(JudgeJob.objects.latest("pk").pk).n_accepted == 1
    assert ImageAsset.objects.get(path="new.jpg").review_state == ImageAsset.Review.AUTO
    page.goto(f"/judging/gate/{trip.collection.slug}/")
    expect(page.locator(".outcomes")).to_contain_text("accepted")
    looks_right(page)


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["1280", "390"])
def test_disagreements_are_answered_both_ways(
    open_page: OpenPage, trip: Trip, measured: JudgeProfile, curator: User, viewport: dict[str, int]
) -> None:
    page = open_page(measured.get_absolute_url(), curator, viewport)
    page.keyboard.press("i")
    page.wait_for_url("**/inbox/")
    expect(page.locator(".dispute")).to_have_count(2)
    looks_right(page)
    tree, cat = (page.locator(".dispute", has_text=name) for name in ("tree", "cat"))
    tree.get_by_label("Note for the judge").fill("half hidden")
    tree.get_by_role("button", name="Judge wrong").focus()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_contain_text("tree: noted as a mistake of the judge.")
    cat.get_by_role("button", name="I was wrong").focus()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_contain_text("cat: the decision was turned round.")
    looks_right(page)
    said = {row.judged.name: row.answer for row in InboxAnswer.objects.select_related("judged")}
    assert said == {"tree": "judge", "cat": "person"}
    assert InboxAnswer.objects.get(judged__name="tree").note == "half hidden"
    mended = ImageTag.objects.get(image__path="3.jpg", tag__key="cat")
    assert mended.state in ImageTag.POSITIVE
    page.reload()
    expect(page.locator("main")).to_contain_text("Nothing to settle")


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["1280", "390"])
def test_two_wordings_are_put_beside_each_other(
    open_page: OpenPage, trip: Trip, measured: JudgeProfile, curator: User, viewport: dict[str, int]
) -> None:
    change(measured, rubric="Cats count only when the whole animal is seen.")
    page = open_page(measured.get_absolute_url(), curator, viewport)
    page.get_by_role("link", name="Does the new wording help?").click()
    page.wait_for_url("**/wording/")
    expect(page.locator(".rubric-change")).to_contain_text("+ Cats count only")
    looks_right(page)
    page.get_by_role("button", name="The 30 % to measure").click()
    page.wait_for_url(re.compile(r"/judges/jobs/\d+/$"))
    assert JudgeJob.objects.latest("pk").part == "held"
