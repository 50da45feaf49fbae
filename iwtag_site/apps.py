from __future__ import annotations

from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig as DjangoAdminConfig


class AdminConfig(DjangoAdminConfig):
    default_site = "iwtag_site.admin.Site"


class SiteConfig(AppConfig):
    name = "iwtag_site"
    default = True
