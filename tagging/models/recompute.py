"""A policy applied again to what was predicted: the job that does it, and what was proposed before."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from .recipes import PolicyVersion
from .runs import Proposal, Run


class RecomputeJob(models.Model):
    """A policy version applied to the stored predictions of one run. No inference; truth is never touched.

    queued → running → done | failed | cancelled. Works in order of proposal ids; `cursor` is the last one done, written
    with the results, so that a job whose owner died goes on where it was.
    """

    class State(models.TextChoices):
        QUEUED = "queued", "queued"
        RUNNING = "running", "running"
        DONE = "done", "done"
        FAILED = "failed", "failed"
        CANCELLED = "cancelled", "cancelled"

    OPEN = (State.QUEUED, State.RUNNING)

    run = models.ForeignKey(Run, models.CASCADE, related_name="recomputes")
    policy_version = models.ForeignKey(PolicyVersion, models.PROTECT, related_name="recomputes")
    combine = models.JSONField(
        null=True, blank=True, help_text="Another combine rule than the recipe's, of a run with several channels."
    )
    state = models.CharField(max_length=10, choices=State, default=State.QUEUED)
    cursor = models.BigIntegerField(default=0, help_text="The last proposal that was done.")
    n_total = models.PositiveIntegerField(default=0)
    n_done = models.PositiveIntegerField(default=0)
    n_changed = models.PositiveIntegerField(default=0, help_text="Images whose tags or caption became others.")
    n_skipped = models.PositiveIntegerField(default=0, help_text="Errors, and proposals without a stored prediction.")
    tags_before = models.PositiveBigIntegerField(default=0)
    tags_after = models.PositiveBigIntegerField(default=0)
    gained = models.JSONField(default=dict, blank=True, help_text="Tag → on how many images it is new.")
    lost = models.JSONField(default=dict, blank=True, help_text="Tag → on how many images it is gone.")
    seconds = models.FloatField(default=0, help_text="Work, without waiting.")
    error = models.TextField(blank=True)
    owner = models.CharField(max_length=160, blank=True)
    token = models.BigIntegerField(default=0)
    lease_until = models.DateTimeField(null=True, blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)
        constraints = [
            models.UniqueConstraint(
                fields=["run"],
                condition=Q(state__in=("queued", "running")),
                name="recompute_one_open",
                violation_error_message="This run is being recomputed already.",
            )
        ]

    def __str__(self) -> str:
        return f"{self.policy_version} on {self.run}"


class ProposalRevision(models.Model):
    """A proposal as it was before a recompute changed it; kept for ever."""

    proposal = models.ForeignKey(Proposal, models.CASCADE, related_name="revisions")
    job = models.ForeignKey(RecomputeJob, models.SET_NULL, null=True, blank=True, related_name="+", db_index=False)
    policy_version = models.ForeignKey(
        PolicyVersion, models.SET_NULL, null=True, blank=True, related_name="+", db_index=False
    )
    state = models.CharField(max_length=6)
    tags = models.JSONField(default=list)
    caption = models.TextField(blank=True)
    replaced_at = models.DateTimeField()

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"{self.proposal_id} until {self.replaced_at:%Y-%m-%d %H:%M}"
