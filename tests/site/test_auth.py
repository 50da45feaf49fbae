from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import Group, Permission

pytestmark = pytest.mark.django_db


def fresh(user):
    return get_user_model().objects.get(pk=user.pk)


@pytest.mark.parametrize("who", ["nobody", "viewer", "reviewer", "curator", "administrator", "superuser", "inactive"])
def test_one_query_gives_what_django_gives(who, django_assert_num_queries):
    user = get_user_model().objects.create_user("ann", is_superuser=who == "superuser", is_active=who != "inactive")
    if who not in ("nobody", "superuser", "inactive"):
        user.groups.add(Group.objects.get(name=who))
    user.user_permissions.add(Permission.objects.get(codename="view_session"))
    expected = ModelBackend().get_all_permissions(fresh(user))
    asked = fresh(user)
    with django_assert_num_queries(0 if who == "inactive" else 1):
        found = asked.get_all_permissions()
        assert asked.has_perm("sessions.view_session") == (who != "inactive")
    assert found == expected
