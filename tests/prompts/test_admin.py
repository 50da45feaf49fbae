from __future__ import annotations

import csv
import io

import pytest
import tablib
from django.contrib.auth.models import User
from django.urls import reverse

from prompts import actions
from prompts.cells import DANGEROUS
from prompts.models import Prompt, PromptVersion, Wordlist
from prompts.resources import WordlistResource, words_of

pytestmark = pytest.mark.django_db
ADD_VERSION = "/admin/prompts/promptversion/add/"
ADD_LIST = "/admin/prompts/wordlist/add/"


@pytest.fixture
def boss(client):
    client.force_login(User.objects.create_superuser("boss", password="x"))
    return client


@pytest.fixture
def version():
    prompt = actions.create_prompt(slug="tags", name="Tags")
    return actions.create_version(prompt, system="Be brief.", template="List the tags.", message="First")


def version_form(version, **values):
    return {
        "prompt": version.prompt_id, "system": version.system, "template": version.template, "response_schema": "",
        "message": "Second", "parent": version.pk, **values,
    }  # fmt: skip


# -- prompts ----------------------------------------------------------------------------------------------------------
def test_a_new_version_begins_with_the_text_of_another(boss, version):
    change = reverse("admin:prompts_promptversion_change", args=[version.pk])
    assert f"{ADD_VERSION}?from={version.pk}" in boss.get(change).content.decode()
    page = boss.get(f"{ADD_VERSION}?from={version.pk}").content.decode()
    assert "List the tags." in page
    assert "Be brief." in page
    boss.post(ADD_VERSION, version_form(version, template="List ten tags."))
    new = PromptVersion.objects.get(number=2)
    assert (new.template, new.parent, new.created_by.username) == ("List ten tags.", version, "boss")


def test_a_text_that_cannot_be_rendered_is_refused_at_its_field(boss, version):
    page = boss.post(ADD_VERSION, version_form(version, template="List {{ nonsense }}")).content.decode()
    assert "nonsense" in page
    assert "Line 1" in page
    page = boss.post(ADD_VERSION, version_form(version, message="")).content.decode()
    assert "This field is required" in page
    assert PromptVersion.objects.count() == 1


def test_an_unused_version_may_still_be_corrected(boss, version):
    change = reverse("admin:prompts_promptversion_change", args=[version.pk])
    boss.post(
        change, {"system": "", "template": "List all tags.", "response_schema": "", "message": "First, corrected"}
    )
    digest = version.digest
    version.refresh_from_db()
    assert (version.template, version.message) == ("List all tags.", "First, corrected")
    assert version.digest != digest
    assert PromptVersion.objects.count() == 1


def test_a_used_version_is_frozen(boss, version):
    actions.freeze([version])
    change = reverse("admin:prompts_promptversion_change", args=[version.pk])
    page = boss.get(change).content.decode()
    assert "it is frozen" in page
    assert 'name="template"' not in page
    assert "Save as new version" in page
    data = {"system": "", "template": "Other", "response_schema": "", "message": "x"}
    assert boss.post(change, data).status_code == 403
    assert boss.post(change.replace("/change/", "/delete/"), {"post": "yes"}).status_code == 403
    delete = reverse("admin:prompts_prompt_delete", args=[version.prompt_id])
    assert boss.post(delete, {"post": "yes"}).status_code == 403
    version.refresh_from_db()
    assert version.template == "List the tags."


def test_a_prompt_lists_its_versions(boss, version):
    page = boss.get(reverse("admin:prompts_prompt_change", args=[version.prompt_id])).content.decode()
    assert reverse("admin:prompts_promptversion_change", args=[version.pk]) in page
    assert f"{ADD_VERSION}?prompt={version.prompt_id}" in page


def test_families_are_a_list(boss):
    data = {"slug": "x", "name": "X", "task": "tags", "families": '{"a": 1}'}
    assert "JSON list" in boss.post("/admin/prompts/prompt/add/", data).content.decode()
    assert not Prompt.objects.exists()


