from __future__ import annotations

import re
import subprocess
import sys

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.http import QueryDict
from django.test import Client

from prompts.actions import create_prompt, create_version
from prompts.models import Prompt, PromptVersion
from tagging.actions.labels import move_label
from tagging.actions.recipes import ChannelSpec, get_recipe
from tagging.actions.runs import cancel, pause
from tagging.engine.stage import stage_of
from tagging.models import Chunk, Collection, ImageAsset, ModelAdapter, Policy, PolicyVersion, Recipe, Run
from tagging.views.newrun import NewRun

from .pages import a_run, collection, images, person, photo_lite, signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def holiday() -> Collection:
    return collection()


def text_of(response) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split())


# -- doors -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("role", "see", "start"), [("", 403, 403), ("viewer", 200, 403), ("reviewer", 200, 403)])
def test_seeing_and_starting(holiday, role, see, start):
    run = a_run(holiday, images(holiday, 2))
    client = signed_in(role)
    assert client.get("/runs/").status_code == see
    assert client.get(f"/runs/{run.pk}/").status_code == see
    assert client.get(f"/runs/{run.pk}/status/").status_code == see
    assert client.get("/runs/new/").status_code == start
    assert client.get("/channels/form/?adapter=photo-lite").status_code == start
    for verb in ("pause", "resume", "cancel", "retry"):
        assert client.post(f"/runs/{run.pk}/{verb}/").status_code == start
    run.refresh_from_db()
    assert run.state == "running"


def test_changes_are_posts_and_guarded(holiday):
    run = a_run(holiday, images(holiday, 2))
    assert signed_in("curator").get(f"/runs/{run.pk}/pause/").status_code == 405
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(person("curator", "other"))
    assert strict.post(f"/runs/{run.pk}/pause/").status_code == 403
    run.refresh_from_db()
    assert run.state == "running"


def test_unknown_runs_and_verbs_are_404(holiday):
    run = a_run(holiday, images(holiday, 2))
    client = signed_in("curator")
    assert client.get("/runs/999/").status_code == 404
    assert client.post(f"/runs/{run.pk}/explode/").status_code == 404


# -- one run -----------------------------------------------------------------------------------------------------------
def test_a_running_run_shows_counts_rate_and_recipe(holiday):
    run = a_run(holiday, images(holiday, 10), done=4, errors=1, seconds=2.0)
    response = signed_in("curator").get(f"/runs/{run.pk}/")
    text = text_of(response)
    assert "40% · 4 of 10 images · 2.0 images/s · 3 s left" in text
    assert "photo-lite" in text
    assert "default v1" in text
    assert re.search(r"threshold\s+0\.3", text)
    assert "Pause" in text
    assert "Cancel" in text
    assert "Resume" not in text
    html = response.content.decode()
    assert f'hx-get="/runs/{run.pk}/status/"' in html
    assert 'aria-valuenow="4"' in html


def test_the_phase_is_told_and_an_absent_worker_too(holiday):
    run = a_run(holiday, images(holiday, 3))
    client = signed_in("viewer")
    assert "No worker is running" in text_of(client.get(f"/runs/{run.pk}/"))
    Run.objects.filter(pk=run.pk).update(phase="loading photo-lite")
    assert "loading photo-lite" in text_of(client.get(f"/runs/{run.pk}/status/"))


def test_polling_ends_with_286_when_nothing_moves_any_more(holiday):
    run = a_run(holiday, images(holiday, 3), done=1)
    client = signed_in("viewer")
    assert client.get(f"/runs/{run.pk}/status/").status_code == 200
    cancel(run)
    response = client.get(f"/runs/{run.pk}/status/")
    assert response.status_code == 286
    assert b"hx-trigger" not in response.content
    assert b"<html" not in response.content


def test_a_failed_run_says_why_and_how_to_mend_it(holiday):
    run = a_run(holiday, images(holiday, 3), state="failed", error="model.onnx is missing. Put it into /models.")
    text = text_of(signed_in("curator").get(f"/runs/{run.pk}/"))
    assert "The run failed. model.onnx is missing. Put it into /models." in text
    assert "Try again" in text


