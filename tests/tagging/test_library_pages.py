"""The pages of prompts, wordlists and policies over HTTP: who may, what is saved, what is said before it is."""

# ruff: noqa: F811 (fixtures of another module)

from __future__ import annotations

import io
import json
import zipfile

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test.utils import CaptureQueriesContext

from prompts import actions as prompts
from prompts.models import Prompt, PromptDraft, PromptVersion, Wordlist
from tagging.actions import recompute
from tagging.actions.labels import move_label
from tagging.actions.recipes import ChannelSpec, get_recipe
from tagging.engine import work as engine_work
from tagging.engine import worker
from tagging.models import ModelAdapter, Policy, RecomputeJob, Run

from .pages import signed_in
from .test_recompute import _fresh, apply, labels, make_run, names, run, version  # noqa: F401

pytestmark = pytest.mark.django_db


@pytest.fixture
def client():
    return signed_in("curator")


@pytest.fixture
def talker(monkeypatch):
    from tagging.adapters import registry

    monkeypatch.setitem(registry.BUILT_IN, "fake-talker", ("Fake talker", "tests.fakes.adapter:Talker"))
    registry.registered.cache_clear()
    yield ModelAdapter.objects.create(slug="talker", label="Talker", kind="fake-talker", options={"says": "{prompt}"})
    registry.registered.cache_clear()


def text(answer) -> str:
    return answer.content.decode()


ADDRESSES = ["/prompts/", "/wordlists/", "/policies/", "/labels/", "/prompt/tags/", "/wordlist/no-go/", "/policy/p/"]
CURATORS = ["/prompts/new/", "/prompts/import/", "/wordlists/new/", "/policies/new/", "/words/?word=x"]


def a_library():
    prompts.create_version(prompts.create_prompt(slug="tags"), template="Tag {{ image.name }}", message="first")
    prompts.create_wordlist(slug="no-go", kind="banned", entries=["mood"])
    version({})


def test_who_may_look_and_who_may_write(client):
    a_library()
    viewer, nobody = signed_in("viewer"), signed_in("", "nobody")
    for address in ADDRESSES:
        assert viewer.get(address).status_code == client.get(address).status_code == 200, address
        assert nobody.get(address).status_code == 403
    for address in CURATORS:
        assert client.get(address).status_code == 200, address
        assert viewer.get(address).status_code == 403
    for address in (
        "/prompt/tags/save/",
        "/wordlist/no-go/save/",
        "/policy/p/save/",
        "/words/ban/",
        "/prompt/tags/try/",
    ):
        assert viewer.post(address, {"word": "x"}).status_code == 403
    assert "Save as version" not in text(viewer.get("/prompt/tags/"))


def test_lists_ask_as_much_for_many_as_for_one(client):
    a_library()

    def queries() -> list[int]:
        found = []
        for address in ("/prompts/", "/wordlists/", "/policies/"):
            with CaptureQueriesContext(
                connection,
            ) as caught:
                assert client.get(address).status_code == 200
            found.append(len(caught))
        return found

    queries()
    before = queries()
    for i in range(5):
        prompts.create_version(prompts.create_prompt(slug=f"p{i}"), template="x", message="m")
        made = prompts.create_wordlist(slug=f"w{i}", kind="vocabulary", entries=["dog"])
        version({"max_tags": i + 1}, [made.current], slug=f"pol{i}")
    assert queries() == before


# -- prompts -----------------------------------------------------------------------------------------------------------
def write(client, slug="tags", **fields):
    row = Prompt.objects.get(slug=slug)
    newest = row.versions.order_by("-number").first()
    values = {
        "template": "x",
        "message": "m",
        "newest": newest.number if newest else 0,
        "base": newest.pk if newest else "",
    }
    return client.post(f"/prompt/{slug}/save/", {**values, **fields})


