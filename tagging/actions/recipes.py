"""Recipes: found by content, made once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone
from pydantic import ValidationError as OptionsError

from prompts.models import PromptVersion, digest
from prompts.rendering import free_variables

from ..models import Channel, ModelAdapter, Policy, PolicyVersion, Recipe
from ..models.adapters import options_errors
from ..models.recipes import recipe_key

DEFAULT_POLICY = "default"
#: Which pixels a channel may read.
READ = ("original", "proxy")


@dataclass(frozen=True)
class ChannelSpec:
    """One model call, as it is asked for: options that are left out take the adapter's own.

    `name`: what its tags name as their source; the adapter's slug where it is left out. `variables`: values of the
    prompt's free variables; those left out take the default in its text. `read`: the pixels that the model gets,
    "original" or "proxy" (the 1,024 px rendition made at indexing; the original where there is none).
    """

    adapter: ModelAdapter
    prompt_version: PromptVersion | None = None
    options: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    variables: dict[str, str | int | float | bool] = field(default_factory=dict)
    read: str = "original"


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
    where the adapter takes none or needs one, "variables" for one that the prompt does not have, "name", "read".
    """
    if len(channels) != 1:
        raise ValidationError({"channels": "A recipe has one channel."})
    policy_version = policy_version or default_policy_version()
    rows = [_channel(spec) for spec in channels]
    combine = {"rule": "single"}
    key = recipe_key(
        [_content(row) for row in rows],
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


def _content(row: Channel) -> dict[str, Any]:
    """What a channel is, as the recipe's hash takes it."""
    found: dict[str, Any] = {
        "adapter": row.adapter_config,
        "prompt": row.prompt_version.digest if row.prompt_version else "",
        "options": row.options,
    }
    return {**found, "variables": row.variables} if row.variables else found


def _channel_name(spec: ChannelSpec) -> str:
    name = spec.name or spec.adapter.slug
    if not re.fullmatch(r"[\w-]{1,80}", name, re.ASCII):
        raise ValidationError(
            {"name": f"{name!r} is no name for a channel: letters, digits, - and _, at most 80 of them."}
        )
    return name


def _variables(spec: ChannelSpec) -> dict[str, Any]:
    if not spec.variables:
        return {}
    version = spec.prompt_version
    known = {**free_variables(version.system), **free_variables(version.template)} if version else {}
    for name, value in spec.variables.items():
        if name not in known:
            there = ", ".join(known) or "none"
            raise ValidationError({"variables": f"The prompt has no free variable {name!r}; it has {there}."})
        if not isinstance(value, str | int | float | bool):
            raise ValidationError({"variables": f"{name}: a text, a number or true and false only."})
    return dict(spec.variables)


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
    if spec.read not in READ:
        raise ValidationError({"read": f"{spec.read!r}: one of {' and '.join(READ)}."})
    takes_prompt = adapter.capabilities.prompt
    if spec.prompt_version and not takes_prompt:
        raise ValidationError({"prompt": f"{row.label} takes no prompt."})
    if takes_prompt and not spec.prompt_version:
        raise ValidationError({"prompt": f"{row.label} needs a prompt."})
    return Channel(
        name=_channel_name(spec),
        variables=_variables(spec),
        adapter=row,
        adapter_config={
            "kind": row.kind,
            "source": row.source,
            "revision": row.revision,
            "device": row.device,
            "quantization": row.quantization,
            **({"read": spec.read} if spec.read != READ[0] else {}),
        },
        prompt_version=spec.prompt_version,
        options=options.model_dump(mode="json"),
    )
