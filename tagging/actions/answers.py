"""What is known already of an image by a recipe: stored predictions under its combine rule and a policy, without asking
a model. The workbench shows it before any worker has moved.

A prediction's own key needs the model's identity, which reads weights or asks a server: that is the worker's part. Here
an answer counts as this recipe's where a recipe with the same calls was run on the same bytes before, with the same
lists written out and, where the prompt tells tags or a caption, with no decision on the image since.
"""

from __future__ import annotations

from collections.abc import Collection as Container
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import Max
from pydantic import ValidationError as OptionsError

from prompts.models import digest
from prompts.rendering import names_used, wordlists_used

from ..adapters.base import AdapterOptions, ModelUnavailable
from ..adapters.registry import UnknownAdapter
from ..engine.combining import Plan, results_of
from ..engine.contexts import newest_lists
from ..engine.propose import Proposed, Proposer, stored_labels
from ..engine.stage import reply_of
from ..models import Channel, ChannelResult, Chunk, ImageAsset, Prediction, Proposal, Recipe, Run, TagEdit
from ..policy.pipeline import CompiledPolicy

#: recipes with the same first model and prompt that are looked at, newest first
MOST_RECIPES = 300
#: earlier proposals of a few images that are looked at, newest first
MOST_PROPOSALS = 400
#: what people decided and a prompt may tell
DECIDED = frozenset({"tags", "caption"})


@dataclass
class Answer:
    """What a recipe comes to on one image. `proposed` is None where there is only an `error`."""

    proposal: int
    run: int
    at: datetime
    proposed: Proposed | None = None
    error: str = ""
    text: str = ""
    seconds: float = 0.0
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost: float | None = None
    currency: str = ""
    finish_reason: str = ""
    flags: list[str] = field(default_factory=list)
    calls: int = 1


@dataclass
class Waiting:
    """A trial under way, or what kept it from answering (`error`)."""

    run: Run
    error: str = ""


# -- the same calls ---------------------------------------------------------------------------------------------------
def _call(channel: Channel, several: bool) -> dict[str, Any] | None:
    """What reaches the model; None where its code is gone. Where it runs, and what only selects, do not count."""
    try:
        code = channel.adapter.adapter_class
        options = code.Options.model_validate(channel.options).inference_dict()
    except (UnknownAdapter, ImportError, TypeError, OptionsError):
        return None
    config = {k: v for k, v in channel.adapter_config.items() if k != "device"}
    prompt = channel.prompt_version.digest if channel.prompt_version else ""
    found = {"config": config, "prompt": prompt, "options": options, "variables": channel.variables}
    return {**found, "name": channel.name, "role": channel.role} if several else found


def _around(recipe: Recipe, channels: Sequence[Channel]) -> Any:
    """What of the rule and the policy has a part in what the models are asked."""
    held = any(channel.options.get("vocabulary") == "only" for channel in channels)
    policy = recipe.policy_version.digest if held else ""
    if len(channels) == 1:
        return [policy]
    order = recipe.combine.get("order", "parallel")
    merged = channels[-1].role == Channel.Role.MERGE
    parse = recipe.policy_version.spec.get("parse") if order != "parallel" or merged else None
    return [policy, order, recipe.combine.get("cascade") if order == "cascade" else None, parse]


#: recipe key → digest of what it asks; a key stands for all that a recipe is, so that this never changes
_ASKS: dict[str, str] = {}
_MOST_ASKS = 20_000


