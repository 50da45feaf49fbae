"""What runs cost, and their end at the budget."""

from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.urls import reverse

from prompts.actions import create_prompt, create_version
from tagging.actions.costs import cost_of, run_cost
from tagging.actions.recipes import ChannelSpec, get_recipe
from tagging.actions.runs import NotNow, resume, set_budget, start_run
from tagging.adapters.endpoint import ladder, limits
from tagging.engine import residency, stage, worker
from tagging.models import Collection, ImageAsset, ModelAdapter, Prediction, Proposal
from tests.adapters.helpers import encoded
from tests.fakes.lying_server import LyingServer, Say

pytestmark = pytest.mark.django_db


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr("tagging.engine.work.FLUSH", 0.0)
    limits.forget()
    ladder.forget()
    stage.forget()
    with LyingServer() as running:
        # a thousand tokens sent, a hundred received: at 2 and 10 a million, 0.003 a picture
        running.always(Say("cat, dog", usage={"prompt_tokens": 1000, "completion_tokens": 100}))
        yield running
    residency.MODELS.evict()


@pytest.fixture
def row(server):
    options = {"model": "m", "price_in": 2.0, "price_out": 10.0, "currency": "EUR", "concurrency": 2}
    return ModelAdapter.objects.create(
        slug="remote", label="Remote", kind="openai", source=server.address, options=options
    )


@pytest.fixture
def version():
    return create_version(create_prompt(slug="p"), template="What is it?", message="first")


@pytest.fixture
def collection():
    from PIL import Image

    made = Collection.objects.create(name="Trip", slug="trip", kind="upload")
    for i in range(20):
        content = encoded(Image.new("RGB", (8, 8), (i, 0, 0)))
        default_storage.save(f"{made.upload_prefix}/{i:02}.png", ContentFile(content))
        ImageAsset.objects.create(collection=made, path=f"{i:02}.png", sha256=f"{i:064x}")
    return made


def start(row, version, collection, budget=None, **options):
    return start_run(get_recipe([ChannelSpec(row, version, options)]), collection=collection, budget=budget)


def work():
    for _ in range(30):
        if not worker.drain("io"):
            return


def test_a_run_counts_tokens_and_money(row, version, collection):
    run = start(row, version, collection)
    work()
    run.refresh_from_db()
    assert (run.state, run.tokens_in, run.tokens_out, run.currency) == ("done", 20_000, 2_000, "EUR")
    assert run.spent == pytest.approx(0.06)
    found = run_cost(run)
    assert (found.calls, found.unpriced) == (20, 0)
    assert found.words == "0.06 EUR"
    again = start(row, version, collection)
    work()
    again.refresh_from_db()
    assert (again.state, again.spent, again.tokens_in) == ("done", 0, 0)  # nothing was asked


def test_predictions_without_a_price_are_told_apart(row, version, collection):
    start(row, version, collection, price_in=0, price_out=0)
    work()
    found = cost_of(Prediction.objects.all())
    assert (found.calls, found.unpriced, found.tokens_in, found.money, found.words) == (20, 20, 20_000, (), "")


def test_a_run_pauses_at_its_budget_and_goes_on_when_it_is_raised(row, version, collection, server):
    run = start(row, version, collection, budget=0.02)  # 6 pictures
    work()
    run.refresh_from_db()
    assert run.state == "paused"
    assert run.spent <= 0.02
    assert "The budget of 0.02 EUR is used up" in run.error
    assert "Raise the budget, then resume." in run.error
    done = Proposal.objects.filter(run=run, state="ok").count()
    assert done == 6
    assert len(server.asked) == 6  # nothing was paid for and thrown away
    set_budget(run, 0.018)
    with pytest.raises(NotNow, match="Raise the budget"):
        resume(run)
    set_budget(run, "0.03")
    resume(run)
    run.refresh_from_db()
    assert run.error == ""
    work()
    run.refresh_from_db()
    assert (run.state, Proposal.objects.filter(run=run).count()) == ("paused", 10)
    set_budget(run, None)
    resume(run)
    work()
    run.refresh_from_db()
    assert (run.state, Proposal.objects.filter(run=run, state="ok").count()) == ("done", 20)
    assert len(server.asked) == 20
    with pytest.raises(NotNow, match="has ended"):
        set_budget(run, 5)


def test_requests_in_flight_are_counted_in_advance(row, version, collection, server):
    run = start(row, version, collection, budget=0.02, concurrency=16)
    stage.stage_of(run, 0).mean_cost = 0.003  # as a stage knows after its first answers
    work()
    run.refresh_from_db()
    assert run.state == "paused"
    assert run.spent <= 0.02


@pytest.mark.parametrize("budget", [0, -1, "much", float("nan"), 10**9])
def test_a_budget_is_an_amount(row, version, collection, budget):
    with pytest.raises(ValidationError) as refused:
        start(row, version, collection, budget=budget)
    assert "budget" in refused.value.message_dict


def test_a_budget_needs_a_price(row, version, collection):
    with pytest.raises(ValidationError, match="needs a price"):
        start(row, version, collection, budget=5, price_in=0, price_out=0)


def test_the_page_shows_the_money_and_raises_the_budget(row, version, collection, admin_client):
    run = start(row, version, collection, budget=0.02)
    work()
    page = admin_client.get(run.get_absolute_url()).content.decode()
    assert "is used up" in page
    assert "0.02 EUR" in page
    assert 'name="budget"' in page
    answer = admin_client.post(reverse("tagging:run_budget", args=[run.pk]), {"budget": "1", "resume": "1"})
    assert answer.status_code == 302
    run.refresh_from_db()
    assert (run.state, float(run.budget)) == ("running", 1.0)
    work()
    page = admin_client.get(run.get_absolute_url()).content.decode()
    assert "0.06 EUR" in page
    assert 'name="budget"' not in page


def test_the_page_of_a_free_run_says_nothing_of_money(row, version, collection, admin_client):
    run = start(row, version, collection, price_in=0, price_out=0)
    page = admin_client.get(run.get_absolute_url()).content.decode()
    assert "spent" not in page
    assert "Budget" not in page


def test_the_api_tells_and_sets_it(row, version, collection, admin_client):
    answer = admin_client.post(
        "/api/runs",
        {"collection": "trip", "adapter": "remote", "prompt_version": version.pk, "budget": 0.02},
        content_type="application/json",
    )
    assert answer.status_code == 201, answer.content
    pk = answer.json()["id"]
    work()
    found = admin_client.get(f"/api/runs/{pk}").json()
    assert (found["state"], found["currency"], found["budget"]) == ("paused", "EUR", 0.02)
    assert admin_client.get(f"/api/runs/{pk}/cost").json()["money"] == {"EUR": pytest.approx(0.018)}
    refused = admin_client.post(f"/api/runs/{pk}/resume")
    assert refused.status_code in (200, 409)
    raised = admin_client.post(f"/api/runs/{pk}/budget", {"budget": None}, content_type="application/json")
    assert raised.json()["budget"] is None


def test_a_viewer_sets_no_budget(row, version, collection, client, django_user_model):
    run = start(row, version, collection, budget=1)
    client.force_login(django_user_model.objects.create_user("eve"))
    assert client.post(reverse("tagging:run_budget", args=[run.pk]), {"budget": "9"}).status_code == 403
