"""/api/try: a recipe, or a model with a prompt, on one to five images."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.http import HttpRequest
from ninja import Schema, Status
from pydantic import Field

from prompts.models import PromptVersion

from ..actions import labels
from ..actions.policies import find_policy_version
from ..actions.recipes import ChannelSpec, get_recipe, with_policy
from ..actions.trials import MOST_IMAGES, start_trial
from ..models import ImageAsset, ModelAdapter, PolicyVersion, Recipe
from .auth import allow
from .router import Router

router = Router(tags=["runs"])


class TryIn(Schema):
    images: list[int] = Field(min_length=1, max_length=MOST_IMAGES, description="Their ids.")
    recipe: int | str | None = Field(None, description="A recipe that exists: its id, a label, or its key. Or:")
    adapter: str | None = Field(None, description="slug of an adapter.")
    prompt_version: int | None = Field(None, description="With `adapter`, where it takes a prompt.")
    options: dict[str, Any] = Field({}, description="With `adapter`; those left out take its own.")
    variables: dict[str, str | int | float | bool] = Field(
        {}, description="With `adapter`: values of the prompt's free variables."
    )
    policy: str | None = Field(
        None, description='slug, or "slug@3" for a version; with a recipe it takes the place of its own.'
    )
    sample: int = Field(0, ge=0, le=999, description="Another number asks a model that varies once more.")

    model_config = {"extra": "forbid"}


class TrialStarted(Schema):
    run: int = Field(description="What it says: /api/runs/{id}/proposals; how far it is: /api/runs/{id}.")
    recipe: int
    images: list[int]


@router.post("", response={202: TrialStarted}, summary="Try on a few images", operation_id="try_on_images")
def try_on_images(request: HttpRequest, payload: TryIn) -> object:
    """A hidden run that goes before others. What was answered before is not asked again. Needs the role curator."""
    by = allow(request, "curate", "run")
    recipe = _recipe(payload, by)
    found = ImageAsset.objects.in_bulk(payload.images)
    if missing := [pk for pk in payload.images if pk not in found]:
        raise ValidationError({"images": f"There is no image {missing[0]}."})
    images = list(found.values())
    run = start_trial(recipe, images, sample=payload.sample, by=by)
    return Status(202, {"run": run.pk, "recipe": recipe.pk, "images": [image.pk for image in images]})


def _recipe(payload: TryIn, by: Any) -> Recipe:
    if (payload.recipe is None) == (payload.adapter is None):
        raise ValidationError({"recipe": "Name either a recipe or an adapter."})
    policy: PolicyVersion | None = find_policy_version(payload.policy) if payload.policy else None
    if payload.recipe is not None:
        for name in ("prompt_version", "options", "variables"):
            if getattr(payload, name) not in (None, {}):
                raise ValidationError({name: "A recipe has its own: give this with an adapter only."})
        try:
            found = labels.find_recipe(str(payload.recipe))
        except labels.UnknownLabel as e:
            raise ValidationError({"recipe": str(e)}) from None
        return with_policy(found, policy, by=by) if policy else found
    adapter = ModelAdapter.objects.filter(slug=payload.adapter).first()
    if adapter is None:
        raise ValidationError({"adapter": f"There is no adapter {payload.adapter!r}."})
    prompt = None
    if payload.prompt_version is not None:
        prompt = PromptVersion.objects.filter(pk=payload.prompt_version).first()
        if prompt is None:
            raise ValidationError({"prompt_version": f"There is no prompt version {payload.prompt_version}."})
    spec = ChannelSpec(adapter, prompt, payload.options, variables=payload.variables)
    try:
        return get_recipe([spec], policy_version=policy, by=by)
    except ValidationError as e:
        named = {"prompt_version" if n == "prompt" else n: messages for n, messages in e.message_dict.items()}
        raise ValidationError(named) from None
