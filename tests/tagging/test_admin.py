from __future__ import annotations

import json
from datetime import timedelta

import numpy as np
import pytest
from django.contrib import admin
from django.contrib.admin.sites import site
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from exports.import_models import ImportJob
from exports.models import ExportJob
from iwtag_site.admin import HIDDEN_APPS
from judging.models import Experiment, OvernightSearch, SecondLook
from prompts import actions as prompt_actions
from prompts.models import Prompt
from tagging import queue
from tagging.actions import keys
from tagging.adapters.base import PackedScores
from tagging.admin import common
from tagging.models import (
    ApiKey,
    Channel,
    Chunk,
    Collection,
    ImageAsset,
    ImageTag,
    IngestJob,
    ModelAdapter,
    ModelDownload,
    Policy,
    PolicyVersion,
    Prediction,
    Proposal,
    Recipe,
    RecomputeJob,
    Run,
    StoredLabelSet,
    Tag,
    TagAlias,
    TagCount,
    TagEdit,
    Worker,
)

pytestmark = pytest.mark.django_db
admin.autodiscover()
APPS = ("tagging", "prompts", "judging", "exports")
OURS = sorted((m for m in site._registry if m._meta.app_label in APPS), key=lambda m: m.__name__)


@pytest.fixture(autouse=True)
def _silent_queue(monkeypatch):
    monkeypatch.setattr(queue, "defer", lambda *args, **kwargs: None)
    monkeypatch.setattr(queue, "kick", lambda *args, **kwargs: None)


@pytest.fixture
def boss(client):
    client.force_login(User.objects.create_superuser("boss", password="x"))
    return client


def fill(n: int, start: int = 0) -> None:
    """`n` rows of everything, each with its own relations."""
    now = timezone.now()
    labels, _ = StoredLabelSet.objects.get_or_create(
        digest="d", defaults={"names": ["cat", "dog"], "categories": ["general", "general"], "parents": [-1, -1]}
    )
    for i in range(start, start + n):
        user = User.objects.create(username=f"user{i}", is_superuser=True, is_active=True)
        c = Collection.objects.create(name=f"Collection {i}", slug=f"c{i}", kind="upload")
        adapter = ModelAdapter.objects.create(slug=f"a{i}", label=f"Adapter {i}", kind="photo-lite")
        policy = Policy.objects.create(slug=f"p{i}", name=f"Policy {i}")
        version = PolicyVersion.objects.create(policy=policy, number=1, spec={"limit": i}, created_by=user)
        prompt = Prompt.objects.create(slug=f"prompt{i}", name=f"Prompt {i}")
        text = prompt_actions.create_version(prompt, template=f"List {i} tags.", message="First", by=user)
        words = prompt_actions.create_wordlist(slug=f"w{i}", kind="banned", entries=["brand"], by=user)
        version.wordlists.add(words.current)
        recipe = Recipe.objects.create(key=f"{i:064x}", policy_version=version)
        Channel.objects.create(recipe=recipe, adapter=adapter, prompt_version=text)
        run = Run.objects.create(recipe=recipe, collection=c, state="done", finished_at=now, n_total=1, created_by=user)
        image = ImageAsset.objects.create(
            collection=c, path=f"{i}.jpg", sha256=f"{i:064x}", width=4, height=3, proposed_by=run, reviewed_by=user
        )
        above = Tag.objects.create(name=f"above {i}")
        tag = Tag.objects.create(name=f"tag {i}", parent=above)
        TagAlias.objects.create(tag=tag, name=f"alias {i}")
        ImageTag.objects.create(image=image, tag=tag, state=2, score=0.75, run=run)
        TagCount.objects.create(collection=c, tag=tag, accepted=1)
        TagEdit.objects.create(image=image, kind="tag", tag=tag, before=1, after=2, by=user)
        Chunk.objects.create(
            run=run, model_key="k", lo=0, hi=1, image_ids=np.array([image.pk]).astype("<i8").tobytes(), state=2, n_ok=1
        )
        packed = PackedScores.pack(np.array([0.25, 0.875], dtype=np.float32))
        said = Prediction.objects.create(
            key=f"{i:064x}", image_sha256=image.sha256, run=run, labels=labels, scores=packed.to_bytes(), text="raw <b>"
        )
        Proposal.objects.create(
            run=run, image=image, state="ok", prediction=said,
            tags=[
                ["dog", "general", 0.875, "kept", "", "a"],
                ["brand", "general", 0.5, "dropped", "banned by 'w'", "a"],
            ],
        )  # fmt: skip
        IngestJob.objects.create(collection=c, created_by=user)
        ExportJob.objects.create(collection=c, format="csv", created_by=user)
        ImportJob.objects.create(collection=c, source="csv", name="t.csv", created_by=user)
        ModelDownload.objects.create(source=f"owner/m{i}", kind="wd", created_by=user)
        RecomputeJob.objects.create(run=run, policy_version=version, created_by=user)
        search = OvernightSearch.objects.create(
            name="S", collection=c, base=recipe, best=recipe, seconds=60, created_by=user,
            log=[{"at": now.isoformat(), "text": "Round 1: nothing <better>."}],
        )  # fmt: skip
        search.rounds.create(number=1, experiment=Experiment.objects.create(name="E", collection=c))
        SecondLook.objects.create(image=image, tag=tag, category="general", first_right=True, right=False, by=user)
        keys.create_key(user, f"key {i}", ["read"])
        Worker.objects.create(owner=f"h|{i}|1", queue="gpu", host="h", pid=i, started_at=now, beat_at=now)


