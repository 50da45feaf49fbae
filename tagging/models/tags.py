"""The vocabulary and the truth: which tag is in force on which image, and every change of it."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q

from ..policy.text import tag_key
from .collections import Collection, ImageAsset
from .runs import Run


class Tag(models.Model):
    """A vocabulary term. `key` is the name as it is compared (NFKC, case folded, underscores as spaces)."""

    name = models.CharField(max_length=200)
    key = models.CharField(max_length=220, unique=True, editable=False)
    category = models.CharField(max_length=40, default="general", db_index=True)
    parent = models.ForeignKey("self", models.SET_NULL, null=True, blank=True, related_name="children")
    note = models.TextField(blank=True)

    class Meta:
        ordering = ("key",)
        constraints = [
            models.CheckConstraint(condition=~Q(key=""), name="tag_key", violation_error_message="A tag needs a name.")
        ]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: object, **kwargs: object) -> None:
        self.key = tag_key(self.name)
        super().save(*args, **kwargs)  # type: ignore[arg-type]


class TagAlias(models.Model):
    """Another spelling that means `tag`."""

    tag = models.ForeignKey(Tag, models.CASCADE, related_name="aliases")
    name = models.CharField(max_length=200)
    key = models.CharField(max_length=220, unique=True, editable=False)

    class Meta:
        ordering = ("key",)
        verbose_name_plural = "tag aliases"

    def __str__(self) -> str:
        return self.name

    def save(self, *args: object, **kwargs: object) -> None:
        self.key = tag_key(self.name)
        super().save(*args, **kwargs)  # type: ignore[arg-type]


class ImageTagQuerySet(models.QuerySet["ImageTag"]):
    def decided_by_people(self) -> ImageTagQuerySet:
        """Decisions to measure with: not those of images that a judge settled and nobody has looked at since."""
        return self.filter(state__in=ImageTag.TRUTH).exclude(image__review_state="auto")


class ImageTag(models.Model):
    """The tag in force on an image. Truth is accepted, rejected and added; proposed is what the shown run says.

    On SQLite the table is WITHOUT ROWID: the primary key is the table, half the size (measured).
    """

    class State(models.IntegerChoices):
        PROPOSED = 1, "proposed"
        ACCEPTED = 2, "accepted"
        REJECTED = 3, "rejected"
        ADDED = 4, "added"

    TRUTH = (State.ACCEPTED, State.REJECTED, State.ADDED)
    IN_FORCE = (State.PROPOSED, State.ACCEPTED, State.ADDED)
    POSITIVE = (State.ACCEPTED, State.ADDED)

    pk = models.CompositePrimaryKey("image_id", "tag_id")
    image = models.ForeignKey(ImageAsset, models.CASCADE, related_name="image_tags", db_index=False)
    tag = models.ForeignKey(Tag, models.CASCADE, related_name="image_tags", db_index=False)
    state = models.PositiveSmallIntegerField(choices=State)
    run = models.ForeignKey(Run, models.SET_NULL, null=True, blank=True, related_name="+", db_index=False)
    score = models.FloatField(null=True, blank=True)

    objects = ImageTagQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(state__in=(1, 2, 3, 4)), name="imagetag_state"),
        ]
        indexes = [
            # images that have a tag, in page order, with what the filters ask: covering
            models.Index(fields=["tag", "image", "state", "score"], name="imagetag_by_tag"),
            # SET_NULL of a deleted run
            models.Index(fields=["run"], name="imagetag_run", condition=Q(run__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"{self.tag_id} on {self.image_id}: {self.get_state_display()}"


class TagCount(models.Model):
    """How many images of a collection carry a tag, by state; maintained with every write of ImageTag."""

    collection = models.ForeignKey(Collection, models.CASCADE, related_name="tag_counts", db_index=False)
    tag = models.ForeignKey(Tag, models.CASCADE, related_name="counts")
    proposed = models.IntegerField(default=0)
    accepted = models.IntegerField(default=0)
    rejected = models.IntegerField(default=0)
    added = models.IntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["collection", "tag"], name="tagcount_once")]

    def __str__(self) -> str:
        return f"{self.tag_id} in {self.collection_id}"


class TagEdit(models.Model):
    """One change by a person, append-only. Undo is a new row that names the row it undoes.

    `before` and `after` hold the value of that kind: a tag's state (number or null), the caption with its state, the
    rating, or the review state.
    """

    class Kind(models.TextChoices):
        TAG = "tag", "tag"
        CAPTION = "caption", "caption"
        RATING = "rating", "rating"
        REVIEW = "review", "review state"

    image = models.ForeignKey(ImageAsset, models.CASCADE, related_name="edits", db_index=False)
    kind = models.CharField(max_length=8, choices=Kind)
    tag = models.ForeignKey(Tag, models.SET_NULL, null=True, blank=True, related_name="+")
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)
    batch = models.UUIDField(default=uuid.uuid4, help_text="Changes made by one action; undone together.")
    undoes = models.ForeignKey("self", models.SET_NULL, null=True, blank=True, related_name="undone_by")
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")
    door = models.CharField(max_length=12, default="review", help_text="Where it came from: review, bulk, api, admin.")
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)
        indexes = [
            models.Index(fields=["image", "-id"], name="tagedit_history"),
            models.Index(fields=["batch"], name="tagedit_batch"),
            models.Index(fields=["by", "-id"], name="tagedit_by"),  # a person's last decision, for undo
        ]

    def __str__(self) -> str:
        return f"{self.kind} of image {self.image_id}"