def test_failed_images_are_grouped_by_what_went_wrong(holiday):
    found = images(holiday, 20)
    run = a_run(holiday, found, state="done", done=20, errors=12)
    response = signed_in("curator").get(f"/runs/{run.pk}/")
    text = text_of(response)
    assert "12 × the data ends too early" in text  # the file's own name does not split the group
    html = response.content.decode()
    assert html.count('class="mini"') == 8
    assert f'href="/images/{found[0].pk}/"' in html
    assert f'href="/c/holiday/?run={run.pk}&amp;errors=1"' in html
    assert "Retry failed images" in text


def test_pause_resume_cancel_and_retry_by_button(holiday):
    run = a_run(holiday, images(holiday, 4), done=1, errors=1)
    client = signed_in("curator")
    for verb, state in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled"), ("retry", "running")):
        response = client.post(f"/runs/{run.pk}/{verb}/", follow=True)
        assert response.redirect_chain == [(f"/runs/{run.pk}/", 302)]
        run.refresh_from_db()
        assert run.state == state, verb
    assert Chunk.objects.filter(run=run, n_error__gt=0).count() == 0


def test_what_the_state_does_not_allow_is_said_and_not_done(holiday):
    run = a_run(holiday, images(holiday, 2))
    pause(run)
    response = signed_in("curator").post(f"/runs/{run.pk}/pause/", follow=True)
    assert "is paused and cannot be paused" in text_of(response)
    assert response.status_code == 200


def test_a_run_page_takes_few_queries_however_many_failed(holiday, django_assert_max_num_queries):
    run = a_run(holiday, images(holiday, 60), state="done", done=60, errors=60)
    client = signed_in("reviewer")
    with django_assert_max_num_queries(10):
        client.get(f"/runs/{run.pk}/")


# -- the list ----------------------------------------------------------------------------------------------------------
def test_the_list_pages_by_keyset_and_filters(holiday, django_assert_max_num_queries):
    first = a_run(holiday, images(holiday, 1))
    recipe = first.recipe
    Run.objects.bulk_create(
        Run(recipe=recipe, collection=holiday, name=f"r{n}", state="paused", n_total=1) for n in range(64)
    )
    client = signed_in("viewer")
    seen, address = [], "/runs/"
    while address:
        with django_assert_max_num_queries(8):
            html = client.get(address).content.decode()
        seen += [int(pk) for pk in re.findall(r'id="run-link-(\d+)"', html)]
        match = re.search(r'rel="next" href="([^"]+)"', html)
        address = "/runs/" + match.group(1).replace("&amp;", "&") if match else ""
    assert seen == sorted(Run.objects.values_list("pk", flat=True), reverse=True)
    assert client.get("/runs/?state=running").content.count(b'class="card run-row"') == 1
    assert "No runs like that" in text_of(client.get("/runs/?state=failed"))


@pytest.mark.parametrize("query", ["state=happy", "before=last"])
def test_bad_input_of_the_list_is_400_with_its_name(query):
    response = signed_in("viewer").get(f"/runs/?{query}")
    assert response.status_code == 400
    assert f"{query.partition('=')[0]}:" in response.content.decode()


def test_only_a_list_with_running_rows_is_polled(holiday):
    run = a_run(holiday, images(holiday, 2))
    client = signed_in("viewer")
    assert b'hx-trigger="every' in client.get("/runs/").content
    part = client.get("/runs/", headers={"HX-Request": "true"}).content
    assert b"<html" not in part
    cancel(run)
    assert b'hx-trigger="every' not in client.get("/runs/").content


# -- a new one ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def adapters() -> None:
    photo_lite()
    ModelAdapter.objects.create(slug="wd", label="WD", kind="wd", source="/nowhere", options={"general_threshold": 0.4})
    ModelAdapter.objects.create(slug="off", label="Off", kind="wd", enabled=False)


def test_the_form_is_drawn_from_the_adapters_schema(holiday, adapters):
    html = signed_in("curator").get("/runs/new/?collection=holiday&adapter=wd").content.decode()
    assert 'name="options-general_threshold"' in html
    assert 'value="0.4"' in html  # the row's own setting, not the schema's
    assert "No folder &#x27;/nowhere&#x27;" in html  # what would keep it from loading is told before
    assert ">Off<" not in html


