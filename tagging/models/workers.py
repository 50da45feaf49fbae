"""Which worker processes are alive."""

from __future__ import annotations

from datetime import timedelta

from django.db import models
from django.utils import timezone


class WorkerQuerySet(models.QuerySet["Worker"]):
    def alive(self, seconds: float = 30) -> WorkerQuerySet:
        """Those heard from within `seconds`."""
        return self.filter(beat_at__gte=timezone.now() - timedelta(seconds=seconds))


class Worker(models.Model):
    """One worker process, written by its own heartbeat. `owner` is "host|pid|start time", as on chunks."""

    owner = models.CharField(max_length=160, primary_key=True)
    queue = models.CharField(max_length=32)
    host = models.CharField(max_length=120)
    pid = models.PositiveIntegerField()
    started_at = models.DateTimeField()
    beat_at = models.DateTimeField(db_index=True)
    resident = models.JSONField(
        default=list, help_text="Models that are loaded: key, slug, place, provider, seconds to load."
    )
    doing = models.CharField(max_length=200, blank=True)

    objects = WorkerQuerySet.as_manager()

    class Meta:
        ordering = ("queue", "host", "pid")

    def __str__(self) -> str:
        return f"{self.queue} {self.host}:{self.pid}"


class UnloadRequest(models.Model):
    """Somebody wants a loaded model gone from a worker. The worker's heartbeat obeys once nothing uses it, and deletes
    the request."""

    owner = models.CharField(max_length=160, db_index=True, help_text="The worker, as Worker.owner.")
    model_key = models.CharField(max_length=64, blank=True, help_text="Which model; empty for all it has.")
    asked_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["owner", "model_key"], name="unload_once")]

    def __str__(self) -> str:
        return f"unload {self.model_key[:8] or 'everything'} from {self.owner}"
