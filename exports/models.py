"""Past and running exports."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from tagging.models import Collection, ImageAsset, Recipe

from .import_models import ImportJob, ImportRow

__all__ = ["ExportEntry", "ExportJob", "ImportJob", "ImportRow"]


class ExportJob(models.Model):
    """One export written in the background: what was selected, how far it is, and what came out.

    queued → running → done | failed | cancelled. A job whose owner died is queued again and starts its file anew: the
    file appears under its name only when it is whole.

    A job that writes beside the images has a `step`, and entries. Its plan ends as `planned` and waits for a person;
    then it is queued again to write (it goes on where it was interrupted), and later perhaps to undo: `undone`.
    """

    class State(models.TextChoices):
        QUEUED = "queued", "queued"
        RUNNING = "running", "running"
        PLANNED = "planned", "to be looked at"
        DONE = "done", "done"
        FAILED = "failed", "failed"
        CANCELLED = "cancelled", "cancelled"
        UNDONE = "undone", "undone"

    class Step(models.TextChoices):
        """What a job that writes beside the images is at."""

        PLAN = "plan", "planning"
        WRITE = "write", "planning, then writing"
        APPLY = "apply", "writing"
        UNDO = "undo", "undoing"

    collection = models.ForeignKey(Collection, models.CASCADE, related_name="exports")
    format = models.CharField(max_length=24)
    options = models.JSONField(default=dict, blank=True)
    filter = models.JSONField(
        default=dict, blank=True, help_text="Which images, as in the grid's address; empty means all."
    )
    state = models.CharField(max_length=10, choices=State, default=State.QUEUED)
    step = models.CharField(max_length=8, choices=Step, blank=True, help_text="Empty for an export to a file.")
    summary = models.JSONField(default=dict, blank=True, help_text="Counts of files and words of the entries.")
    owner = models.CharField(max_length=160, blank=True)
    token = models.BigIntegerField(default=0)
    lease_until = models.DateTimeField(null=True, blank=True)
    n_rows = models.PositiveIntegerField(default=0)
    n_total = models.PositiveIntegerField(null=True, blank=True)
    file = models.CharField(max_length=400, blank=True, help_text="Storage name of the finished file.")
    size = models.BigIntegerField(default=0)
    sha256 = models.CharField(max_length=64, blank=True)
    error = models.TextField(blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)
        indexes = [
            models.Index(fields=["state"], name="export_open", condition=Q(state__in=("queued", "running"))),
        ]

    def __str__(self) -> str:
        return f"{self.format} of {self.collection}"


class ExportEntry(models.Model):
    """One file that a job means to write in place, and what became of it: the ledger that can undo it.

        planned → writing → done → undone        planned → skipped        writing → failed

    The row is committed as `writing`, with the backup in it, before the file is touched; after a crash the file's hash
    says which of the two contents is there. `refused` rows say why a file was left alone.
    """

    class Action(models.TextChoices):
        CREATE = "create", "new file"
        UPDATE = "update", "changed file"
        REFUSE = "refuse", "left alone"

    class State(models.TextChoices):
        PLANNED = "planned", "planned"
        WRITING = "writing", "being written"
        DONE = "done", "written"
        SKIPPED = "skipped", "skipped"
        FAILED = "failed", "failed"
        REFUSED = "refused", "refused"
        UNDONE = "undone", "undone"

    job = models.ForeignKey(ExportJob, models.CASCADE, related_name="entries", db_index=False)
    image = models.ForeignKey(ImageAsset, models.SET_NULL, null=True, blank=True, related_name="export_entries")
    recipe = models.ForeignKey(Recipe, models.SET_NULL, null=True, blank=True, related_name="+")
    target = models.CharField(max_length=1200, help_text="Absolute path of the file.")
    action = models.CharField(max_length=8, choices=Action)
    state = models.CharField(max_length=8, choices=State, default=State.PLANNED)
    selected = models.BooleanField(default=True, help_text="Unticked in the preview: not written.")
    fields = models.JSONField(default=dict, help_text="Field → words to write, kind, and each word's change with why.")
    written = models.JSONField(default=dict, help_text="Field → the words in it that are iwtag's.")
    notes = models.JSONField(default=list)
    n_added = models.PositiveIntegerField(default=0)
    n_removed = models.PositiveIntegerField(default=0)
    n_kept = models.PositiveIntegerField(default=0)
    n_withheld = models.PositiveIntegerField(default=0)
    texts = models.BooleanField(default=False, help_text="A caption or another text changes.")
    seen = models.JSONField(null=True, help_text="Size, mtime_ns and inode when planned; null: there was no file.")
    sha_before = models.CharField(max_length=64, blank=True)
    sha_after = models.CharField(max_length=64, blank=True)
    backup = models.BinaryField(null=True, help_text="The bytes before, compressed with zlib.")
    error = models.TextField(blank=True, help_text="Why it was refused, skipped or failed.")
    at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name_plural = "export entries"
        indexes = [
            models.Index(fields=["job", "id"], name="entry_page"),
            models.Index(fields=["target", "-id"], name="entry_target"),  # what we wrote there last
            models.Index(fields=["state"], name="entry_open", condition=Q(state="writing")),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.target}"
