"""Versions of prompts and wordlists: made, forked, frozen, refused."""

from __future__ import annotations

import os

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import IntegrityError, connection, connections
from django.utils import timezone

from prompts import actions
from prompts.models import Prompt, PromptVersion, Wordlist, WordlistVersion

POSTGRES = os.environ.get("IWTAG_TEST_POSTGRES", "postgres://postgres@127.0.0.1:5432/postgres")


@pytest.fixture
def prompt(db) -> Prompt:
    return actions.create_prompt(slug="tags", name="Tags")


def errors(caught) -> dict[str, list[str]]:
    return caught.value.message_dict


def test_versions_are_numbered_and_know_what_they_came_from(prompt):
    first = actions.create_version(prompt, template="Tag {{ image.name }}", message="first")
    second = actions.create_version(prompt, system="Be brief", template="Tag it", message="shorter")
    third = actions.create_version(prompt, template="Tag it all", message="back to the first", parent=first)
    assert [(v.number, v.parent) for v in (first, second, third)] == [(1, None), (2, first), (3, first)]
    assert len({v.digest for v in (first, second, third)}) == 3


def test_a_fork_is_a_new_prompt_with_the_same_text(prompt):
    origin = actions.create_version(prompt, system="s", template="t {{ caption }}", message="m")
    forked = actions.fork(origin, slug="tags-short")
    assert forked.prompt.slug == "tags-short"
    assert (forked.number, forked.parent, forked.digest) == (1, origin, origin.digest)
    assert forked.message == "Forked from tags v1"
    with pytest.raises(ValidationError) as caught:
        actions.fork(origin, slug="tags-short")
    assert "slug" in errors(caught)


@pytest.mark.parametrize(
    ("values", "field", "message"),
    [
        ({"message": " "}, "message", "Say in a line what changed."),
        ({"message": "m" * 201}, "message", "At most 200 characters."),
        ({"template": ""}, "template", "A prompt needs a text."),
        ({"template": "a\n{{ taggs }}"}, "template", "Line 2: unknown variable 'taggs'"),
        ({"system": "{% if %}"}, "system", "Line 1: Expected an expression"),
        ({"template": "{{ wordlist('x') }}"}, "template", "Line 1: there is no wordlist 'x'."),
        ({"response_schema": []}, "response_schema", "A JSON schema is an object"),
        ({"template": "x" * 60_000}, "template", "At most 50,000 characters."),
    ],
)
def test_a_bad_version_is_refused_by_field_and_line(prompt, values, field, message):
    with pytest.raises(ValidationError) as caught:
        actions.create_version(prompt, **{"template": "ok", "message": "m", **values})
    assert errors(caught)[field][0].startswith(message)
    assert not PromptVersion.objects.exists()


def test_a_template_may_write_out_a_list_that_exists(prompt):
    actions.create_wordlist(slug="styles", kind="vocabulary", entries=["noir"])
    assert actions.create_version(prompt, template="{{ wordlist('styles') }}", message="m").pk


def test_a_used_version_is_frozen_and_an_unused_one_is_not(prompt):
    version = actions.create_version(prompt, template="a", message="m")
    version.template = "b"
    version.save()
    assert actions.freeze([version]) == 1
    assert actions.freeze([version.pk]) == 0
    version.refresh_from_db()
    version.template = "c"
    with pytest.raises(ValidationError, match="was used by a run"):
        version.save()


