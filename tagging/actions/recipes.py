"""Recipes: found by content, made once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone
from pydantic import ValidationError as OptionsError

from prompts.models import PromptVersion, digest

from ..models import Channel, ModelAdapter, Policy, PolicyVersion, Recipe
from ..models.adapters import options_errors
from ..models.recipes import recipe_key

DEFAULT_POLICY = "default"


@dataclass(frozen=True)
class ChannelSpec:
    """One model call, as it is asked for: options that are left out take the adapter's own."""

    adapter: ModelAdapter
    prompt_version: PromptVersion | None = None
    options: dict[str, Any] = field(default_factory=dict)


def default_policy_version() -> PolicyVersion:
    """The newest version of the policy "default"; both are made when missing. An empty spec means its defaults."""
    policy, _ = Policy.objects.get_or_create(slug=DEFAULT_POLICY, defaults={"name": "Default"})
    found = policy.current
    if found is None:
        found, _ = PolicyVersion.objects.get_or_create(
            policy=policy, number=1, defaults={"spec": {}, "digest": digest([{}, []]), "message": "The defaults"}
        )
    return found


def get_recipe(
    channels: Sequence[ChannelSpec],
    *,
    policy_version: PolicyVersion | None = None,
    name: str = "",
    by: User | None = None,
) -> Recipe:
    """The recipe of exactly this content; made when there is none. Two askers at once get the same row.

    Raises ValidationError: keyed by "options" for a bad option, "adapter" for a disabled or unknown adapter, "prompt"
    where the adapter takes none or needs one.
    """
    if len(channels) != 1:
        raise ValidationError({"channels": "A recipe has one channel."})
    policy_version = policy_version or default_policy_version()
    rows = [_channel(spec) for spec in channels]
    combine = {"rule": "single"}
    key = recipe_key(
        [
            {
                "adapter": row.adapter_config,
                "prompt": row.prompt_version.digest if row.prompt_version else "",
                "options": row.options,
            }
            for row in rows
        ],
        combine,
        policy_version.digest,
    )
    with transaction.atomic():
        recipe, made = Recipe.objects.get_or_create(
            key=key, defaults={"name": name, "combine": combine, "policy_version": policy_version, "created_by": by}
        )
        if made:
            for position, row in enumerate(rows):
                row.recipe, row.position = recipe, position
            Channel.objects.bulk_create(rows)
            used = [row.prompt_version_id for row in rows if row.prompt_version_id]
            PromptVersion.objects.filter(pk__in=used, used_at=None).update(used_at=timezone.now())
    return recipe


def _channel(spec: ChannelSpec) -> Channel:
    row = spec.adapter
    if not row.enabled:
        raise ValidationError({"adapter": f"{row.label} is switched off."})
    try:
        adapter = row.build()
    except LookupError as e:
        raise ValidationError({"adapter": str(e)}) from None
    try:
        options = adapter.options(spec.options)
    except OptionsError as e:
        raise ValidationError({"options": options_errors(e)}) from None
    takes_prompt = adapter.capabilities.prompt
    if spec.prompt_version and not takes_prompt:
        raise ValidationError({"prompt": f"{row.label} takes no prompt."})
    if takes_prompt and not spec.prompt_version:
        raise ValidationError({"prompt": f"{row.label} needs a prompt."})
    return Channel(
        adapter=row,
        adapter_config={
            "kind": row.kind,
            "source": row.source,
            "revision": row.revision,
            "device": row.device,
            "quantization": row.quantization,
        },
        prompt_version=spec.prompt_version,
        options=options.model_dump(mode="json"),
    )
