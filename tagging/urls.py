"""Addresses of the pages. Views are imported when first asked for, so that one broken page cannot hide the others."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from django.http import HttpRequest, HttpResponseBase
from django.urls import URLPattern, path
from django.utils.module_loading import import_string


@cache
def _found(dotted: str) -> Callable[..., HttpResponseBase]:
    return import_string(f"tagging.views.{dotted}")


def view(dotted: str) -> Callable[..., HttpResponseBase]:
    """The view "module.function" of tagging.views, imported at the first request."""

    def call(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return _found(dotted)(request, *args, **kwargs)

    call.__name__ = call.__qualname__ = dotted.rpartition(".")[2]
    return call


app_name = "tagging"
urlpatterns: list[URLPattern] = [
    path("", view("home.home"), name="home"),
    path("live/", view("home.live"), name="home_live"),
    # -- collections and their grid
    path("collections/new/", view("collections.new"), name="collection_new"),
    path("c/<slug:slug>/", view("grid.grid"), name="grid"),
    path("c/<slug:slug>/bulk/", view("grid.bulk"), name="bulk"),
    path("c/<slug:slug>/bulk/<uuid:batch>/", view("grid.bulk_status"), name="bulk_status"),
    path("c/<slug:slug>/bulk/<uuid:batch>/undo/", view("grid.bulk_undo"), name="bulk_undo"),
    path("c/<slug:slug>/settings/", view("collections.edit"), name="collection_edit"),
    path("c/<slug:slug>/upload/", view("collections.upload"), name="upload"),
    path("c/<slug:slug>/ingest/", view("collections.ingest"), name="ingest"),
    path("c/<slug:slug>/ingest/status/", view("collections.ingest_status"), name="ingest_status"),
    path("c/<slug:slug>/watch/", view("watch.watch"), name="watch"),
    # -- review
    path("c/<slug:slug>/review/", view("review.queue"), name="queue"),
    path("images/<int:pk>/", view("review.review"), name="review"),
    path("images/<int:pk>/decide/", view("review.decide"), name="decide"),
    path("images/<int:pk>/more/", view("review.more"), name="review_more"),
    path("images/<int:pk>/tags/", view("review.tags"), name="review_tags"),
    path("undo/", view("review.undo"), name="undo"),
    path("tags/", view("tags.tags"), name="tags"),
    path("tags/search/", view("review.tag_search"), name="tag_search"),
    # -- runs
    path("runs/", view("runs.runs"), name="runs"),
    path("runs/new/", view("runs.new"), name="run_new"),
    path("channels/form/", view("channels.form"), name="channel_form"),
    path("channels/presets/<slug:verb>/", view("channels.act"), name="presets"),
    path("runs/<int:pk>/", view("runs.run"), name="run"),
    path("runs/<int:pk>/status/", view("runs.status"), name="run_status"),
    path("runs/<int:pk>/budget/", view("runs.budget"), name="run_budget"),
    path("runs/<int:pk>/<slug:verb>/", view("runs.act"), name="run_act"),
    path("labels/", view("labels.labels"), name="labels"),
    path("labels/moves/<int:pk>/back/", view("labels.back"), name="label_back"),
    # -- files
    path("media/thumb/<str:sha256>/<int:side>.webp", view("media.thumb"), name="thumb"),
    path("images/<int:pk>/original", view("media.original"), name="original"),
]
