"""Who works."""

from __future__ import annotations

from datetime import timedelta

from django.contrib import admin
from django.utils import timezone
from django.utils.safestring import SafeString

from ..models import Worker
from .common import ReadOnly, mark


@admin.register(Worker)
class WorkerAdmin(ReadOnly[Worker]):
    list_display = ("__str__", "alive", "models", "doing", "beat_at", "started_at")
    list_filter = ("queue", "host")
    search_fields = ("host", "doing")
    search_help_text = "Host, or what it is doing"

    @admin.display(description="state")
    def alive(self, obj: Worker) -> SafeString:
        lives = obj.beat_at >= timezone.now() - timedelta(seconds=30)
        return mark("alive", "ok") if lives else mark("silent", "warning")

    @admin.display(description="models loaded")
    def models(self, obj: Worker) -> str:
        return ", ".join(str(m.get("slug", m)) if isinstance(m, dict) else str(m) for m in obj.resident) or "none"
