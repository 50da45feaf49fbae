"""/api/experiments/{id}/…: evidence and promotion, ensembles from stored answers, what is left to judge, pairs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any, Literal

from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, StreamingHttpResponse
from ninja import Schema, Status
from pydantic import Field

from tagging.actions.labels import WHY_LENGTH
from tagging.api.auth import allow
from tagging.api.labels import LabelEventOut
from tagging.models import Collection, Label, LabelEvent, ModelAdapter, PolicyVersion

from .. import ensembles
from ..actions import promote as promotions
from ..actions import rest
from ..models import Experiment, ExperimentRecipe
from ..preferences import pairs
from .experiments import find, router


class ChangedOut(Schema):
    image: int
    delta: float = Field(description="Right minus wrong and missed tags, now minus before.")
    right: float
    right_before: float
    edits: float
    edits_before: float


class EvidenceOut(Schema):
    row: int
    recipe: int
    metric: str
    standing: dict[str, Any]
    held_out: dict[str, Any] | None = Field(description="The standing on the images kept for the last check.")
    against: int | None = Field(description="Recipe that it is compared with.")
    images: int
    judged: int
    edits: list[float] | None = Field(description="Edits per image with 95 % interval: what is watched afterwards.")
    unsure: bool = Field(description="The figures do not show that it is better: a promotion needs a reason.")
    n_regressed: int
    n_improved: int
    regressed: list[ChangedOut] = Field(description="Images on which it does worse, worst first.")
    improved: list[ChangedOut]
    worse_categories: list[tuple[str, float, float]] = Field(description="Category, F1 before, F1 now.")


class PromoteIn(Schema):
    name: str = Field("champion", max_length=40)
    why: str = Field("", max_length=WHY_LENGTH, description="Needed where the figures do not show that it is better.")
    task: Literal["", "tags", "caption"] = ""
    adapter: str | None = Field(None, description="slug of a model: the label is only for recipes with it.")
    collection: str | None = Field(None, description="slug of a collection: the label applies only there.")

    model_config = {"extra": "forbid"}


class EnsembleIn(Schema):
    rows: list[int] = Field(description="Two to five rows of the experiment; a cascade asks them in this order.")
    rules: list[dict[str, Any]] = Field([], description="Combine rules; the usual ones without any.")
    policy: int | None = Field(None, description="Policy version; that of the first row without it.")

    model_config = {"extra": "forbid"}


class EnsembleOut(Schema):
    images: int
    judged: int
    best: int | None = Field(description="Row of the best single recipe, with which the rules are compared.")
    lines: list[dict[str, Any]]


class SaveIn(Schema):
    rows: list[int]
    rule: dict[str, Any]
    policy: int | None = None
    name: str = Field("", max_length=160)

    model_config = {"extra": "forbid"}


class SavedOut(Schema):
    recipe: int
    key: str
    name: str


class PairOut(Schema):
    image: int
    tag: str


class UnjudgedOut(Schema):
    items: list[PairOut]


class UnjudgedIn(Schema):
    image: int
    tag: str = Field(max_length=200)
    right: bool

    model_config = {"extra": "forbid"}


class ChampionWatchOut(Schema):
    label: int
    name: str
    scope: str
    recipe: int
    since: datetime
    promised: list[float] = Field(description="Edits per image with interval, at the promotion.")
    now: list[float] | None = Field(description="The same on the images reviewed since; null for too few.")
    images: int
    alarm: bool
    back_to: int | None = Field(description="Recipe that a rollback restores.")


class WatchList(Schema):
    items: list[ChampionWatchOut]


def _row(experiment: Experiment, row_id: int) -> ExperimentRecipe:
    found = experiment.rows.filter(pk=row_id).first()
    if found is None:
        raise ExperimentRecipe.DoesNotExist(f"This experiment has no row {row_id}.")
    return found


def _policy(pk: int | None) -> PolicyVersion | None:
    if pk is None:
        return None
    found = PolicyVersion.objects.filter(pk=pk).first()
    if found is None:
        raise ValidationError({"policy": f"There is no policy version {pk}."})
    return found


@router.get(
    "/{int:experiment_id}/rows/{int:row_id}/evidence",
    response=EvidenceOut,
    summary="What speaks for and against a recipe",
    operation_id="get_evidence",
)
def get_evidence(request: HttpRequest, experiment_id: int, row_id: int) -> object:
    """The difference with its interval, and the images on which it does worse, worst first."""
    allow(request, "read")
    experiment = find(experiment_id)
    found = promotions.evidence(experiment, _row(experiment, row_id))
    plain = ("metric", "standing", "held_out", "images", "judged", "edits", "unsure", "n_regressed", "n_improved")
    return {
        **{name: getattr(found, name) for name in plain},
        "row": found.row.pk,
        "recipe": found.row.recipe_id,
        "against": found.against.recipe_id if found.against else None,
        "regressed": [asdict(one) for one in found.regressed],
        "improved": [asdict(one) for one in found.improved],
        "worse_categories": found.worse_categories,
    }


@router.post(
    "/{int:experiment_id}/rows/{int:row_id}/promote",
    response={201: LabelEventOut},
    summary="Point a label at a recipe, with the evidence",
    operation_id="promote_recipe",
)
def promote_recipe(request: HttpRequest, experiment_id: int, row_id: int, payload: PromoteIn) -> object:
    """The label's history keeps difference, interval, images and verdict. Needs the permission to promote, which
    curators have."""
    by = allow(request, "read", "run")
    if not by.has_perm("judging.promote_experiment"):
        raise PermissionDenied(f"{by.get_username()} may not promote a recipe.")
    experiment = find(experiment_id)
    adapter = collection = None
    if payload.adapter is not None and not (adapter := ModelAdapter.objects.filter(slug=payload.adapter).first()):
        raise ValidationError({"adapter": f"There is no adapter {payload.adapter!r}."})
    if payload.collection is not None and not (
        collection := Collection.objects.filter(slug=payload.collection).first()
    ):
        raise ValidationError({"collection": f"There is no collection {payload.collection!r}."})
    event = promotions.promote(
        experiment,
        _row(experiment, row_id),
        name=payload.name,
        why=payload.why,
        task=payload.task,
        adapter=adapter,
        collection=collection,
        by=by,
    )
    shown = LabelEvent.objects.select_related("label__adapter", "label__collection", "to_recipe", "by")
    return Status(201, shown.get(pk=event.pk))


@router.get("/watch", response=WatchList, summary="How promoted recipes do since", operation_id="watch_promotions")
def watch_promotions(request: HttpRequest, collection: str = "") -> object:
    """Labels moved on evidence: edits per image promised, and on the images reviewed since."""
    allow(request, "read")
    of = Collection.objects.get(slug=collection) if collection else None
    return {
        "items": [
            {
                "label": one.label.pk,
                "name": one.label.name,
                "scope": one.label.scope,
                "recipe": one.label.recipe_id,
                "since": one.event.at,
                "promised": one.promised,
                "now": one.now,
                "images": one.images,
                "alarm": one.alarm,
                "back_to": one.back.to_recipe_id if one.back else None,
            }
            for one in promotions.watched(of)
        ]
    }


@router.post(
    "/watch/{int:label_id}/rollback",
    response={201: LabelEventOut},
    summary="Back to what a label pointed to before",
    operation_id="roll_back_promotion",
)
def roll_back_promotion(request: HttpRequest, label_id: int) -> object:
    """Needs the permission to promote."""
    by = allow(request, "read", "run")
    if not by.has_perm("judging.promote_experiment"):
        raise PermissionDenied(f"{by.get_username()} may not promote a recipe.")
    label = Label.objects.select_related("recipe", "adapter", "collection").filter(pk=label_id).first()
    if label is None:
        raise Label.DoesNotExist(f"There is no label {label_id}.")
    found = promotions.watch(label)
    if found is None:
        raise ValidationError({"label": f"{label} was not moved on the evidence of an experiment."})
    event = promotions.roll_back(found, by=by)
    shown = LabelEvent.objects.select_related("label__adapter", "label__collection", "to_recipe", "by")
    return Status(201, shown.get(pk=event.pk))


@router.post(
    "/{int:experiment_id}/ensembles",
    response=EnsembleOut,
    summary="What models would score together",
    operation_id="try_ensembles",
)
def try_ensembles(request: HttpRequest, experiment_id: int, payload: EnsembleIn) -> object:
    """Union, intersection, votes, weights and cascade over stored answers, with what each model adds. Asks no model."""
    allow(request, "read")
    rules = [(str(rule.get("rule", "rule")), rule) for rule in payload.rules] or ensembles.USUAL
    found = ensembles.together(find(experiment_id), payload.rows, rules, policy=_policy(payload.policy))
    return {"images": found.images, "judged": found.judged, "best": found.best, "lines": list(ensembles.lines(found))}


@router.post(
    "/{int:experiment_id}/ensembles/save",
    response={201: SavedOut},
    summary="Save an ensemble as a recipe",
    operation_id="save_ensemble",
)
def save_ensemble(request: HttpRequest, experiment_id: int, payload: SaveIn) -> object:
    """A recipe of several channels that can be run, compared and promoted. Needs the role curator."""
    by = allow(request, "curate", "run")
    made = ensembles.save_recipe(
        find(experiment_id), payload.rows, payload.rule, policy=_policy(payload.policy), name=payload.name, by=by
    )
    return Status(201, {"recipe": made.pk, "key": made.key, "name": made.name})


@router.get(
    "/{int:experiment_id}/unjudged",
    response=UnjudgedOut,
    summary="Proposed tags that nobody has judged",
    operation_id="list_unjudged",
)
def list_unjudged(request: HttpRequest, experiment_id: int, limit: int = 200) -> object:
    """Image by image, in an order that says nothing of who proposed them."""
    allow(request, "read")
    found = rest.unjudged(find(experiment_id), max(1, min(limit, rest.QUEUE)))
    return {"items": [{"image": pair.image, "tag": pair.tag} for pair in found]}


@router.post(
    "/{int:experiment_id}/unjudged", response={204: None}, summary="Judge one of them", operation_id="judge_tag"
)
def judge_tag(request: HttpRequest, experiment_id: int, payload: UnjudgedIn) -> object:
    """Ordinary truth, as in review. Needs the role reviewer."""
    by = allow(request, "review", "write")
    rest.judge(find(experiment_id), rest.Pair(payload.image, payload.tag), right=payload.right, by=by)
    return Status(204, None)


@router.get(
    "/{int:experiment_id}/preferences", response=str, summary="Preference pairs", operation_id="list_preference_pairs"
)
def list_preference_pairs(request: HttpRequest, experiment_id: int) -> object:
    """JSON objects, a line each: of two recipes' answers for one image the better and the worse, by people's decisions
    where all tags of both are judged, and by votes."""
    allow(request, "read")
    experiment = find(experiment_id)

    def lines() -> Iterator[bytes]:
        for pair in pairs(experiment):
            yield json.dumps(pair, ensure_ascii=False).encode() + b"\n"

    response = StreamingHttpResponse(lines(), content_type="application/x-ndjson; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="experiment-{experiment_id}-preferences.jsonl"'
    return response
