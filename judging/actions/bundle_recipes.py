"""Recipes of a bundle, with all they are made of: what is here already is taken, what is not is made.

Models that are made are switched off: their recipes can be compared, not run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import User

from prompts.models import Prompt, PromptVersion, Wordlist, WordlistVersion, digest
from tagging.models import Channel, ModelAdapter, Policy, PolicyVersion, Recipe


def recipe_of(given: Mapping[str, Any], by: User | None) -> Recipe:
    """The recipe of that key; made of its parts where it is not here."""
    there = Recipe.objects.filter(key=given["key"]).first()
    if there is not None:
        return there
    recipe = Recipe.objects.create(
        key=str(given["key"])[:64],
        name=str(given["name"])[:160],
        combine=given["combine"],
        policy_version=_policy(given["policy"]),
        created_by=by,
    )
    for channel in given["channels"]:
        Channel.objects.create(
            recipe=recipe,
            position=channel["position"],
            name=channel["name"],
            role=channel["role"],
            adapter=_adapter(channel["adapter"], channel["config"]),
            adapter_config=channel["config"],
            options=channel["options"],
            variables=channel["variables"],
            prompt_version=_prompt(channel["prompt"]),
        )
    return recipe


def _adapter(given: Mapping[str, Any], config: Mapping[str, Any]) -> ModelAdapter:
    """A model of the same kind, source, revision and quantization; else a row for it that is switched off."""
    same = {name: config.get(name, "") for name in ("kind", "source", "revision", "quantization")}
    there = ModelAdapter.objects.filter(**same).order_by("-enabled", "pk").first()
    if there is not None:
        return there
    slug, n = str(given["slug"])[:70], 1
    free = slug
    while ModelAdapter.objects.filter(slug=free).exists():
        n += 1
        free = f"{slug}-{n}"
    return ModelAdapter.objects.create(
        **same, slug=free, label=str(given["label"])[:120], enabled=False, note="Came with an imported experiment."
    )


def _prompt(given: Mapping[str, Any] | None) -> PromptVersion | None:
    if given is None:
        return None
    there = PromptVersion.objects.filter(digest=given["digest"]).order_by("pk").first()
    if there is not None:
        return there
    defaults = {"name": str(given["name"])[:120], "task": given["task"]}
    prompt, _ = Prompt.objects.get_or_create(slug=str(given["slug"])[:80], defaults=defaults)
    return PromptVersion.objects.create(
        prompt=prompt,
        system=given["system"],
        template=given["template"],
        response_schema=given["response_schema"],
        message=(given["message"] or "Came with an imported experiment.")[:200],
    )


def _policy(given: Mapping[str, Any]) -> PolicyVersion:
    there = PolicyVersion.objects.filter(digest=given["digest"]).order_by("pk").first()
    if there is not None:
        return there
    policy, _ = Policy.objects.get_or_create(slug=str(given["slug"])[:80], defaults={"name": str(given["name"])[:120]})
    last = policy.current
    version = PolicyVersion.objects.create(
        policy=policy,
        number=last.number + 1 if last else 1,
        spec=given["spec"],
        digest=given["digest"],
        message=(given["message"] or "Came with an imported experiment.")[:200],
    )
    version.wordlists.set([_wordlist(one) for one in given["lists"]])
    return version


def _wordlist(given: Mapping[str, Any]) -> WordlistVersion:
    hashed = digest([given["kind"], given["entries"]])
    there = WordlistVersion.objects.filter(digest=hashed, wordlist__kind=given["kind"]).order_by("pk").first()
    if there is not None:
        return there
    defaults = {"name": str(given["name"])[:120], "kind": given["kind"]}
    wordlist, _ = Wordlist.objects.get_or_create(slug=str(given["slug"])[:80], defaults=defaults)
    if wordlist.kind != given["kind"]:
        wordlist = Wordlist.objects.create(slug=f"{wordlist.slug[:60]}-{hashed[:8]}", **defaults)
    return WordlistVersion.objects.create(
        wordlist=wordlist, entries=given["entries"], message="Came with an imported experiment."
    )