def test_a_prompt_is_made_written_and_forked(client):
    answer = client.post("/prompts/new/", {"name": "Short tags", "slug": "short", "task": "tags"})
    assert answer.headers["Location"] == "/prompt/short/"
    assert client.post("/prompts/new/", {"slug": "short"}).status_code == 422
    assert write(client, "short", template="Tag {{ image.name }}", system="Brief.").status_code == 302
    assert write(client, "short", template="Tag it", response_schema='{"type": "object"}').status_code == 302
    second = PromptVersion.objects.get(number=2)
    assert (second.parent.number, second.response_schema, second.created_by.username) == (
        1,
        {"type": "object"},
        "curator",
    )
    old = PromptVersion.objects.get(number=1)
    assert write(client, "short", template="From the first", base=old.pk).status_code == 302
    assert PromptVersion.objects.get(number=3).parent == old
    assert "made from v1" in text(client.get("/prompt/short/"))
    answer = client.post("/prompt/short/fork/", {"version": old.pk, "slug": "long", "name": "Long"})
    assert answer.headers["Location"] == "/prompt/long/"
    assert "forked from" in text(client.get("/prompt/long/"))
    assert ">Long</a>" in text(client.get("/prompt/short/"))


def test_mistakes_come_back_with_their_line_and_nothing_is_lost(client):
    prompts.create_prompt(slug="tags")
    answer = write(client, template="fine\n{{ imag.name }}", system="kept", response_schema="{broken", message="")
    assert answer.status_code == 422
    page = text(answer)
    assert "Line 1: not JSON" in page
    assert "{broken" in page
    page = text(write(client, template="fine\n{{ imag.name }}", system="kept", message=""))
    assert "Line 2: unknown variable" not in page  # the message is missing first
    page = text(write(client, template="fine\n{{ imag.name }}", system="kept"))
    assert "Line 2: unknown variable &#x27;imag&#x27;" in page
    assert ">\nkept</textarea>" in page
    assert not PromptVersion.objects.exists()


def test_a_version_of_another_is_shown_before_it_is_passed_over(client):
    row = prompts.create_prompt(slug="tags")
    prompts.create_version(row, template="one", message="m")
    answer = write(client, newest=0, template="mine")
    assert answer.status_code == 409
    assert "saved version 1 meanwhile" in text(answer)
    assert 'name="newest" value="1"' in text(answer)
    assert write(client, template="mine").status_code == 302


def test_drafts_are_kept_and_their_conflicts_answered(client):
    prompts.create_prompt(slug="tags")
    kept = client.post("/prompt/tags/draft/", {"template": "half {{", "revision": 0}).json()
    assert kept["revision"] == 1
    page = text(client.get("/prompt/tags/"))
    assert ">\nhalf {{</textarea>" in page
    assert 'name="revision" value="1"' in page
    assert client.post("/prompt/tags/draft/", {"template": "more", "revision": 1}).json()["revision"] == 2
    late = client.post("/prompt/tags/draft/", {"template": "late", "revision": 1})
    assert (late.status_code, late.json()["conflict"]["template"]) == (409, "more")
    assert "half" not in text(signed_in("curator", "other").get("/prompt/tags/"))
    write(client, template="saved")
    assert not PromptDraft.objects.exists()
    client.post("/prompt/tags/draft/", {"template": "again", "revision": 0})
    client.post("/prompt/tags/draft/discard/")
    assert ">\nsaved</textarea>" in text(client.get("/prompt/tags/"))


def test_a_preview_is_rendered_for_a_real_image_with_its_mistakes(client, run):
    prompts.create_prompt(slug="tags")
    image = run.proposals.first().image
    answer = client.post("/prompt/tags/preview/", {"template": "Tag {{ image.name }}!", "image": image.pk})
    assert f"Tag {image.name}!" in text(answer)
    assert "tokens" in text(answer)
    answer = client.post("/prompt/tags/preview/", {"template": "ok\n{{ nope }}", "system": "{% if %}"})
    found = json.loads(answer.headers["HX-Trigger"])["prompt-problems"]["problems"]
    assert [(p["part"], p["line"]) for p in found] == [("system", 1), ("template", 2)]
    assert "2 mistakes" in text(answer)
    assert image.name in text(client.get(f"/images/pick/?q={image.name}"))
    assert "No image matches" in text(client.get("/images/pick/?q=zzz"))


