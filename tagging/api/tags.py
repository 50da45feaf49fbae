"""/api/tags: the vocabulary."""

from __future__ import annotations

from typing import Annotated

from django.core.exceptions import ValidationError
from django.http import HttpRequest
from ninja import Query, Schema, Status
from pydantic import Field

from ..actions import tags as vocabulary
from ..models import Tag
from .auth import allow
from .collections import collection_of
from .listing import Cursor, Limit, Listing, by_id
from .router import Router

router = Router(tags=["tags"])


class TagOut(Schema):
    id: int
    name: str
    category: str
    parent: str | None
    aliases: list[str]
    note: str

    @staticmethod
    def resolve_parent(tag: Tag) -> str | None:
        return tag.parent.name if tag.parent else None

    @staticmethod
    def resolve_aliases(tag: Tag) -> list[str]:
        return [alias.name for alias in tag.aliases.all()]


class TagList(Listing[TagOut]):
    pass


class TagHitOut(Schema):
    id: int
    name: str
    category: str
    count: int = Field(description="Images that carry it, in the collection if one was named.")
    match: str = Field(description="exact, alias, prefix, word or fuzzy.")
    alias: str = Field(description="The spelling that matched, when not the tag's own.")


class TagIn(Schema):
    name: str
    category: str = "general"
    parent: str | None = Field(None, description="Name of the tag above it.")
    aliases: list[str] = []

    model_config = {"extra": "forbid"}


class AliasIn(Schema):
    name: str

    model_config = {"extra": "forbid"}


@router.get("", response=TagList, summary="List the vocabulary", operation_id="list_tags")
def list_tags(request: HttpRequest, category: str = "", cursor: Cursor = "", limit: Limit = 100) -> object:
    allow(request, "read")
    tags = Tag.objects.filter(category=category) if category else Tag.objects.all()
    return by_id(tags.select_related("parent").prefetch_related("aliases"), cursor, limit, newest_first=False)


@router.get("/search", response=list[TagHitOut], summary="Search tags", operation_id="search_tags")
def search_tags(
    request: HttpRequest,
    q: Annotated[str, Query(max_length=200)] = "",
    collection: str = "",
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> object:
    """Exact hits first, then aliases, beginnings, beginnings of a later word, close spellings; each by use. Without
    text the most used tags."""
    allow(request, "read")
    return vocabulary.search_tags(q, limit, collection_of(collection) if collection else None)


@router.post("", response={201: TagOut}, summary="Make a tag", operation_id="create_tag")
def create_tag(request: HttpRequest, payload: TagIn) -> object:
    """Needs the role curator. (Reviewers make tags by adding them to an image.)"""
    allow(request, "curate", "write")
    parent = None
    if payload.parent is not None:
        parent = vocabulary.resolve_tags([payload.parent], create=False, field="parent").get(payload.parent)
        if parent is None:
            raise ValidationError({"parent": f"There is no tag {payload.parent!r}."})
    made = vocabulary.create_tag(payload.name, category=payload.category, parent=parent, aliases=payload.aliases)
    return Status(201, made)


@router.get("/{int:tag_id}", response=TagOut, summary="One tag", operation_id="get_tag")
def get_tag(request: HttpRequest, tag_id: int) -> object:
    allow(request, "read")
    return _tag(tag_id)


@router.post("/{int:tag_id}/aliases", response={201: TagOut}, summary="Add a spelling", operation_id="add_alias")
def add_alias(request: HttpRequest, tag_id: int, payload: AliasIn) -> object:
    """Needs the role curator."""
    allow(request, "curate", "write")
    tag = _tag(tag_id)
    vocabulary.add_alias(tag, payload.name)
    return Status(201, _tag(tag_id))


def _tag(tag_id: int) -> Tag:
    tag = Tag.objects.select_related("parent").prefetch_related("aliases").filter(pk=tag_id).first()
    if tag is None:
        raise Tag.DoesNotExist(f"There is no tag {tag_id}.")
    return tag
