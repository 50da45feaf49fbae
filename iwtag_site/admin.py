from __future__ import annotations

from django.contrib import admin


class Site(admin.AdminSite):
    site_header = "iwtag"
    site_title = "iwtag"
    index_title = "Administration"