def refuses_changes(connection) -> None:
    """What the triggers promise, on any database. Runs inside a transaction of its own."""
    alias = connection.alias
    prompt = Prompt.objects.using(alias).create(slug="p", name="p")
    used = PromptVersion(prompt=prompt, template="a", message="m", used_at=timezone.now())
    used.number = 1
    used.save(using=alias)
    free = PromptVersion(prompt=prompt, template="a", message="m", number=2)
    free.save(using=alias)
    versions = PromptVersion.objects.using(alias)

    def refused(rows, **values) -> None:
        from django.db import transaction

        with pytest.raises(IntegrityError, match=r"cannot change|never changes"), transaction.atomic(using=alias):
            rows.update(**values)

    for values in (
        {"template": "b"},
        {"system": "x"},
        {"used_at": None},
        {"response_schema": {"type": "x"}},
        {"number": 9},
    ):
        refused(versions.filter(pk=used.pk), **values)
    assert versions.filter(pk=used.pk).update(message="said better") == 1
    assert versions.filter(pk=free.pk).update(template="b") == 1
    assert versions.filter(pk=free.pk).update(used_at=timezone.now()) == 1
    wordlist = Wordlist.objects.using(alias).create(slug="w", name="w", kind="banned")
    row = WordlistVersion.objects.using(alias).bulk_create(
        [WordlistVersion(wordlist=wordlist, number=1, entries=[{"text": "a"}], digest="x")]
    )[0]
    lists = WordlistVersion.objects.using(alias).filter(pk=row.pk)
    refused(lists, entries=[])
    refused(lists, number=2)
    assert lists.update(created_by=None, message="x") == 1


@pytest.mark.django_db
def test_the_database_refuses_changes():
    refuses_changes(connection)


@pytest.mark.postgres
def test_postgresql_refuses_changes(django_db_blocker):
    import environ
    import psycopg

    try:
        server = psycopg.connect(POSTGRES, autocommit=True, connect_timeout=3)
    except psycopg.OperationalError:
        pytest.skip("no PostgreSQL server")
    name = f"iwtag_prompts_{os.getpid()}"
    with server:
        server.execute(f"CREATE DATABASE {name}")
    url = environ.Env.db_url_config(POSTGRES)
    connections.databases["frozen"] = {**connections["default"].settings_dict, "OPTIONS": {}, **url, "NAME": name}
    try:
        with django_db_blocker.unblock():
            call_command("migrate", "prompts", database="frozen", verbosity=0)
            refuses_changes(connections["frozen"])
    finally:
        connections["frozen"].close()
        del connections["frozen"], connections.databases["frozen"]
        with psycopg.connect(POSTGRES, autocommit=True) as server:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_every_change_of_a_list_is_a_version_and_no_change_is_none(db):
    wordlist = actions.create_wordlist(slug="no-go", kind="banned", entries=["cat", "cat"], message="begin")
    first = wordlist.current
    assert (first.number, first.entries, first.message) == (1, [{"text": "cat"}], "begin")
    assert actions.save_wordlist(wordlist, [{"text": "cat"}]) == first
    second = actions.save_wordlist(wordlist, ["cat", {"text": "dog", "match": "exact"}], base=1)
    assert second.number == 2
    assert wordlist.current == second
    with pytest.raises(ValidationError) as caught:
        actions.save_wordlist(wordlist, ["x"], base=1)
    assert errors(caught) == {"base": ["Version 2 was saved meanwhile: look at it, then save again."]}
    with pytest.raises(ValidationError, match="never changes"):
        second.save()


def test_bad_entries_are_named_by_line(db):
    wordlist = actions.create_wordlist(slug="no-go", kind="banned")
    assert wordlist.current is None
    with pytest.raises(ValidationError) as caught:
        actions.save_wordlist(wordlist, ["ok", {"text": "(", "match": "regex"}, {"text": ""}])
    assert [m[:7] for m in errors(caught)["entries"]] == ["Line 2:", "Line 3:"]
    with pytest.raises(ValidationError) as caught:
        actions.create_wordlist(slug="bad slug", kind="odd")
    assert set(errors(caught)) == {"slug", "kind"}


def test_words_from_a_chip(db):
    bans = actions.create_wordlist(slug="no-go", kind="banned")
    actions.add_entry(bans, {"text": "mood", "match": "exact"})
    assert actions.add_entry(bans, {"text": "mood", "match": "exact"}).number == 1
    assert actions.add_entry(bans, "cat").entries == [{"text": "mood", "match": "exact"}, {"text": "cat"}]
    words = actions.create_wordlist(slug="words", kind="vocabulary", entries=["Dog"])
    assert actions.add_alias(words, "doggo", "dog").entries == [{"text": "Dog", "aliases": ["doggo"]}]
    assert actions.add_alias(words, "kitty", "cat").entries[-1] == {"text": "cat", "aliases": ["kitty"]}
    with pytest.raises(ValidationError, match="aliases are in a vocabulary"):
        actions.add_alias(bans, "a", "b")
