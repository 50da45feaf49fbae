"""Policies and recipes: pages to read. They are made by actions and never change."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from ..models import Policy, PolicyVersion, Recipe, Run
from .common import Admin, ReadOnly, as_json, link, list_link, table


@admin.register(Policy)
class PolicyAdmin(Admin[Policy]):
    list_display = ("name", "slug", "versions")
    search_fields = ("name", "slug")
    search_help_text = "Name or slug"
    fields = ("name", "slug", "note", "created_at", "all_versions")
    readonly_fields = ("slug", "created_at", "all_versions")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Policy]:
        return super().get_queryset(request).annotate(n_versions=Count("versions"))

    @admin.display(ordering="n_versions")
    def versions(self, obj: Any) -> int:
        return int(obj.n_versions)

    @admin.display(description="versions")
    def all_versions(self, obj: Policy) -> SafeString | str:
        rows = obj.versions.select_related("created_by").order_by("-number")[:100]
        return table(
            ("version", "what changed", "who", "when"),
            ((link(v, f"v{v.number}"), v.message or "–", v.created_by or "–", v.created_at) for v in rows),
            "Versions, newest first",
        )


@admin.register(PolicyVersion)
class PolicyVersionAdmin(ReadOnly[PolicyVersion]):
    list_display = ("__str__", "message", "created_by", "created_at")
    list_filter = ("policy",)
    list_select_related = ("policy", "created_by")
    search_fields = ("policy__name", "policy__slug", "message")
    search_help_text = "Policy, or what changed"
    fields = ("policy", "number", "message", "rules", "lists", "digest", "used_by", "created_by", "created_at")
    readonly_fields = ("rules", "lists", "used_by")

    @admin.display(description="rules")
    def rules(self, obj: PolicyVersion) -> SafeString | str:
        return as_json(obj.spec) if obj.spec else "The defaults."

    @admin.display(description="wordlists")
    def lists(self, obj: PolicyVersion) -> SafeString | str:
        rows = obj.wordlists.select_related("wordlist").order_by("wordlist__slug")
        return table(
            ("list", "kind", "entries"),
            ((link(v), v.wordlist.get_kind_display(), f"{len(v.entries):,}") for v in rows),
            "Wordlists that these rules use",
        )

    @admin.display(description="recipes")
    def used_by(self, obj: PolicyVersion) -> SafeString:
        return list_link(Recipe, "Recipes with these rules", policy_version__id__exact=obj.pk)


@admin.register(Recipe)
class RecipeAdmin(ReadOnly[Recipe]):
    list_display = ("__str__", "models", "policy_version", "runs", "created_at")
    list_filter = ("channels__adapter",)
    list_select_related = ("policy_version__policy",)
    search_fields = ("name", "key", "channels__adapter__slug")
    search_help_text = "Name, key or model"
    date_hierarchy = "created_at"
    fields = ("name", "key", "channels", "combine_rule", "policy_version", "runs", "created_by", "created_at")
    readonly_fields = ("channels", "combine_rule", "runs")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Recipe]:
        found = super().get_queryset(request).annotate(n_runs=Count("runs", distinct=True))
        return found.prefetch_related("channels__adapter", "channels__prompt_version__prompt")

    @admin.display(description="models")
    def models(self, obj: Recipe) -> str:
        return " + ".join(str(c) for c in obj.channels.all())

    @admin.display(description="runs", ordering="n_runs")
    def runs(self, obj: Any) -> SafeString:
        return list_link(Run, f"{obj.n_runs:,}", recipe__id__exact=obj.pk)

    @admin.display(description="channels")
    def channels(self, obj: Recipe) -> SafeString | str:
        return table(
            ("model", "prompt", "settings", "options"),
            (
                (link(c.adapter), link(c.prompt_version), as_json(c.adapter_config), as_json(c.options))
                for c in obj.channels.all()
            ),
            "Channels in order",
        )

    @admin.display(description="combine")
    def combine_rule(self, obj: Recipe) -> SafeString | str:
        return as_json(obj.combine)
