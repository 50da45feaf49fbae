"""Votes: which of two recipes did better on an image, said by a person or a judge."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from tagging.models import ImageAsset, Recipe

from .experiments import Experiment


class Vote(models.Model):
    """One comparison of two recipes on one image; append-only, but for a person's own last one, which may be taken
    back. `a` is the recipe with the lower primary key.

    A pairwise judge's two orders are one vote: a side where both agree, else a tie with `flipped`. `judge` names the
    judge profile and its version; it is empty where a person voted. `tags_a` and `tags_b` are how many tags each
    showed: the covariate that takes the pull of longer lists out of the ranking.
    """

    class Winner(models.TextChoices):
        A = "a", "a"
        B = "b", "b"
        TIE = "tie", "tie"

    experiment = models.ForeignKey(Experiment, models.CASCADE, null=True, blank=True, related_name="votes")
    image = models.ForeignKey(ImageAsset, models.CASCADE, related_name="votes")
    a = models.ForeignKey(Recipe, models.PROTECT, related_name="+")
    b = models.ForeignKey(Recipe, models.PROTECT, related_name="+")
    winner = models.CharField(max_length=3, choices=Winner)
    first = models.CharField(max_length=1, choices=[("a", "a"), ("b", "b")], help_text="Was shown left, or first.")
    flipped = models.BooleanField(default=False, help_text="The judge's two orders disagreed.")
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")
    judge = models.CharField(max_length=120, blank=True)
    tags_a = models.PositiveSmallIntegerField(default=0)
    tags_b = models.PositiveSmallIntegerField(default=0)
    seconds = models.FloatField(null=True, blank=True, help_text="How long it took to decide.")
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("id",)
        constraints = [
            models.CheckConstraint(condition=Q(a__lt=F("b")), name="vote_order"),
            models.CheckConstraint(condition=Q(flipped=False) | Q(winner="tie"), name="vote_flip_is_tie"),
            # one vote of a person, and of a judge, on a pair and image: two tabs, or two jobs, at once give no second
            models.UniqueConstraint(
                fields=["experiment", "image", "a", "b", "by"], name="vote_person_once", condition=Q(by__isnull=False)
            ),
            models.UniqueConstraint(
                fields=["experiment", "image", "a", "b", "judge"],
                name="vote_judge_once",
                condition=Q(experiment__isnull=False) & ~Q(judge=""),
            ),
            models.UniqueConstraint(
                fields=["image", "a", "b", "judge"],
                name="vote_judge_once_apart",
                condition=Q(experiment__isnull=True) & ~Q(judge=""),
            ),
        ]
        indexes = [
            models.Index(fields=["experiment", "image", "a", "b"], name="vote_pair"),
        ]

    def __str__(self) -> str:
        return f"{self.winner} of {self.a_id} and {self.b_id} on image {self.image_id}"
