"""Pages of judges: what a person with each role sees and can do."""

from __future__ import annotations

import pytest
from django.urls import reverse

from judging.actions import inbox
from judging.actions.calibrating import calibrate
from judging.actions.judge_jobs import run_job
from judging.models import Gate, InboxAnswer, JudgeJob, JudgeProfile
from tagging.models import ImageAsset, ImageTag
from tests.tagging.pages import signed_in
from tests.tagging.world import collection, person

from .world import adapter, decide, judge, recipe, run

pytestmark = pytest.mark.django_db
GOOD = ["dog", "grass", "tree"]
SAID = {f"{i}.jpg": [*GOOD, *(["cat"] if i < 20 else [])] for i in range(80)}
TRUTH = dict.fromkeys(SAID, GOOD)


@pytest.fixture
def calibrated(scripted):
    trip = collection()
    made = run(trip, SAID)
    decide(trip, TRUTH, person("ann", "reviewer"))
    profile = judge(truth={**TRUTH, "new.jpg": ["dog"]})
    from judging.actions.judge_jobs import start_job

    run_job(start_job(profile.current, runs=[made]).pk)
    calibrate(profile.current)
    return trip, profile, made


def test_a_curator_makes_the_judges_chooses_a_model_and_switches_one_on(scripted):
    client = signed_in("curator")
    page = client.get(reverse("judging:judges")).content.decode()
    assert "No judges yet" in page
    client.post(reverse("judging:judges_setup"))
    assert JudgeProfile.objects.count() == 4
    adapter("vision", truth=TRUTH)
    page = client.get(reverse("judging:judge", args=["tag-verifier"])).content.decode()
    assert "Choose the model that judges." in page
    prompt = JudgeProfile.objects.get(slug="tag-verifier").current.prompt_version_id
    form = {"adapter": "vision", "prompt_version": prompt, "rubric": "Be strict."}
    response = client.post(reverse("judging:judge_change", args=["tag-verifier"]), form, follow=True)
    assert "tag-verifier v2 is current" in response.content.decode()
    client.post(reverse("judging:judge_switch", args=["tag-verifier"]), {"enabled": "on"})
    assert JudgeProfile.objects.get(slug="tag-verifier").enabled


def test_a_form_with_mistakes_keeps_what_was_typed_and_says_so_beside_the_field(scripted):
    judge()
    client = signed_in("curator")
    form = {
        "adapter": "judge-model-0",
        "options_for": "judge-model-0",
        "rubric": "Kept text",
        "rules-tags_per_call": "99",
        "options-slow_ms": "soon",
    }
    response = client.post(reverse("judging:judge_change", args=["tag-verifier"]), form)
    page = response.content.decode()
    assert response.status_code == 422
    assert "At most 15." in page.split('id="id_rules-tags_per_call_error"')[1][:200]
    assert "Enter a whole number." in page.split('id="id_options-slow_ms_error"')[1][:200]
    assert 'value="99"' in page
    assert 'value="soon"' in page
    assert "Kept text" in page
    assert JudgeProfile.objects.get(slug="tag-verifier").versions.count() == 2


def test_rules_are_fields_and_those_checked_first_are_kept_only_when_asked_for(scripted):
    profile = judge()
    client = signed_in("curator")
    at = reverse("judging:judge_change", args=["tag-verifier"])
    prompt = profile.current.prompt_version_id
    form = {"adapter": "judge-model-0", "prompt_version": prompt, "rules-absent": "3", "rules-too_general": "wrong"}
    client.post(at, {**form, "first": "on", "first-min_tags": "2", "first-banned": "nsfw"})
    rules = JudgeProfile.objects.get(slug="tag-verifier").current.rules
    assert (rules["absent"], rules["too_general"], rules["present"]) == (3, "wrong", 1)
    assert (rules["rules"]["min_tags"], rules["rules"]["banned"]) == (2, ["nsfw"])
    client.post(at, {**form, "first-min_tags": "2"})
    assert JudgeProfile.objects.get(slug="tag-verifier").current.rules["rules"] is None


def test_another_model_brings_its_own_options_and_what_was_typed_stays_where_it_applies(scripted):
    profile = judge(manner="no")
    adapter("other", manner="yes")
    client = signed_in("curator")
    at = reverse("judging:judge_options", args=[profile.slug])
    typed = {"adapter": "other", "options_for": "judge-model-0", "options-manner": "no", "options-slow_ms": "7"}
    piece = client.get(at, typed).content.decode()
    assert 'name="options_for" value="other"' in piece
    assert 'value="yes"' in piece, "what was not touched is the new model's own"
    assert 'value="7"' in piece
    assert signed_in("reviewer").get(at, typed).status_code == 403
    # without a script the fields are still those of the model before: they are not taken for this one's
    form = {**typed, "prompt_version": profile.current.prompt_version_id}
    client.post(reverse("judging:judge_change", args=[profile.slug]), form)
    assert JudgeProfile.objects.get(pk=profile.pk).current.options["manner"] == "yes"


def test_the_page_of_a_judge_tells_how_far_it_can_be_trusted(calibrated):
    page = signed_in("viewer").get(reverse("judging:judge", args=["tag-verifier"])).content.decode()
    assert "trusted" in page
    assert "260" in page  # decisions
    assert "saves 75 % of reviews, lets 0 % of bad tags through" in page
    assert 'action="/judging/judges/tag-verifier/change/"' not in page, "viewers change nothing"


