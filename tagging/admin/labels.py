"""Labels and watches: pages to read. Both are changed on their own pages, a label with a reason."""

from __future__ import annotations

from django.contrib import admin
from django.utils.safestring import SafeString

from ..models import Label, LabelEvent, Watch
from .common import ReadOnly, as_json, link, mark, table

MOVES = 100


@admin.register(Label)
class LabelAdmin(ReadOnly[Label]):
    list_display = ("name", "scope", "recipe", "moved_at")
    list_filter = ("name", "task", "collection")
    list_select_related = ("recipe", "adapter", "collection")
    search_fields = ("name", "recipe__name", "collection__name")
    search_help_text = "Label, recipe or collection"
    fields = ("name", "task", "adapter", "collection", "recipe", "moved_at", "moves")
    readonly_fields = ("moves",)

    @admin.display(description="scope")
    def scope(self, obj: Label) -> str:
        return obj.scope

    @admin.display(description="moves")
    def moves(self, obj: Label) -> SafeString | str:
        rows = obj.events.select_related("from_recipe", "to_recipe", "by").order_by("-pk")[:MOVES]
        return table(
            ("when", "who", "from", "to", "why"),
            ((link(e, str(e.at)[:16]), e.by or "–", link(e.from_recipe), link(e.to_recipe), e.why) for e in rows),
            "Moves, newest first",
        )


@admin.register(LabelEvent)
class LabelEventAdmin(ReadOnly[LabelEvent]):
    list_display = ("label", "to_recipe", "why", "by", "at")
    list_filter = ("label__name",)
    list_select_related = ("label__adapter", "label__collection", "to_recipe", "by")
    search_fields = ("label__name", "why")
    search_help_text = "Label or reason"
    date_hierarchy = "at"
    fields = ("label", "from_recipe", "to_recipe", "why", "known", "back_to", "by", "at")
    readonly_fields = ("known",)

    @admin.display(description="known then")
    def known(self, obj: LabelEvent) -> SafeString | str:
        return as_json(obj.metrics) if obj.metrics else "–"


@admin.register(Watch)
class WatchAdmin(ReadOnly[Watch]):
    list_display = ("collection", "switched_on", "recipe", "last_looked_at", "problems")
    list_select_related = ("collection",)
    search_fields = ("collection__name", "recipe")
    search_help_text = "Collection or recipe"
    fields = (
        ("collection", "paused", "switched_on"),
        ("interval_seconds", "settle_seconds", "recipe"),
        "settings",
        ("last_looked_at", "job", "run"),
        "results",
        ("changed_by", "changed_at"),
    )
    readonly_fields = ("switched_on", "settings", "results")

    @admin.display(description="switched on")
    def switched_on(self, obj: Watch) -> SafeString | str:
        return mark("paused", "warning") if obj.paused else ", ".join(obj.enabled) or "–"

    @admin.display(description="errors")
    def problems(self, obj: Watch) -> SafeString | str:
        errors = [f"{name}: {result['error']}" for name, result in obj.last_result.items() if result.get("error")]
        return mark(" ".join(errors), "error") if errors else "–"

    @admin.display(description="further steps")
    def settings(self, obj: Watch) -> SafeString | str:
        return as_json(obj.steps) if obj.steps else "–"

    @admin.display(description="what each step did last")
    def results(self, obj: Watch) -> SafeString | str:
        return as_json(obj.last_result) if obj.last_result else "–"
