"""Past and running exports."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from tagging.models import Collection


class ExportJob(models.Model):
    """One export written in the background: what was selected, how far it is, and what came out.

    queued → running → done | failed | cancelled. A job whose owner died is queued again and starts its file anew: the
    file appears under its name only when it is whole.
    """

    class State(models.TextChoices):
        QUEUED = "queued", "queued"
        RUNNING = "running", "running"
        DONE = "done", "done"
        FAILED = "failed", "failed"
        CANCELLED = "cancelled", "cancelled"

    collection = models.ForeignKey(Collection, models.CASCADE, related_name="exports")
    format = models.CharField(max_length=24)
    options = models.JSONField(default=dict, blank=True)
    state = models.CharField(max_length=10, choices=State, default=State.QUEUED)
    owner = models.CharField(max_length=160, blank=True)
    token = models.BigIntegerField(default=0)
    lease_until = models.DateTimeField(null=True, blank=True)
    n_rows = models.PositiveIntegerField(default=0)
    n_total = models.PositiveIntegerField(null=True, blank=True)
    file = models.CharField(max_length=400, blank=True, help_text="Storage name of the finished file.")
    size = models.BigIntegerField(default=0)
    sha256 = models.CharField(max_length=64, blank=True)
    error = models.TextField(blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)
        indexes = [
            models.Index(fields=["state"], name="export_open", condition=Q(state__in=("queued", "running"))),
        ]

    def __str__(self) -> str:
        return f"{self.format} of {self.collection}"
