from __future__ import annotations

from django.contrib import admin
from django.contrib.auth import views as auth
from django.urls import include, path

from .api import api

admin.autodiscover()
handler404 = "iwtag_site.errors.not_found"

urlpatterns = [
    path("admin/", admin.site.urls),
    path("login/", auth.LoginView.as_view(), name="login"),
    path("logout/", auth.LogoutView.as_view(), name="logout"),
    path("api/", api.urls),
    path("exports/", include("exports.urls")),
    path("judging/", include("judging.urls")),
    path("", include("tagging.urls")),
]
