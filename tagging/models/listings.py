"""What servers of models have, as they last said it."""

from __future__ import annotations

from datetime import timedelta

from django.db import models
from django.utils import timezone

from .adapters import ModelAdapter


class ModelListing(models.Model):
    """The models behind a configured endpoint. Asked for by a person, answered by a worker: asked → there | failed, and
    from there asked again."""

    class State(models.TextChoices):
        ASKED = "asked", "asked for"
        THERE = "there", "there"
        FAILED = "failed", "failed"

    #: After this a question counts as lost: no worker took it up.
    LOST = timedelta(seconds=30)

    adapter = models.OneToOneField(ModelAdapter, models.CASCADE, primary_key=True, related_name="listing")
    state = models.CharField(max_length=6, choices=State, default=State.ASKED)
    found = models.JSONField(default=list, help_text='[{"id", "sees", "note"}, …], those that see first.')
    error = models.TextField(blank=True)
    asked_at = models.DateTimeField()
    answered_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"models of {self.adapter_id}"

    @property
    def waiting(self) -> bool:
        """Asked for, and a worker may still answer."""
        return self.state == self.State.ASKED and not self.lost

    @property
    def lost(self) -> bool:
        return self.state == self.State.ASKED and timezone.now() - self.asked_at > self.LOST
