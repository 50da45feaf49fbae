"""Experiments: a question put to a grid of recipes over an image set."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Sequence

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.urls import reverse

from tagging.models import Collection, Recipe, Run

#: bytes of a sha256 as it is packed
DIGEST = 32


class FrozenImages(models.Model):
    """A list of images that never changes.

    `image_ids` is the list: signed 64-bit integers, little-endian, in the order in which the images are shown to the
    recipes. The order is drawn with a seed, so that every beginning of the list is a fair sample of all. `sha256s` says
    what was in the files then (32 bytes each); `holdout` has one byte an image: 1 where it is kept for the last check.
    """

    image_ids = models.BinaryField(default=bytes)
    sha256s = models.BinaryField(default=bytes)
    holdout = models.BinaryField(default=bytes)
    n_images = models.PositiveIntegerField(default=0)

    class Meta:
        abstract = True

    @property
    def images(self) -> array[int]:
        """The primary keys of the images, in the order in which they are shown to the recipes."""
        return unpack(bytes(self.image_ids))

    @property
    def digests(self) -> list[str]:
        """sha256 (hex) of each image when the list was frozen, in the same order."""
        raw = bytes(self.sha256s)
        return [raw[at : at + DIGEST].hex() for at in range(0, len(raw), DIGEST)]

    @property
    def held_out(self) -> bytes:
        """One byte an image: 1 where it is kept for the last check."""
        return bytes(self.holdout)

    def freeze(self, images: Sequence[tuple[int, str]], holdout: Sequence[int] = ()) -> None:
        """Set the list: (primary key, sha256) in order, and the places in it that are held out. Does not save."""
        self.image_ids = pack(pk for pk, _ in images)
        self.sha256s = b"".join(bytes.fromhex(sha) if sha else bytes(DIGEST) for _, sha in images)
        held = bytearray(len(images))
        for place in holdout:
            held[place] = 1
        self.holdout = bytes(held)
        self.n_images = len(images)


class Experiment(FrozenImages):
    """A question, a frozen list of images, and the recipes that answer it.

        draft → running ⇄ paused    running → done | failed    running, paused → stopped    paused, ended → running

    Runs belong to no experiment: experiments select them (`ExperimentRun`), so that all past runs can be compared.
    """

    class State(models.TextChoices):
        DRAFT = "draft", "not started"
        RUNNING = "running", "running"
        PAUSED = "paused", "paused"
        DONE = "done", "done"
        STOPPED = "stopped", "stopped"
        FAILED = "failed", "failed"

    class Stage(models.TextChoices):
        SMOKE = "smoke", "smoke (5 images)"
        SCREEN = "screen", "screen (30 images)"
        FULL = "full", "all images"

    OPEN = (State.RUNNING, State.PAUSED)
    IMAGES = {Stage.SMOKE: 5, Stage.SCREEN: 30}

    name = models.CharField(max_length=160)
    question = models.CharField(max_length=400, blank=True)
    collection = models.ForeignKey(Collection, models.CASCADE, related_name="experiments")
    filter = models.CharField(max_length=2000, blank=True, help_text="Which images, as in the grid's address.")
    seed = models.PositiveIntegerField(default=0, help_text="Draws the sample, its order and the bootstrap.")
    sample = models.PositiveIntegerField(null=True, blank=True, help_text="So many images of the filter; empty: all.")

    axes = models.JSONField(default=dict, blank=True, help_text="What varies, as judging.grid.Axes validates it.")
    notices = models.JSONField(default=list, blank=True, help_text="What was collapsed or left out, a line each.")
    samples = models.PositiveSmallIntegerField(default=1, help_text="Replies asked for per recipe and image.")
    baseline = models.ForeignKey(
        Recipe, models.PROTECT, null=True, blank=True, related_name="+", help_text="What the others are compared with."
    )
    margin = models.FloatField(default=0.02, help_text="Differences within this count as none.")

    budget = models.DecimalField(
        max_digits=12,
        decimal_places=4,
        null=True,
        blank=True,
        help_text="What all its runs together may cost, where the models have prices.",
    )
    state = models.CharField(max_length=8, choices=State, default=State.DRAFT)
    stage = models.CharField(max_length=8, choices=Stage, default=Stage.FULL)
    racing = models.BooleanField(default=False, help_text="Drop recipes on the way that cannot win any more.")
    reached = models.PositiveIntegerField(default=0, help_text="So many images of the list were begun.")
    log = models.JSONField(default=list, blank=True, help_text="What the controller decided, and on what evidence.")
    error = models.TextField(blank=True)
    owner = models.CharField(max_length=160, blank=True)
    token = models.BigIntegerField(default=0)
    lease_until = models.DateTimeField(null=True, blank=True)

    board = models.JSONField(null=True, blank=True, help_text="The leaderboard as it was last computed.")
    board_of = models.CharField(max_length=64, blank=True, help_text="Hash of what that leaderboard rests on.")
    board_at = models.DateTimeField(null=True, blank=True)

    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)
        permissions = [("promote_experiment", "Can promote a recipe on the evidence of an experiment")]
        indexes = [models.Index(fields=["state"], name="experiment_open", condition=Q(state="running"))]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("judging:experiment", args=[self.pk])

    @property
    def target(self) -> int:
        """How many images of the list the stage asks for."""
        return min(self.n_images, self.IMAGES.get(self.Stage(self.stage), self.n_images))


class ExperimentRecipe(models.Model):
    """One column of the comparison. Several may have the same recipe where past runs of it are put beside each other.

    `values` says what it is on each axis that varies: {"adapter": …, "prompt": …, "temperature": 0.4, …}.
    """

    experiment = models.ForeignKey(Experiment, models.CASCADE, related_name="rows")
    recipe = models.ForeignKey(Recipe, models.PROTECT, related_name="experiment_rows")
    position = models.PositiveSmallIntegerField()
    name = models.CharField(max_length=200)
    values = models.JSONField(default=dict, blank=True)
    dropped_at = models.PositiveIntegerField(
        null=True, blank=True, help_text="Out of the race after so many images; empty: still in it."
    )
    dropped_why = models.CharField(max_length=300, blank=True)
    runs: models.ManyToManyField[Run, ExperimentRun] = models.ManyToManyField(
        Run, through="ExperimentRun", related_name="experiment_rows"
    )

    class Meta:
        ordering = ("experiment", "position")
        constraints = [models.UniqueConstraint(fields=["experiment", "position"], name="experimentrecipe_position")]

    def __str__(self) -> str:
        return self.name


class ExperimentRun(models.Model):
    """A run that an experiment looks at: which of its columns, which sample, and which slice [lo, hi) of its images.

    Runs that were there before have no slice.
    """

    row = models.ForeignKey(ExperimentRecipe, models.CASCADE, related_name="links")
    run = models.ForeignKey(Run, models.CASCADE, related_name="experiment_links")
    sample = models.PositiveSmallIntegerField(default=0)
    lo = models.PositiveIntegerField(null=True, blank=True)
    hi = models.PositiveIntegerField(null=True, blank=True)

    class Meta:
        ordering = ("row", "sample", "lo", "id")
        constraints = [
            models.UniqueConstraint(fields=["row", "run"], name="experimentrun_once"),
            # what keeps a controller that was killed and began again from starting a slice twice
            models.UniqueConstraint(
                fields=["row", "sample", "lo"], name="experimentrun_slice", condition=Q(lo__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.row} [{self.lo}, {self.hi})"


def pack(ids: Iterable[int]) -> bytes:
    """Primary keys as signed 64-bit integers, little-endian."""
    found = array("q", ids)
    if sys.byteorder == "big":
        found.byteswap()
    return found.tobytes()


def unpack(blob: bytes) -> array[int]:
    """The inverse of `pack`."""
    found = array("q")
    found.frombytes(blob)
    if sys.byteorder == "big":
        found.byteswap()
    return found
