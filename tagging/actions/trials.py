"""Trying a prompt that may not be saved yet on a few images: an ordinary run, only hidden and ahead of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError

from prompts.actions import check_prompt
from prompts.drafts import tried_version
from prompts.models import Prompt, PromptVersion

from ..models import ImageAsset, ModelAdapter, PolicyVersion, Recipe, Run
from .recipes import ChannelSpec, get_recipe
from .runs import start_run

#: images at once: a look, not a run
MOST_IMAGES = 5
PRIORITY = 500


def try_prompt(
    prompt: Prompt,
    adapter: ModelAdapter,
    images: Sequence[ImageAsset],
    *,
    template: str,
    system: str = "",
    response_schema: dict[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    variables: Mapping[str, Any] | None = None,
    policy_version: PolicyVersion | None = None,
    sample: int = 0,
    by: User | None = None,
) -> Run:
    """Start a trial of these texts. A model that takes no prompt is asked without one, for comparison.

    ValidationError keyed by field: system, template, response_schema, images, adapter, options, variables, prompt.
    """
    check_images(images)
    version: PromptVersion | None = None
    if _takes_prompt(adapter):
        check_prompt(system, template, response_schema)
        version = tried_version(
            prompt,
            system=system.replace("\r\n", "\n"),
            template=template.replace("\r\n", "\n"),
            response_schema=response_schema,
        )
    spec = ChannelSpec(
        adapter=adapter, prompt_version=version, options=dict(options or {}), variables=dict(variables or {})
    )
    recipe = get_recipe([spec], policy_version=policy_version, by=by)
    return start_trial(recipe, images, name=f"Trial of {prompt.slug} with {adapter.label}", sample=sample, by=by)


def start_trial(
    recipe: Recipe, images: Sequence[ImageAsset], *, name: str = "", sample: int = 0, by: User | None = None
) -> Run:
    """A hidden run of the recipe on one to five images, before others. ValidationError keyed by "images" or as
    `start_run`."""
    check_images(images)
    return start_run(
        recipe,
        images=ImageAsset.objects.filter(pk__in=[image.pk for image in images]),
        name=(name or f"Trial of {recipe}")[:160],
        purpose=Run.Purpose.TRIAL,
        priority=PRIORITY,
        sample=sample,
        by=by,
    )


def check_images(images: Sequence[ImageAsset]) -> None:
    """ValidationError keyed by "images" where there are none, too many, or one cannot be read."""
    if not images:
        raise ValidationError({"images": "Choose an image."})
    if len(images) > MOST_IMAGES:
        raise ValidationError({"images": f"At most {MOST_IMAGES} images at once: start a run for more."})
    for image in images:
        if image.state != ImageAsset.State.READY or image.missing_since:
            raise ValidationError({"images": f"{image.path} cannot be read: choose another image."})


def _takes_prompt(adapter: ModelAdapter) -> bool:
    try:
        return adapter.adapter_class.capabilities.prompt
    except (LookupError, ImportError) as e:
        raise ValidationError({"adapter": f"{adapter.label} cannot be used here: {e}"}) from None