# -- wordlists --------------------------------------------------------------------------------------------------------
def list_form(**values):
    return {
        "name": "No brands", "slug": "no-brands", "kind": "banned", "note": "", "words": "acme\n=mood\n", "message": "",
        "base": "0", **values,
    }  # fmt: skip


def test_words_are_edited_as_text_and_make_versions(boss):
    boss.post(ADD_LIST, list_form())
    words = Wordlist.objects.get()
    assert words_of(words.current) == "acme\n=mood\n"
    change = reverse("admin:prompts_wordlist_change", args=[words.pk])
    page = boss.get(change).content.decode()
    assert "acme\n=mood" in page
    data = list_form(words="acme\n=mood\n*_logo # all of them\n", message="Logos too", base="1")
    boss.post(change, data)
    assert (words.current.number, words.current.message) == (2, "Logos too")
    assert words.current.created_by.username == "boss"
    boss.post(change, {**data, "base": "2", "note": "only the note"})
    words.refresh_from_db()
    assert (words.versions.count(), words.note) == (2, "only the note")


def test_wrong_lines_are_named(boss):
    page = boss.post(ADD_LIST, list_form(words="fine\n/(unclosed/\n")).content.decode()
    assert "line 2" in page.lower()
    assert not Wordlist.objects.exists()


def test_what_somebody_saved_meanwhile_is_not_overwritten(boss):
    words = actions.create_wordlist(slug="no-brands", kind="banned", entries=["acme"])
    actions.save_wordlist(words, ["acme", "globex"])
    change = reverse("admin:prompts_wordlist_change", args=[words.pk])
    page = boss.post(change, list_form(words="initech", base="1")).content.decode()
    assert "saved meanwhile" in page
    assert words_of(words.current) == "acme\nglobex\n"


def test_the_kind_stays_once_there_are_words(boss):
    words = actions.create_wordlist(slug="no-brands", kind="banned", entries=["acme"])
    change = reverse("admin:prompts_wordlist_change", args=[words.pk])
    boss.post(change, list_form(kind="forced", words="acme", base="1"))
    words.refresh_from_db()
    assert words.kind == "banned"


# -- import and export ------------------------------------------------------------------------------------------------
def load(text):
    return WordlistResource().import_data(tablib.Dataset().load(text, format="csv"))


def test_nasty_words_survive_a_round_trip():
    entries = ["=1+1", "+_+", "-3", "@home", "=_=", "'quoted", 'say "hi"', "a;b", "a,b", "été 🐈", "#tag", "a -> b"]
    words = actions.create_wordlist(slug="nasty", kind="banned", note="=note", entries=[{"text": e} for e in entries])
    actions.create_wordlist(slug="swap", kind="replacement", entries=[{"text": "=a", "replacement": "'b"}])
    before = [w.current.entries for w in Wordlist.objects.order_by("slug")]
    text = WordlistResource().export().csv
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert not any(cell[:1] in DANGEROUS for row in rows for cell in row.values())
    again = load(text)
    assert [row.import_type for row in again.rows] == ["skip", "skip"]

    words.delete()
    Wordlist.objects.all().delete()
    result = load(text)
    assert not result.has_errors()
    assert [w.current.entries for w in Wordlist.objects.order_by("slug")] == before
    assert Wordlist.objects.get(slug="nasty").note == "=note"


def test_other_words_make_a_new_version():
    words = actions.create_wordlist(slug="no-brands", name="No brands", kind="banned", entries=["acme"])
    result = load('slug,name,kind,words\r\nno-brands,No brands,banned,"acme\nglobex"\r\n')
    assert [row.import_type for row in result.rows] == ["update"]
    assert (words.current.number, words_of(words.current)) == (2, "acme\nglobex\n")
    wrong = load("slug,name,kind,words\r\nno-brands,No brands,banned,/(/\r\n")
    assert wrong.has_errors() or wrong.has_validation_errors()
    assert words.current.number == 2
    other = load("slug,name,kind,words\r\nno-brands,No brands,forced,acme\r\n")
    assert other.has_errors() or other.has_validation_errors()
    words.refresh_from_db()
    assert words.kind == "banned"
