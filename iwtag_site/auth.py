"""What a person may do, in one query."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import Permission
from django.db.models import Q


class Backend(ModelBackend):
    """Django's own, but a person's and their groups' permissions are read together: one query a page, not two."""

    def get_all_permissions(self, user_obj: Any, obj: Any = None) -> set[str]:
        """As "app.codename"; empty for the inactive, for strangers, and for permissions on objects (there are none)."""
        if not user_obj.is_active or user_obj.is_anonymous or obj is not None:
            return set()
        if not hasattr(user_obj, "_perm_cache"):
            found = Permission.objects.order_by()
            if not user_obj.is_superuser:
                found = found.filter(Q(user=user_obj) | Q(group__user=user_obj)).distinct()
            rows = found.values_list("content_type__app_label", "codename")
            user_obj._perm_cache = {f"{app}.{codename}" for app, codename in rows}
        return user_obj._perm_cache