def changelist(model):
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def change(obj):
    return reverse(f"admin:{obj._meta.app_label}_{obj._meta.model_name}_change", args=[obj.pk])


# -- every page -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("model", OURS, ids=lambda m: m.__name__)
def test_a_list_asks_as_much_for_many_rows_as_for_few(boss, model):
    def queries():
        with CaptureQueriesContext(connection) as found:
            response = boss.get(changelist(model))
        assert response.status_code == 200
        return found

    fill(2)
    queries()
    few = queries()
    fill(6, start=2)
    many = queries()
    assert len(many) == len(few), [q["sql"][:200] for q in many]
    assert len(many) <= 16


@pytest.mark.parametrize("model", OURS, ids=lambda m: m.__name__)
def test_pages_open_search_and_show(boss, model):
    fill(1)
    obj = model.objects.order_by("pk").last()
    if obj is not None:
        assert boss.get(change(obj)).status_code == 200
        if site._registry[model].has_delete_permission(_request(boss), obj):
            assert boss.get(change(obj).replace("/change/", "/delete/")).status_code == 200
    assert site._registry[model].search_help_text
    found = boss.get(changelist(model), {"q": "1"})
    assert found.status_code == 200
    if site._registry[model].has_add_permission(_request(boss)):
        assert boss.get(changelist(model) + "add/").status_code == 200


def _request(client):
    from django.test import RequestFactory

    request = RequestFactory().get("/")
    request.user = User.objects.get(username="boss")
    return request


def test_the_index_hides_the_doorbell_and_follows_the_work(boss):
    page = boss.get(reverse("admin:index")).content.decode()
    assert "django_q" in HIDDEN_APPS
    assert "django_q" not in page
    assert page.index("Collections") < page.index("Images") < page.index("Tags") < page.index("Workers")
    assert "admin_iwtag.css" in page


def test_who_has_no_role_sees_nothing(client):
    client.force_login(User.objects.create_user("staff", is_staff=True))
    assert client.get(changelist(ImageAsset)).status_code == 403


def test_a_curator_sees_images_but_no_keys(client):
    user = User.objects.create_user("cora", is_staff=True)
    user.groups.add(Group.objects.get(name="curator"))
    client.force_login(user)
    assert client.get(changelist(ImageAsset)).status_code == 200
    assert client.get(changelist(ApiKey)).status_code == 403


# -- large tables -----------------------------------------------------------------------------------------------------
def test_large_tables_are_not_counted_to_the_end(boss, monkeypatch):
    monkeypatch.setattr(common, "COUNTED", 3)
    fill(5)
    with CaptureQueriesContext(connection) as queries:
        page = boss.get(changelist(ImageAsset)).content.decode()
    assert "more than 3 images" in page
    counts = [q["sql"] for q in queries if "COUNT(" in q["sql"] and 'FROM "tagging_imageasset"' in q["sql"]]
    assert counts
    assert all("LIMIT 4" in sql for sql in counts)


# -- what the pages say -----------------------------------------------------------------------------------------------
def test_a_proposal_shows_tags_with_their_fate_the_raw_reply_and_the_picture(boss):
    fill(1)
    page = boss.get(change(Proposal.objects.get())).content.decode()
    assert "dropped" in page
    assert "banned by &#x27;w&#x27;" in page
    assert 'value="0.8750"' in page
    assert "raw &lt;b&gt;" in page
    assert 'alt="0.jpg"' in page