def _asks(recipes: Mapping[int, str]) -> dict[int, str]:
    """By recipe (id → key): equal where the models are asked the same; empty where the code of one is gone."""
    unknown = [pk for pk, key in recipes.items() if key not in _ASKS]
    if unknown:
        rows = Channel.objects.filter(recipe__in=unknown)
        rows = rows.select_related("adapter", "prompt_version", "recipe__policy_version")
        by_recipe: dict[int, list[Channel]] = {}
        for row in rows.order_by("recipe_id", "position"):
            by_recipe.setdefault(row.recipe_id, []).append(row)
        if len(_ASKS) > _MOST_ASKS:
            _ASKS.clear()
        for pk, channels in by_recipe.items():
            calls = [_call(channel, len(channels) > 1) for channel in channels]
            if None not in calls:
                _ASKS[recipes[pk]] = digest([calls, _around(channels[0].recipe, channels)])
    return {pk: _ASKS.get(key, "") for pk, key in recipes.items()}


def same_calls(recipe: Recipe) -> list[int]:
    """Recipes that ask the models exactly the same, whatever they make of the answers; itself among them."""
    first = (
        recipe.channels.filter(position=0).select_related("prompt_version").defer("prompt_version__template").first()
    )
    if first is None:
        return [recipe.pk]
    near = Channel.objects.filter(adapter=first.adapter_id, position=0)
    if first.prompt_version:
        near = near.filter(prompt_version__digest=first.prompt_version.digest)
    keys = dict(near.order_by("-recipe_id").values_list("recipe_id", "recipe__key")[:MOST_RECIPES])
    asks = _asks({**keys, recipe.pk: recipe.key})
    wanted = asks[recipe.pk]
    return [pk for pk, found in asks.items() if pk == recipe.pk or (found and found == wanted)]


# -- what they said ---------------------------------------------------------------------------------------------------
def answers(
    recipe: Recipe,
    images: Sequence[ImageAsset],
    *,
    policy: CompiledPolicy | None = None,
    sample: int = 0,
    recipes: Sequence[int] = (),
) -> dict[int, Answer]:
    """By image, for those that have one. `policy`: another than the recipe's. `recipes`: as `same_calls` found them.

    About ten queries for a handful of images. ModelUnavailable where a model of the recipe is not known here.
    """
    ids = recipes or same_calls(recipe)
    texts = _texts(recipe)
    lists = newest_lists({slug for text in texts for slug in wordlists_used(text)})
    decided = _decided(images) if DECIDED & {n for text in texts for n in names_used(text)} else {}
    bytes_now = {image.pk: image.sha256 for image in images}
    proposals = Proposal.objects.filter(run__recipe__in=ids, run__sample=sample, image__in=list(bytes_now))
    chosen: dict[int, _Earlier] = {}
    for found in map(_Earlier._make, proposals.order_by("-run_id").values_list(*_EARLIER)[:MOST_PROPOSALS]):
        if not _usable(found, bytes_now[found.image], lists, decided.get(found.image)):
            continue
        there = chosen.get(found.image)
        if there is None or (there.state == Proposal.State.ERROR and found.state != Proposal.State.ERROR):
            chosen[found.image] = found
    full = Proposal.objects.select_related("prediction").in_bulk([found.pk for found in chosen.values()])
    by_image = {row.image_id: row for row in full.values()}
    return _proposed(recipe, by_image, policy) if by_image else {}


def _texts(recipe: Recipe) -> list[str]:
    rows = recipe.channels.exclude(prompt_version=None)
    return [text for pair in rows.values_list("prompt_version__system", "prompt_version__template") for text in pair]


def _decided(images: Sequence[ImageAsset]) -> dict[int, datetime]:
    rows = TagEdit.objects.filter(image__in=[i.pk for i in images]).order_by().values_list("image")
    return dict(rows.annotate(last=Max("at")))


class _Earlier(NamedTuple):
    """What decides whether an earlier proposal counts: without its scores, for there may be many."""

    pk: int
    image: int
    state: str
    wordlists: dict[str, int]
    started: datetime
    sha256: str | None


_EARLIER = ("pk", "image_id", "state", "run__wordlists", "run__created_at", "prediction__image_sha256")


