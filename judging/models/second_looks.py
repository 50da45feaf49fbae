"""Second looks: what another person says of tags that one has decided, without seeing what that was."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q

from tagging.models import Collection, ImageAsset, Tag

#: of the reviewed images, so many get a second look where nobody said otherwise
SHARE = 0.10


class SecondLookShare(models.Model):
    """Which part of a collection's reviewed images is shown to a second person; 0 switches it off. No row: 10 %."""

    collection = models.OneToOneField(Collection, models.CASCADE, related_name="second_look_share")
    share = models.FloatField(default=SHARE)
    changed_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(share__gte=0, share__lte=1),
                name="secondlook_share",
                violation_error_message="The part lies between 0 and 1.",
            )
        ]

    def __str__(self) -> str:
        return f"{self.share:.0%} of {self.collection}"


class SecondLook(models.Model):
    """One answer; append-only, and no truth: the decision stays as it is. Of one person's answers to the same question
    the newest counts. `right` is empty where it cannot be told; `first_right` is what stood decided at that time."""

    image = models.ForeignKey(ImageAsset, models.CASCADE, related_name="second_looks", db_index=False)
    tag = models.ForeignKey(Tag, models.CASCADE, related_name="+")
    category = models.CharField(max_length=40)
    first_right = models.BooleanField()
    right = models.BooleanField(null=True)
    first_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="second_looks"
    )
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("id",)
        indexes = [models.Index(fields=["image", "tag"], name="secondlook_pair")]

    def __str__(self) -> str:
        return f"second look at {self.tag_id} on image {self.image_id}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.pk:
            raise ValidationError("A second look never changes: look again.")
        super().save(*args, **kwargs)
