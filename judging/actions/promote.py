"""Back to the best: a label moved on the evidence of an experiment, and an eye kept on it afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.utils import timezone

from tagging.actions import labels
from tagging.models import Collection, ImageAsset, Label, LabelEvent, ModelAdapter, Proposal, Run

from .. import board as boards
from .. import metrics
from ..metrics_loading import load, load_runs
from ..models import Experiment, ExperimentRecipe

#: images that are listed as worse, or better, than before
LISTED = 60
#: reviewed images after a promotion that are looked at, the latest
WATCHED = 200
#: fewer say nothing
FEWEST = 10


@dataclass(frozen=True, slots=True)
class Changed:
    """An image on which the recipe did otherwise than the one it replaces. `delta`: in right minus wrong and missed
    tags; below zero it is worse now."""

    image: int
    delta: float
    right: float
    right_before: float
    edits: float
    edits_before: float


@dataclass(slots=True)
class Evidence:
    """What is known for and against a recipe, before a label moves to it.

    `standing`: as in the leaderboard; `against`: what it was compared with. `regressed` come worst first. `unsure`: the
    figures do not show that it is better, so that a reason is asked for.
    """

    row: ExperimentRecipe
    metric: str
    standing: dict[str, Any]
    held_out: dict[str, Any] | None
    against: ExperimentRecipe | None
    images: int
    judged: int
    edits: list[float] | None
    regressed: list[Changed] = field(default_factory=list)
    improved: list[Changed] = field(default_factory=list)
    n_regressed: int = 0
    n_improved: int = 0
    worse_categories: list[tuple[str, float, float]] = field(default_factory=list)  # name, F1 before, F1 now

    @property
    def unsure(self) -> bool:
        return self.standing.get("word") not in ("better", "baseline")

    @property
    def metrics(self) -> dict[str, Any]:
        """What the label's history keeps."""
        found: dict[str, Any] = {
            "experiment": self.row.experiment_id,
            "metric": self.metric,
            "verdict": self.standing.get("word"),
            "images": self.judged,
        }
        for name in ("value", "low", "high", "delta", "delta_low", "delta_high", "p_holm"):
            if self.standing.get(name) is not None:
                found[name] = round(float(self.standing[name]), 4)
        if self.edits:
            found["edits"] = self.edits
        if self.against is not None:
            found["against"] = self.against.recipe_id
        found["regressed"] = self.n_regressed
        return found


def evidence(experiment: Experiment, row: ExperimentRecipe) -> Evidence:
    """ValidationError under "row" where it has no results to speak of. Reads two columns of the comparison."""
    board = boards.board(experiment)
    mine = next((one for one in board["rows"] if one["row"] == row.pk), None)
    if mine is None or not mine["done"]:
        raise ValidationError({"row": f"{row} has no results yet."})
    base = next((one for one in board["rows"] if one["baseline"]), None)
    rows = {one.pk: one for one in experiment.rows.select_related("recipe")}
    against = rows[base["row"]] if base is not None and base["row"] != row.pk else None
    metric = board["metric"]
    found = Evidence(
        row=rows[row.pk],
        metric=metric,
        standing=mine["standing"].get(metric) or {},
        held_out=mine["held_out"],
        against=against,
        images=board["images"],
        judged=board["judged_images"],
        edits=_edits(mine["standing"].get("edits")),
    )
    if against is not None:
        _images(found, experiment, against)
        assert base is not None
        for name, now in mine["by_category"].items():
            before = base["by_category"].get(name, {}).get("f1")
            if before is not None and now["f1"] is not None and now["f1"] < before - experiment.margin:
                found.worse_categories.append((name, before, now["f1"]))
    return found


def _edits(standing: dict[str, Any] | None) -> list[float] | None:
    """[edits per image, low, high]"""
    if not standing or standing.get("value") is None or standing.get("low") is None:
        return None
    return [round(float(standing[name]), 3) for name in ("value", "low", "high")]


def _images(found: Evidence, experiment: Experiment, against: ExperimentRecipe) -> None:
    sheet = load(experiment, only=[found.row.pk, against.pk])
    order = {row.pk: at for at, row in enumerate(sheet.rows)}
    now, before = (metrics.count(sheet.truth, sheet.said[order[pk]]) for pk in (found.row.pk, against.pk))
    both = sheet.said[0].done & sheet.said[1].done & sheet.truth.reviewed
    edits, edits_before = now.wrong + now.missed, before.wrong + before.missed
    delta = (now.right - edits) - (before.right - edits_before)
    places = np.flatnonzero(both & (delta != 0))
    ordered = sorted(places.tolist(), key=lambda at: (delta[at], sheet.images[at]))
    changed = [
        Changed(
            sheet.images[at],
            float(delta[at]),
            float(now.right[at]),
            float(before.right[at]),
            float(edits[at]),
            float(edits_before[at]),
        )
        for at in ordered
    ]
    worse = [one for one in changed if one.delta < 0]
    better = [one for one in reversed(changed) if one.delta > 0]
    found.n_regressed, found.n_improved = len(worse), len(better)
    found.regressed, found.improved = worse[:LISTED], better[:LISTED]


