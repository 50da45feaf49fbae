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
    path("proposals/<int:pk>/replies/", view("replies.proposal"), name="replies"),
    path("recomputes/<int:pk>/", view("recomputes.recompute"), name="recompute"),
    path("recomputes/<int:pk>/cancel/", view("recomputes.cancel"), name="recompute_cancel"),
    # -- the library: prompts, wordlists, policies, labels
    path("prompts/", view("prompts.prompts"), name="prompts"),
    path("prompts/new/", view("prompts.new"), name="prompt_new"),
    path("prompts/import/", view("prompt_files.take"), name="prompts_take"),
    path("prompts/export/", view("prompt_files.all_files"), name="prompts_files"),
    path("prompt/<slug:slug>/", view("prompts.prompt"), name="prompt"),
    path("prompt/<slug:slug>/save/", view("prompts.save"), name="prompt_save"),
    path("prompt/<slug:slug>/fork/", view("prompts.fork"), name="prompt_fork"),
    path("prompt/<slug:slug>/about/", view("prompts.about"), name="prompt_about"),
    path("prompt/<slug:slug>/draft/", view("prompt_drafts.draft"), name="prompt_draft"),
    path("prompt/<slug:slug>/draft/discard/", view("prompt_drafts.discard"), name="prompt_draft_discard"),
    path("prompt/<slug:slug>/preview/", view("prompt_trying.preview"), name="prompt_preview"),
    path("prompt/<slug:slug>/difference/", view("prompts.difference"), name="prompt_difference"),
    path("prompt/<slug:slug>/try/", view("prompt_trying.start"), name="prompt_try"),
    path("prompt/<slug:slug>/file/", view("prompt_files.file"), name="prompt_file"),
    path("trials/<int:pk>/", view("prompt_trying.results"), name="trial"),
    path("images/pick/", view("prompt_trying.pick"), name="image_pick"),
    path("wordlists/", view("wordlists.wordlists"), name="wordlists"),
    path("wordlists/new/", view("wordlists.new"), name="wordlist_new"),
    path("wordlist/<slug:slug>/", view("wordlists.wordlist"), name="wordlist"),
    path("wordlist/<slug:slug>/convert/", view("wordlists.convert"), name="wordlist_convert"),
    path("wordlist/<slug:slug>/changes/", view("wordlists.show_changes"), name="wordlist_changes"),
    path("wordlist/<slug:slug>/save/", view("wordlists.save"), name="wordlist_save"),
    path("wordlist/<slug:slug>/import/", view("wordlists.take"), name="wordlist_take"),
    path("wordlist/<slug:slug>/file/", view("wordlists.file"), name="wordlist_file"),
    path("wordlist/<slug:slug>/rename/", view("wordlists.rename"), name="wordlist_rename"),
    path("wordlist/<slug:slug>/back/<int:number>/", view("wordlists.back"), name="wordlist_back"),
    path("policies/", view("policies.policies"), name="policies"),
    path("policies/new/", view("policies.new"), name="policy_new"),
    path("policy/<slug:slug>/", view("policies.policy"), name="policy"),
    path("policy/<slug:slug>/preview/", view("policies.show_changes"), name="policy_changes"),
    path("policy/<slug:slug>/save/", view("policies.save"), name="policy_save"),
    path("policy/<slug:slug>/rename/", view("policies.rename"), name="policy_rename"),
    path("policy/<slug:slug>/back/<int:number>/", view("policies.back"), name="policy_back"),
    path("recipes/", view("recipes.recipes"), name="recipes"),
    path("recipes/new/", view("recipe_builder.new"), name="recipe_new"),
    path("recipes/form/", view("recipe_builder.form"), name="recipe_form"),
    path("recipes/check/", view("recipe_builder.check"), name="recipe_check"),
    path("recipes/<int:pk>/", view("recipes.recipe"), name="recipe"),
    path("workbench/", view("workbench.workbench"), name="workbench"),
    path("workbench/show/", view("workbench.show"), name="workbench_show"),
    path("workbench/run/", view("workbench.run"), name="workbench_run"),
    path("workbench/poll/", view("workbench.poll"), name="workbench_poll"),
    path("workbench/change/", view("workbench.change"), name="workbench_change"),
    path("workbench/text/<slug:letter>/", view("workbench.text"), name="workbench_text"),
    path("workbench/rules/<slug:letter>/", view("workbench.rules"), name="workbench_rules"),
    path("workbench/keep/<slug:letter>/", view("workbench.keep"), name="workbench_keep"),
    path("words/", view("words.menu"), name="word_menu"),
    path("words/<slug:verb>/", view("words.change"), name="word_change"),
    path("words/undo/<int:pk>/", view("words.undo"), name="word_undo"),
    path("labels/", view("labels.labels"), name="labels"),
    path("labels/moves/<int:pk>/back/", view("labels.back"), name="label_back"),
    # -- models
    path("models/", view("models.models"), name="models"),
    path("models/live/", view("models.live"), name="models_live"),
    path("models/add/", view("models.add"), name="model_add"),
    path("models/unload/", view("models.unload"), name="model_unload"),
    path("models/downloads/", view("models.download"), name="model_download"),
    path("models/downloads/<int:pk>/<slug:verb>/", view("models.act"), name="model_download_act"),
    # -- files
    path("media/thumb/<str:sha256>/<int:side>.webp", view("media.thumb"), name="thumb"),
    path("images/<int:pk>/original", view("media.original"), name="original"),
]
