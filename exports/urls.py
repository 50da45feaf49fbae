"""Addresses of the export pages."""

from __future__ import annotations

from django.urls import URLPattern, path

from . import views

app_name = "exports"
urlpatterns: list[URLPattern] = [
    path("", views.jobs, name="jobs"),
    path("new/", views.new, name="new"),
    path("c/<slug:slug>.csv", views.stream, {"format": "csv"}, name="csv"),
    path("c/<slug:slug>/<slug:format>", views.stream, name="stream"),
    path("<int:pk>/file", views.download, name="download"),
    path("<int:pk>/<slug:verb>/", views.act, name="act"),
]
