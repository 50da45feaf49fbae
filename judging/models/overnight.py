"""A search for the best recipe within a time and an amount of money, round by round."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone

from tagging.models import Collection, Recipe

from .experiments import Experiment, FrozenImages


class OvernightSearch(FrozenImages):
    """Starts from a recipe, tries what lies one step away, goes on from the best, and checks the finalists on images
    that the search never saw. It moves no label: a person does.

        running ⇄ paused    running, paused → stopped    running → done | failed

    `used_seconds` is the working time up to `clock_from`; while it runs, the time since then comes on top.
    """

    class State(models.TextChoices):
        RUNNING = "running", "running"
        PAUSED = "paused", "paused"
        DONE = "done", "done"
        STOPPED = "stopped", "stopped"
        FAILED = "failed", "failed"

    OPEN = (State.RUNNING, State.PAUSED)

    name = models.CharField(max_length=160)
    collection = models.ForeignKey(Collection, models.CASCADE, related_name="searches")
    filter = models.CharField(max_length=2000, blank=True)
    sample = models.PositiveIntegerField(null=True, blank=True)
    seed = models.PositiveIntegerField(default=0)
    axes = models.JSONField(default=dict, help_text="What may vary, as judging.grid.Axes validates it.")
    base = models.ForeignKey(Recipe, models.PROTECT, related_name="+", help_text="What is to be beaten.")
    best = models.ForeignKey(Recipe, models.PROTECT, related_name="+", help_text="The best so far.")
    margin = models.FloatField(default=0.02, help_text="Differences within this count as none.")
    seconds = models.PositiveIntegerField(help_text="Working time that it may take.")
    money = models.DecimalField(max_digits=12, decimal_places=4, null=True, blank=True)
    currency = models.CharField(max_length=3, blank=True)

    state = models.CharField(max_length=8, choices=State, default=State.RUNNING)
    used_seconds = models.FloatField(default=0)
    clock_from = models.DateTimeField(null=True, blank=True)
    spent = models.FloatField(default=0)
    log = models.JSONField(default=list, blank=True, help_text="What it decided, and why.")
    verdict = models.TextField(blank=True, help_text="What came of it, in words.")
    error = models.TextField(blank=True)
    owner = models.CharField(max_length=160, blank=True)
    token = models.BigIntegerField(default=0)
    lease_until = models.DateTimeField(null=True, blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)
        verbose_name_plural = "overnight searches"
        indexes = [models.Index(fields=["state"], name="search_open", condition=Q(state="running"))]
        constraints = [models.CheckConstraint(condition=Q(money=None) | Q(money__gt=0), name="search_money")]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("judging:search", args=[self.pk])

    def used(self, now: datetime | None = None) -> float:
        """Working seconds so far."""
        running = self.state == self.State.RUNNING and self.clock_from is not None
        since = ((now or timezone.now()) - self.clock_from) if running and self.clock_from else timedelta()
        return self.used_seconds + max(0.0, since.total_seconds())

    @property
    def seconds_left(self) -> float:
        return self.seconds - self.used()

    @property
    def money_left(self) -> float | None:
        return None if self.money is None else float(self.money) - self.spent

    def part(self, *, held_out: bool) -> list[tuple[int, str]]:
        """(primary key, sha256) of the images that are searched on, or of those kept for the last check, in order."""
        rows = zip(self.images, self.digests, self.held_out, strict=True)
        return [(pk, sha) for pk, sha, held in rows if bool(held) == held_out]


class OvernightRound(models.Model):
    """One experiment of a search. `outcome`: each recipe with its figures, once the round is closed."""

    class Kind(models.TextChoices):
        SEARCH = "search", "search"
        CHECK = "check", "last check"

    search = models.ForeignKey(OvernightSearch, models.CASCADE, related_name="rounds")
    number = models.PositiveSmallIntegerField()
    kind = models.CharField(max_length=6, choices=Kind, default=Kind.SEARCH)
    experiment = models.OneToOneField(Experiment, models.CASCADE, related_name="overnight_round")
    outcome = models.JSONField(null=True, blank=True)
    note = models.CharField(max_length=400, blank=True)

    class Meta:
        ordering = ("search", "number")
        # what keeps a controller that was killed and began again from making a round twice
        constraints = [models.UniqueConstraint(fields=["search", "number"], name="overnightround_number")]

    def __str__(self) -> str:
        return f"{self.search}, round {self.number}"
