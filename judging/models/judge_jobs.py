"""The work of judges in the background, the gate that rests on it, and what became of each image."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.urls import reverse

from tagging.models import Collection, ImageAsset, Run

from .experiments import Experiment
from .judges import JudgeProfile, JudgeProfileVersion, JudgeVerdict


class Gate(models.Model):
    """What a collection lets a judge decide: one row each, switched on by a person.

    The thresholds are on the probability that a tag is right; empty: that band is closed. They hold for the judge's
    version they were chosen for: another version closes the gate until they are chosen again.
    """

    collection = models.OneToOneField(Collection, models.CASCADE, related_name="gate")
    profile = models.ForeignKey(JudgeProfile, models.PROTECT, related_name="gates")
    version = models.ForeignKey(JudgeProfileVersion, models.PROTECT, related_name="gates")
    enabled = models.BooleanField(default=False)
    automatic = models.BooleanField(default=False, help_text="Every run that is shown goes through when it is done.")
    accept_at = models.FloatField(null=True, blank=True)
    reject_at = models.FloatField(null=True, blank=True)
    target = models.FloatField(default=0.95, help_text="Precision that the lower bound must keep, per tag.")
    audit_share = models.FloatField(default=0.05, help_text="Of what it would accept, so much goes to a person.")
    precision_low = models.FloatField(null=True, blank=True, help_text="Lower bound when the threshold was chosen.")
    closed_why = models.CharField(max_length=300, blank=True, help_text="Why it closed by itself.")
    changed_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(accept_at=None) | Q(accept_at__gte=0.5, accept_at__lte=1),
                name="gate_accept",
                violation_error_message="The accept threshold lies between 0.5 and 1.",
            ),
            models.CheckConstraint(
                condition=Q(reject_at=None) | Q(reject_at__gte=0, reject_at__lt=0.5),
                name="gate_reject",
                violation_error_message="The reject threshold lies between 0 and 0.5.",
            ),
            models.CheckConstraint(
                condition=Q(target__gt=0.5, target__lt=1) & Q(audit_share__gte=0.01, audit_share__lte=1),
                name="gate_shares",
                violation_error_message="The target lies between 0.5 and 1, the audited share between 0.01 and 1.",
            ),
        ]

    def __str__(self) -> str:
        return f"gate of {self.collection}"


class JudgeJob(models.Model):
    """Verdicts of one judge on what runs proposed, on what people reviewed, or on pairs; in the background.

        queued → running ⇄ paused    running → done | failed    queued, running, paused → cancelled

    Works through proposals (or images) in the order of their ids; `cursor` is the last one done, written with the
    verdicts, so that a job whose owner died goes on where it was and asks nothing twice. The stages of a jury are its
    members, each on the queue of its model, then the count of their votes.
    """

    class State(models.TextChoices):
        QUEUED = "queued", "queued"
        RUNNING = "running", "running"
        PAUSED = "paused", "paused"
        DONE = "done", "done"
        FAILED = "failed", "failed"
        CANCELLED = "cancelled", "cancelled"

    class Subject(models.TextChoices):
        PROPOSALS = "proposals", "what a run proposed"
        REVIEWED = "reviewed", "what people decided"
        PAIRS = "pairs", "two runs against each other"

    class Part(models.TextChoices):
        FIT = "fit", "70 % to fit wording on"
        HELD = "held", "30 % to measure with"

    OPEN = (State.QUEUED, State.RUNNING, State.PAUSED)
    ACTIVE = (State.QUEUED, State.RUNNING)

    version = models.ForeignKey(JudgeProfileVersion, models.PROTECT, related_name="jobs")
    subject = models.CharField(max_length=10, choices=Subject)
    collection = models.ForeignKey(Collection, models.CASCADE, null=True, blank=True, related_name="judge_jobs")
    runs = models.JSONField(default=list, help_text="Primary keys of the runs whose proposals are judged.")
    others = models.JSONField(default=list, blank=True, help_text="Of pairs: those they are compared with.")
    experiment = models.ForeignKey(Experiment, models.CASCADE, null=True, blank=True, related_name="judge_jobs")
    gate = models.ForeignKey(Gate, models.SET_NULL, null=True, blank=True, related_name="jobs")
    batch = models.UUIDField(default=uuid.uuid4, help_text="Of what the gate decided here: undone together.")
    share = models.FloatField(default=1.0, help_text="Part of the images, drawn by their content.")
    part = models.CharField(
        max_length=4,
        blank=True,
        choices=Part,
        help_text="Only the images that wording is fitted on, or only others.",
    )
    sample = models.PositiveSmallIntegerField(default=0)
    max_calls = models.PositiveIntegerField(null=True, blank=True, help_text="Pauses after so many questions.")
    max_cost = models.FloatField(null=True, blank=True, help_text="Pauses when the replies cost so much.")

    state = models.CharField(max_length=10, choices=State, default=State.QUEUED)
    note = models.CharField(max_length=300, blank=True, help_text="Why it paused by itself.")
    error = models.TextField(blank=True)
    problems = models.JSONField(default=list, blank=True, help_text="The first failures, a line each.")
    stage = models.PositiveSmallIntegerField(default=0)
    cursor = models.BigIntegerField(default=0)
    n_total = models.PositiveIntegerField(default=0)
    n_done = models.PositiveIntegerField(default=0)
    n_verdicts = models.PositiveIntegerField(default=0, help_text="Made by this job.")
    n_cached = models.PositiveIntegerField(default=0, help_text="Found, without asking.")
    n_invalid = models.PositiveIntegerField(default=0)
    n_error = models.PositiveIntegerField(default=0, help_text="Images on which the model failed: no verdict.")
    n_skipped = models.PositiveIntegerField(default=0, help_text="Nothing to judge, or not drawn.")
    n_calls = models.PositiveIntegerField(default=0, help_text="Questions that reached the model.")
    n_accepted = models.PositiveIntegerField(default=0, help_text="Images that the gate accepted.")
    n_rejected = models.PositiveIntegerField(default=0)
    n_review = models.PositiveIntegerField(default=0, help_text="Images that the gate sent to a person.")
    n_audit = models.PositiveIntegerField(default=0, help_text="Of these, drawn at random from the accepted.")
    tokens_in = models.PositiveBigIntegerField(default=0)
    tokens_out = models.PositiveBigIntegerField(default=0)
    cost = models.FloatField(default=0)
    seconds = models.FloatField(default=0)
    owner = models.CharField(max_length=160, blank=True)
    token = models.BigIntegerField(default=0)
    lease_until = models.DateTimeField(null=True, blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)
        indexes = [
            models.Index(fields=["state"], name="judgejob_open", condition=Q(state__in=("queued", "running"))),
        ]

    def __str__(self) -> str:
        return f"{self.version}, job {self.pk}"

    def get_absolute_url(self) -> str:
        return reverse("judging:judge_job", args=[self.pk])


class GateOutcome(models.Model):
    """What the gate did with an image, the last time it passed. `audit`: it would have been accepted and was drawn."""

    class Band(models.TextChoices):
        ACCEPT = "accept", "accepted"
        REVIEW = "review", "to a person"
        REJECT = "reject", "rejected"

    collection = models.ForeignKey(Collection, models.CASCADE, related_name="gate_outcomes", db_index=False)
    image = models.ForeignKey(ImageAsset, models.CASCADE, related_name="gate_outcomes")
    job = models.ForeignKey(JudgeJob, models.CASCADE, related_name="outcomes")
    run = models.ForeignKey(Run, models.CASCADE, related_name="+", db_index=False)
    version = models.ForeignKey(JudgeProfileVersion, models.PROTECT, related_name="outcomes")
    verdict = models.ForeignKey(JudgeVerdict, models.CASCADE, null=True, blank=True, related_name="outcomes")
    band = models.CharField(max_length=6, choices=Band)
    audit = models.BooleanField(default=False)
    why = models.CharField(max_length=200, blank=True)
    worth = models.IntegerField(default=0, help_text="Priority it got in the review queue.")
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["job", "image"], name="gateoutcome_once")]
        indexes = [
            models.Index(fields=["collection", "-id"], name="gateoutcome_page"),
            models.Index(fields=["version", "-id"], name="gateoutcome_audit", condition=Q(audit=True)),
        ]

    def __str__(self) -> str:
        return f"{self.band} of image {self.image_id}"
