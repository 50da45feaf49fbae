"""Recipes: found by content, made once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone
from pydantic import ValidationError as OptionsError

from prompts.actions import create_version
from prompts.models import Prompt, PromptVersion, digest
from prompts.rendering import free_variables

from ..models import Channel, ModelAdapter, Policy, PolicyVersion, Recipe
from ..models.adapters import options_errors
from ..models.recipes import recipe_key
from ..policy import merging
from ..policy.combine import MAX_CHANNELS, CombineError, check_combine

DEFAULT_POLICY = "default"
MERGE_PROMPT = "merge"
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
    combine: Mapping[str, Any] | None = None,
    merge: ChannelSpec | None = None,
    policy_version: PolicyVersion | None = None,
    name: str = "",
    by: User | None = None,
) -> Recipe:
    """The recipe of exactly this content; made when there is none. Two askers at once get the same row.

    `combine` (see `policy.combine.CombineSpec`) says how several channels are asked and made into one; the union of all
    at once where it is left out. `merge`: the model that merges them, for the rule llm_merge; without a prompt it gets
    the one that comes with iwtag. Channels of the same name get a number.

    Raises ValidationError: keyed by "options" for a bad option, "adapter" for a disabled or unknown adapter, "prompt"
    where the adapter takes none or needs one (it has none of its own), "variables" for one that the prompt does not
    have, "name", "read", "combine", "channels" where there are none or too many. With several channels the message
    names the one.
    """
    draft = draft_recipe(channels, combine=combine, merge=merge, policy_version=policy_version)
    return _kept(draft, name, by)


@dataclass(frozen=True)
class Draft:
    """A recipe that is not saved: its rows, rule, policy, and the key that it has or would have."""

    key: str
    channels: list[Channel]
    combine: dict[str, Any]
    policy_version: PolicyVersion


def draft_recipe(
    channels: Sequence[ChannelSpec],
    *,
    combine: Mapping[str, Any] | None = None,
    merge: ChannelSpec | None = None,
    policy_version: PolicyVersion | None = None,
) -> Draft:
    """What `get_recipe` would find or make, checked all the same. ValidationError as it."""
    if not 1 <= len(channels) <= MAX_CHANNELS:
        raise ValidationError({"channels": f"A recipe has 1 to {MAX_CHANNELS} channels, not {len(channels)}."})
    policy_version = policy_version or default_policy_version()
    several = len(channels) > 1
    rows = [_channel_of_several(spec, n) if several else _channel(spec) for n, spec in enumerate(channels, 1)]
    if several:
        _number_names(rows, [bool(spec.name) for spec in channels])
    stored = _combine(combine, rows)
    rows += _merge(stored, merge, rows)
    return Draft(_key(rows, stored, policy_version, several), rows, stored, policy_version)


def with_policy(recipe: Recipe, policy_version: PolicyVersion, *, by: User | None = None) -> Recipe:
    """The recipe of the same channels and rule with another policy: itself where it has that one."""
    if policy_version.digest == recipe.policy_version.digest:
        return recipe
    rows = list(recipe.channels.select_related("adapter", "prompt_version").order_by("position"))
    several = len([row for row in rows if row.role == Channel.Role.ASKED]) > 1
    key = _key(rows, recipe.combine, policy_version, several)
    copies = [
        Channel(
            **{name: getattr(row, name) for name in _COPIED}, adapter=row.adapter, prompt_version=row.prompt_version
        )
        for row in rows
    ]
    return _kept(Draft(key, copies, recipe.combine, policy_version), recipe.name, by)


_COPIED = ("name", "role", "adapter_config", "options", "variables")


def _key(rows: Sequence[Channel], combine: dict[str, Any], policy_version: PolicyVersion, several: bool) -> str:
    return recipe_key([_content(row, several) for row in rows], combine, policy_version.digest)


def _kept(draft: Draft, name: str, by: User | None) -> Recipe:
    rows = draft.channels
    there = Recipe.objects.filter(key=draft.key).first()
    if there is not None:
        _adopt(there, rows)
        if there.name or not name:
            return there  # without a transaction: pages ask for the same one again and again
    with transaction.atomic():
        recipe, made = Recipe.objects.get_or_create(
            key=draft.key,
            defaults={
                "name": name,
                "combine": draft.combine,
                "policy_version": draft.policy_version,
                "created_by": by,
            },
        )
        if made:
            for position, row in enumerate(rows):
                row.recipe, row.position = recipe, position
            Channel.objects.bulk_create(rows)
            used = [row.prompt_version_id for row in rows if row.prompt_version_id]
            PromptVersion.objects.filter(pk__in=used, used_at=None).update(used_at=timezone.now())
        elif name and not recipe.name:  # tried before it got a name, which is no part of what it is
            Recipe.objects.filter(pk=recipe.pk).update(name=name)
            recipe.name = name
    return recipe


def _adopt(recipe: Recipe, rows: Sequence[Channel]) -> None:
    """A text that was tried before it was saved is the same text: the recipe names the saved version from now on."""
    saved = [(n, row.prompt_version) for n, row in enumerate(rows) if row.prompt_version]
    saved = [(n, version) for n, version in saved if not version.prompt.hidden]
    if not saved:
        return
    tried = recipe.channels.filter(prompt_version__prompt__hidden=True)
    positions = set(tried.values_list("position", flat=True))
    for position, version in saved:
        if position in positions:
            with transaction.atomic():
                recipe.channels.filter(position=position).update(prompt_version=version)
                PromptVersion.objects.filter(pk=version.pk, used_at=None).update(used_at=timezone.now())


def _channel_of_several(spec: ChannelSpec, number: int) -> Channel:
    try:
        return _channel(spec)
    except ValidationError as error:
        named = {k: [f"Channel {number}: {m}" for m in messages] for k, messages in error.message_dict.items()}
        raise ValidationError(named) from None


def _number_names(rows: Sequence[Channel], given: Sequence[bool]) -> None:
    """Names that were not given become different ones: wd, wd-2, …"""
    taken = {row.name for row, own in zip(rows, given, strict=True) if own}
    for row, own in zip(rows, given, strict=True):
        if own:
            continue
        base, n = row.name, 1
        while row.name in taken:
            n += 1
            row.name = f"{base[:70]}-{n}"
        taken.add(row.name)


def _combine(given: Mapping[str, Any] | None, rows: Sequence[Channel]) -> dict[str, Any]:
    """The rule as the recipe stores it."""
    rule = given or {"rule": "single" if len(rows) == 1 else "union"}
    try:
        return check_combine(rule, [row.name for row in rows]).stored()
    except CombineError as error:
        raise ValidationError({"combine": str(error)}) from None


def _merge(combine: Mapping[str, Any], spec: ChannelSpec | None, rows: Sequence[Channel]) -> list[Channel]:
    """The merging model as the channel after the others."""
    if (combine["rule"] == "llm_merge") != (spec is not None):
        text = "no other rule has a merging model" if spec else "llm_merge needs a merging model"
        raise ValidationError({"merge": text[:1].upper() + text[1:] + "."})
    if spec is None:
        return []
    if spec.prompt_version is None:
        spec = replace(spec, prompt_version=builtin_merge_prompt())
    if not spec.prompt_version or spec.prompt_version.prompt.task != Prompt.Task.MERGE:
        raise ValidationError({"merge": f"{spec.prompt_version} is no prompt for merging."})
    try:
        row = _channel(replace(spec, name=spec.name or "merge"))
    except ValidationError as error:
        raise ValidationError({"merge": error.messages}) from None
    if row.name in {r.name for r in rows}:
        raise ValidationError({"merge": f"A channel is called {row.name!r} already."})
    row.role = Channel.Role.MERGE
    return [row]


def builtin_merge_prompt() -> PromptVersion:
    """The prompt for merging that comes with iwtag; made when missing, a new version when it has changed since."""
    prompt, _ = Prompt.objects.get_or_create(
        slug=MERGE_PROMPT, defaults={"name": "Merge of several models", "task": Prompt.Task.MERGE}
    )
    found = prompt.versions.filter(system=merging.SYSTEM, template=merging.TEMPLATE).order_by("number").first()
    if found is None:
        found = create_version(
            prompt,
            system=merging.SYSTEM,
            template=merging.TEMPLATE,
            response_schema=merging.SCHEMA,
            message="Comes with iwtag",
        )
    return found


def _content(row: Channel, several: bool) -> dict[str, Any]:
    """What a channel is, as the recipe's hash takes it."""
    found: dict[str, Any] = {
        "adapter": row.adapter_config,
        "prompt": row.prompt_version.digest if row.prompt_version else "",
        "options": row.options,
    }
    if row.variables:
        found["variables"] = row.variables
    return {**found, "name": row.name, "role": row.role} if several else found


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
        options = row.run_options(spec.options)
    except OptionsError as e:
        raise ValidationError({"options": options_errors(e)}) from None
    if spec.read not in READ:
        raise ValidationError({"read": f"{spec.read!r}: one of {' and '.join(READ)}."})
    takes_prompt = adapter.capabilities.prompt
    if spec.prompt_version and not takes_prompt:
        raise ValidationError({"prompt": f"{row.label} takes no prompt."})
    if takes_prompt and not adapter.capabilities.own_prompt and not spec.prompt_version:
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
        options=options,
    )
