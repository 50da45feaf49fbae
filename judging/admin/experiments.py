"""Experiments and votes in the administration: to look at, not to write."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from ..models import Experiment, ExperimentRecipe, Vote


class _Shown(admin.ModelAdmin):
    """What the pages of experiments write is only shown here."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class Rows(admin.TabularInline):
    model = ExperimentRecipe
    fields = ("position", "name", "recipe", "values", "dropped_at", "dropped_why")
    readonly_fields = fields
    extra = 0
    can_delete = False
    max_num = 0


@admin.register(Experiment)
class ExperimentAdmin(_Shown):
    list_display = ("name", "collection", "state", "n_images", "samples", "racing", "created_by", "created_at")
    list_filter = ("state", "collection")
    list_select_related = ("collection", "created_by")
    search_fields = ("name", "question")
    exclude = ("image_ids", "sha256s", "holdout", "board", "board_of", "owner", "token", "lease_until")
    inlines = (Rows,)


@admin.register(Vote)
class VoteAdmin(_Shown):
    list_display = ("id", "experiment", "image", "a", "b", "winner", "flipped", "by", "judge", "at")
    list_filter = ("winner", "flipped")
    list_select_related = ("experiment", "image", "a", "b", "by")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # append-only