def test_a_prediction_shows_its_best_scores(boss):
    fill(1)
    page = boss.get(change(Prediction.objects.get())).content.decode()
    assert page.index("<td>dog</td>") < page.index("<td>cat</td>")
    assert "The 2 highest of 2 stored scores" in page


def test_an_image_shows_tags_history_and_leads_to_the_review_screen(boss):
    fill(1)
    image = ImageAsset.objects.get()
    page = boss.get(change(image)).content.decode()
    assert "tag 0" in page
    assert "accepted" in page
    assert "user0" in page
    site_link = reverse("admin:view_on_site", args=[_content_type(image), image.pk])
    assert site_link in page
    assert boss.get(site_link).headers["Location"].endswith(image.get_absolute_url())


def _content_type(obj):
    from django.contrib.contenttypes.models import ContentType

    return ContentType.objects.get_for_model(obj).pk


# -- actions ask first ------------------------------------------------------------------------------------------------
def act(client, model, name, objects, **data):
    return client.post(
        changelist(model), {"action": name, "_selected_action": [o.pk for o in objects], **data}, follow=True
    )


def test_priority_asks_first(boss):
    fill(3)
    images = list(ImageAsset.objects.order_by("pk"))
    asked = act(boss, ImageAsset, "set_priority", images[:2]).content.decode()
    assert 'alt="0.jpg"' in asked
    assert "2 images" in asked
    assert not ImageAsset.objects.exclude(priority=0).exists()
    wrong = act(boss, ImageAsset, "set_priority", images[:2], confirmed="yes", priority="x").content.decode()
    assert "Enter a whole number" in wrong
    act(boss, ImageAsset, "set_priority", images[:2], confirmed="yes", priority="5")
    assert sorted(ImageAsset.objects.values_list("priority", flat=True)) == [0, 5, 5]


def test_run_verbs_ask_first_and_name_what_cannot_be_done(boss):
    fill(2)
    done, going = Run.objects.order_by("pk")
    Run.objects.filter(pk=going.pk).update(state="running", finished_at=None)
    asked = act(boss, Run, "pause", [done, going])
    assert "Pause these runs?" in asked.content.decode()
    going.refresh_from_db()
    assert going.state == "running"
    said = act(boss, Run, "pause", [done, going], confirmed="yes").content.decode()
    going.refresh_from_db()
    assert going.state == "paused"
    assert "1 paused." in said


def test_a_viewer_cannot_act(client):
    fill(1)
    user = User.objects.create_user("vic", is_staff=True)
    user.groups.add(Group.objects.get(name="viewer"))
    client.force_login(user)
    act(client, ImageAsset, "set_priority", ImageAsset.objects.all(), confirmed="yes", priority="5")
    assert ImageAsset.objects.get().priority == 0
    assert client.get(changelist(Run)).status_code == 200
    Run.objects.update(state="running", finished_at=None)
    act(client, Run, "cancel", Run.objects.all(), confirmed="yes")
    assert Run.objects.get().state == "running"


# -- collections ------------------------------------------------------------------------------------------------------
def test_a_collection_is_made_by_the_action(boss, tmp_path):
    add = reverse("admin:tagging_collection_add")
    page = boss.post(
        add, {"name": "Trip", "kind": "folder", "root": "/no/such/place", "excludes": "[]"}
    ).content.decode()
    assert "errorlist" in page
    assert not Collection.objects.exists()
    boss.post(add, {"name": "Trip", "kind": "folder", "root": str(tmp_path), "excludes": "[]"})
    c = Collection.objects.get()
    assert (c.slug, c.root) == ("trip", str(tmp_path))
    assert c.ingest_jobs.count() == 1


def test_a_collection_with_images_cannot_be_deleted_here(boss):
    fill(1)
    url = change(Collection.objects.get()).replace("/change/", "/delete/")
    assert boss.post(url, {"post": "yes"}).status_code == 403
    assert Collection.objects.exists()


# -- adapters ---------------------------------------------------------------------------------------------------------
def adapter(**values):
    return {
        "label": "Lite", "slug": "lite", "kind": "photo-lite", "source": "", "revision": "", "device": "auto",
        "quantization": "none", "options": "{}", "enabled": "on", "note": "", **values,
    }  # fmt: skip


def test_adapter_options_are_checked_by_name(boss):
    url = reverse("admin:tagging_modeladapter_add")
    for options, said in (('{"tresholt": 1}', "tresholt"), ("[1]", "Options are a JSON object")):
        assert said in boss.post(url, adapter(options=options)).content.decode()
    assert "knows" in boss.post(url, adapter(device="quantum")).content.decode()
    assert not ModelAdapter.objects.exists()
    boss.post(url, adapter())
    page = boss.get(change(ModelAdapter.objects.get())).content.decode()
    assert "images per call" in page
    assert 'name="options-general_threshold"' in page


