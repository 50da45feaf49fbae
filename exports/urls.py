"""Addresses of the export pages."""

from __future__ import annotations

from django.urls import URLPattern, path

from . import import_views, views, views_in_place

app_name = "exports"
urlpatterns: list[URLPattern] = [
    path("", views.jobs, name="jobs"),
    path("new/", views.new, name="new"),
    path("imports/", import_views.jobs, name="imports"),
    path("imports/new/", import_views.new, name="import_new"),
    path("imports/<int:pk>/", import_views.job, name="import_job"),
    path("imports/<int:pk>/<slug:verb>/", import_views.act, name="import_act"),
    path("c/<slug:slug>.csv", views.stream, {"format": "csv"}, name="csv"),
    path("c/<slug:slug>/<slug:format>", views.stream, name="stream"),
    path("<int:pk>/file", views.download, name="download"),
    path("beside/", views_in_place.new, name="new_in_place"),
    path("<int:pk>/", views_in_place.job, name="job"),
    path("<int:pk>/tick/", views_in_place.tick, name="tick"),
    path("<int:pk>/apply/", views_in_place.apply, name="apply"),
    path("<int:pk>/undo/", views_in_place.undo, name="undo"),
    path("<int:pk>/<slug:verb>/", views.act, name="act"),
]
