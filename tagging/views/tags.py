"""The vocabulary by use: of one collection, or of all."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from django.core.exceptions import ValidationError
from django.db.models import F, Q, QuerySet, Sum
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render

from ..models import Collection, Tag, TagCount
from ..policy.text import tag_key
from .guard import Request, needs

SIZE = 100
_TOTAL = F("proposed") + F("accepted") + F("added")


@dataclass
class Row:
    """A tag with its numbers of images by state, and where they are."""

    id: int
    name: str
    category: str
    key: str
    n: int
    proposed: int
    accepted: int
    added: int
    rejected: int
    places: list[tuple[Collection, int]] = field(default_factory=list)


@needs("read")
def tags(request: Request) -> HttpResponse:
    """Tags in force, most used first; `collection`, `category` and `q` (text in the name) narrow them."""
    slug = request.GET.get("collection", "")
    collection = get_object_or_404(Collection, slug=slug) if slug else None
    q, category = request.GET.get("q", "").strip()[:200], request.GET.get("category", "").strip()[:40]
    try:
        rows, cursor = _page(_counted(collection, q, category), request.GET.get("cursor", ""))
    except ValidationError as e:
        return render(request, "tagging/bad_request.html", {"text": f"cursor: {' '.join(e.messages)}"}, status=400)
    if collection is None:
        _place(rows)
    given = [(name, value) for name, value in (("collection", slug), ("q", q), ("category", category)) if value]
    context = {
        "rows": rows,
        "most": max((row.n for row in rows), default=1),
        "collection": collection,
        "collections": list(Collection.objects.all()),
        "categories": list(Tag.objects.order_by("category").values_list("category", flat=True).distinct()),
        "q": q,
        "category": category,
        "first": not request.GET.get("cursor"),
        "start": urlencode(given),
        "next": urlencode([*given, ("cursor", cursor)]) if cursor else "",
    }
    return render(request, "tagging/tags.html", context)


def _counted(collection: Collection | None, q: str, category: str) -> QuerySet[TagCount, Any]:
    """One row per tag with its sums, most used first, then by name."""
    counts = TagCount.objects.all() if collection is None else TagCount.objects.filter(collection=collection)
    if key := tag_key(q):
        counts = counts.filter(tag__key__contains=key)
    if category:
        counts = counts.filter(tag__category=category)
    sums = counts.values("tag_id", "tag__name", "tag__category", "tag__key").annotate(
        n=Sum(_TOTAL), p=Sum("proposed"), c=Sum("accepted"), a=Sum("added"), r=Sum("rejected")
    )
    return sums.filter(n__gt=0).order_by("-n", "tag__key")


def _page(counted: QuerySet[TagCount, Any], cursor: str) -> tuple[list[Row], str]:
    """The rows after the cursor, and the cursor after them (empty at the end)."""
    if cursor:
        n, key = _decode(cursor)
        counted = counted.filter(Q(n__lt=n) | Q(n=n, tag__key__gt=key))
    found = [
        Row(d["tag_id"], d["tag__name"], d["tag__category"], d["tag__key"], *(d[name] for name in "npcar"))
        for d in counted[: SIZE + 1]
    ]
    rows = found[:SIZE]
    return rows, _encode(rows[-1]) if len(found) > SIZE else ""


def _encode(row: Row) -> str:
    return base64.urlsafe_b64encode(json.dumps([row.n, row.key]).encode()).decode()


def _decode(cursor: str) -> tuple[int, str]:
    try:
        n, key = json.loads(base64.urlsafe_b64decode(cursor))
        if type(n) is not int or type(key) is not str or not 0 <= n < 2**63 or "\0" in key:
            raise ValueError(cursor)
    except (ValueError, TypeError):
        raise ValidationError("This is not a cursor of this list: begin without one.") from None
    return n, key


def _place(rows: list[Row]) -> None:
    """In which collections each tag is: one query for the page."""
    places: dict[int, list[tuple[Collection, int]]] = defaultdict(list)
    counts = TagCount.objects.filter(tag_id__in=[row.id for row in rows]).annotate(n=_TOTAL).filter(n__gt=0)
    for count in counts.select_related("collection").order_by("-n"):
        places[count.tag_id].append((count.collection, count.n))
    for row in rows:
        row.places = places[row.id]