def test_a_text_that_is_not_saved_is_tried_and_shown(client, run, talker, monkeypatch):
    monkeypatch.setattr(engine_work, "FLUSH", 0.0)
    prompts.create_prompt(slug="tags")
    images = [p.image_id for p in run.proposals.all()[:2]]
    answer = client.post(
        "/prompt/tags/try/", {"template": "red, {{ image.name }}", "adapter": "talker", "image": images}
    )
    trial = Run.objects.get(purpose="trial")
    assert f'hx-get="/trials/{trial.pk}/"' in text(answer)
    assert not trial.shown
    worker.drain("gpu")
    answer = client.get(f"/trials/{trial.pk}/")
    assert answer.status_code == 286
    page = text(answer)
    assert page.count('data-word="red"') == 2
    assert "tokens in" in page
    assert "red, 0.jpg" in page  # the raw text
    assert not PromptVersion.objects.filter(prompt__slug="tags").exists()
    assert "tried-texts" not in text(client.get("/prompts/"))
    assert client.get(f"/trials/{run.pk}/").status_code == 404
    page = text(client.post("/prompt/tags/try/", {"template": "{{ x }}", "adapter": "talker", "image": images}))
    assert "unknown variable" in page
    assert "Choose an image." in text(client.post("/prompt/tags/try/", {"template": "x", "adapter": "talker"}))


def test_the_difference_to_parent_champion_and_any_version(client, run, talker):
    row = prompts.create_prompt(slug="tags")
    first = prompts.create_version(row, template="List short tags", message="a")
    second = prompts.create_version(row, template="List long tags", message="b")
    recipe = get_recipe([ChannelSpec(talker, first)])
    label = move_label("champion", recipe, why="best").label

    def against(what: str, template: str) -> str:
        body = {"against": what, "template": template, "base": second.pk}
        return text(client.post("/prompt/tags/difference/", body))

    assert "<del>long</del><ins>fine</ins>" in against("parent", "List fine tags")
    assert "<del>short</del><ins>long</ins>" in against("parent", "List long tags")  # what the version itself changed
    assert "<del>short</del><ins>fine</ins>" in against(f"label:{label.pk}", "List fine tags")
    assert "The same text as" in against(str(first.pk), "List short tags")
    page = text(client.get("/prompts/"))
    assert "★" in page
    assert "champion" in text(client.get("/prompt/tags/"))


def test_prompts_come_and_go_as_files(client):
    ours = b"---\nslug: mine\ntask: caption\n---\n## system\nBrief.\n## template\nSay {{ image.name }}"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("folder/one.md", ours)
        archive.writestr("folder/two.txt", "Two")
        archive.writestr("__MACOSX/one.md", b"\xff")
        archive.writestr("folder/picture.png", b"\xff")
    files = [SimpleUploadedFile("all.zip", packed.getvalue()), SimpleUploadedFile("three.md", b"Three")]
    assert client.post("/prompts/import/", {"form": "ours", "files": files}).status_code == 302
    assert set(Prompt.objects.values_list("slug", "task")) == {("mine", "caption"), ("two", "tags"), ("three", "tags")}
    sent = SimpleUploadedFile("t.txt", b"Use {tags} of {name}, {x}")
    client.post("/prompts/import/", {"form": "taggui", "files": [sent]})
    assert PromptVersion.objects.get(prompt__slug="t").template == "Use {{ tags }} of {{ image.stem }}, {x}"
    profile = {"name": "club", "caption": {"system": "S", "user_template": "Say {keywords}"}}
    sent = SimpleUploadedFile("p.json", json.dumps(profile).encode())
    client.post("/prompts/import/", {"form": "imageworks", "files": [sent]})
    assert PromptVersion.objects.get(prompt__slug="club-caption").template == "Say {{ tags }}"
    before = PromptVersion.objects.count()
    bad = [SimpleUploadedFile("good.md", b"Good"), SimpleUploadedFile("bad.md", b"---\ntask: nope\n---\nx")]
    answer = client.post("/prompts/import/", {"form": "ours", "files": bad})
    assert (answer.status_code, "bad.md, line 2" in text(answer)) == (422, True)
    assert PromptVersion.objects.count() == before

    answer = client.get("/prompts/export/")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert sorted(archive.namelist()) == ["club-caption.md", "mine.md", "t.md", "three.md", "two.md"]
    client.post("/prompts/import/", {"form": "ours", "files": [SimpleUploadedFile("prompts.zip", answer.content)]})
    assert PromptVersion.objects.count() == before  # they say what is there
    assert b"## system\nBrief." in client.get("/prompt/mine/file/?v=1").content
    assert client.get("/prompt/mine/file/?v=7").status_code == 404


