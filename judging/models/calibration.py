"""How far a judge agrees with people: computed figures as they were, and what people said of disagreements."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from .judges import JudgedTag, JudgeProfileVersion


class Calibration(models.Model):
    """Figures of one version at one time, for all tags (category empty) and for each category.

    `matrix` is {"caught", "alarm", "missed", "agreed"} with "wrong" as the positive class; `figures` holds everything
    else as the page shows it. Append-only: the newest of a category counts, the others are its history.
    """

    class Badge(models.TextChoices):
        TRUSTED = "trusted", "trusted"
        ADVISORY = "advisory", "advisory"
        OFF = "off", "off"

    version = models.ForeignKey(JudgeProfileVersion, models.CASCADE, related_name="calibrations", db_index=False)
    category = models.CharField(max_length=40, blank=True, help_text="Empty: all tags.")
    decisions = models.PositiveIntegerField(default=0)
    images = models.PositiveIntegerField(default=0)
    matrix = models.JSONField(default=dict)
    kappa = models.FloatField(null=True, blank=True)
    kappa_low = models.FloatField(null=True, blank=True)
    kappa_high = models.FloatField(null=True, blank=True)
    badge = models.CharField(max_length=8, choices=Badge, default=Badge.OFF)
    why = models.CharField(max_length=300, blank=True)
    figures = models.JSONField(default=dict)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)
        indexes = [models.Index(fields=["version", "category", "-id"], name="calibration_latest")]

    def __str__(self) -> str:
        return f"{self.version} {self.category or 'all'}: {self.badge}"


class InboxAnswer(models.Model):
    """What a person said of a disagreement between judge and truth; one answer each."""

    class Answer(models.TextChoices):
        JUDGE_WRONG = "judge", "the judge was wrong"
        PERSON_WRONG = "person", "the person was wrong"
        UNCLEAR = "unclear", "cannot be told"

    judged = models.OneToOneField(JudgedTag, models.CASCADE, related_name="answer")
    answer = models.CharField(max_length=8, choices=Answer)
    note = models.CharField(max_length=300, blank=True)
    used_in = models.ForeignKey(
        JudgeProfileVersion, models.SET_NULL, null=True, blank=True, related_name="+", help_text="Became its example."
    )
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")
    at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.judged}: {self.answer}"