def promote(
    experiment: Experiment,
    row: ExperimentRecipe,
    *,
    name: str = "champion",
    why: str = "",
    task: str = "",
    adapter: ModelAdapter | None = None,
    collection: Collection | None = None,
    by: AbstractBaseUser | None = None,
) -> LabelEvent:
    """Point a label at the recipe of a row; the history keeps the evidence.

    Where the figures do not show that it is better, `why` is needed: ValidationError under "why"; others as
    `labels.move_label` raises them, and as `evidence`.
    """
    found = evidence(experiment, row)
    if found.unsure and not why.strip():
        word = found.standing.get("word") or "not compared"
        raise ValidationError({"why": f"The figures say {word!r}, not better: say why it is promoted all the same."})
    delta = found.standing.get("delta")
    if not why.strip():
        why = f"{found.metric} {delta:+.3f} in experiment {experiment.pk}" if delta is not None else str(experiment)
    return labels.move_label(
        name,
        found.row.recipe,
        why=why,
        task=task,
        adapter=adapter,
        collection=collection,
        metrics=found.metrics,
        by=by,
    )


# -- afterwards -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Watch:
    """How a promoted recipe does in review. `promised`: edits per image with interval at the promotion; `now`: the same
    on `images` reviewed since. `alarm`: clearly more than was promised. `back`: the move that a rollback restores."""

    label: Label
    event: LabelEvent
    promised: list[float]
    now: list[float] | None
    images: int
    alarm: bool
    back: LabelEvent | None


def watched(collection: Collection | None = None) -> list[Watch]:
    """Labels that were moved on evidence, each with how it does since; with a collection, those that apply there."""
    found = []
    rows = Label.objects.select_related("recipe", "adapter", "collection")
    if collection is not None:
        rows = rows.filter(collection__in=[collection]) | rows.filter(collection=None)
    for label in rows.order_by("name", "pk"):
        if (one := watch(label)) is not None:
            found.append(one)
    return found


def watch(label: Label) -> Watch | None:
    """None where the label's last move kept no edits to compare with."""
    event = label.events.order_by("-pk").first()
    promised = event.metrics.get("edits") if event else None
    if event is None or not isinstance(promised, list) or len(promised) != 3:
        return None
    earlier = label.events.filter(pk__lt=event.pk).exclude(to_recipe=label.recipe_id).order_by("-pk").first()
    edits = _edits_since(label, event)
    if len(edits) < FEWEST:
        return Watch(label, event, promised, None, len(edits), False, earlier)
    mean = float(edits.mean())
    half = 1.96 * float(edits.std(ddof=1)) / len(edits) ** 0.5
    now = [round(mean, 3), round(mean - half, 3), round(mean + half, 3)]
    return Watch(label, event, promised, now, len(edits), now[1] > promised[2], earlier)


def _edits_since(label: Label, event: LabelEvent) -> Any:
    """Edits of each of the last images that its runs proposed and people reviewed since."""
    runs = Run.objects.listed().filter(recipe=label.recipe_id)
    images = ImageAsset.objects.filter(
        review_state=ImageAsset.Review.REVIEWED, reviewed_at__gt=event.at, proposed_by__in=runs
    )
    if label.collection_id is not None:
        images = images.filter(collection=label.collection_id)
    latest = list(images.order_by("-reviewed_at").values_list("pk", "proposed_by_id")[:WATCHED])
    if not latest:
        return np.zeros(0)
    given = Proposal.objects.filter(run__in={run for _, run in latest}, image__in=[pk for pk, _ in latest])
    if not given.exists():
        return np.zeros(0)
    truth, said = load_runs([pk for pk, _ in latest], {run: 0 for _, run in latest})
    counts = metrics.count(truth, said)
    return (counts.wrong + counts.missed)[said.done & truth.reviewed]


def roll_back(found: Watch, *, why: str = "", by: AbstractBaseUser | None = None) -> LabelEvent:
    """The label points again to what it pointed to before. ValidationError under "label" where there was nothing."""
    if found.back is None:
        raise ValidationError({"label": f"{found.label} has pointed to nothing else before."})
    why = why.strip() or (
        f"Edits per image {found.now[0]:.2f} since {timezone.localtime(found.event.at):%d %b %Y}, "
        f"{found.promised[0]:.2f} promised"
        if found.now
        else "Rolled back"
    )
    return labels.back_to(found.back, why=why, by=by)
