"""Judges and what they said: profiles in immutable versions, verdicts that are never changed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.urls import reverse

from prompts.models import PromptVersion
from tagging.models import ImageAsset, ModelAdapter, Prediction, Run, Tag

from ..judges.content import digest
from ..judges.family import family

if TYPE_CHECKING:
    from .calibration import Calibration


class JudgeProfile(models.Model):
    """A judge's name and kind; what it is stands in its versions, of which one is current."""

    class Kind(models.TextChoices):
        RULES = "rules", "rules gate"
        VERIFIER = "verifier", "tag verifier"
        CAPTION = "caption", "caption judge"
        PAIRWISE = "pairwise", "pairwise judge"
        JURY = "jury", "jury"

    slug = models.SlugField(max_length=80, unique=True)
    name = models.CharField(max_length=120)
    kind = models.CharField(max_length=10, choices=Kind)
    note = models.TextField(blank=True)
    enabled = models.BooleanField(default=False, help_text="Ready to be asked. Needs a version with all that it takes.")
    current = models.ForeignKey(
        "JudgeProfileVersion", models.SET_NULL, null=True, blank=True, editable=False, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    #: the newest figures of the current version, where `actions.calibrating.with_badges` has put them
    newest: Calibration | None = None

    class Meta:
        ordering = ("slug",)

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("judging:judge", args=[self.slug])


class JudgeProfileVersion(models.Model):
    """One immutable state of a judge: model, options, prompt, rubric, decision rules, examples, members of a jury.

    The adapter's own settings at that time are copied, as a recipe's channel does. `digest` names all of it.
    """

    profile = models.ForeignKey(JudgeProfile, models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField(editable=False)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    adapter = models.ForeignKey(ModelAdapter, models.PROTECT, null=True, blank=True, related_name="judge_versions")
    adapter_config = models.JSONField(default=dict, blank=True)
    options = models.JSONField(default=dict, blank=True)
    prompt_version = models.ForeignKey(
        PromptVersion, models.PROTECT, null=True, blank=True, related_name="judge_versions"
    )
    rubric = models.TextField(blank=True)
    rules = models.JSONField(default=dict, blank=True, help_text="As judging.judges.spec validates it for the kind.")
    examples = models.JSONField(default=list, blank=True, help_text="People's decisions shown to the judge.")
    members = models.ManyToManyField("self", symmetrical=False, blank=True, related_name="juries")
    message = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, editable=False, related_name="+"
    )

    class Meta:
        ordering = ("profile", "-number")
        constraints = [models.UniqueConstraint(fields=["profile", "number"], name="judgeversion_number")]

    def __str__(self) -> str:
        return f"{self.profile.slug} v{self.number}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.pk:
            raise ValidationError("A version of a judge never changes: make a new one.")
        super().save(*args, **kwargs)

    def families(self) -> set[str]:
        """Whose kin it is: of a jury, all of its members'."""
        if self.profile.kind == JudgeProfile.Kind.JURY:
            return {name for member in self.members.all() for name in member.families()}
        return {family_of(self.adapter_config, self.options)} if self.adapter_config else set()

    @property
    def ready(self) -> str:
        """Why it cannot be asked yet; empty when it can."""
        kind = self.profile.kind
        if kind == JudgeProfile.Kind.RULES:
            return ""
        if kind == JudgeProfile.Kind.JURY:
            return "" if self.members.all() else "A jury needs its members."
        if self.adapter_id is None:
            return "Choose the model that judges."
        return "" if self.prompt_version_id else "Choose the judge's prompt."


def family_of(config: dict[str, Any], options: dict[str, Any]) -> str:
    """The family of a model from an adapter's settings as channels and judges keep them."""
    own = config.get("options") or {}
    model = options.get("model") or own.get("model") or ""
    return family(str(config.get("kind", "")), str(config.get("source", "")), str(model))


class JudgeVerdict(models.Model):
    """One verdict; append-only, found by its key, never overwritten. To judge again, make a version or ask a sample.

    `key` is the sha256 of the version's digest, the image's content, what was judged, and the sample. `subject` is what
    was judged: {"tags": […]}, {"caption": "…", "reference": "…"} or {"a": […], "b": […]}; `result` what came of it, by
    kind. An invalid verdict is one that the judge did not give in the asked form, twice: it says nothing and is no
    pass. Whose proposal it was does not stand here: see `RunVerdict`.
    """

    class State(models.TextChoices):
        OK = "ok", "ok"
        INVALID = "invalid", "invalid"

    key = models.CharField(max_length=64, unique=True)
    version = models.ForeignKey(JudgeProfileVersion, models.PROTECT, related_name="verdicts", db_index=False)
    image = models.ForeignKey(ImageAsset, models.SET_NULL, null=True, blank=True, related_name="verdicts")
    image_sha256 = models.CharField(max_length=64)
    kind = models.CharField(max_length=10, choices=JudgeProfile.Kind)
    sample = models.PositiveSmallIntegerField(default=0)
    state = models.CharField(max_length=8, choices=State)
    problem = models.CharField(max_length=300, blank=True, help_text="Why it is invalid.")
    subject = models.JSONField(default=dict)
    result = models.JSONField(default=dict)
    overall = models.FloatField(null=True, blank=True, help_text="0 to 1, computed here from the verdicts.")
    weight = models.FloatField(default=1.0, help_text="Below 1 where the judge took a decoy for true.")
    flags = models.JSONField(default=list, blank=True)
    outcome = models.CharField(max_length=4, blank=True, help_text="Of a pair: a, b or tie. Of a gate: pass or fail.")
    flip = models.BooleanField(default=False, help_text="The two orders of a pair disagreed.")
    first_seats = models.PositiveSmallIntegerField(default=0, help_text="Answers for the seat shown first.")
    seats = models.PositiveSmallIntegerField(default=0, help_text="Answers that named a seat.")
    predictions = models.JSONField(default=list, blank=True, help_text="The replies it rests on.")
    tokens_in = models.PositiveIntegerField(default=0)
    tokens_out = models.PositiveIntegerField(default=0)
    seconds = models.FloatField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)
        indexes = [models.Index(fields=["version", "id"], name="judgeverdict_page")]

    def __str__(self) -> str:
        return f"{self.version} on {self.image_sha256[:8]}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.pk:
            raise ValidationError("A verdict never changes.")
        super().save(*args, **kwargs)


