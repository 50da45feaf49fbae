"""Policies and recipes: what is run, compared, promoted and restored."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models

from prompts.models import PromptVersion, WordlistVersion, digest

from .adapters import ModelAdapter


class Policy(models.Model):
    """Everything done to raw tags and text after the model; the rules are in its versions."""

    slug = models.SlugField(max_length=80, unique=True)
    name = models.CharField(max_length=120)
    note = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("slug",)
        verbose_name_plural = "policies"

    def __str__(self) -> str:
        return self.name

    @property
    def current(self) -> PolicyVersion | None:
        return self.versions.order_by("-number").first()


class PolicyVersion(models.Model):
    """One immutable set of rules: `spec` as `tagging.policy.PolicySpec` validates it, with the lists it uses."""

    policy = models.ForeignKey(Policy, models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField(editable=False)
    spec = models.JSONField(default=dict, blank=True)
    wordlists = models.ManyToManyField(WordlistVersion, blank=True, related_name="policy_versions")
    digest = models.CharField(max_length=64, editable=False, help_text="Of the spec and the digests of the lists.")
    message = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, editable=False, related_name="+"
    )

    class Meta:
        ordering = ("policy", "-number")
        constraints = [models.UniqueConstraint(fields=["policy", "number"], name="policyversion_number")]

    def __str__(self) -> str:
        return f"{self.policy.slug} v{self.number}"


class Recipe(models.Model):
    """Immutable and content-hashed: channels + combine rule + policy version. Made by `actions.recipes.get_recipe`."""

    class Combine(models.TextChoices):
        SINGLE = "single", "single channel"
        UNION = "union", "union: what any channel says"
        INTERSECTION = "intersection", "intersection: what all channels say"
        VOTES = "votes", "votes: what enough channels say"
        WEIGHTED = "weighted", "weighted by score and trust"
        PRIORITY = "priority", "priority by category"
        LLM_MERGE = "llm_merge", "merged by a language model"

    class Order(models.TextChoices):
        PARALLEL = "parallel", "parallel: all at once"
        SEQUENTIAL = "sequential", "sequential: a later prompt sees what came before"
        CASCADE = "cascade", "cascade: the next only where the last is unsure"

    key = models.CharField(max_length=64, unique=True, editable=False)
    name = models.CharField(max_length=160, blank=True)
    combine = models.JSONField(
        default=dict, help_text='As `policy.combine.CombineSpec` validates it, e.g. {"rule": "single"}.'
    )
    policy_version = models.ForeignKey(PolicyVersion, models.PROTECT, related_name="recipes")
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, editable=False, related_name="+"
    )

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return self.name or f"recipe {self.key[:8]}"

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        if self.runs.exists():
            raise ValidationError(
                "A recipe that was run cannot be deleted: its results could no longer say what made them."
            )
        return super().delete(*args, **kwargs)


class Channel(models.Model):
    """One model call in a recipe: adapter + prompt version + options (all of them, defaults filled in).

    The adapter's own settings at that time are copied into `adapter_config`, so that editing the row later cannot
    rewrite history. It holds `read: "proxy"` too where the model gets the renditions made at indexing.
    """

    class Role(models.TextChoices):
        ASKED = "asked", "asked about each image"
        MERGE = "merge", "merges what the others said"

    recipe = models.ForeignKey(Recipe, models.CASCADE, related_name="channels")
    position = models.PositiveSmallIntegerField(default=0)
    name = models.SlugField(
        max_length=80,
        default="",
        blank=True,
        help_text="Unique within the recipe: what its tags name as their source.",
    )
    role = models.CharField(max_length=8, choices=Role, default=Role.ASKED)
    adapter = models.ForeignKey(ModelAdapter, models.PROTECT, related_name="channels")
    adapter_config = models.JSONField(default=dict, help_text="kind, source, revision, device, quantization.")
    prompt_version = models.ForeignKey(PromptVersion, models.PROTECT, null=True, blank=True, related_name="channels")
    options = models.JSONField(default=dict)
    variables = models.JSONField(default=dict, blank=True, help_text="Values of the prompt's free variables.")

    class Meta:
        ordering = ("recipe", "position")
        constraints = [
            models.UniqueConstraint(fields=["recipe", "position"], name="channel_position"),
            models.UniqueConstraint(fields=["recipe", "name"], name="channel_name"),
        ]

    def __str__(self) -> str:
        return f"{self.adapter.slug}" + (f" · {self.prompt_version}" if self.prompt_version else "")

    @property
    def read(self) -> str:
        """Which pixels its model gets: "original" or "proxy"."""
        return str(self.adapter_config.get("read", "original"))

    @property
    def source(self) -> str:
        """What its tags name as their source."""
        return self.name or self.adapter.slug


def recipe_key(channels: list[dict[str, Any]], combine: dict[str, Any], policy_digest: str) -> str:
    """sha256 of what a recipe is: channels (adapter config, prompt digest, options; free variables where there are any,
    names and roles where there are several channels), combine rule, policy digest."""
    return digest({"channels": channels, "combine": combine, "policy": policy_digest})
