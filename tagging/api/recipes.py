"""/api/policies and /api/recipes: what was and can be run."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.models import Count
from django.http import HttpRequest
from ninja import Schema
from pydantic import Field

from ..models import Channel, Policy, PolicyVersion, Recipe
from .auth import allow
from .listing import Cursor, Limit, Listing, by_id
from .router import Router

policies = Router(tags=["policies"])
recipes = Router(tags=["recipes"])


class PolicyVersionOut(Schema):
    id: int
    number: int
    spec: dict[str, Any]
    wordlists: list[str] = Field(description='The versions of the lists it uses, e.g. "no-brands v3".')
    digest: str
    message: str
    created_at: datetime

    @staticmethod
    def resolve_wordlists(row: PolicyVersion) -> list[str]:
        return [str(version) for version in row.wordlists.all()]


class PolicyOut(Schema):
    slug: str
    name: str
    note: str
    created_at: datetime
    versions: int = Field(alias="n_versions", description="How many there are.")


class PolicyVersionList(Listing[PolicyVersionOut]):
    pass


class ChannelOut(Schema):
    name: str = Field(description="What its tags name as their source.")
    role: str = Field(description="asked, or merge: it merges what the others said.")
    adapter: str
    adapter_config: dict[str, Any] = Field(description="The adapter's settings when the recipe was made.")
    prompt_version: int | None
    options: dict[str, Any]
    variables: dict[str, Any]

    @staticmethod
    def resolve_name(row: Channel) -> str:
        return row.source

    @staticmethod
    def resolve_adapter(row: Channel) -> str:
        return row.adapter.slug

    @staticmethod
    def resolve_prompt_version(row: Channel) -> int | None:
        return row.prompt_version_id


class RecipeOut(Schema):
    id: int
    key: str = Field(description="Hash of all that it is.")
    name: str
    combine: dict[str, Any]
    policy: str
    policy_version: int
    channels: list[ChannelOut]
    created_at: datetime

    @staticmethod
    def resolve_policy(row: Recipe) -> str:
        return str(row.policy_version)

    @staticmethod
    def resolve_policy_version(row: Recipe) -> int:
        return row.policy_version_id

    @staticmethod
    def resolve_channels(row: Recipe) -> list[Channel]:
        return list(row.channels.all())


class RecipeList(Listing[RecipeOut]):
    pass


@policies.get("", response=list[PolicyOut], summary="List policies", operation_id="list_policies")
def list_policies(request: HttpRequest) -> object:
    allow(request, "read")
    return Policy.objects.annotate(n_versions=Count("versions"))


@policies.get(
    "/{slug}/versions", response=PolicyVersionList, summary="Versions of a policy", operation_id="list_policy_versions"
)
def list_policy_versions(request: HttpRequest, slug: str, cursor: Cursor = "", limit: Limit = 20) -> object:
    """Newest first. A version never changes."""
    allow(request, "read")
    if not Policy.objects.filter(slug=slug).exists():
        raise Policy.DoesNotExist(f"There is no policy {slug!r}.")
    versions = PolicyVersion.objects.filter(policy__slug=slug)
    return by_id(versions.prefetch_related("wordlists__wordlist"), cursor, limit)


@recipes.get("", response=RecipeList, summary="List recipes", operation_id="list_recipes")
def list_recipes(request: HttpRequest, cursor: Cursor = "", limit: Limit = 20) -> object:
    allow(request, "read")
    return by_id(_recipes(), cursor, limit)


@recipes.get("/{int:recipe_id}", response=RecipeOut, summary="One recipe", operation_id="get_recipe")
def get_recipe(request: HttpRequest, recipe_id: int) -> object:
    allow(request, "read")
    found = _recipes().filter(pk=recipe_id).first()
    if found is None:
        raise Recipe.DoesNotExist(f"There is no recipe {recipe_id}.")
    return found


def _recipes() -> Any:
    return Recipe.objects.select_related("policy_version__policy").prefetch_related("channels__adapter")