# -- wordlists ---------------------------------------------------------------------------------------------------------
def save_words(client, words: str, **fields):
    current = Wordlist.objects.get(slug="no-go").current
    body = {"words": words, "message": "more", "base": current.number, "mode": "text", **fields}
    return client.post("/wordlist/no-go/save/", body)


def test_a_list_is_made_from_a_file_and_changed_in_both_forms(client):
    sent = SimpleUploadedFile("words.csv", b"name,0,5,alias\nsea,0,1,\n")
    body = {"name": "Words", "slug": "words", "kind": "vocabulary", "format": "danbooru", "file": sent}
    assert client.post("/wordlists/new/", body).headers["Location"] == "/wordlist/words/"
    assert Wordlist.objects.get().current.entries[0]["text"] == "sea"
    answer = client.post("/wordlist/words/convert/", {"mode": "text", "words": "dog = hound\nsea"})
    assert answer.json()["entries"] == [{"text": "dog", "aliases": ["hound"]}, {"text": "sea"}]
    rows = json.dumps([{"text": "a, b", "parent": "c"}])
    answer = client.post("/wordlist/words/convert/", {"mode": "table", "entries": rows})
    assert answer.json()["text"] == '"a, b" < c\n'
    answer = client.post("/wordlist/words/convert/", {"mode": "text", "words": "ok\n/(/"})
    assert (answer.status_code, answer.json()["problems"][0]["line"]) == (422, 2)
    body = {"mode": "table", "entries": rows, "message": "table", "base": 1}
    assert client.post("/wordlist/words/save/", body).status_code == 302
    assert Wordlist.objects.get().current.entries == [{"text": "a, b", "parent": "c"}]


def test_the_page_says_what_a_list_would_change_and_then_does_it(client, run, labels):
    prompts.create_wordlist(slug="no-go", kind="banned", entries=["mood"])
    apply(run, {}, [Wordlist.objects.get().current])
    word = labels.names[0]
    body = {"words": f"mood\n={word}", "mode": "text", "run": run.pk}
    page = text(client.post("/wordlist/no-go/changes/", body))
    assert f"<ins>={word}</ins>" in page
    assert f"<del>{word}</del>" in page
    assert "All 6 images of the run were looked at" in page
    assert Wordlist.objects.get().versions.count() == 1
    assert "Line 1" not in page
    page = text(client.post("/wordlist/no-go/changes/", {"words": "a -> b", "mode": "text"}))
    assert "has a replacement" in page

    assert save_words(client, body["words"], message="").status_code == 422
    assert save_words(client, body["words"], base=0).status_code == 422
    answer = save_words(client, body["words"], and_run="1", recompute=[run.pk])
    job = RecomputeJob.objects.latest("pk")
    assert answer.headers["Location"] == f"/wordlist/no-go/?jobs={job.pk}"
    assert str(job.policy_version) == "p v2"
    recompute.run_recompute(job.pk)
    assert word not in names(run)[0]
    answer = client.get(f"/recomputes/{job.pk}/")
    assert (answer.status_code, f"<del>{word}</del>" in text(answer)) == (286, True)


def test_a_list_that_runs_for_ever_is_named(client, run):
    from tagging.models import Prediction

    Prediction.objects.update(labels=None, scores=None, tags=[["a" * 60 + "!", "general", 0.9]])
    prompts.create_wordlist(slug="no-go", kind="banned", entries=["mood"])
    apply(run, {}, [Wordlist.objects.get().current])
    page = text(client.post("/wordlist/no-go/changes/", {"words": "/(a|aa)+$/", "mode": "text", "run": run.pk}))
    assert "took longer than 20 ms" in page


