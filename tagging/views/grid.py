"""The grid of a collection: filters in the address, keyset pages, and decisions on many images at once."""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.db.models import F
from django.http import HttpResponse, HttpResponseRedirect
from django.middleware.csrf import get_token
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils.html import format_html

from .. import queue
from ..actions.access import may
from ..actions.review import NothingToUndo, undo
from ..filters import ImageFilter
from ..models import Collection, ImageAsset, Run, TagCount, TagEdit
from ..queries import Page, count_upto, filtered, page
from .bulk import Bulk
from .cells import cells
from .filters import SORTS, words
from .guard import Request, needs

SIZE = 60
FACETS = 40
RUNS = 20  # in the filter's list
COUNT_TO = 20_000
UNDO_AT_ONCE = 20_000  # more edits than these are undone by a worker
FACET_SECONDS = 10


@needs("read")
def grid(request: Request, slug: str) -> HttpResponse:
    """A page of the collection's images that the filter lets through.

    `part` in the address asks for a piece of it: "cells" the next pictures (endless scrolling), "count" how many
    match, "panel" the fields of the filter.
    """
    collection = get_object_or_404(Collection, slug=slug)
    try:
        f = ImageFilter.parse(request.GET)
        if request.GET.get("part") == "count":
            return _count(collection, f)
        found = page(filtered(collection, f), request.GET.get("cursor", ""), SIZE)
    except ValidationError as e:
        return refused(request, e, collection)
    context = {
        "collection": collection,
        "f": f,
        "query": f.query_string(),
        "items": found.items,
        "cells": cells(found.items, f),
        **_pages(f, found),
    }
    if request.GET.get("part") == "cells":
        return render(request, "tagging/grid.html#more", context)
    context |= {
        "words": words(f),
        "review_tabs": _review_tabs(f),
        "facets": facets(collection, f),
        "may_review": may(request.user, "review"),
        "may_curate": may(request.user, "curate"),
        "first": not request.GET.get("cursor"),
    }
    if "panel" in request.GET.getlist("part"):
        context |= panel(collection, f)
        if request.htmx:
            return render(request, "tagging/grid.html#panel", context)
    return render(request, "tagging/grid.html", context)


def refused(request: Request, error: ValidationError, collection: Collection) -> HttpResponse:
    """Bad input in the address: 400 that names the parameter."""
    found = error.message_dict if hasattr(error, "error_dict") else {"": error.messages}
    text = " ".join(f"{name}: {' '.join(lines)}" if name else " ".join(lines) for name, lines in found.items())
    context = {"text": text, "back": collection.get_absolute_url()}
    return render(request, "tagging/bad_request.html", context, status=400)


def _pages(f: ImageFilter, found: Page) -> dict[str, str]:
    def link(cursor: str, **more: Any) -> str:
        return "?" + urlencode([*f.params(), ("cursor", cursor), *more.items()]) if cursor else ""

    return {
        "next": link(found.next_cursor),
        "prev": link(found.prev_cursor),
        "more_cells": link(found.next_cursor, part="cells"),
    }


def _review_tabs(f: ImageFilter) -> list[tuple[str, str, bool]]:
    """(label, query string, whether it is on) of each review state, the other filters kept."""
    sort = "" if f.sort == "queue" else f.sort
    tabs = [("all", f.query_string(review="", sort=sort), not f.review)]
    tabs += [(label, f.query_string(review=value), f.review == value) for value, label in ImageAsset.Review.choices]
    return tabs


def _count(collection: Collection, f: ImageFilter) -> HttpResponse:
    """How many match, and the run that is tagging them, if one is: asked for after the page is there."""
    n = count_upto(filtered(collection, f), COUNT_TO)
    text = f"more than {COUNT_TO:,} images" if n > COUNT_TO else f"{n:,} image{'' if n == 1 else 's'}"
    run = Run.objects.listed().filter(state=Run.State.RUNNING, collection=collection).order_by("-id").first()
    if run is None:
        return HttpResponse(text)
    return HttpResponse(format_html('{} · <a href="{}">being tagged</a>', text, run.get_absolute_url()))


def facets(collection: Collection, f: ImageFilter) -> list[dict[str, Any]]:
    """The collection's commonest tags with the address that adds each to the filter. From the counters, kept for some
    seconds: they are the same for every page of a visit."""
    key = facet_key(collection)
    rows: list[tuple[str, int]] | None = cache.get(key)
    if rows is None:
        total = F("proposed") + F("accepted") + F("added")
        counted = TagCount.objects.filter(collection=collection).annotate(n=total).filter(n__gt=0)
        rows = list(counted.order_by("-n", "tag__key").values_list("tag__name", "n")[:FACETS])
        cache.set(key, rows, FACET_SECONDS)
    others = f.params(tag=())

    def toggled(name: str) -> str:
        tags = [t for t in f.tag if t != name] if name in f.tag else [*f.tag, name]
        return urlencode([*(("tag", t) for t in tags), *others])

    return [{"name": name, "n": n, "on": name in f.tag, "query": toggled(name)} for name, n in rows]