def _usable(row: _Earlier, sha256: str, lists: Mapping[str, int], decided: datetime | None) -> bool:
    if row.wordlists != lists or (decided is not None and decided > row.started):
        return False
    return row.state == Proposal.State.ERROR or row.sha256 == sha256


def _proposed(recipe: Recipe, chosen: Mapping[int, Proposal], policy: CompiledPolicy | None) -> dict[int, Answer]:
    plan = Plan(Run(recipe=recipe), policy=policy)
    found = {
        pk: Answer(row.pk, row.run_id, row.created_at, error=row.error, flags=list(row.flags))
        for pk, row in chosen.items()
    }
    good = {pk: row for pk, row in chosen.items() if row.state != Proposal.State.ERROR}
    if not plan.several:
        stage = plan.stages[0]
        options: AdapterOptions = stage.options
        proposer = Proposer(stage.adapter_class, options, plan.policy, source=stage.channel.source)
        for pk, row in good.items():
            assert row.prediction is not None
            labels = stored_labels(row.prediction.labels_id) if row.prediction.labels_id else None
            found[pk].proposed = proposer.propose(reply_of(row.prediction), labels)
            _count(found[pk], [row.prediction])
            found[pk].text = row.prediction.text
        return found
    by_run: dict[int, list[int]] = {}
    for pk, row in good.items():
        by_run.setdefault(row.run_id, []).append(pk)
    for run_id, image_ids in by_run.items():
        results = results_of(run_id, image_ids, plan.last + 1)
        rows = ChannelResult.objects.filter(run=run_id, image__in=image_ids).select_related("prediction")
        for pk in image_ids:
            outcome = plan.repropose(results.get(pk, {}))
            if isinstance(outcome, str):
                found[pk].error = outcome
            else:
                found[pk].proposed = outcome
                found[pk].flags = list(outcome.flags)
            _count(found[pk], [r.prediction for r in rows if r.image_id == pk and r.prediction])
    return found


def _count(answer: Answer, predictions: Sequence[Prediction]) -> None:
    """What its calls took, all together."""
    answer.calls = len(predictions)
    answer.seconds = sum(p.seconds for p in predictions)
    for name in ("tokens_in", "tokens_out", "cost"):
        values = [v for v in (getattr(p, name) for p in predictions) if v is not None]
        setattr(answer, name, sum(values) if values else None)
    answer.currency = next((p.currency for p in predictions if p.currency), "")
    answer.finish_reason = predictions[0].finish_reason if len(predictions) == 1 else ""
    if len(predictions) == 1:
        answer.flags = [*answer.flags, *(f for f in predictions[0].flags if f not in answer.flags)]


# -- what is under way ------------------------------------------------------------------------------------------------
def waiting(recipes: Container[int], images: Sequence[ImageAsset], sample: int = 0) -> dict[int, Waiting]:
    """Trials of these recipes that have yet to answer, by image; and the newest one that ended without."""
    runs = Run.objects.filter(recipe__in=recipes, purpose=Run.Purpose.TRIAL, sample=sample).order_by("-pk")[:20]
    wanted = {image.pk for image in images}
    found: dict[int, Waiting] = {}
    slices: dict[int, set[int]] = {}
    for chunk in Chunk.objects.filter(run__in=[r.pk for r in runs], stage=0):
        slices.setdefault(chunk.run_id, set()).update(chunk.images)
    done: dict[int, set[int]] = {}
    for run_id, image in Proposal.objects.filter(run__in=list(slices), image__in=wanted).values_list("run", "image"):
        done.setdefault(run_id, set()).add(image)
    for run in runs:
        for pk in (slices.get(run.pk, set()) & wanted) - done.get(run.pk, set()) - found.keys():
            ended = run.error or f"The trial was {run.get_state_display()}."
            found[pk] = Waiting(run) if run.state in Run.OPEN else Waiting(run, ended)
    return found


__all__ = ["Answer", "ModelUnavailable", "Waiting", "answers", "same_calls", "waiting"]