class JudgedTag(models.Model):
    """What a judge said of one tag of one image; append-only, written with its verdict. Decoys stand here as well."""

    class Role(models.IntegerChoices):
        CANDIDATE = 0, "candidate"
        ABSENT = 1, "absent decoy"
        PRESENT = 2, "present decoy, accepted by a person"
        PRESUMED = 3, "present decoy, agreed by models"

    class Word(models.IntegerChoices):
        CORRECT = 1, "correct"
        WRONG = 2, "wrong"
        TOO_GENERAL = 3, "too general"
        UNVERIFIABLE = 4, "unverifiable"

    verdict = models.ForeignKey(JudgeVerdict, models.CASCADE, related_name="tags")
    version = models.ForeignKey(JudgeProfileVersion, models.PROTECT, related_name="judged_tags", db_index=False)
    image = models.ForeignKey(
        ImageAsset, models.SET_NULL, null=True, blank=True, related_name="judged_tags", db_index=False
    )
    tag = models.ForeignKey(Tag, models.SET_NULL, null=True, blank=True, related_name="+", db_index=False)
    name = models.CharField(max_length=200)
    category = models.CharField(max_length=40, default="general")
    role = models.PositiveSmallIntegerField(choices=Role, default=Role.CANDIDATE)
    word = models.PositiveSmallIntegerField(choices=Word)
    p_ok = models.FloatField(help_text="0 to 1: that the tag is right, as the gate uses it.")
    certainty = models.FloatField(help_text="|2 p − 1|: the order of the inbox.")
    evidence = models.CharField(max_length=320, blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["image", "tag", "version"], name="judgedtag_of_image"),
            models.Index(fields=["tag"], name="judgedtag_tag", condition=models.Q(tag__isnull=False)),
            models.Index(fields=["version", "-certainty", "id"], name="judgedtag_inbox"),
            models.Index(fields=["version", "role", "category", "word"], name="judgedtag_decoys"),
        ]

    def __str__(self) -> str:
        return f"{self.name}: {self.get_word_display()}"


class RunVerdict(models.Model):
    """That a verdict is the one of a judge on what a run proposed for an image: where matrix and ranking look.

    `own_family`: a model of the run is of the judge's family; such verdicts are shown and rank nothing.
    """

    run = models.ForeignKey(Run, models.CASCADE, related_name="verdicts", db_index=False)
    image = models.ForeignKey(ImageAsset, models.CASCADE, related_name="+")
    version = models.ForeignKey(JudgeProfileVersion, models.PROTECT, related_name="run_verdicts")
    verdict = models.ForeignKey(JudgeVerdict, models.CASCADE, related_name="of_runs")
    own_family = models.BooleanField(default=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "version", "image"], name="runverdict_once")]

    def __str__(self) -> str:
        return f"{self.version_id} on run {self.run_id}, image {self.image_id}"


def verdict_key(version_digest: str, image_sha256: str, subject: Any, sample: int = 0) -> str:
    """What makes two questions to a judge the same question. `subject` is normalised by the caller."""
    return digest({"judge": version_digest, "image": image_sha256, "subject": subject, "sample": sample})


def replies_of(verdicts: Iterable[JudgeVerdict]) -> dict[int, Prediction]:
    """The stored replies behind some verdicts, by id. One query."""
    ids = {pk for verdict in verdicts for pk in verdict.predictions}
    return Prediction.objects.in_bulk(ids)
