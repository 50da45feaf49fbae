"""Models on their way from the hub to this machine."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from .adapters import ModelAdapter, check_kind


class ModelDownload(models.Model):
    """One revision of a hub model that is fetched in the background.

    queued → running → done | failed | cancelled; failed and cancelled ones can be queued again and go on with what is
    on disk. A process works on it as long as it renews the lease; every write of its is fenced by `token`.
    """

    class State(models.TextChoices):
        QUEUED = "queued", "queued"
        RUNNING = "running", "running"
        DONE = "done", "done"
        FAILED = "failed", "failed"
        CANCELLED = "cancelled", "cancelled"

    OPEN = (State.QUEUED, State.RUNNING)

    source = models.CharField(max_length=200, help_text="Hub id: owner/name.")
    revision = models.CharField(max_length=80, blank=True, help_text="Branch, tag or commit; empty for the newest.")
    kind = models.CharField(
        max_length=40, validators=[check_kind], help_text="The adapter it is for: it says which files are needed."
    )
    folder = models.CharField(
        max_length=400, blank=True, help_text="Folder of IWTAG_MODELS_DIRS it goes to; empty for the hub's cache."
    )
    configure = models.BooleanField(default=True, help_text="Make a model of it once it is here.")
    adapter = models.ForeignKey(
        ModelAdapter, models.SET_NULL, null=True, blank=True, related_name="+", help_text="The model that it became."
    )
    state = models.CharField(max_length=10, choices=State, default=State.QUEUED)
    phase = models.CharField(max_length=80, blank=True, help_text="What is being done now.")
    bytes_total = models.PositiveBigIntegerField(null=True, blank=True, help_text="Known once the hub was asked.")
    bytes_done = models.PositiveBigIntegerField(default=0)
    files = models.PositiveIntegerField(default=0)
    rate = models.FloatField(null=True, blank=True, help_text="Bytes a second, lately.")
    commit = models.CharField(max_length=64, blank=True, help_text="The revision that it was.")
    path = models.CharField(max_length=600, blank=True, help_text="Where it lies.")
    error = models.TextField(blank=True)
    owner = models.CharField(max_length=160, blank=True)
    token = models.BigIntegerField(default=0)
    lease_until = models.DateTimeField(null=True, blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)
        constraints = [
            models.UniqueConstraint(
                fields=["source", "revision", "folder"],
                condition=Q(state__in=("queued", "running")),
                name="download_one_open",
                violation_error_message="This model is being downloaded already.",
            )
        ]

    def __str__(self) -> str:
        return f"{self.source}{'@' if self.revision else ''}{self.revision}"

    @property
    def percent(self) -> int | None:
        return min(100, round(100 * self.bytes_done / self.bytes_total)) if self.bytes_total else None

    @property
    def seconds_left(self) -> float | None:
        if not (self.bytes_total and self.rate) or self.state != self.State.RUNNING:
            return None
        return max(0, self.bytes_total - self.bytes_done) / self.rate
