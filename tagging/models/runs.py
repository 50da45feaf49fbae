"""Runs and the ledger that makes them safe: chunks with leases, cached predictions, one proposal per image."""

from __future__ import annotations

import sys
from array import array

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone

from .collections import Collection, ImageAsset
from .recipes import PolicyVersion, Recipe


class RunQuerySet(models.QuerySet["Run"]):
    def listed(self) -> RunQuerySet:
        """Runs that tag a collection: what lists of runs show, and what counts as seen."""
        return self.filter(purpose=Run.Purpose.TAGGING)


class Run(models.Model):
    """A recipe over a frozen list of images.

        running ⇄ paused      running → done | failed      running, paused → cancelled      failed, cancelled → running

    Transitions are conditional UPDATEs (`actions.runs`). The image list is frozen in the chunks.
    """

    class State(models.TextChoices):
        RUNNING = "running", "running"
        PAUSED = "paused", "paused"
        CANCELLED = "cancelled", "cancelled"
        DONE = "done", "done"
        FAILED = "failed", "failed"

    class Purpose(models.TextChoices):
        TAGGING = "tagging", "tagging"
        TRIAL = "trial", "trial"
        EXPERIMENT = "experiment", "experiment"

    recipe = models.ForeignKey(Recipe, models.PROTECT, related_name="runs")
    collection = models.ForeignKey(Collection, models.CASCADE, null=True, blank=True, related_name="runs")
    name = models.CharField(max_length=160, blank=True)
    state = models.CharField(max_length=10, choices=State, default=State.RUNNING)
    purpose = models.CharField(
        max_length=10,
        choices=Purpose,
        default=Purpose.TAGGING,
        help_text="Trials of the workbench and runs of an experiment are left out of the lists of runs.",
    )
    sample = models.PositiveSmallIntegerField(
        default=0, help_text="Which answer of several to the same question: part of the key of its predictions."
    )
    wordlists = models.JSONField(
        default=dict, blank=True, help_text="Lists that its prompts write out: slug → the version that counts for it."
    )
    priority = models.IntegerField(default=0)
    shown = models.BooleanField(default=True, help_text="Its proposals are shown for review as they come.")
    n_total = models.PositiveIntegerField(default=0)
    provider = models.CharField(
        max_length=120, blank=True, help_text="What really computed: execution provider or host."
    )
    load_seconds = models.FloatField(null=True, blank=True)
    budget = models.DecimalField(
        max_digits=12, decimal_places=4, null=True, blank=True, help_text="What it may cost; it pauses there."
    )
    currency = models.CharField(max_length=3, blank=True, help_text="Of its budget and of what it spent.")
    spent = models.FloatField(default=0, help_text="What its own calls cost; what was known from before is free.")
    tokens_in = models.BigIntegerField(default=0)
    tokens_out = models.BigIntegerField(default=0)
    phase = models.CharField(max_length=120, blank=True, help_text="What a worker is doing for it now, e.g. loading.")
    phase_since = models.DateTimeField(null=True, blank=True, help_text="When that began.")
    error = models.TextField(blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True, help_text="When the first chunk was claimed.")
    finished_at = models.DateTimeField(null=True, blank=True)

    OPEN = (State.RUNNING, State.PAUSED)

    objects = RunQuerySet.as_manager()

    class Meta:
        ordering = ("-id",)
        indexes = [
            models.Index(fields=["state"], name="run_open", condition=Q(state__in=("running", "paused"))),
            models.Index(fields=["purpose", "-id"], name="run_listed"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=("running", "paused")) | Q(finished_at__isnull=False), name="run_finished_at"
            ),
            models.CheckConstraint(condition=Q(budget=None) | Q(budget__gt=0), name="run_budget"),
        ]

    def __str__(self) -> str:
        return self.name or f"run {self.pk}"

    def get_absolute_url(self) -> str:
        return reverse("tagging:run", args=[self.pk])

    @property
    def phase_seconds(self) -> float | None:
        """How long it has been in its phase; None without one."""
        return (timezone.now() - self.phase_since).total_seconds() if self.phase and self.phase_since else None

    @property
    def budget_text(self) -> str:
        """The budget as it is typed: 12.5, not 12.5000; empty without one."""
        return "" if self.budget is None else f"{self.budget.normalize():f}"


