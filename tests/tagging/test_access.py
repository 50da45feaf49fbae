from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import AnonymousUser, Group
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.utils import timezone

from tagging.actions import keys
from tagging.actions.access import may, sync_roles
from tagging.models import ApiKey

from .world import key_of, person

pytestmark = pytest.mark.django_db
VERBS = ("read", "review", "curate", "administer")


@pytest.mark.parametrize(("role", "n"), [("viewer", 1), ("reviewer", 2), ("curator", 3), ("administrator", 4), ("", 0)])
def test_each_role_may_what_the_ones_below_may(role, n):
    ann = person("ann", role)
    assert [may(ann, verb) for verb in VERBS] == [i < n for i in range(4)]


def test_strangers_and_sleepers_may_nothing():
    nobody = [None, AnonymousUser(), person("gone", "administrator", is_active=False)]
    assert not any(may(user, verb) for user in nobody for verb in VERBS)


def test_a_superuser_may_everything():
    root = person("root", is_superuser=True)
    assert all(may(root, verb) for verb in VERBS)


def test_roles_carry_the_admin_permissions_they_need():
    curator, administrator = person("cy", "curator"), person("ad", "administrator")
    assert curator.has_perms(["prompts.add_promptversion", "tagging.change_policy", "exports.add_exportjob"])
    assert not curator.has_perm("tagging.add_modeladapter")
    assert not curator.has_perm("auth.change_user")
    assert administrator.has_perms(["tagging.add_modeladapter", "tagging.delete_apikey", "auth.change_user"])
    assert not person("re", "reviewer").has_perm("tagging.change_tag")


def test_making_the_roles_again_changes_nothing_and_takes_nothing_away():
    viewer = Group.objects.get(name="viewer")
    extra = Group.objects.get(name="curator").permissions.exclude(group=viewer).first()
    viewer.permissions.add(extra)
    before = {g.name: set(g.permissions.values_list("pk", flat=True)) for g in Group.objects.all()}
    viewer.permissions.remove(viewer.permissions.exclude(pk=extra.pk).first())
    sync_roles()
    assert {g.name: set(g.permissions.values_list("pk", flat=True)) for g in Group.objects.all()} == before


# -- keys -------------------------------------------------------------------------------------------------------------
def test_a_key_is_found_by_its_whole_text_only():
    ann = person("ann", "reviewer")
    text = key_of(ann, ["read"])
    assert keys.find_key(text).owner == ann
    assert text not in str(ApiKey.objects.values().get())
    wrong = [text[:-1], text + "x", text.partition(".")[0], "", ".", "x" * 500, "iwtnothing.abc", "é\ud800"]
    assert [keys.find_key(w) for w in wrong] == [None] * len(wrong)


def test_revoked_keys_and_those_of_sleepers_are_of_no_use():
    ann = person("ann", "viewer")
    key, text = keys.create_key(ann, "a", ["read"])
    assert keys.revoke(key)
    assert not keys.revoke(key)
    assert keys.find_key(text) is None
    other = key_of(ann, ["read"])
    ann.is_active = False
    ann.save()
    assert keys.find_key(other) is None


def test_the_last_use_is_noted_once_a_minute(django_assert_num_queries):
    text = key_of(person("ann", "viewer"), ["read"])
    with django_assert_num_queries(2):
        keys.find_key(text)
    first = ApiKey.objects.get().last_used_at
    assert first
    with django_assert_num_queries(1):
        keys.find_key(text)
    ApiKey.objects.update(last_used_at=timezone.now() - timedelta(minutes=2))
    keys.find_key(text)
    assert ApiKey.objects.get().last_used_at > first


@pytest.mark.parametrize(
    ("name", "scopes", "field"),
    [
        (" ", ["read"], "name"),
        ("n" * 81, ["read"], "name"),
        ("ok", [], "scopes"),
        ("ok", ["read", "fly"], "scopes"),
        ("ok", ["run"], "scopes"),
        ("taken", ["read"], "name"),
    ],
)
def test_wrong_keys_are_refused_by_field(name, scopes, field):
    ann = person("ann", "reviewer")
    keys.create_key(ann, "taken", ["read"])
    with pytest.raises(ValidationError) as e:
        keys.create_key(ann, name, scopes)
    assert list(e.value.message_dict) == [field]
    assert ApiKey.objects.count() == 1


def test_the_command_prints_the_key_once(capsys):
    root = person("root", is_superuser=True)
    call_command("create_api_key", "backup", "--scopes", "read,run")
    out, err = capsys.readouterr()
    key = keys.find_key(out.strip())
    assert (key.owner, key.name, key.scopes) == (root, "backup", ["read", "run"])
    assert "once" in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["k", "--scopes", "read"], "--user NAME"),
        (["k", "--scopes", "read", "--user", "nobody"], "no user 'nobody'"),
        (["k", "--scopes", "read", "--user", "gone"], "not active"),
        (["k", "--scopes", "fly", "--user", "ann"], "'fly' unknown"),
        (["k", "--scopes", "", "--user", "ann"], "choose among"),
        (["k", "--scopes", "write", "--user", "ann"], "no role"),
        (["", "--scopes", "read", "--user", "ann"], "name"),
    ],
)
def test_the_command_says_what_is_wrong(args, message):
    person("ann", "viewer")
    person("gone", is_active=False)
    with pytest.raises(CommandError, match=message) as e:
        call_command("create_api_key", *args)
    assert "\n" not in str(e.value)
    assert not ApiKey.objects.exists()
