from __future__ import annotations

from django.apps import AppConfig, apps
from django.contrib.admin.apps import AdminConfig as DjangoAdminConfig
from django.db.models.signals import post_migrate


class AdminConfig(DjangoAdminConfig):
    default_site = "iwtag_site.admin.Site"


class SiteConfig(AppConfig):
    name = "iwtag_site"
    default = True

    def ready(self) -> None:
        from tagging.actions.access import sync_roles

        from . import checks  # noqa: F401  (registers the system checks)

        # exports is the last of our apps that has models: by then all permissions are there
        post_migrate.connect(sync_roles, sender=apps.get_app_config("exports"), dispatch_uid="iwtag-roles")
