"""Experiments, votes and searches in the administration: to look at, not to write."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString

from tagging.admin.common import ReadOnly, as_json, link, table

from ..models import Experiment, ExperimentRecipe, OvernightSearch, Vote


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
    search_help_text = "Name or question"
    exclude = ("image_ids", "sha256s", "holdout", "board", "board_of", "owner", "token", "lease_until")
    inlines = (Rows,)


@admin.register(Vote)
class VoteAdmin(_Shown):
    list_display = ("id", "experiment", "image", "a", "b", "winner", "flipped", "by", "judge", "at")
    list_filter = ("winner", "flipped")
    list_select_related = ("experiment", "image", "a", "b", "by")
    search_fields = ("experiment__name", "image__path")
    search_help_text = "Experiment, or path of the image"

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # append-only


@admin.register(OvernightSearch)
class OvernightSearchAdmin(ReadOnly[OvernightSearch]):
    list_display = ("name", "collection", "state", "best", "spent", "money", "created_by", "created_at")
    list_filter = ("state", "collection")
    list_select_related = ("collection", "best", "created_by")
    search_fields = ("name", "verdict", "error")
    search_help_text = "Name, or what came of it"
    fields = (
        ("name", "collection"), ("state", "verdict", "error"), ("base", "best"), ("filter", "sample", "seed", "margin"),
        "may_vary", ("seconds", "used_seconds"), ("money", "spent", "currency"), "rounds", "decisions",
        ("created_by", "created_at", "finished_at"),
    )  # fmt: skip
    readonly_fields = ("may_vary", "rounds", "decisions")

    @admin.display(description="may vary")
    def may_vary(self, obj: OvernightSearch) -> SafeString | str:
        return as_json(obj.axes)

    @admin.display(description="rounds")
    def rounds(self, obj: OvernightSearch) -> SafeString | str:
        rows = obj.rounds.select_related("experiment").order_by("number")
        return table(
            ("round", "experiment", "state", "what came of it"),
            (
                (f"{r.number} ({r.get_kind_display()})", link(r.experiment), r.experiment.state, r.note or "–")
                for r in rows
            ),
            "Its experiments",
        )

    @admin.display(description="decisions")
    def decisions(self, obj: OvernightSearch) -> SafeString | str:
        return table(("when", "what"), ((e["at"][:16], e["text"]) for e in obj.log), "What it decided, and why")
