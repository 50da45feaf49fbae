"""Prompts, wordlists, policies, recipes and recompute through the API."""

from __future__ import annotations

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from prompts.models import PromptVersion, Wordlist
from tagging.actions.recompute import run_recompute
from tagging.actions.setup import ensure_default_adapter
from tagging.models import Proposal

from .test_recompute import labels, make_run  # noqa: F401
from .world import keyed, person

pytestmark = pytest.mark.django_db


@pytest.fixture
def client():
    return keyed(person("cleo", "curator"))


def post(client, path, status=201, **body):
    answer = client.post(f"/api{path}", body, content_type="application/json")
    assert answer.status_code == status, answer.content
    return answer.json()


def get(client, path, status=200):
    answer = client.get(f"/api{path}")
    assert answer.status_code == status, answer.content
    return answer.json()


def test_a_prompt_its_versions_and_a_fork(client):
    made = post(client, "/prompts", slug="tags", task="tags", families=["florence"])
    assert (made["name"], made["versions"]) == ("tags", 0)
    first = post(client, "/prompts/tags/versions", template="Tag {{ image.name }}", message="first")
    second = post(client, "/prompts/tags/versions", template="Tag it", system="Be brief", message="shorter")
    assert (second["number"], second["parent"], second["used_at"]) == (2, first["id"], None)
    assert [v["number"] for v in get(client, "/prompts/tags/versions")["items"]] == [2, 1]
    assert post(client, "/prompts/fork", version=first["id"], slug="other")["versions"] == 1
    assert PromptVersion.objects.get(prompt__slug="other").created_by.username == "cleo"
    assert {p["slug"] for p in get(client, "/prompts?task=tags")} == {"tags", "other"}
    assert get(client, "/prompts?task=judge") == []


def test_mistakes_in_a_prompt_are_answered_by_field_and_line(client):
    post(client, "/prompts", slug="tags")
    found = post(client, "/prompts/tags/versions", 422, template="a\n{{ taggs }}", message="m")
    assert found["field"] == "template"
    assert found["detail"].startswith("Line 2: unknown variable 'taggs'")
    assert post(client, "/prompts/tags/versions", 422, template="a", message="")["field"] == "message"
    assert post(client, "/prompts", 422, slug="tags")["field"] == "slug"
    assert post(client, "/prompts/fork", 404, version=999, slug="x")["detail"] == "There is no prompt version 999."
    checked = post(client, "/prompts/check", 200, template="{tags} {x}", form="taggui")
    assert (checked["problems"], checked["template"]) == ([], "{{ tags }} {x}")
    checked = post(client, "/prompts/check", 200, template="{{ a | default('b') }}", system="{{ image.x }}")
    assert [(p["part"], p["line"]) for p in checked["problems"]] == [("system", 1)]
    assert post(client, "/prompts/check", 200, template="{{ a | default('b') }}")["variables"] == {"a": "b"}


def test_a_wordlist_by_text_entries_and_chips(client):
    made = post(client, "/wordlists", slug="no-go", kind="banned", text="cat\n=mood # only alone")
    assert (made["kind"], made["versions"]) == ("banned", 1)
    words = get(client, "/wordlists/no-go")
    assert words["entries"] == [{"text": "cat"}, {"text": "mood", "match": "exact", "note": "only alone"}]
    saved = post(client, "/wordlists/no-go/versions", text="cat\n", base=1)
    assert (saved["number"], saved["entries"]) == (2, [{"text": "cat"}])
    assert post(client, "/wordlists/no-go/versions", 422, entries=[], base=1)["field"] == "base"
    assert post(client, "/wordlists/no-go/entries", line="=dog")["number"] == 3
    assert len(get(client, "/wordlists/no-go/versions/1")["entries"]) == 2
    assert [v["number"] for v in get(client, "/wordlists/no-go/versions")["items"]] == [3, 2, 1]
    post(client, "/wordlists", slug="words", kind="vocabulary")
    get(client, "/wordlists/words", 404)
    post(client, "/wordlists/words/aliases", alias="doggo", of="dog")
    assert get(client, "/wordlists/words")["entries"] == [{"text": "dog", "aliases": ["doggo"]}]
    assert [w["slug"] for w in get(client, "/wordlists?kind=banned")] == ["no-go"]


def test_mistakes_in_a_list_are_answered_by_line(client):
    post(client, "/wordlists", slug="no-go", kind="banned")
    found = post(client, "/wordlists/no-go/versions", 422, text="ok\n/(/\nx -> y")
    assert found["field"] == "text"
    assert [m[:7] for m in found["errors"]["text"]] == ["Line 2:", "Line 3:"]
    assert post(client, "/wordlists/no-go/versions", 422)["field"] == "entries"
    assert post(client, "/wordlists/no-go/entries", 422, line="/(/")["field"] == "line"
    assert post(client, "/wordlists", 422, slug="x", kind="odd")["field"] == "kind"
    assert Wordlist.objects.count() == 1


def upload(client, slug, data, status=201, **more):
    answer = client.post(f"/api/wordlists/{slug}/import", {"file": SimpleUploadedFile("f.txt", data), **more})
    assert answer.status_code == status, answer.content
    return answer.json()


