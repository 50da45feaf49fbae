"""Labels: names that point to recipes, and the history of where they pointed."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import F, Value
from django.db.models.functions import Coalesce

from .adapters import ModelAdapter
from .collections import Collection
from .recipes import Recipe

#: A letter first, so that no label looks like a recipe's number; nothing that a reference has a meaning for (/ and @).
name_validator = RegexValidator(
    r"^[a-z][a-z0-9_-]{0,39}\Z", "A label is a lower-case letter, then letters, digits, - or _ (40 at most)."
)


class Label(models.Model):
    """A pointer to a recipe: champion, candidate, baseline, or any other name, within a scope.

    The scope is a task, an adapter and a collection; each that is left out means "any", so that a label without all
    three is global. Only `actions.labels` moves labels: every move is a `LabelEvent`.
    """

    class Task(models.TextChoices):
        TAGS = "tags", "tags"
        CAPTION = "caption", "caption"

    USUAL = ("champion", "candidate", "baseline")

    name = models.CharField(max_length=40, validators=[name_validator])
    task = models.CharField(max_length=12, choices=Task, blank=True, help_text="Empty: for any task.")
    adapter = models.ForeignKey(
        ModelAdapter, models.CASCADE, null=True, blank=True, related_name="labels", help_text="Empty: for any model."
    )
    collection = models.ForeignKey(
        Collection, models.CASCADE, null=True, blank=True, related_name="labels", help_text="Empty: everywhere."
    )
    recipe = models.ForeignKey(Recipe, models.PROTECT, related_name="labels")
    moved_at = models.DateTimeField()

    class Meta:
        ordering = ("name", "id")
        constraints = [
            # NULL is unlike NULL in a plain unique constraint
            models.UniqueConstraint(
                F("name"),
                F("task"),
                Coalesce(F("adapter"), Value(0)),
                Coalesce(F("collection"), Value(0)),
                name="label_scope",
                violation_error_message="There is a label of that name in that scope already.",
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.scope})"

    @property
    def scope(self) -> str:
        """ "everywhere", or "tags with photo-lite in Holiday"."""
        parts = [self.get_task_display() if self.task else ""]
        parts.append(f"with {self.adapter.slug}" if self.adapter else "")
        parts.append(f"in {self.collection}" if self.collection else "")
        return " ".join(part for part in parts if part) or "everywhere"

    @property
    def reference(self) -> str:
        """How the label is named where a recipe is asked for: [task/]name[@model]."""
        return f"{self.task}/" * bool(self.task) + self.name + (f"@{self.adapter.slug}" if self.adapter else "")


class LabelEvent(models.Model):
    """One move of a label, append-only: who, when, why, from where to where, and what was known of the recipe then."""

    label = models.ForeignKey(Label, models.CASCADE, related_name="events")
    from_recipe = models.ForeignKey(Recipe, models.PROTECT, null=True, blank=True, related_name="+")
    to_recipe = models.ForeignKey(Recipe, models.PROTECT, related_name="+")
    why = models.CharField(max_length=400)
    metrics = models.JSONField(default=dict, blank=True, help_text="What was measured of the new recipe at that time.")
    back_to = models.ForeignKey(
        "self", models.SET_NULL, null=True, blank=True, related_name="+", help_text="The move that this one restored."
    )
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)
        indexes = [models.Index(fields=["label", "-id"], name="labelevent_history")]

    def __str__(self) -> str:
        return f"{self.label.name} → {self.to_recipe}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.pk is not None:
            raise ValidationError("The history of a label is only added to.")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        raise ValidationError("The history of a label is only added to.")