def test_versions_of_a_list_are_compared_restored_and_exported(client):
    made = prompts.create_wordlist(slug="no-go", kind="banned", entries=["mood", "sea"])
    prompts.save_wordlist(made, ["mood", "fox"], message="fox")
    page = text(client.get("/wordlist/no-go/?diff=1..2"))
    assert "<del>sea</del>" in page
    assert "<ins>fox</ins>" in page
    assert client.post("/wordlist/no-go/back/1/").status_code == 302
    assert (made.current.number, made.current.message) == (3, "Back to version 1")
    assert client.get("/wordlist/no-go/file/?format=text&v=2").content == b"mood\nfox\n"
    assert client.get("/wordlist/no-go/file/?format=wd").status_code == 400
    sent = SimpleUploadedFile("more.txt", b"bee\n")
    client.post("/wordlist/no-go/import/", {"file": sent, "format": "text", "way": "append"})
    assert [e["text"] for e in made.current.entries] == ["mood", "sea", "bee"]
    client.post("/wordlist/no-go/rename/", {"name": "No go!", "note": "why"})
    assert Wordlist.objects.get().name == "No go!"


def test_thousands_of_entries_open_as_text(client):
    prompts.create_wordlist(slug="many", kind="vocabulary", entries=[f"word {i}" for i in range(5000)])
    page = text(client.get("/wordlist/many/"))
    assert 'id="list-entries"' not in page
    assert "5,000 entries" in page
    assert "word 4999" in page


# -- policies ----------------------------------------------------------------------------------------------------------
def rules(client, slug="p", **changed) -> dict[str, object]:
    """What the form of the page would send."""
    from tagging.views.policy_form import PolicyForm

    policy = Policy.objects.get(slug=slug)
    form = PolicyForm(policy.current)
    found: dict[str, object] = {}
    for one in [*form.rules.fields, *form.caption.fields]:
        if one.name != "caption":
            value = one.value
            found[one.html_name] = {True: "true", False: "false"}.get(value, value) if one.kind == "boolean" else value
    found["lists"] = [choice.wordlist.pk for choice in form.lists if choice.ticked]
    return {**found, "base": policy.current.number, "message": "changed", **changed}


def test_a_policy_is_tried_live_and_saved(client, run, labels):
    apply(run, {})
    bans = prompts.create_wordlist(slug="no-go", kind="banned", entries=[labels.names[0]])
    body = rules(
        client, **{"rule-max_tags": "1", "rule-exclusive": "cat, dog\nsea, sky", "lists": [bans.pk], "run": run.pk}
    )
    page = text(client.post("/policy/p/preview/", body))
    assert f"<del>{labels.names[0]}</del>" in page
    assert "banned by &#x27;no-go&#x27;" in page
    assert "over the limit of 1" in page
    assert Policy.objects.get(slug="p").current.number == 1

    answer = client.post("/policy/p/save/", {**body, "and_run": "1", "recompute": [run.pk]})
    made = Policy.objects.get(slug="p").current
    assert (made.number, made.spec) == (2, {"max_tags": 1, "exclusive": [["cat", "dog"], ["sea", "sky"]]})
    job = RecomputeJob.objects.latest("pk")
    assert answer.headers["Location"] == f"/policy/p/?jobs={job.pk}"
    recompute.run_recompute(job.pk)
    assert names(run)[0] == [labels.names[1]]
    page = text(client.get("/policy/p/"))
    assert '<span class="muted">Most tags:</span> <del>none</del> → <ins>1</ins>' in page
    assert "List no-go:" in page