def test_files_come_in_and_go_out(client):
    post(client, "/wordlists", slug="words", kind="vocabulary")
    upload(client, "words", b"animal\n\tdog\n\t\t{hound}\n", format="lightroom")
    more = SimpleUploadedFile("zh.txt", "猫\n".encode())
    assert upload(client, "words", b"cat\n", format="ram", mode="append", variants=more)["number"] == 2
    answer = client.get("/api/wordlists/words/export?format=text")
    assert answer.content.decode() == "animal\ndog = hound < animal\ncat = 猫\n"
    assert answer["Content-Disposition"] == 'attachment; filename="words-v2.txt"'
    assert (
        client.get("/api/wordlists/words/export?format=lightroom&number=1").content == b"animal\n\tdog\n\t\t{hound}\n"
    )
    assert upload(client, "words", b"caf\xe9", 422)["detail"] == "Line 1: not UTF-8: save the file as UTF-8."
    assert get(client, "/wordlists/words/export?format=wd", 422)["field"] == "format"
    assert get(client, "/wordlists/words/export?number=9", 404)["detail"].endswith("has no version 9.")


def test_rules_from_the_schema_to_a_recompute(client, labels):  # noqa: F811
    run = make_run(labels)
    assert "max_tags" in get(client, "/policies/schema")["properties"]
    assert post(client, "/policies", slug="mine")["number"] == 1
    post(client, "/wordlists", slug="no-go", kind="banned", entries=[{"text": labels.names[0], "match": "exact"}])
    rules = {"spec": {"thresholds": {"general": 0.6}}, "wordlists": ["no-go"]}
    tried = post(client, "/policies/preview", 200, run=run.pk, **rules)
    assert (tried["n_images"], tried["n_changed"], tried["gained"][labels.names[1]]) == (6, 5, 1)
    assert labels.names[0] not in tried["gained"]
    saved = post(client, "/policies/mine/versions", message="fewer", base=1, **rules)
    assert (saved["number"], saved["wordlists"]) == (2, ["no-go v1"])
    job = post(client, "/recompute", 202, run=run.pk, policy="mine")
    assert (job["state"], job["policy"]) == ("queued", "mine v2")
    assert post(client, "/recompute", 409, run=run.pk, policy="mine", version=1)["detail"].startswith(
        "mine v2 is being"
    )
    run_recompute(job["id"])
    done = get(client, f"/recompute/{job['id']}")
    assert (done["state"], done["n_changed"], done["tags_after"]) == ("done", 6, 5)
    assert done["rate"] > 0
    assert get(client, f"/recompute?run={run.pk}&collection={run.collection.slug}")["items"] == [done]
    assert post(client, f"/recompute/{job['id']}/cancel", 409)["detail"] == "This recompute is over already."
    assert Proposal.objects.filter(run=run, policy_version_id=saved["id"]).count() == 6


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/policies/mine/versions", {"spec": {"max_tag": 1}}, "spec"),
        ("/policies/mine/versions", {"wordlists": ["nope"]}, "wordlists"),
        ("/policies/mine/versions", {"specs": {}}, "specs"),
        ("/policies/preview", {"run": 999}, "run"),
        ("/recompute", {"run": 999, "policy": "mine"}, "run"),
        ("/recompute", {"run": 999, "policy": "nope"}, "policy"),
        ("/recipes", {"adapter": "nope"}, "adapter"),
        ("/recipes", {"adapter": "photo-lite", "options": {"nope": 1}}, "options"),
        ("/recipes", {"adapter": "photo-lite", "prompt_version": 9}, "prompt_version"),
        ("/recipes", {"adapter": "photo-lite", "policy": "nope"}, "policy"),
    ],
)
def test_wrong_input_is_answered_by_field(client, path, body, field):
    ensure_default_adapter()
    post(client, "/policies", slug="mine")
    assert post(client, path, 422, **body)["field"] == field


def test_the_same_recipe_is_made_once(client):
    ensure_default_adapter()
    version = post(client, "/policies", slug="mine")["id"]
    first = post(client, "/recipes", adapter="photo-lite", policy="mine", name="ours")
    assert (first["policy"], first["policy_version"]) == ("mine v1", version)
    assert post(client, "/recipes", adapter="photo-lite", policy_version=version)["id"] == first["id"]


def test_reviewers_look_but_do_not_change():
    reader = keyed(person("rita", "reviewer"), ["read", "write"])
    assert get(reader, "/wordlists") == []
    post(reader, "/wordlists", 403, slug="x", kind="banned")


def test_prompt_files_come_in_and_go_out(client):
    sent = [SimpleUploadedFile("a.md", b"---\nname: A\n---\nTag {tags}"), SimpleUploadedFile("b.txt", b"B")]
    answer = client.post("/api/prompts/import", {"files": sent, "form": "taggui"})
    assert answer.status_code == 201, answer.content
    assert [(row["prompt"], row["number"], row["new"]) for row in answer.json()] == [("a", 1, True), ("b", 1, True)]
    text = client.get("/api/prompts/a/export").content.decode()
    assert text.endswith("## template\nTag {{ tags }}\n")
    bad = client.post("/api/prompts/import", {"files": [SimpleUploadedFile("c.md", b"---\nx: 1\n---\n")]})
    assert (bad.status_code, bad.json()["field"]) == (422, "files")
    assert bad.json()["detail"].startswith("c.md: c.md, line 2: unknown field 'x'")
    get(client, "/prompts/a/export?number=7", 404)