def test_changing_the_adapter_keeps_what_still_applies(holiday, adapters):
    client = signed_in("curator")
    query = {
        "adapter": "wd",
        "options_for": "photo-lite",
        "options-threshold": "0.3",
        "options-score_floor": "0.11",
    }
    html = client.get("/channels/form/", query).content.decode()
    assert "<html" not in html
    assert re.search(r'name="options-score_floor" value="0.11"', html)
    assert re.search(r'name="options-general_threshold" value="0.4"', html)
    assert '<input type="hidden" name="options_for" value="wd">' in html


def test_starting_a_run(holiday, adapters):
    images(holiday, 5)
    images(holiday, 1, state="error", error="cut short")
    client = signed_in("curator")
    data = {
        "collection": "holiday",
        "adapter": "photo-lite",
        "options-score_floor": "0.2",
        "name": "Mine",
        "priority": "7",
    }
    response = client.post("/runs/new/", {**data, "shown": "on"})
    run = Run.objects.get()
    assert response["Location"] == f"/runs/{run.pk}/"
    assert (run.name, run.n_total, run.priority, run.shown) == ("Mine", 5, 7, True)
    assert run.created_by.username == "curator"
    assert run.recipe.channels.get().options["score_floor"] == 0.2
    client.post("/runs/new/", data)
    assert Run.objects.latest("pk").shown is False
    assert Recipe.objects.count() == 1  # the same recipe is the same row


def test_starting_on_what_a_filter_shows(holiday, adapters):
    found = images(holiday, 4)
    ImageAsset.objects.filter(pk=found[2].pk).update(review_state="reviewed")
    client = signed_in("curator")
    html = client.get("/runs/new/?collection=holiday&filter=review%3Dreviewed").content.decode()
    assert '<span class="badge">reviewed</span>' in html
    client.post("/runs/new/", {"collection": "holiday", "adapter": "photo-lite", "filter": "review=reviewed"})
    run = Run.objects.get()
    assert run.n_total == 1
    assert list(run.chunks.get().images) == [found[2].pk]


@pytest.mark.parametrize(
    ("change", "where", "says"),
    [
        ({"collection": "nowhere"}, "id_collection_error", "There is no collection"),
        ({"collection": ""}, "id_collection_error", "Choose the collection."),
        ({"adapter": ""}, "id_adapter_error", "Choose the model."),
        ({"adapter": "off"}, "id_adapter_error", "There is no adapter"),
        ({"options-score_floor": "7"}, "id_options-score_floor_error", "At most"),
        ({"options-score_floor": "much"}, "id_options-score_floor_error", "Enter a number"),
        ({"priority": "1000"}, "id_priority", "A whole number from -100 to 100"),
        ({"name": "x" * 161}, "id_name", "At most 160 characters"),
        ({"filter": "min_score=3"}, "errors", "not a score"),
        ({"prompt": "99"}, "Prompt:", "no such prompt"),
    ],
)
def test_bad_input_is_422_beside_its_field_and_starts_nothing(holiday, adapters, change, where, says):
    images(holiday, 1)
    data = {"collection": "holiday", "adapter": "photo-lite", **change}
    response = signed_in("curator").post("/runs/new/", data)
    assert response.status_code == 422
    html = response.content.decode()
    assert says in html
    assert where in html
    assert not Run.objects.exists()


def test_an_empty_collection_is_refused_with_the_mend(holiday, adapters):
    response = signed_in("curator").post("/runs/new/", {"collection": "holiday", "adapter": "photo-lite"})
    assert response.status_code == 422
    assert "Index the collection" in text_of(response)


def test_a_missing_package_is_a_message_not_a_crash(holiday):
    ModelAdapter.objects.create(slug="gone", label="Gone", kind="gone-kind")
    client = signed_in("curator")
    images(holiday, 1)
    assert "cannot be loaded" in text_of(client.get("/runs/new/?adapter=gone"))
    assert client.post("/runs/new/", {"collection": "holiday", "adapter": "gone"}).status_code == 422


