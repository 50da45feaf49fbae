"""Collections and their images."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, cast

from django.conf import settings
from django.core.files.storage import default_storage
from django.db import models
from django.db.models import Q
from django.urls import reverse


class Collection(models.Model):
    """A named set of images: a folder indexed in place, or uploads. Originals are never changed by indexing."""

    class Kind(models.TextChoices):
        FOLDER = "folder", "folder on this machine"
        UPLOAD = "upload", "uploaded files"

    name = models.CharField(max_length=120, unique=True)
    slug = models.SlugField(max_length=80, unique=True)
    kind = models.CharField(max_length=8, choices=Kind, default=Kind.FOLDER)
    root = models.CharField(max_length=1000, blank=True, help_text="Absolute folder; empty for uploads.")
    excludes = models.JSONField(default=list, blank=True, help_text='Globs of paths to leave out, e.g. "*/previews/*".')
    created_at = models.DateTimeField(auto_now_add=True)
    indexed_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ("name",)
        constraints = [
            models.CheckConstraint(
                condition=Q(kind="upload") | ~Q(root=""),
                name="collection_root",
                violation_error_message="A folder collection needs its folder.",
            )
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("tagging:grid", args=[self.slug])

    @property
    def upload_prefix(self) -> str:
        """Where the uploads of this collection lie in the default storage."""
        return f"uploads/{self.pk}"


class ImageQuerySet(models.QuerySet["ImageAsset"]):
    def present(self) -> ImageQuerySet:
        """Files that were there at the last look."""
        return self.filter(missing_since=None)

    def usable(self) -> ImageQuerySet:
        """Images that a model can be shown: present and readable."""
        return self.present().filter(state=ImageAsset.State.READY)

    def decided_by_people(self) -> ImageQuerySet:
        """Reviewed by a person: what a judge accepted does not count. Truth to measure with."""
        return self.filter(review_state=ImageAsset.Review.REVIEWED)

    def settled(self) -> ImageQuerySet:
        """Reviewed by a person or accepted by a judge: what may leave the house."""
        return self.filter(review_state__in=(ImageAsset.Review.REVIEWED, ImageAsset.Review.AUTO))

    def unreviewed(self) -> ImageQuerySet:
        return self.filter(review_state=ImageAsset.Review.UNREVIEWED)


class ImageAsset(models.Model):
    """One file of a collection. Identity: (collection, relative path); content identity: `sha256`.

    `width` and `height` are pixels as seen, after the EXIF orientation. `phash` is the 64-bit perceptual hash as a
    signed integer. `review_state` follows a person's decisions; what models propose never changes it. Only where a
    person opened a gate does a judge settle images: their state is then "auto", never "reviewed".
    """

    class State(models.TextChoices):
        READY = "ready", "ready"
        ERROR = "error", "unreadable"

    class Review(models.TextChoices):
        UNREVIEWED = "unreviewed", "unreviewed"
        SKIPPED = "skipped", "skipped"
        REVIEWED = "reviewed", "reviewed"
        AUTO = "auto", "accepted by a judge"

    class CaptionState(models.TextChoices):
        NONE = "", "none"
        PROPOSED = "proposed", "proposed"
        ACCEPTED = "accepted", "accepted"
        EDITED = "edited", "edited"

    collection = models.ForeignKey(Collection, models.CASCADE, related_name="images", db_index=False)
    path = models.CharField(max_length=1000, help_text="Relative to the collection, with forward slashes.")
    sha256 = models.CharField(max_length=64, blank=True)
    size = models.BigIntegerField(default=0, help_text="Bytes.")
    mtime_ns = models.BigIntegerField(default=0)
    format = models.CharField(max_length=16, blank=True)
    width = models.PositiveIntegerField(default=0)
    height = models.PositiveIntegerField(default=0)
    orientation = models.PositiveSmallIntegerField(default=1, help_text="EXIF orientation of the file, 1 to 8.")
    frames = models.PositiveIntegerField(default=1)
    captured_at = models.DateTimeField(null=True, blank=True, help_text="EXIF date; local camera time taken as UTC.")
    phash = models.BigIntegerField(null=True, blank=True)
    state = models.CharField(max_length=8, choices=State, default=State.READY)
    error = models.TextField(blank=True, help_text="Why the file cannot be used.")
    missing_since = models.DateTimeField(null=True, blank=True)
    added_at = models.DateTimeField(auto_now_add=True)

    # -- what the run shown for review proposes (written by the engine)
    proposed_by = models.ForeignKey(
        "tagging.Run", models.SET_NULL, null=True, blank=True, related_name="+", help_text="The run shown for review."
    )
    proposal_state = models.CharField(max_length=8, blank=True, help_text="ok, empty or error of that run.")
    top_score = models.FloatField(null=True, blank=True, help_text="Highest proposed probability.")

    # -- review
    review_state = models.CharField(max_length=10, choices=Review, default=Review.UNREVIEWED)
    reviewed_at = models.DateTimeField(null=True, blank=True)
    reviewed_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")
    priority = models.IntegerField(default=0, help_text="Review order: higher comes first.")
    caption = models.TextField(blank=True)
    caption_state = models.CharField(max_length=8, choices=CaptionState, default="", blank=True)
    rating = models.CharField(max_length=32, blank=True)
    rating_score = models.FloatField(null=True, blank=True, help_text="Empty when a person set the rating.")

    objects = ImageQuerySet.as_manager()

    class Meta:
        verbose_name = "image"
        constraints = [
            models.UniqueConstraint(
                fields=["collection", "path"],
                name="image_path",
                violation_error_message="This collection already has an image at that path.",
            ),
            models.CheckConstraint(condition=Q(state="ready") | ~Q(error=""), name="image_error_text"),
        ]
        indexes = [
            models.Index(fields=["collection", "id"], name="image_grid"),  # the grid, keyset by id
            # the review queue: next item of a state, highest priority first
            models.Index(fields=["collection", "review_state", "-priority", "id"], name="image_queue"),
            models.Index(fields=["sha256"], name="image_sha256"),  # moved files, duplicates, predictions
            models.Index(fields=["collection", "rating", "id"], name="image_rating", condition=~Q(rating="")),
            # sorted by probability, and probability ranges
            models.Index(
                fields=["collection", "top_score", "id"], name="image_score", condition=Q(top_score__isnull=False)
            ),
            models.Index(fields=["collection", "id"], name="image_missing", condition=Q(missing_since__isnull=False)),
            models.Index(
                fields=["collection", "id"],
                name="image_errors",
                condition=Q(state="error") | Q(proposal_state="error"),
            ),
        ]

    def __str__(self) -> str:
        return self.path

    @property
    def name(self) -> str:
        return posixpath.basename(self.path)

    def get_absolute_url(self) -> str:
        return reverse("tagging:review", args=[self.pk])

    def open(self) -> BinaryIO:
        """A fresh binary stream of the original. OSError when it is gone."""
        if self.collection.kind == Collection.Kind.UPLOAD:
            return cast(BinaryIO, default_storage.open(f"{self.collection.upload_prefix}/{self.path}", "rb"))
        return Path(self.collection.root, self.path).open("rb")

    def thumbnail_name(self, side: int) -> str:
        """Storage name of the WebP rendition with at most `side` pixels a side (by content hash)."""
        return thumbnail_name(self.sha256, side)


def thumbnail_name(sha256: str, side: int) -> str:
    """thumbs/ab/cd/<sha256>-<side>.webp"""
    return f"thumbs/{sha256[:2]}/{sha256[2:4]}/{sha256}-{side}.webp"


class IngestJob(models.Model):
    """One look at a collection's files. Safe to run again at any point: only what changed is read.

    queued → running → done | failed | cancelled; a job whose owner died is queued again by the sweeper.
    """

    class State(models.TextChoices):
        QUEUED = "queued", "queued"
        RUNNING = "running", "running"
        DONE = "done", "done"
        FAILED = "failed", "failed"
        CANCELLED = "cancelled", "cancelled"

    collection = models.ForeignKey(Collection, models.CASCADE, related_name="ingest_jobs")
    state = models.CharField(max_length=10, choices=State, default=State.QUEUED)
    archive = models.CharField(max_length=400, blank=True, help_text="Storage name of an uploaded zip to unpack first.")
    settle_seconds = models.PositiveIntegerField(
        default=0, help_text="Files that changed within these seconds are left for the next look: they may still grow."
    )
    owner = models.CharField(max_length=160, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    token = models.BigIntegerField(default=0)
    seen = models.PositiveIntegerField(default=0)
    added = models.PositiveIntegerField(default=0)
    changed = models.PositiveIntegerField(default=0)
    moved = models.PositiveIntegerField(default=0)
    unchanged = models.PositiveIntegerField(default=0)
    missing = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0, help_text="Files stored with an error.")
    skipped = models.PositiveIntegerField(default=0, help_text="Files left out by rules or not images.")
    total = models.PositiveIntegerField(null=True, blank=True, help_text="Files to look at, when known.")
    rate = models.FloatField(null=True, blank=True, help_text="Files a second.")
    error = models.TextField(blank=True)
    notes = models.JSONField(default=list, blank=True, help_text="The first problems, a line each.")
    cursor = models.JSONField(default=dict, blank=True, editable=False, help_text="Where the last slice of work ended.")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    OPEN: Iterable[str] = (State.QUEUED, State.RUNNING)

    class Meta:
        ordering = ("-id",)
        indexes = [
            models.Index(fields=["state"], name="ingest_open", condition=Q(state__in=("queued", "running"))),
        ]

    def __str__(self) -> str:
        return f"ingest {self.pk} of {self.collection}"