def test_rules_that_cannot_be_stand_beside_their_field(client):
    version({})
    page = text(client.post("/policy/p/preview/", rules(client, **{"rule-similarity": "7"})))
    assert "Close match from: At most 1" in page
    page = text(client.post("/policy/p/preview/", rules(client, **{"rule-banned": "sea", "rule-forced": "sea"})))
    assert "is to stand on every image but is banned" in page
    answer = client.post("/policy/p/save/", rules(client, **{"caption-max_sentences": "-1"}))
    assert (answer.status_code, "At least 0" in text(answer)) == (422, True)
    answer = client.post("/policy/p/save/", rules(client, message=""))
    assert (answer.status_code, "Say in a line what changed." in text(answer)) == (422, True)
    version({"max_tags": 3})
    answer = client.post("/policy/p/save/", rules(client, base=1, **{"rule-max_tags": "9"}))
    assert (answer.status_code, "saved meanwhile" in text(answer)) == (422, True)
    assert Policy.objects.get(slug="p").current.spec == {"max_tags": 3}


def test_policies_are_copied_compared_and_restored(client):
    version({"max_tags": 3})
    version({"max_tags": 5, "caption": {"max_sentences": 1}})
    page = text(client.get("/policy/p/?diff=1..2"))
    assert "Caption: Most sentences" in page
    client.post("/policy/p/back/1/")
    assert Policy.objects.get(slug="p").current.spec == {"max_tags": 3}
    client.post("/policies/new/", {"name": "Copy", "slug": "copy", "from": "p"})
    assert Policy.objects.get(slug="copy").current.spec == {"max_tags": 3}
    assert client.post("/policies/new/", {"slug": "copy"}).status_code == 422


# -- chips -------------------------------------------------------------------------------------------------------------
def test_the_menu_of_a_chip(client, run, labels):
    bans = prompts.create_wordlist(slug="no-go", kind="banned", entries=["mood"])
    apply(run, {}, [bans.current])
    word = labels.names[0]
    image = run.proposals.first().image
    page = text(client.get("/words/", {"word": word, "image": image.pk}))
    assert f"“{word}”" in page
    assert 'value="no-go" selected' in page
    body = {"word": word, "image": image.pk, "run": run.pk, "list": "no-go"}
    page = text(client.post("/words/ban/", {**body, "dry": "1"}))
    assert "<strong>1</strong> of 6 images" in page
    assert bans.versions.count() == 1
    page = text(client.post("/words/ban/", {**body, "and_run": "1"}))
    assert "Banned " + word in page
    job = RecomputeJob.objects.latest("pk")
    assert job.run == run
    recompute.run_recompute(job.pk)
    page = text(client.post(f"/words/undo/{bans.current.pk}/", {**body, "and_run": "1"}))
    assert "Taken back" in page
    assert bans.current.number == 3
    page = text(client.post("/words/alias/", {**body, "target": word, "list": ""}))
    assert "cannot be an alias of itself" in page
    assert client.post("/words/nonsense/", body).status_code == 404
    assert client.get("/words/").status_code == 404


def test_a_reviewer_gets_no_menu(run, monkeypatch):
    image = run.proposals.first().image
    assert b"chip-menu.js" not in signed_in("reviewer").get(f"/images/{image.pk}/").content
    assert b"chip-menu.js" in signed_in("curator").get(f"/images/{image.pk}/").content


def test_a_trial_from_the_command_line(run, talker, monkeypatch, tmp_path):
    from io import StringIO

    from django.core.management import CommandError, call_command

    monkeypatch.setattr(engine_work, "FLUSH", 0.0)
    prompts.create_version(prompts.create_prompt(slug="tags"), template="red, {{ image.name }}", message="m")
    image = run.proposals.first().image_id
    monkeypatch.setattr("tagging.management.commands.try_prompt.pause", lambda: worker.drain("gpu"))
    out = StringIO()
    call_command("try_prompt", "tags", adapter="talker", image=[image], stdout=out)
    assert out.getvalue().splitlines()[1:] == ["  tags: red, 0.jpg", "  text: red, 0.jpg"]
    (tmp_path / "t.txt").write_text("blue")
    out = StringIO()
    call_command("try_prompt", "tags", adapter="talker", image=[image], file=tmp_path / "t.txt", stdout=out)
    assert "  tags: blue\n" in out.getvalue()
    with pytest.raises(CommandError, match="no version 7"):
        call_command("try_prompt", "tags", adapter="talker", image=[image], number=7)
    with pytest.raises(CommandError, match="no image 999"):
        call_command("try_prompt", "tags", adapter="talker", image=[999])