def test_the_options_of_a_model_are_a_form_that_follows_the_kind(boss):
    url = reverse("admin:tagging_modeladapter_add")
    assert "Choose a kind" in boss.get(url).content.decode()
    swap = reverse("admin:tagging_modeladapter_options")
    piece = boss.get(swap, {"kind": "wd", "options_kind": "photo-lite", "options-score_floor": "0.2"}).content.decode()
    assert 'name="options-character_threshold"' in piece
    assert 'name="options-score_floor" value="0.2"' in piece  # what was typed stays where it applies
    assert "onclick" not in piece
    sent = {k: v for k, v in adapter().items() if k != "options"}
    page = boss.post(url, {**sent, "options-general_threshold": "7"}).content.decode()
    assert "Correct the 1 marked option" in page
    assert "At most 1." in page
    assert not ModelAdapter.objects.exists()
    boss.post(url, {**sent, "options-general_threshold": "0.4", "options-score_floor": "0.05"})
    made = ModelAdapter.objects.get()
    assert made.options == {"general_threshold": 0.4}  # what is at its default is not pinned
    page = boss.get(change(made)).content.decode()
    assert 'name="options-general_threshold" value="0.4"' in page
    assert "instead of 0.3" in page


def test_the_check_names_problem_and_mend(boss):
    good = ModelAdapter.objects.create(slug="lite", label="Lite", kind="photo-lite")
    bad = ModelAdapter.objects.create(slug="wd", label="WD", kind="wd", source="/no/such/folder")
    gone = ModelAdapter.objects.create(slug="x", label="X", kind="gone")
    check = "admin:tagging_modeladapter_check"
    assert "ready" in boss.get(reverse(check, args=[good.pk])).content.decode()
    page = boss.get(reverse(check, args=[bad.pk])).content.decode()
    assert "/no/such/folder" in page
    assert 'data-tone="error"' in page
    assert "known:" in boss.get(reverse(check, args=[gone.pk])).content.decode()
    assert boss.get(reverse(check, args=[4711])).status_code == 404


# -- keys -------------------------------------------------------------------------------------------------------------
def test_a_key_is_shown_once(boss):
    me = User.objects.get(username="boss")
    page = boss.post(
        reverse("admin:tagging_apikey_add"), {"name": "script", "owner": me.pk, "scopes": ["read", "run"]}, follow=True
    ).content.decode()
    key = ApiKey.objects.get()
    text = page.partition('<code class="iw-key">')[2].partition("</code>")[0]
    assert keys.find_key(text) == key
    assert key.scopes == ["read", "run"]
    assert text not in boss.get(change(key)).content.decode()
    assert text not in json.dumps(list(boss.session.values()), default=str)


def test_a_key_never_may_more_than_its_owner(boss):
    weak = User.objects.create_user("weak")
    page = boss.post(
        reverse("admin:tagging_apikey_add"), {"name": "script", "owner": weak.pk, "scopes": ["run"]}
    ).content.decode()
    assert "no role" in page
    assert not ApiKey.objects.exists()


def test_revoking_asks_first(boss):
    key, text = keys.create_key(User.objects.get(username="boss"), "script", ["read"])
    act(boss, ApiKey, "revoke", [key])
    assert keys.find_key(text)
    act(boss, ApiKey, "revoke", [key], confirmed="yes")
    assert keys.find_key(text) is None


def test_a_silent_worker_is_marked(boss):
    now = timezone.now()
    Worker.objects.create(owner="h|1|1", queue="gpu", host="h", pid=1, started_at=now, beat_at=now)
    assert "alive" in boss.get(changelist(Worker)).content.decode()
    Worker.objects.update(beat_at=now - timedelta(minutes=5))
    assert "silent" in boss.get(changelist(Worker)).content.decode()


def test_an_unreadable_file_has_no_broken_picture(boss):
    trip = Collection.objects.create(name="Trip", slug="trip", kind="upload")
    for name, state in (("good.jpg", "ready"), ("bad.jpg", "error")):
        ImageAsset.objects.create(
            collection=trip, path=name, sha256=name[0] * 64, state=state, error=state * (state == "error")
        )
    page = boss.get(reverse("admin:tagging_imageasset_changelist")).content.decode()
    assert "b" * 64 not in page
    assert "g" * 64 in page
