"""The whole story of a comparison in a real browser: plan, matrix, decisions, judge, promotion, and back again."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import Page, expect

from judging.actions import experiments
from judging.actions.calibrating import calibrate
from judging.actions.judge_experiment import judge_experiment
from judging.actions.judge_jobs import run_job
from judging.actions.overnight import start_search
from judging.actions.overnight_steps import advance_search
from judging.models import Experiment, JudgeJob, JudgeProfile, OvernightSearch
from judging.report import report
from prompts.actions import create_prompt, create_version
from prompts.models import PromptVersion
from tagging.actions import review
from tagging.actions.labels import find_recipe, move_label
from tagging.actions.recipes import ChannelSpec, get_recipe
from tagging.adapters import registry
from tagging.models import Collection, ImageAsset, ImageTag, Label, ModelAdapter, Prediction
from tests.fakes import judge as judges
from tests.fakes.teller import right
from tests.judging import lab

from .conftest import NARROW, OpenPage, assert_accessible, assert_no_sideways_scroll
from .content import add_image

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def tellers(transactional_db, monkeypatch, tmp_path):
    """Two models that take prompts, and a judge that knows the truth."""
    monkeypatch.setattr("tagging.engine.work.FLUSH", 0.0)
    monkeypatch.setitem(registry.BUILT_IN, "fake-teller", ("Fake teller", "tests.fakes.teller:Teller"))
    monkeypatch.setattr(sys, "path", [str(judges.install(tmp_path / "site")), *sys.path])
    registry.registered.cache_clear()
    ModelAdapter.objects.create(slug="small", label="Small", kind="fake-teller", options={"skill": 5})
    ModelAdapter.objects.create(slug="large", label="Large", kind="fake-teller", options={"skill": 8})
    yield
    registry.registered.cache_clear()
    from tagging.engine import residency

    residency.MODELS.evict()


@pytest.fixture
def walk(tellers, samples: Path, tmp_path) -> Collection:
    """The sample photographs, reviewed but for two."""
    root = tmp_path / "walk"
    root.mkdir()
    made = Collection.objects.create(name="Walk", slug="walk", root=str(root))
    for file in sorted(samples.iterdir()):
        if file.suffix in (".jpg", ".png"):
            add_image(made, file)
    for image in list(made.images.order_by("pk"))[2:]:
        review.decide(image.pk, by=None, door="review", add=right(image.name), review="reviewed")
    return made


@pytest.fixture
def prompts(tellers) -> list[int]:
    """Two ways to ask."""
    found = []
    for slug, text in (("brief", "Name what matters."), ("thorough", "Name everything.")):
        prompt = create_prompt(slug=slug, name=slug.title())
        found.append(create_version(prompt, template=text, message="First").pk)
    return found


@pytest.fixture
def boss(curator: User) -> User:
    """Whoever may do all of it."""
    from django.contrib.auth.models import Group

    curator.groups.add(Group.objects.get(name="reviewer"))
    return curator


def verifier(collection: Collection) -> JudgeProfile:
    from judging.actions.judges import change, make_ready, set_enabled

    truth = {image.name: right(image.name) for image in collection.images.all()}
    model = ModelAdapter.objects.create(slug="eye", label="Eye", kind="scripted", options={"truth": truth})
    make_ready()
    profile = JudgeProfile.objects.get(slug="tag-verifier")
    change(profile, adapter=model, rules={})
    set_enabled(profile, True)
    return profile


def work(experiment: Experiment) -> None:
    """Workers, in this process, until the experiment has ended."""
    lab.finish(experiment)


def first_chip(page: Page, state: str):
    return page.locator(f".matrix tbody td button.chip[data-state={state}]").first


def test_the_whole_story(open_page: OpenPage, walk: Collection, prompts: list[int], boss: User) -> None:
    small = ModelAdapter.objects.get(slug="small")
    before = get_recipe([ChannelSpec(small, PromptVersion.objects.get(pk=prompts[0]), {"temperature": 0.8})])
    move_label("champion", before, why="the first one", collection=walk)

    # -- the plan: two models × two prompts × three temperatures
    page = open_page("/judging/experiments/new/?collection=walk&mode=product", boss)
    page.get_by_label("Question").fill("Who sees most?")
    page.locator("#id_sample").fill("")
    for slug in ("small", "large"):
        page.locator(f"input[name=adapter][value={slug}]").check()
    for pk in prompts:
        page.locator(f"input[name=prompt][value='{pk}']").check()
    page.get_by_label("Option 1", exact=True).fill("temperature")
    page.get_by_label("Values of option 1").fill("0:0.8:0.4")
    preflight = page.locator("#preflight")
    n = walk.images.count()
    expect(preflight).to_contain_text(f"12 recipes × {n} images")
    expect(preflight).to_contain_text(f"{n - 2} reviewed images")
    assert_accessible(page)
    page.get_by_role("button", name=f"Start, {n} images").click()
    expect(page).to_have_url(re.compile(r"/experiments/\d+/$"))
    made = Experiment.objects.get()
    assert (made.state, made.rows.count()) == ("running", 12)
    expect(page.locator("#status")).to_contain_text("running")

    # -- the workers do it, the page follows by itself
    work(made)
    assert Prediction.objects.count() == 12 * n
    expect(page.locator("#status")).to_contain_text("done", timeout=10_000)
    board = page.locator("#leaderboard table.board").first
    expect(board).to_contain_text("better", timeout=10_000)

    # -- the matrix: filter, decide by keys, see it kept
    page.locator("#to-matrix").click()
    expect(page.locator(".matrix tbody tr[data-image]").first).to_be_visible()
    page.get_by_role("link", name="unjudged tags").click()
    expect(page).to_have_url(re.compile("only=unjudged"))
    expect(first_chip(page, "unjudged")).to_be_visible()
    page.get_by_label("Tag contains").fill("dream")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("tag=dream"))
    chip = page.locator(".matrix tbody td button.chip[data-state=unjudged]", has_text="dream").first
    name = chip.locator(".chip-name").inner_text()
    image = int(chip.evaluate("chip => chip.closest('tr').dataset.image"))
    chip.focus()
    page.keyboard.press("x")
    expect(page.locator("#live")).to_have_text(f"{name}: rejected")
    assert ImageTag.objects.get(image=image, tag__name=name).state == ImageTag.State.REJECTED
    page.keyboard.press("c")
    expect(page.locator("#live")).to_have_text(f"{name}: unjudged")
    page.keyboard.press("x")
    expect(page.locator("#live")).to_have_text(f"{name}: rejected")
    page.keyboard.press("m")
    expect(page.locator("#word-dialog")).to_contain_text(name)
    expect(page.get_by_role("button", name="Ban everywhere").first).to_be_visible()
    page.keyboard.press("Escape")
    page.locator("tr[data-image] .matrix-more").first.click()
    expect(page.locator("#matrix-detail")).to_contain_text("Raw reply")
    page.keyboard.press("Escape")

    # -- the rest, blind, a key each
    page.locator("#to-overview").click()
    page.locator("#judge-rest").click()
    pair = page.locator("#pair")
    for _ in range(4):
        said = page.locator(".rest-tag").inner_text()
        left = int(pair.locator(".num").first.inner_text().split()[0])
        page.keyboard.press("ArrowLeft" if said.startswith("dream") else "ArrowRight")
        expect(pair.locator(".num").first).to_have_text(f"{left - 1} left")
    page.keyboard.press("u")
    expect(pair.locator(".num").first).to_have_text(f"{left} left")
    lab_rest(made)  # somebody does all the others

    # -- curves
    page.goto(reverse("judging:curves", args=[made.pk]))
    expect(page.get_by_role("heading", name="What temperature does")).to_be_visible()
    expect(page.locator("figure.curve").first.locator("polyline")).to_have_count(4)
    expect(page.locator("table.heat")).to_contain_text("best for this model")

    # -- a judge, and how far it can be trusted
    profile = verifier(walk)
    page.goto(made.get_absolute_url())
    page.get_by_label("Judge", exact=True).select_option("tag-verifier")
    page.get_by_role("button", name="Have it judged").click()
    expect(page).to_have_url(re.compile(r"/judges/jobs/\d+/$"))
    job = JudgeJob.objects.get()
    assert job.experiment_id == made.pk
    assert run_job(job.pk).state == "done"
    calibrate(profile.current)
    page.goto(reverse("judging:judge", args=[profile.slug]))
    expect(page.locator(".badge").filter(has_text="trusted").first).to_be_visible()
    page.goto(reverse("judging:matrix", args=[made.pk]))
    expect(page.locator(".matrix-foot").filter(has_text="Tag verifier").first).to_be_visible()

    # -- the best becomes the champion
    page.locator("#to-overview").click()
    expect(page.locator(".judge-scores")).to_contain_text("Right tags, corrected by people")
    expect(page.locator(".judge-scores tbody tr")).to_have_count(12)
    best = page.locator("#leaderboard table.board").first.locator("tbody tr").first
    expect(best).to_contain_text("Large")
    expect(best).to_contain_text("better")
    best.get_by_role("link", name=re.compile("Promote")).click()
    expect(page.locator(".evidence")).to_contain_text("better")
    page.get_by_label("Why").fill("It sees more")
    page.get_by_role("button", name="Move the label").click()
    expect(page.locator("#messages")).to_contain_text("points to")
    champion = find_recipe("champion", collection=walk)
    assert champion != before
    event = Label.objects.get(name="champion", collection=walk).events.order_by("-pk").first()
    assert (event.why, event.metrics["verdict"]) == ("It sees more", "better")

    # -- a run by label takes it, and knows everything already
    known = Prediction.objects.count()
    run = lab.run(champion, walk)
    assert (run.recipe, Prediction.objects.count()) == (champion, known)

    # -- and back
    page.goto(reverse("tagging:labels"))
    back = page.get_by_role("button", name=re.compile("back", re.I)).first
    expect(back).to_be_visible()
    page.on("dialog", lambda dialog: dialog.accept())
    back.click()
    expect(page.locator("#messages")).to_contain_text("points to")
    assert find_recipe("champion", collection=walk) == before


def told(walk: Collection, prompts: list[int]) -> tuple[Experiment, JudgeProfile]:
    """An experiment that is done, with a judge that has looked at it and was compared with people."""
    axes = {
        "mode": "product", "adapters": ["small", "large"], "prompts": prompts, "options": {"temperature": [0, 0.8]},
    }  # fmt: skip
    made = lab.experiment(walk, axes, name="Who sees most?", samples=2)
    experiments.start(made)
    work(made)
    profile = verifier(walk)
    run_job(judge_experiment(made, profile).pk)
    calibrate(profile.current)
    return made, profile


def overnight(walk: Collection, samples: Path, folder: Path) -> OvernightSearch:
    """A search that is done, on a few images more."""
    for i in range(14):
        file = folder / f"bee {i}.jpg"
        file.write_bytes((samples / "honey-bee.jpg").read_bytes() + bytes([i]))
        image = add_image(walk, file)
        review.decide(image.pk, by=None, door="review", add=right(image.name), review="reviewed")
    base = Experiment.objects.latest("pk").rows.order_by("position").last().recipe
    axes = {"options": {"temperature": [0, 0.8]}, "adapters": ["small", "large"]}
    search = start_search(walk, axes, hours=1, base=str(base.pk), holdout=0.5, seed=3)
    for _ in range(30):
        advance_search(search.pk)
        for found in Experiment.objects.filter(state="running"):
            work(found)
        search.refresh_from_db()
        if search.state == "done":
            return search
    raise AssertionError(search.log)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_page_is_for_all_and_fits_a_phone(
    open_page: OpenPage, walk: Collection, prompts: list[int], boss: User, dark: bool, samples: Path, tmp_path: Path
) -> None:
    made, profile = told(walk, prompts)
    rows = list(made.rows.all())
    search = overnight(walk, samples, tmp_path)
    pages = [
        reverse("judging:overnight"),
        reverse("judging:overnight_new") + "?collection=walk",
        search.get_absolute_url(),
        reverse("judging:experiments"),
        reverse("judging:experiment_new") + "?collection=walk",
        made.get_absolute_url(),
        reverse("judging:matrix", args=[made.pk]),
        reverse("judging:curves", args=[made.pk]),
        reverse("judging:sides", args=[made.pk]) + f"?a={rows[0].pk}&b={rows[-1].pk}",
        reverse("judging:arena", args=[made.pk]),
        reverse("judging:votes", args=[made.pk]),
        reverse("judging:rest", args=[made.pk]),
        reverse("judging:promote", args=[made.pk, rows[-1].pk]),
        reverse("judging:together", args=[made.pk]) + f"?row={rows[0].pk}&row={rows[-1].pk}",
        reverse("judging:judges"),
        profile.get_absolute_url(),
        reverse("judging:inbox", args=[profile.slug]),
        JudgeJob.objects.get().get_absolute_url(),
    ]
    page = open_page("/", boss, NARROW, dark)
    problems = []
    for at in pages:
        answer = page.goto(at)
        assert answer is not None
        assert answer.status == 200, at
        page.wait_for_load_state("networkidle")
        if shots := os.environ.get("IWTAG_SHOTS"):
            page.screenshot(path=f"{shots}/{pages.index(at):02}-{'dark' if dark else 'light'}.png", full_page=True)
        for check in (assert_accessible, assert_no_sideways_scroll):
            try:
                check(page)
            except AssertionError as e:
                problems.append(f"{at}: {e}")
    assert not problems, "\n".join(problems)


def test_the_report_needs_no_network(
    open_page: OpenPage, walk: Collection, prompts: list[int], boss: User, tmp_path: Path
) -> None:
    made, _ = told(walk, prompts)
    file = tmp_path / "report.html"
    file.write_text("".join(report(made)))
    # no page of ours came before it: its icon may still be asked for when the report opens
    page = open_page("about:blank", boss, NARROW)
    page.context.set_offline(True)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    expect(page.get_by_role("heading", name="Leaderboard by F1")).to_be_visible()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    shown = page.evaluate("[...document.images].map((image) => image.naturalWidth)")
    assert len(shown) > 20
    assert all(shown)
    assert "Name everything." in page.content()
    assert_no_sideways_scroll(page)
    # from a file axe cannot be put in beside the page's own policy
    page.context.set_offline(False)
    page.goto("/")
    page.set_content(re.sub(r"<meta http-equiv[^>]*>", "", file.read_text()))
    assert_accessible(page)


def lab_rest(experiment: Experiment) -> None:
    """All that is unjudged, decided as it is."""
    from judging.actions import rest

    for pair in rest.unjudged(experiment):
        name = ImageAsset.objects.get(pk=pair.image).name
        rest.judge(experiment, pair, right=pair.tag in right(name), by=None)