class Chunk(models.Model):
    """A lease-able slice [lo, hi) of a run's frozen, ordered image list at one stage.

    A recipe of one channel has the stage 0 only, which writes proposals. One of several has a stage per channel, which
    writes ChannelResults, and a last one that combines them into proposals; a stage that needs what another one said
    is waiting until the same slice of the stages before is done.
    `image_ids` is the slice itself: signed 64-bit integers, little-endian.
    Every write of a worker is fenced by `token`: it rises at each claim and release, so that a worker that lost its
    lease cannot write. `inflight` names the image that is being tried alone after a claim that died.
    """

    class State(models.IntegerChoices):
        PENDING = 0, "pending"
        LEASED = 1, "leased"
        DONE = 2, "done"
        WAITING = 3, "waits for the stage before"

    run = models.ForeignKey(Run, models.CASCADE, related_name="chunks", db_index=False)
    stage = models.PositiveSmallIntegerField(
        default=0, help_text="Position of the channel it computes; the one after the last combines them."
    )
    queue = models.CharField(max_length=32, default="gpu")
    model_key = models.CharField(
        max_length=64, help_text="What must be resident: hash of everything load() depends on."
    )
    lo = models.PositiveIntegerField()
    hi = models.PositiveIntegerField()
    image_ids = models.BinaryField()
    state = models.PositiveSmallIntegerField(choices=State, default=State.PENDING)
    token = models.BigIntegerField(default=0)
    owner = models.CharField(max_length=160, default="", blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    attempts = models.PositiveIntegerField(default=0, help_text="Claims since the last progress or clean release.")
    inflight = models.BigIntegerField(null=True, blank=True)
    inflight_n = models.PositiveSmallIntegerField(default=0)
    n_ok = models.PositiveIntegerField(default=0)
    n_empty = models.PositiveIntegerField(default=0)
    n_error = models.PositiveIntegerField(default=0)
    n_skipped = models.PositiveIntegerField(default=0, help_text="Images that a cascade needed not ask about.")
    n_cached = models.PositiveIntegerField(default=0, help_text="Of n_ok and n_empty, those found without inference.")
    n_fallback = models.PositiveIntegerField(
        default=0, help_text="Images whose merging model gave nothing usable: the weighted union stands instead."
    )
    seconds = models.FloatField(default=0, help_text="Working time that its claims spent, loading left out.")
    touched_at = models.DateTimeField(null=True, blank=True, help_text="Last commit of results.")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "stage", "lo"], name="chunk_slice")]
        indexes = [
            # the claim: what is open on a queue
            models.Index(fields=["queue", "run", "lo"], name="chunk_open", condition=~Q(state=2)),
            # release of dead owners' leases, the sweeper
            models.Index(fields=["lease_until"], name="chunk_leased", condition=Q(state=1)),
        ]

    def __str__(self) -> str:
        return f"run {self.run_id} [{self.lo}, {self.hi})"

    @property
    def images(self) -> array[int]:
        """The primary keys of the slice's images, in order."""
        ids = array("q")
        ids.frombytes(bytes(self.image_ids))
        if sys.byteorder == "big":
            ids.byteswap()
        return ids


class StoredLabelSet(models.Model):
    """The labels that packed scores index, named by content hash."""

    digest = models.CharField(max_length=64, primary_key=True)
    names = models.JSONField()
    categories = models.JSONField()
    parents = models.JSONField(default=list)
    published = models.JSONField(default=dict, blank=True, help_text="Thresholds that came with the model.")
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{len(self.names)} labels {self.digest[:8]}"