def test_the_slider_works_without_a_script(calibrated):
    client = signed_in("viewer")
    at = reverse("judging:judge", args=["tag-verifier"])
    assert "saves 100 % of reviews" in client.get(f"{at}?accept=0.9&reject=0.1").content.decode()
    assert "saves 0 % of reviews" in client.get(f"{at}?accept=0.99").content.decode()
    assert client.get(f"{at}?accept=nan&reject=<b>").status_code == 200


def test_a_job_is_started_watched_and_paused_from_its_page(calibrated):
    _, profile, made = calibrated
    client = signed_in("curator")
    response = client.post(
        reverse("judging:judge_ask", args=[profile.slug]), {"what": "run", "run": made.pk, "share": "100"}
    )
    job = JudgeJob.objects.order_by("-pk").first()
    assert response.url == job.get_absolute_url()
    assert "hx-trigger" in client.get(response.url).content.decode()
    client.post(reverse("judging:judge_job_act", args=[job.pk, "pause"]))
    job.refresh_from_db()
    assert job.state == "paused"
    client.post(reverse("judging:judge_job_act", args=[job.pk, "resume"]))
    run_job(job.pk)
    done = client.get(reverse("judging:judge_job_status", args=[job.pk]))
    assert done.status_code == 286, "polling ends with the job"
    assert client.post(reverse("judging:judge_job_act", args=[job.pk, "explode"])).status_code == 404


def test_a_collections_gate_is_set_used_and_taken_back(calibrated):
    trip, profile, _ = calibrated
    client = signed_in("curator")
    at = reverse("judging:gate", args=[trip.slug])
    assert 'value="0.50"' in client.get(at).content.decode(), "the chosen threshold is filled in"
    form = {"judge": profile.slug, "accept_at": "0.99", "reject_at": "", "target": "0.95", "audit_share": "0.01"}
    response = client.post(at, {**form, "enabled": "on"})
    assert response.status_code == 422
    assert "the target is 95 %" in response.content.decode()
    client.post(at, {**form, "accept_at": "0.9", "enabled": "on"})
    assert Gate.objects.get().accept_at == 0.9
    more = run(trip, {"new.jpg": ["dog"]}, of=recipe("next"))
    response = client.post(reverse("judging:gate_run", args=[trip.slug]), {"run": more.pk})
    job = run_job(JudgeJob.objects.latest("pk").pk)
    assert job.n_accepted == 1
    assert "accepted" in client.get(at).content.decode()
    assert "Take back" in client.get(response.url).content.decode()
    client.post(reverse("judging:judge_job_act", args=[job.pk, "undo"]))
    assert ImageAsset.objects.get(path="new.jpg").review_state == "unreviewed"


def test_what_a_judge_accepted_is_told_apart_everywhere(calibrated):
    trip, _, _ = calibrated
    ImageAsset.objects.filter(path="0.jpg").update(review_state="auto")
    client = signed_in("reviewer")
    assert "1 accepted by a judge" in client.get("/").content.decode()
    page = client.get(f"{trip.get_absolute_url()}?review=auto").content.decode()
    assert "0.jpg" in page
    assert "1.jpg" not in page


def test_the_inbox_is_answered_in_place(scripted):
    trip = collection()
    made = run(trip, {"0.jpg": ["dog"]})
    decide(trip, {"0.jpg": ["dog"]}, person("ann", "reviewer"))
    profile = judge(manner="no")
    from judging.actions.judge_jobs import start_job

    run_job(start_job(profile.current, runs=[made]).pk)
    client = signed_in("reviewer")
    at = reverse("judging:inbox", args=[profile.slug])
    row = inbox.disagreements(profile.current).get()
    assert "did not see dog" in client.get(at).content.decode()
    answer = reverse("judging:inbox_answer", args=[row.pk])
    response = client.post(answer, {"answer": "person"}, headers={"HX-Request": "true"})
    assert "the decision was turned round" in response.content.decode()
    assert InboxAnswer.objects.get().by.username == "reviewer"
    assert ImageTag.objects.get(tag__key="dog").state == ImageTag.State.REJECTED
    again = client.post(answer, {"answer": "judge"}, headers={"HX-Request": "true"})
    assert "answered this already" in again.content.decode()
    assert "Nothing to settle" in client.get(at).content.decode()
    assert client.get(f"{at}?cursor=x").status_code == 404


@pytest.mark.parametrize("role", ["viewer", "reviewer"])
def test_pages_that_change_judges_are_the_curators(calibrated, role):
    client = signed_in(role)
    for name, args in (
        ("judges_setup", []),
        ("judge_change", ["tag-verifier"]),
        ("judge_switch", ["tag-verifier"]),
        ("judge_ask", ["tag-verifier"]),
        ("judge_learn", ["tag-verifier"]),
        ("gate_run", ["trip"]),
        ("gate", ["trip"]),
    ):
        assert client.post(reverse(f"judging:{name}", args=args)).status_code == 403
    assert client.get(reverse("judging:gate", args=["trip"])).status_code == 200
    assert client.get(reverse("judging:judge", args=["nobody"])).status_code == 404


def test_lists_cost_the_same_however_long(calibrated, django_assert_max_num_queries):
    trip, _profile, _ = calibrated
    client = signed_in("curator")
    for name, args, most in (
        ("judges", [], 16),
        ("judge", ["tag-verifier"], 32),
        ("inbox", ["tag-verifier"], 16),
        ("gate", [trip.slug], 22),
    ):
        with django_assert_max_num_queries(most):
            assert client.get(reverse(f"judging:{name}", args=args)).status_code == 200
