"""Past and running exports: pages to read, with cancel and delete."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from tagging.admin.common import BigAdmin, ReadOnly, Stated, as_json, confirmed, mark

from . import actions
from .exporters.base import ExportError
from .import_models import ImportJob
from .models import ExportEntry, ExportJob


@admin.register(ExportJob)
class ExportJobAdmin(Stated[ExportJob], ReadOnly[ExportJob]):
    list_display = ("__str__", "shown_state", "n_rows", "shown_size", "download", "created_by", "created_at")
    list_filter = ("state", "format", "collection")
    list_select_related = ("collection", "created_by")
    search_fields = ("collection__name", "sha256", "error")
    search_help_text = "Collection, SHA-256 of the file, or text of the error"
    date_hierarchy = "created_at"
    actions = ("cancel", "remove")
    fields = (
        "collection", "format", "shown_options", "shown_filter", "shown_state", "n_rows", "n_total", "download",
        "shown_size", "sha256", "error", "owner", "created_by", "created_at", "finished_at",
    )  # fmt: skip
    readonly_fields = ("shown_options", "shown_filter", "shown_state", "download", "shown_size")

    @admin.display(description="size", ordering="size")
    def shown_size(self, obj: ExportJob) -> str:
        return filesizeformat(obj.size) if obj.file else "–"

    @admin.display(description="file")
    def download(self, obj: ExportJob) -> SafeString | str:
        if not obj.file:
            return "–"
        return format_html(
            '<a href="{}">{}</a>', reverse("exports:download", args=[obj.pk]), obj.file.rpartition("/")[2]
        )

    @admin.display(description="options")
    def shown_options(self, obj: ExportJob) -> SafeString | str:
        return as_json(obj.options)

    @admin.display(description="filter")
    def shown_filter(self, obj: ExportJob) -> SafeString | str:
        return as_json(obj.filter) if obj.filter else "all images"

    @confirmed(
        title="Cancel",
        question="Stop these exports? Their files never appear.",
        button="Stop them",
        permission="steer",
    )
    def cancel(self, request: HttpRequest, queryset: QuerySet[ExportJob], data: dict[str, Any]) -> str:
        n = sum(actions.cancel_export(job) for job in queryset)
        return f"{n} stopped."

    @confirmed(
        title="Delete with files",
        question="Delete these exports and their files? What was exported can be exported again.",
        button="Delete",
        permission="steer",
        danger=True,
    )
    def remove(self, request: HttpRequest, queryset: QuerySet[ExportJob], data: dict[str, Any]) -> str:
        jobs = list(queryset)
        deleted = 0
        for job in jobs:
            try:
                actions.delete_export(job)
            except ExportError as e:
                self.message_user(request, f"{job}: {e}", messages.WARNING)
            else:
                deleted += 1
        return f"{deleted} deleted."

    def has_steer_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("exports.change_exportjob")


@admin.register(ExportEntry)
class ExportEntryAdmin(BigAdmin[ExportEntry], ReadOnly[ExportEntry]):
    list_display = ("target", "job", "action", "shown_state", "error", "at")
    list_filter = ("state", "action")
    list_select_related = ("job__collection",)
    search_fields = ("target", "=job__id")
    search_help_text = "Part of the path, or number of the job"
    ordering = ("-pk",)
    exclude = ("backup", "fields", "written", "notes", "seen")
    readonly_fields = ("shown_fields", "shown_notes")

    def get_queryset(self, request: HttpRequest) -> QuerySet[ExportEntry]:
        return super().get_queryset(request).defer("backup")

    @admin.display(description="state", ordering="state")
    def shown_state(self, obj: ExportEntry) -> SafeString:
        return mark(obj.get_state_display(), "error" if obj.state in ("failed", "refused") else "")

    @admin.display(description="what changed")
    def shown_fields(self, obj: ExportEntry) -> SafeString | str:
        return as_json(obj.fields)

    @admin.display(description="notes")
    def shown_notes(self, obj: ExportEntry) -> SafeString | str:
        return as_json(obj.notes)


@admin.register(ImportJob)
class ImportJobAdmin(Stated[ImportJob], ReadOnly[ImportJob]):
    list_display = ("__str__", "source", "target", "shown_state", "n_rows", "created_by", "created_at")
    list_filter = ("state", "source", "target", "collection")
    list_select_related = ("collection", "created_by")
    search_fields = ("name", "collection__name", "sha256", "error")
    search_help_text = "File or folder, collection, SHA-256 of the file, or text of the error"
    exclude = ("token",)