def test_nothing_to_choose_says_what_to_do_first():
    client = signed_in("curator")
    assert "A run needs a collection" in text_of(client.get("/runs/new/"))
    collection()
    assert "No models yet" in text_of(client.get("/runs/new/"))


def test_prompts_are_offered_only_where_the_model_takes_one(holiday, adapters):
    prompt = Prompt.objects.create(slug="plain", name="Plain")
    PromptVersion.objects.create(prompt=prompt, template="Say tags.", message="first")
    assert NewRun(QueryDict("adapter=wd")).channel.prompts == []


def test_drawing_the_form_imports_nothing_heavy():
    code = (
        "import sys, django; django.setup()\n"
        "from tagging.adapters import registry\n"
        "from tagging.adapters.base import AdapterConfig\n"
        "from tagging.forms import SchemaForm\n"
        "import tagging.views.runs, tagging.views.grid, tagging.views.collections, tagging.views.home\n"
        "import tagging.views.models, tagging.views.channels, tagging.api.models, tagging.actions.registry_import\n"
        "from tagging.adapters import scan\n"
        "scan.scan([]), scan.hub_cache()\n"
        "for key in registry.BUILT_IN:\n"
        "    SchemaForm(registry.adapter_class(key).Options).render()\n"
        "    registry.build(key, AdapterConfig()).check()\n"
        "heavy = {'torch', 'transformers', 'onnxruntime', 'openai', 'rawpy', 'cv2'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=django_settings.BASE_DIR,
        env={
            "DJANGO_SETTINGS_MODULE": "iwtag_site.settings",
            "PATH": "",
            "IWTAG_DATA_DIR": str(django_settings.DATA_DIR),
            "DATABASE_URL": "sqlite://:memory:",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# -- what a run can be asked for besides -------------------------------------------------------------------------------
def test_a_run_by_label_or_number_with_a_policy_or_a_sample(holiday, adapters):
    images(holiday, 2)
    client = signed_in("curator")
    first = {"collection": "holiday", "adapter": "photo-lite", "by": "model", "sample": "3"}
    assert client.post("/runs/new/", first).status_code == 302
    run = Run.objects.latest("pk")
    assert run.sample == 3
    move_label("champion", run.recipe, why="the best so far")
    page = client.get("/runs/new/?collection=holiday&recipe=champion").content.decode()
    assert 'value="recipe" checked' in page
    assert '<option value="champion">' in page
    for text in ("champion", str(run.recipe_id)):
        sent = {"collection": "holiday", "by": "recipe", "recipe": text}
        assert client.post("/runs/new/", sent).status_code == 302
        assert Run.objects.latest("pk").recipe == run.recipe
    wrong = client.post("/runs/new/", {"collection": "holiday", "by": "recipe", "recipe": "gone"})
    assert wrong.status_code == 422
    assert "gone" in text_of(wrong)
    assert "Name a recipe" in text_of(client.post("/runs/new/", {"collection": "holiday", "by": "recipe"}))
    assert "from 0 to 999" in text_of(client.post("/runs/new/", {**first, "sample": "-1"}))
    policy = Policy.objects.create(slug="strict", name="Strict")
    version = PolicyVersion.objects.create(policy=policy, number=1, spec={}, digest="d", message="first")
    assert client.post("/runs/new/", {**first, "policy": str(version.pk)}).status_code == 302
    assert Run.objects.latest("pk").recipe.policy_version == version
    assert "no such version" in text_of(client.post("/runs/new/", {**first, "policy": "4711"}))


def test_a_model_that_takes_prompts_asks_for_one_and_for_its_values(holiday):
    images(holiday, 2)
    ModelAdapter.objects.create(
        slug="server", label="Server", kind="openai", source="http://127.0.0.1:9/v1", options={"model": "m"}
    )
    prompt = Prompt.objects.create(slug="plain", name="Plain")
    version = PromptVersion.objects.create(
        prompt=prompt, number=1, template="{{ count | default(5) }} tags in {{ tone }}", message="first"
    )
    client = signed_in("curator")
    sent = {"collection": "holiday", "adapter": "server"}
    assert "Choose what it is asked" in text_of(client.post("/runs/new/", sent))
    piece = client.get("/channels/form/", {**sent, "options_for": "server", "prompt": version.pk, "keep": "1"})
    html = piece.content.decode()
    assert 'name="var-tone" id="id_var-tone" value="" placeholder="needed"' in html
    assert 'name="var-count" id="id_var-count" value="" placeholder="5"' in html
    refused = client.post("/runs/new/", {**sent, "prompt": str(version.pk)})
    assert "The prompt needs a value for tone." in text_of(refused)
    done = client.post("/runs/new/", {**sent, "prompt": str(version.pk), "var-tone": "French", "var-count": "7"})
    assert done.status_code == 302, text_of(done)
    channel = Run.objects.latest("pk").recipe.channels.get()
    assert (channel.prompt_version, channel.variables) == (version, {"tone": "French", "count": 7})


def test_only_a_model_with_words_of_its_own_does_without_a_prompt(holiday):
    images(holiday, 2)
    server = ModelAdapter.objects.create(
        slug="server", label="Server", kind="openai", source="http://127.0.0.1:9/v1", options={"model": "m"}
    )
    joy = ModelAdapter.objects.create(slug="joy", label="Joy", kind="joycaption", source="/nowhere")
    client = signed_in("curator")
    piece = client.get("/channels/form/", {"adapter": "server"}).content.decode()
    assert "the model's own" not in piece
    assert 'aria-required="true"' in piece
    page = client.post("/runs/new/", {"collection": "holiday", "adapter": "server"})
    assert page.status_code == 422
    assert 'id="id_prompt_error">Choose what it is asked.' in page.content.decode()
    with pytest.raises(ValidationError) as refused:
        get_recipe([ChannelSpec(server)])
    assert refused.value.message_dict == {"prompt": ["Server needs a prompt."]}

    piece = client.get("/channels/form/", {"adapter": "joy"}).content.decode()
    assert '<option value="">the model\'s own</option>' in piece
    assert 'aria-required="true"' not in piece
    sent = {"collection": "holiday", "adapter": "joy", "options-caption_type": "booru"}
    done = client.post("/runs/new/", sent)
    assert done.status_code == 302, text_of(done)
    channel = Run.objects.latest("pk").recipe.channels.get()
    assert (channel.adapter, channel.prompt_version) == (joy, None)


def test_settings_of_the_model_are_shown_in_its_administration_alone(holiday):
    images(holiday, 2)
    row = ModelAdapter.objects.create(
        slug="server",
        label="Server",
        kind="openai",
        source="http://127.0.0.1:9/v1",
        options={"model": "m", "api_key_env": "FIRST_API_KEY"},
    )
    version = create_version(create_prompt(slug="p"), template="What is it?", message="first")
    client = signed_in("curator")
    piece = client.get("/channels/form/", {"adapter": "server"}).content.decode()
    assert "options-temperature" in piece
    assert "api_key_env" not in piece
    assert "trust_remote_code" not in client.get("/channels/form/", {"adapter": "server"}).content.decode()
    boss = Client()
    boss.force_login(User.objects.create_superuser("boss"))
    assert "options-api_key_env" in boss.get(f"/admin/tagging/modeladapter/{row.pk}/change/").content.decode()

    sent = {"collection": "holiday", "adapter": "server", "prompt": str(version.pk)}
    done = client.post("/runs/new/", {**sent, "options-api_key_env": "OTHER_API_KEY"})
    assert done.status_code == 302, text_of(done)
    recipe = Run.objects.latest("pk").recipe
    assert "api_key_env" not in recipe.channels.get().options
    assert stage_of(Run.objects.latest("pk"), 0).options.api_key_env == "FIRST_API_KEY"

    with pytest.raises(ValidationError, match="api_key_env: set for Server as a whole"):
        get_recipe([ChannelSpec(row, version, {"api_key_env": "OTHER_API_KEY"})])
    row.options = {**row.options, "api_key_env": "SECOND_API_KEY"}
    row.save()
    assert get_recipe([ChannelSpec(row, version)]) == recipe  # another key is the same recipe
    assert stage_of(Run.objects.latest("pk"), 0).options.api_key_env == "SECOND_API_KEY"
