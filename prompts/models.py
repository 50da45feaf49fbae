"""Prompts and wordlists: everything that steers a model's words. Versions never change once made."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q


def digest(value: Any) -> str:
    """sha256 (hex) of the canonical JSON of `value`: sorted keys, no spaces, UTF-8."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class PromptQuerySet(models.QuerySet["Prompt"]):
    def listed(self) -> PromptQuerySet:
        """Those that people made, without the holders of tried texts."""
        return self.filter(hidden=False)


class Prompt(models.Model):
    """A prompt's name and purpose; the text is in its versions."""

    class Task(models.TextChoices):
        TAGS = "tags", "tags"
        CAPTION = "caption", "caption"
        MERGE = "merge", "merge of several outputs"
        JUDGE = "judge", "judge"
        PAIRWISE = "pairwise", "pairwise judge"

    slug = models.SlugField(max_length=80, unique=True)
    name = models.CharField(max_length=120)
    task = models.CharField(max_length=12, choices=Task, default=Task.TAGS)
    families = models.JSONField(default=list, blank=True, help_text="Adapter kinds it is meant for; empty means any.")
    hidden = models.BooleanField(
        default=False, editable=False, help_text="Holds texts that were tried and not saved; in no list."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = PromptQuerySet.as_manager()

    class Meta:
        ordering = ("slug",)

    def __str__(self) -> str:
        return self.name


class PromptVersion(models.Model):
    """An immutable text (system + template) of a Prompt. A fork names its parent."""

    prompt = models.ForeignKey(Prompt, models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField(editable=False)
    system = models.TextField(blank=True)
    template = models.TextField(help_text="Jinja2. Variables: image.name, tags, caption, wordlist('slug'), max_tags, …")
    response_schema = models.JSONField(null=True, blank=True)
    message = models.CharField(max_length=200, help_text="What changed and why, in a line.")
    parent = models.ForeignKey("self", models.SET_NULL, null=True, blank=True, related_name="children")
    digest = models.CharField(max_length=64, editable=False)
    used_at = models.DateTimeField(
        null=True, editable=False, help_text="When a run first used it; frozen from then on."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, editable=False, related_name="+"
    )

    FROZEN = ("prompt_id", "number", "system", "template", "response_schema", "parent_id")

    class Meta:
        ordering = ("prompt", "-number")
        constraints = [
            models.UniqueConstraint(
                fields=["prompt", "number"],
                name="promptversion_number",
                violation_error_message="This prompt already has a version with that number.",
            ),
            models.CheckConstraint(
                condition=~Q(message=""),
                name="promptversion_message",
                violation_error_message="Say in a line what changed.",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.prompt.slug} v{self.number}"

    def compute_digest(self) -> str:
        return digest([self.system, self.template, self.response_schema])

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.pk:
            stored = PromptVersion.objects.filter(pk=self.pk).first()
            if stored and stored.used_at and any(getattr(stored, f) != getattr(self, f) for f in self.FROZEN):
                raise ValidationError(f"{stored} was used by a run and cannot change: save it as a new version.")
        elif not self.number:
            last = PromptVersion.objects.filter(prompt_id=self.prompt_id).aggregate(models.Max("number"))["number__max"]
            self.number = (last or 0) + 1
        self.digest = self.compute_digest()
        super().save(*args, **kwargs)


class PromptDraft(models.Model):
    """What one person typed and has not saved as a version: one per prompt and person, replaced as they type.

    `revision` rises with each save, so that two windows cannot overwrite each other unseen. `base` is the version that
    the text was begun from.
    """

    prompt = models.ForeignKey(Prompt, models.CASCADE, related_name="drafts")
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    base = models.ForeignKey(PromptVersion, models.SET_NULL, null=True, blank=True, related_name="+")
    system = models.TextField(blank=True)
    template = models.TextField(blank=True)
    response_schema = models.TextField(blank=True, help_text="As it was typed: it may not be JSON yet.")
    message = models.CharField(max_length=200, blank=True)
    revision = models.PositiveIntegerField(default=1)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["prompt", "owner"], name="promptdraft_once")]

    def __str__(self) -> str:
        return f"draft of {self.prompt.slug}"


class Wordlist(models.Model):
    """A named list of words that a policy or a prompt uses. The words are in its versions."""

    class Kind(models.TextChoices):
        BANNED = "banned", "banned"
        FORCED = "forced", "forced"
        VOCABULARY = "vocabulary", "vocabulary"
        REPLACEMENT = "replacement", "replacement"
        TRIGGER = "trigger", "trigger"

    slug = models.SlugField(max_length=80, unique=True)
    name = models.CharField(max_length=120)
    kind = models.CharField(max_length=12, choices=Kind)
    note = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("slug",)

    def __str__(self) -> str:
        return self.name

    @property
    def current(self) -> WordlistVersion | None:
        return self.versions.order_by("-number").first()


class WordlistVersion(models.Model):
    """One immutable state of a Wordlist. `entries` is a list of objects, see `wordlists.Entry`."""

    wordlist = models.ForeignKey(Wordlist, models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField(editable=False)
    entries = models.JSONField(default=list)
    digest = models.CharField(max_length=64, editable=False)
    message = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, editable=False, related_name="+"
    )

    class Meta:
        ordering = ("wordlist", "-number")
        constraints = [
            models.UniqueConstraint(fields=["wordlist", "number"], name="wordlistversion_number"),
        ]

    def __str__(self) -> str:
        return f"{self.wordlist.slug} v{self.number}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.pk:
            raise ValidationError("A wordlist version never changes: make a new one.")
        last = WordlistVersion.objects.filter(wordlist_id=self.wordlist_id).aggregate(models.Max("number"))
        self.number = (last["number__max"] or 0) + 1
        self.digest = digest([self.wordlist.kind, self.entries])
        super().save(*args, **kwargs)
