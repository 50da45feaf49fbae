"""Runs that were not computed here: results of another tool, kept as predictions and proposals to compare with.

Such a run has the recipe of one channel, the adapter "import", whose revision is the hash of what was imported; its
proposals went through the default policy like those of models. It is never shown for review by itself.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Count
from django.utils import timezone

from prompts.models import digest

from ..adapters.base import AdapterOptions, Reply
from ..adapters.imported import Imported
from ..engine.identity import model_key, prediction_key
from ..engine.propose import Proposer, compiled_policy
from ..engine.store import Result, add_results
from ..models import Channel, Chunk, Collection, ImageAsset, ModelAdapter, Proposal, Recipe, Run
from ..models.recipes import recipe_key
from .recipes import default_policy_version

SLUG = "imported"
_DELETED_AT_ONCE = 1000


def imported_recipe(*, content: str, source: str, name: str = "", by: User | None = None) -> Recipe:
    """The recipe of exactly this imported content (its hash); made when there is none."""
    adapter, _ = ModelAdapter.objects.get_or_create(
        slug=SLUG, defaults={"label": Imported.label, "kind": Imported.key, "enabled": False}
    )
    policy = default_policy_version()
    config = {"kind": Imported.key, "source": source[:400], "revision": content, "device": "", "quantization": "none"}
    combine = {"rule": "single"}
    key = recipe_key([{"adapter": config, "prompt": "", "options": {}}], combine, policy.digest)
    with transaction.atomic():
        recipe, made = Recipe.objects.get_or_create(
            key=key,
            defaults={"name": name[:160], "combine": combine, "policy_version": policy, "created_by": by},
        )
        if made:
            Channel.objects.create(recipe=recipe, adapter=adapter, adapter_config=config, options={})
    return recipe


def open_imported_run(recipe: Recipe, collection: Collection, *, name: str, total: int, by: User | None = None) -> Run:
    """An empty run for `add_imported`. It counts as cancelled until `close_imported_run`: a worker never takes it."""
    now = timezone.now()
    return Run.objects.create(
        recipe=recipe,
        collection=collection,
        name=name[:160],
        state=Run.State.CANCELLED,
        phase="importing",
        shown=False,
        n_total=total,
        provider="import",
        started_at=now,
        finished_at=now,
        created_by=by,
    )


def add_imported(run: Run, replies: Iterable[tuple[ImageAsset, Reply]]) -> int:
    """Store what was imported of some images, inside the caller's transaction; how many results."""
    policy = compiled_policy(run.recipe.policy_version_id)
    proposer = Proposer(Imported, AdapterOptions(), policy, source=SLUG)
    results = []
    for image, reply in replies:
        content = image.sha256 or f"image {image.pk}"
        said = digest([[[t.name, t.category, t.score] for t in reply.tags], reply.caption, reply.rating])
        call: dict[str, Any] = {"kind": Imported.key, "model": {"said": said}, "preparation": "", "options": {}}
        results.append(
            Result(
                image.pk,
                proposer.propose(reply, None),
                key=prediction_key(content, call),
                sha256=image.sha256,
                reply=reply,
            )
        )
    add_results(run, results)
    return len(results)


def close_imported_run(run: Run) -> None:
    """The run is done: one closed chunk says which images it has and how it went, as for every other run."""
    counted = Proposal.objects.filter(run=run).order_by().values("state").annotate(n=Count("pk"))
    states = {row["state"]: row["n"] for row in counted}
    ids = array("q", Proposal.objects.filter(run=run).order_by("image_id").values_list("image_id", flat=True))
    if sys.byteorder == "big":
        ids.byteswap()
    with transaction.atomic():
        Chunk.objects.filter(run=run).delete()
        Chunk.objects.create(
            run=run,
            queue=Imported.capabilities.queue,
            model_key=model_key(Channel.objects.select_related("adapter").get(recipe_id=run.recipe_id)),
            lo=0,
            hi=len(ids),
            image_ids=ids.tobytes(),
            state=Chunk.State.DONE,
            n_ok=states.get(Proposal.State.OK, 0),
            n_empty=states.get(Proposal.State.EMPTY, 0),
            touched_at=timezone.now(),
        )
        Run.objects.filter(pk=run.pk).update(
            state=Run.State.DONE, phase="", n_total=len(ids), finished_at=timezone.now()
        )
    run.refresh_from_db()


def drop_imported_run(run: Run) -> int:
    """Delete a run that was imported, with its proposals, some at a time; how many. Its predictions stay, as all do.

    ValueError for a run that was computed here.
    """
    if not Channel.objects.filter(recipe_id=run.recipe_id, adapter_config__kind=Imported.key).exists():
        raise ValueError(f"{run} was computed here and stays.")
    n = 0
    while ids := list(Proposal.objects.filter(run=run).order_by("pk").values_list("pk", flat=True)[:_DELETED_AT_ONCE]):
        n += len(ids)
        Proposal.objects.filter(pk__in=ids).delete()
    run.delete()
    return n
