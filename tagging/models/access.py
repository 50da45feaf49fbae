"""API keys."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class ApiKey(models.Model):
    """A hashed key for the API. Its scopes never reach beyond what its owner may do.

    The key itself is shown once: `<prefix>.<secret>`; `hash` is the sha256 (hex) of the whole key, which has 256 random
    bits, so that a slow hash adds nothing.
    """

    SCOPES = ("read", "write", "run")

    name = models.CharField(max_length=80)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="api_keys")
    prefix = models.CharField(max_length=12, unique=True, editable=False)
    hash = models.CharField(max_length=64, editable=False)
    scopes = models.JSONField(default=list)
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("name",)
        verbose_name = "API key"
        constraints = [
            models.UniqueConstraint(
                fields=["owner", "name"],
                name="apikey_name",
                violation_error_message="This person already has a key of that name.",
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"
