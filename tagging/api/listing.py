"""Lists in pages: a cursor rather than a page number, so that the last page costs what the first does."""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from ninja import Query, Schema
from pydantic import Field

T = TypeVar("T")
M = TypeVar("M", bound=Model)

Limit = Annotated[int, Query(ge=1, le=500, description="Items on a page.")]
Cursor = Annotated[str, Query(max_length=400, description="next_cursor or prev_cursor of another page.")]


class Listing(Schema, Generic[T]):
    """A page. The cursors are opaque; empty where there is nothing more."""

    items: list[T]
    next_cursor: str = Field("", description="Send it as `cursor` for the next page; empty on the last.")


class TwoWay(Listing[T], Generic[T]):
    prev_cursor: str = Field("", description="The page before; empty on the first.")


def by_id(rows: QuerySet[M], cursor: str, limit: int, *, newest_first: bool = True) -> dict[str, Any]:
    """One page by primary key, as Listing takes it. One query. ValidationError under `cursor`."""
    if cursor:
        if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
            raise ValidationError({"cursor": "This is not a cursor of this list: begin without one."})
        rows = rows.filter(pk__lt=int(cursor)) if newest_first else rows.filter(pk__gt=int(cursor))
    items = list(rows.order_by("-pk" if newest_first else "pk")[: limit + 1])
    more = len(items) > limit
    items = items[:limit]
    return {"items": items, "next_cursor": str(items[-1].pk) if more else ""}
