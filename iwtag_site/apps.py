from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.contrib.admin.apps import SimpleAdminConfig
from django.contrib.admin.checks import check_admin_app, check_dependencies
from django.core import checks
from django.db.models.signals import post_migrate


class AdminConfig(SimpleAdminConfig):
    """The administration. Its pages are imported by the addresses (`urls`) and by what checks them: a worker or a
    command that serves none is spared a third of its memory."""

    default_site = "iwtag_site.admin.Site"

    def ready(self) -> None:
        checks.register(check_dependencies, checks.Tags.admin)
        checks.register(_check_pages, checks.Tags.admin)


def _check_pages(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    from django.contrib import admin

    admin.autodiscover()
    return list(check_admin_app(app_configs, **kwargs))


class SiteConfig(AppConfig):
    name = "iwtag_site"
    default = True

    def ready(self) -> None:
        from tagging.actions.access import sync_roles

        from . import checks  # noqa: F401  (registers the system checks)

        # exports is the last of our apps that has models: by then all permissions are there
        post_migrate.connect(sync_roles, sender=apps.get_app_config("exports"), dispatch_uid="iwtag-roles")