def facet_key(collection: Collection) -> str:
    return f"facets:{collection.pk}"


def panel(collection: Collection, f: ImageFilter) -> dict[str, Any]:
    """What the filter's fields offer: the collection's runs and the ratings in use. A handful of queries, on demand."""
    runs = list(Run.objects.listed().filter(collection=collection).only("name").order_by("-id")[:RUNS])
    if f.run is not None and f.run not in {run.pk for run in runs}:
        runs += Run.objects.filter(pk=f.run).only("name")
    return {
        "panel": True,
        "sorts": SORTS,
        "review_states": ImageAsset.Review.choices,
        "runs": runs,
        "ratings": ratings(collection),
    }


def ratings(collection: Collection, most: int = 12) -> list[str]:
    """Ratings in use, by hops through their index: one short query each, however many images there are."""
    found: list[str] = []
    rated = ImageAsset.objects.filter(collection=collection).exclude(rating="").order_by("rating")
    while len(found) < most:
        after = rated.filter(rating__gt=found[-1]) if found else rated
        rating = after.values_list("rating", flat=True).first()
        if rating is None:
            break
        found.append(rating)
    return found


# -- many at once ------------------------------------------------------------------------------------------------------
@needs("review", "POST")
def bulk(request: Request, slug: str) -> HttpResponse:
    """First POST: the page that shows what would be changed. With `confirmed`: it is done."""
    collection = get_object_or_404(Collection, slug=slug)
    try:
        asked = Bulk.parse(collection, request.POST)
        if "confirmed" not in request.POST:
            return render(request, "tagging/bulk_confirm.html", {"collection": collection, "bulk": asked})
        done = asked.run(request.user)
    except ValidationError as e:
        return refused(request, e, collection)
    cache.delete(facet_key(collection))
    if done is None:
        batch_page = reverse("tagging:bulk_status", args=[slug, asked.batch])
        messages.info(request, f"{asked.count:,} images are being changed in the background.")
        return HttpResponseRedirect(batch_page)
    if done.batch is None:
        messages.info(request, "Nothing to change: all of these were decided that way already.")
    else:
        text = f"{asked.done_text}: {done.images:,} image{'' if done.images == 1 else 's'} changed."
        messages.success(request, with_undo(request, collection, done.batch, text, asked.back))
    return HttpResponseRedirect(asked.back)


def with_undo(request: Request, collection: Collection, batch: uuid.UUID, text: str, back: str) -> str:
    """A message with an Undo button, which works without scripts."""
    return format_html(
        '{} <form class="inline" method="post" action="{}"><input type="hidden" name="csrfmiddlewaretoken" value="{}">'
        '<input type="hidden" name="back" value="{}"><button class="btn btn-small">Undo</button></form>',
        text,
        reverse("tagging:bulk_undo", args=[collection.slug, batch]),
        get_token(request),
        back,
    )


@needs("review", "POST")
def bulk_undo(request: Request, slug: str, batch: uuid.UUID) -> HttpResponse:
    """Take a bulk decision back; what somebody decided since stays."""
    collection = get_object_or_404(Collection, slug=slug)
    back = request.POST.get("back", "")
    if not back.startswith(collection.get_absolute_url()):
        back = collection.get_absolute_url()
    if TagEdit.objects.filter(batch=batch).exclude(image__collection=collection).exists():
        messages.error(request, "That decision belongs to another collection.")
        return HttpResponseRedirect(back)
    if TagEdit.objects.filter(batch=batch)[: UNDO_AT_ONCE + 1].count() > UNDO_AT_ONCE:
        queue.defer("tagging.tasks.undo", str(batch), request.user.pk)
        messages.info(request, "So many changes are undone in the background; the numbers follow as it goes.")
        return HttpResponseRedirect(back)
    try:
        undone = undo(batch, by=request.user)
    except NothingToUndo as e:
        messages.warning(request, str(e))
        return HttpResponseRedirect(back)
    cache.delete(facet_key(collection))
    n = len(undone.image_ids)
    text = f"Undone on {n:,} image{'' if n == 1 else 's'}."
    if undone.skipped:
        text += f" {len(undone.skipped):,} were decided again since and stay as they are."
    messages.success(request, text)
    return HttpResponseRedirect(back)


@needs("review")
def bulk_status(request: Request, slug: str, batch: uuid.UUID) -> HttpResponse:
    """A bulk decision that runs in the background: how much of it is written, and its Undo."""
    collection = get_object_or_404(Collection, slug=slug)
    edits = TagEdit.objects.filter(batch=batch)
    context = {
        "collection": collection,
        "batch": batch,
        "n": edits.count(),
        "newest": edits.order_by("-pk").first(),
        "back": collection.get_absolute_url(),
    }
    return render(request, "tagging/bulk_status.html" + ("#status" if request.htmx else ""), context)
