"""What the recipes of an experiment proposed, put before a judge."""

from __future__ import annotations

from collections.abc import Sequence

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError

from tagging.models import Run

from ..models import Experiment, ExperimentRecipe, JudgeJob, JudgeProfile
from .judge_jobs import start_job


def judge_experiment(
    experiment: Experiment,
    profile: JudgeProfile,
    *,
    rows: Sequence[ExperimentRecipe] = (),
    share: float = 1.0,
    max_calls: int | None = None,
    max_cost: float | None = None,
    by: AbstractBaseUser | None = None,
) -> JudgeJob:
    """A job over all that these rows proposed (all rows still in the race, where none are named); a pairwise judge
    holds each against the baseline. What was judged before is not asked again. ValidationError keyed by field."""
    if profile.current is None:
        raise ValidationError({"judge": f"{profile.name} has no version yet."})
    chosen = list(rows) or list(experiment.rows.filter(dropped_at=None))
    others: list[Run] = []
    if is_pairwise(profile):
        base = experiment.rows.filter(recipe=experiment.baseline_id).order_by("position").first()
        if base is None:
            raise ValidationError({"judge": f"{profile.name} compares with the baseline, which is no row here."})
        others = _runs([base], sample=0)
        chosen = [row for row in chosen if row.pk != base.pk]
        if not chosen:
            raise ValidationError({"rows": "A pairwise judge needs a recipe besides the baseline."})
    runs = _runs(chosen, sample=0 if others else None)
    if not runs:
        raise ValidationError({"rows": "These recipes have no results yet: start the experiment first."})
    return start_job(
        profile.current,
        runs=runs,
        others=others,
        experiment=experiment,
        share=share,
        max_calls=max_calls,
        max_cost=max_cost,
        by=by,
    )


def is_pairwise(profile: JudgeProfile) -> bool:
    """Does it compare two sets of tags?"""
    rules = profile.current.rules if profile.current else {}
    return JudgeProfile.Kind.PAIRWISE in (profile.kind, rules.get("of"))


def _runs(rows: Sequence[ExperimentRecipe], sample: int | None) -> list[Run]:
    found = Run.objects.filter(experiment_links__row__in=list(rows)).select_related("collection")
    if sample is not None:
        found = found.filter(experiment_links__sample=sample)
    return list(found.distinct().order_by("pk"))
