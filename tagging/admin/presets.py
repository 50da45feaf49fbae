"""Presets of options: read, renamed, shared, deleted. Values are changed where they are tried, on the run form."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString

from ..forms import SchemaForm
from ..models import OptionPreset
from .common import Admin, table
from .option_form import class_of


@admin.register(OptionPreset)
class OptionPresetAdmin(Admin[OptionPreset]):
    list_display = ("name", "kind", "adapter", "owner", "shared", "updated_at")
    list_filter = ("kind", "shared")
    list_select_related = ("adapter", "owner")
    search_fields = ("name", "owner__username")
    search_help_text = "Name or owner"
    fields = ("name", "kind", "adapter", "owner", "shared", "options", "created_at", "updated_at")
    readonly_fields = ("kind", "adapter", "options", "created_at", "updated_at")
    autocomplete_fields = ("owner",)

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False  # without the form of its model, values could only be guessed

    @admin.display(description="values")
    def options(self, obj: OptionPreset) -> SafeString | str:
        code = class_of(obj.kind)
        known = {f.name: f for f in SchemaForm(code.Options)} if code else {}
        rows = (
            (known[name].title if name in known else f"{name} (not known any more)", str(value))
            for name, value in obj.values.items()
        )
        return table(("option", "value"), rows, "Values of the preset", empty="No values.")
