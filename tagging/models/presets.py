"""Option values that a person saved under a name."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from .adapters import ModelAdapter, check_kind


class OptionPreset(models.Model):
    """Values of an adapter's options under a name: a starting point, never part of a recipe.

    It fits every model of its `kind`, or only the one row that `adapter` names. Its owner sees it; everybody does when
    it is shared, or when its owner's account is gone. `values` holds the options that shape the answer, not those that
    say how the work is done.
    """

    name = models.CharField(max_length=80)
    kind = models.CharField(max_length=40, validators=[check_kind], help_text="The adapter's key.")
    adapter = models.ForeignKey(
        ModelAdapter,
        models.CASCADE,
        null=True,
        blank=True,
        related_name="presets",
        help_text="Only for this model; empty for all of the kind.",
    )
    values = models.JSONField(default=dict, blank=True)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="option_presets"
    )
    shared = models.BooleanField(default=False, help_text="Everybody who may start runs sees it.")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("name", "id")
        constraints = [
            models.UniqueConstraint(
                fields=["kind", "owner", "name"],
                name="preset_name",
                violation_error_message="You have a preset of this name for this kind of model.",
            ),
        ]

    def __str__(self) -> str:
        return self.name