class Prediction(models.Model):
    """The raw, cached reply of one channel for one image; never recomputed, never changed, kept for ever.

    `key` is the sha256 of everything the answer depends on (image content and preparation, model identity, rendered
    prompt, effective options, sample index): see `engine.identity`. Errors are not predictions: they are never reused.
    `scores` is a packed blob (see `adapters.base.PackedScores`) that indexes `labels`.
    """

    key = models.CharField(max_length=64, unique=True)
    image_sha256 = models.CharField(max_length=64)
    run = models.ForeignKey(Run, models.SET_NULL, null=True, blank=True, related_name="+", help_text="First made by.")
    labels = models.ForeignKey(StoredLabelSet, models.PROTECT, null=True, blank=True, db_index=False, related_name="+")
    scores = models.BinaryField(null=True, blank=True)
    tags = models.JSONField(null=True, blank=True, help_text="[[name, category, score], …] of models without labels.")
    caption = models.TextField(blank=True)
    rating = models.CharField(max_length=32, blank=True)
    rating_score = models.FloatField(null=True, blank=True)
    text = models.TextField(blank=True, help_text="The reply as it came.")
    tokens_in = models.PositiveIntegerField(null=True, blank=True)
    tokens_out = models.PositiveIntegerField(null=True, blank=True)
    finish_reason = models.CharField(max_length=20, blank=True)
    cost = models.FloatField(null=True, blank=True, help_text="At the price of that time.")
    currency = models.CharField(max_length=3, null=True, blank=True)
    seconds = models.FloatField(default=0)
    flags = models.JSONField(default=list, blank=True)
    source = models.CharField(max_length=10, default="original", help_text="What was read: original or proxy.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["image_sha256"], name="prediction_image")]

    def __str__(self) -> str:
        return f"prediction {self.key[:8]}"


class Proposal(models.Model):
    """What a run proposes for one image after combine and policy; errors included: exactly one per (run, image).

    `tags` is a list of [name, category, score, state, reason, source, original]: state is kept, changed, added or
    dropped; reason says why in a few words ("banned by 'no-brands'"); source names the channel; original is the word as
    the model said it. Those that stay come first, in order. Tags that were only below their threshold are not listed:
    they follow from the prediction and the policy.
    """

    class State(models.TextChoices):
        OK = "ok", "ok"
        EMPTY = "empty", "empty"
        ERROR = "error", "error"

    run = models.ForeignKey(Run, models.CASCADE, related_name="proposals", db_index=False)
    image = models.ForeignKey(ImageAsset, models.CASCADE, related_name="proposals")
    state = models.CharField(max_length=6, choices=State)
    tags = models.JSONField(default=list)
    caption = models.TextField(blank=True)
    rating = models.CharField(max_length=32, blank=True)
    rating_score = models.FloatField(null=True, blank=True)
    error = models.TextField(blank=True)
    prediction = models.ForeignKey(
        Prediction,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="proposals",
        help_text="Of the only channel, or of the first that answered: ChannelResult has those of all.",
    )
    flags = models.JSONField(
        default=list,
        blank=True,
        help_text="What a person should know of how it came about, e.g. merge_fallback, truncated, failed:wd.",
    )
    policy_version = models.ForeignKey(
        PolicyVersion, models.SET_NULL, null=True, blank=True, related_name="+", db_index=False
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["run", "image"], name="proposal_once"),
            models.CheckConstraint(condition=~Q(state="error") | ~Q(error=""), name="proposal_error_text"),
        ]
        indexes = [
            models.Index(fields=["run", "id"], name="proposal_page"),  # keyset pages of a run
            models.Index(fields=["run", "image"], name="proposal_failed", condition=Q(state="error")),
        ]

    def __str__(self) -> str:
        return f"run {self.run_id}, image {self.image_id}: {self.state}"


class ChannelResult(models.Model):
    """What one channel of several said of one image in a run: its prediction, its error, or why it was not asked.

    Runs of a single channel have none: their proposals name the prediction. The stage after the last channel is the
    merging model of an `llm_merge` recipe.
    """

    class State(models.TextChoices):
        OK = "ok", "ok"
        EMPTY = "empty", "empty"
        ERROR = "error", "error"
        SKIPPED = "skipped", "not asked"

    pk = models.CompositePrimaryKey("run_id", "stage", "image_id")
    run = models.ForeignKey(Run, models.CASCADE, related_name="channel_results", db_index=False)
    stage = models.PositiveSmallIntegerField(help_text="Position of the channel.")
    image = models.ForeignKey(ImageAsset, models.CASCADE, related_name="channel_results")
    state = models.CharField(max_length=8, choices=State)
    prediction = models.ForeignKey(Prediction, models.SET_NULL, null=True, blank=True, related_name="channel_results")
    note = models.TextField(blank=True, help_text="The error, or why the channel was not asked.")

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(state__in=("ok", "empty")) | ~Q(note=""), name="channelresult_note")
        ]

    def __str__(self) -> str:
        return f"run {self.run_id}, image {self.image_id}, channel {self.stage}: {self.get_state_display()}"
