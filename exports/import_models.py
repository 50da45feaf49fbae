"""Imports: what other tools and tables say of a collection's images, compared first and taken over then."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from prompts.models import WordlistVersion
from tagging.models import Collection, ImageAsset, Run


class ImportJob(models.Model):
    """One import: read and compared (its rows are the preview), then applied, perhaps undone.

        queued → running → planned → queued → running → done → queued → running → undone
        any open state → cancelled; failed; what was applied until then can be undone, or gone on with

    `batch` names every decision it made as truth. A job whose owner died is queued again: reading starts anew, applying
    goes on behind the last row that was committed together with its decisions.
    """

    class Source(models.TextChoices):
        SIDECARS = "sidecars", "XMP sidecars"
        EMBEDDED = "embedded", "metadata in the images"
        TXT = "txt", "text files beside the images"
        CSV = "csv", "CSV table"
        JSONL = "jsonl", "JSON Lines"

    class Target(models.TextChoices):
        TRUTH = "truth", "as decisions"
        RUN = "run", "as a run to compare with"
        VOCABULARY = "vocabulary", "as a word list"

    class State(models.TextChoices):
        QUEUED = "queued", "queued"
        RUNNING = "running", "running"
        PLANNED = "planned", "to be looked at"
        DONE = "done", "done"
        FAILED = "failed", "failed"
        CANCELLED = "cancelled", "cancelled"
        UNDONE = "undone", "undone"

    class Step(models.TextChoices):
        READ = "read", "reading"
        APPLY = "apply", "applying"
        UNDO = "undo", "undoing"

    collection = models.ForeignKey(Collection, models.CASCADE, related_name="imports")
    source = models.CharField(max_length=10, choices=Source)
    target = models.CharField(max_length=10, choices=Target, default=Target.TRUTH)
    options = models.JSONField(default=dict, blank=True, help_text="How the source is read.")
    choices = models.JSONField(default=dict, blank=True, help_text="What was chosen when it was applied.")
    name = models.CharField(max_length=200, blank=True, help_text="Of the file or folder, as a person knows it.")
    file = models.CharField(max_length=400, blank=True, help_text="Storage name of the uploaded file.")
    folder = models.CharField(max_length=1000, blank=True, help_text="Another folder than the collection's.")
    sha256 = models.CharField(max_length=64, blank=True, help_text="Of the uploaded file.")
    state = models.CharField(max_length=10, choices=State, default=State.QUEUED)
    step = models.CharField(max_length=6, choices=Step, default=Step.READ)
    owner = models.CharField(max_length=160, blank=True)
    token = models.BigIntegerField(default=0)
    lease_until = models.DateTimeField(null=True, blank=True)
    n_rows = models.PositiveIntegerField(default=0, help_text="Rows read, or applied, in this step.")
    n_total = models.PositiveIntegerField(null=True, blank=True)
    summary = models.JSONField(default=dict, blank=True, help_text="Counts of rows and words, warnings.")
    result = models.JSONField(default=dict, blank=True, help_text="Counts of what was applied and undone.")
    batch = models.UUIDField(null=True, blank=True)
    run = models.ForeignKey(Run, models.SET_NULL, null=True, blank=True, related_name="+")
    wordlist_version = models.ForeignKey(WordlistVersion, models.SET_NULL, null=True, blank=True, related_name="+")
    error = models.TextField(blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    OPEN = (State.QUEUED, State.RUNNING)

    class Meta:
        ordering = ("-id",)
        indexes = [
            models.Index(fields=["state"], name="import_open", condition=Q(state__in=("queued", "running"))),
        ]

    def __str__(self) -> str:
        return f"import of {self.name or self.get_source_display()} into {self.collection}"


class ImportRow(models.Model):
    """What a source says of one image, compared with what is decided here, and what became of it.

        change → applied | left        same, unmatched and problem rows stay what they are

    `words` is a list of [name, ancestors, fate, why, score]; the fates are those of `importers.difference`.
    """

    class State(models.TextChoices):
        CHANGE = "change", "changes something"
        SAME = "same", "nothing new"
        UNMATCHED = "unmatched", "no image"
        PROBLEM = "problem", "problem"
        APPLIED = "applied", "applied"
        LEFT = "left", "left alone"

    job = models.ForeignKey(ImportJob, models.CASCADE, related_name="rows", db_index=False)
    number = models.PositiveIntegerField(help_text="Line of the table, or running number of the file.")
    key = models.CharField(max_length=1200, blank=True, help_text="What names the image in the source.")
    image = models.ForeignKey(ImageAsset, models.CASCADE, null=True, blank=True, related_name="+")
    state = models.CharField(max_length=9, choices=State)
    selected = models.BooleanField(default=True, help_text="Unticked in the preview: not applied.")
    words = models.JSONField(default=list)
    n_new = models.PositiveIntegerField(default=0, help_text="Words that become tags of the image.")
    n_there = models.PositiveIntegerField(default=0)
    n_unknown = models.PositiveIntegerField(default=0, help_text="Of n_new, those that no tag has yet.")
    n_refused = models.PositiveIntegerField(default=0, help_text="Words that were rejected on the image here.")
    n_removed = models.PositiveIntegerField(default=0, help_text="Words that were taken out elsewhere.")
    texts = models.JSONField(default=dict, blank=True, help_text='{"caption": [before, after], "rating": […]}')
    elsewhere = models.BooleanField(default=False, help_text="Edited by another tool since iwtag wrote it.")
    notes = models.JSONField(default=list, blank=True)
    error = models.TextField(blank=True, help_text="Why it cannot be taken over.")

    class Meta:
        indexes = [
            models.Index(fields=["job", "state", "id"], name="importrow_page"),
            models.Index(fields=["job", "image"], name="importrow_image"),
        ]

    def __str__(self) -> str:
        return f"{self.key} in import {self.job_id}"
