"""Watches: what is done to a collection by itself."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from .collections import Collection, IngestJob
from .runs import Run

#: The sweeper comes once a minute.
SHORTEST = 60
A_WEEK = 7 * 24 * 3600


class Watch(models.Model):
    """A collection that looks after itself: look at its files, run a recipe on what is new, and what other apps
    add to that: let a judge settle it, export what was reviewed.

    Each step is switched on by itself; a new watch does nothing. `steps` holds the settings of steps that other apps
    bring (`tagging.watching`), by name; each has an "enabled". `last_result` holds what each step did last, by name:
    {"at", "text", "error", …}. `token` and `lease_until` keep two workers from doing the same.
    """

    collection = models.OneToOneField(Collection, models.CASCADE, related_name="watch")
    paused = models.BooleanField(default=False, help_text="Nothing is done by itself while this is set.")
    look = models.BooleanField("look for new files", default=False)
    tag = models.BooleanField("run the recipe on new images", default=False)
    interval_seconds = models.PositiveIntegerField(
        "seconds between looks", default=300, validators=[MinValueValidator(SHORTEST), MaxValueValidator(A_WEEK)]
    )
    settle_seconds = models.PositiveIntegerField(
        "settle time",
        default=30,
        validators=[MaxValueValidator(3600)],
        help_text="A file that changed within these seconds may still be growing: it is left for the next look.",
    )
    recipe = models.CharField(
        max_length=140, default="champion", help_text="A label ([task/]name[@model]), or a recipe's number."
    )
    steps = models.JSONField(default=dict, blank=True)
    last_looked_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_result = models.JSONField(default=dict, blank=True, editable=False)
    job = models.ForeignKey(IngestJob, models.SET_NULL, null=True, blank=True, editable=False, related_name="+")
    run = models.ForeignKey(Run, models.SET_NULL, null=True, blank=True, editable=False, related_name="+")
    owner = models.CharField(max_length=160, blank=True, editable=False)
    token = models.BigIntegerField(default=0, editable=False)
    lease_until = models.DateTimeField(null=True, blank=True, editable=False)
    changed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, editable=False, related_name="+"
    )
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name_plural = "watches"
        constraints = [
            models.CheckConstraint(
                condition=Q(interval_seconds__gte=SHORTEST),
                name="watch_interval",
                violation_error_message=f"At least {SHORTEST} seconds.",
            )
        ]

    def __str__(self) -> str:
        return f"watch of {self.collection}"

    @property
    def enabled(self) -> list[str]:
        """The names of the steps that are switched on."""
        own = [name for name in ("look", "tag") if getattr(self, name)]
        return own + [name for name, given in self.steps.items() if given.get("enabled")]

    @property
    def active(self) -> bool:
        """Something will be done by itself."""
        return not self.paused and bool(self.enabled)

    @property
    def next_look(self) -> datetime | None:
        """When the next look is due; None when there will be none, or when none has been yet: then it is due now."""
        if self.paused or not self.look or self.last_looked_at is None:
            return None
        return self.last_looked_at + timedelta(seconds=self.interval_seconds)

    def result(self, step: str) -> dict[str, Any]:
        """What that step did last."""
        return dict(self.last_result.get(step) or {})
