"""Exports beside the images in the browser: ask, look at every word, untick, write, take back."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render

from tagging.actions.access import may
from tagging.views.guard import Request, needs

from . import actions, changes, in_place
from .exporters import registry
from .forms_in_place import NewInPlace
from .models import ExportEntry, ExportJob

PAGE = 40
#: Kinds offered as filters, in this order, each only where there is one.
BEFORE = ("added", "removed", "withheld", "texts", "create", "update", "refused", "noted", "unticked")
AFTER = ("done", "skipped", "failed", "refused", "undone", "stuck", "added", "removed", "withheld", "texts", "unticked")


@needs("curate", "GET", "HEAD", "POST")
def new(request: Request) -> HttpResponse:
    """The form. Posting makes a plan, which writes nothing."""
    form = NewInPlace(request.POST if request.method == "POST" else request.GET, bound=request.method == "POST")
    if request.method == "POST" and form.is_valid():
        try:
            return redirect("exports:job", form.start(by=request.user).pk)
        except ValidationError:
            pass  # the form says it
    return render(request, "exports/new_in_place.html", {"form": form}, status=422 if form.bound else 200)


@needs("read")
def job(request: Request, pk: int) -> HttpResponse:
    """The plan with its words while it waits, progress while it works, the result afterwards."""
    found = _job(pk)
    if not found.step:
        return redirect("exports:jobs")
    live = found.state in actions.OPEN
    if request.htmx and request.GET.get("poll"):
        if not live:
            response = HttpResponse()
            response["HX-Refresh"] = "true"
            return response
        return render(request, "exports/job.html#progress", {"job": found, "live": True, **_rights(request)})
    kind, after = request.GET.get("kind", ""), request.GET.get("after", "0")
    if not (after.isascii() and after.isdigit() and len(after) < 19):
        return _bad(request, f"after: {after[:40]!r} is not a file's number.")
    try:
        entries = list(in_place.entries_of(found, kind).filter(pk__gt=int(after))[: PAGE + 1])
    except ValidationError as e:
        return _bad(request, " ".join(e.messages))
    planned = found.state == ExportJob.State.PLANNED
    root = f"{found.collection.root}/"
    context = {
        "job": found,
        "live": live,
        "planned": planned,
        "title": registry.IN_PLACE.get(found.format, found.format),
        "rows": [_row(entry, root) for entry in entries[:PAGE]],
        "more": entries[PAGE - 1].pk if len(entries) > PAGE else None,
        "after": int(after),
        "kind": kind,
        "kind_label": in_place.KINDS[kind][0] if kind else "",
        "kinds": _kinds(found, BEFORE if planned else AFTER),
        "unwritten": 0 if live or planned else found.summary.get("ticked", 0) + found.summary.get("failed", 0),
        "recipes": in_place.recipes_in_force(found) if found.summary.get("done") and not live else [],
        **_rights(request),
    }
    return render(request, "exports/job.html", context)


@needs("curate", "POST")
def tick(request: Request, pk: int) -> HttpResponse:
    """Tick or untick one file (`entry`), or all of a kind; answers with the bar at the bottom."""
    found = _job(pk)
    selected = request.POST.get("selected", "") in ("on", "true", "1")
    entry, kind = request.POST.get("entry", ""), request.POST.get("kind", "")
    try:
        ids = [int(entry)] if entry.isascii() and entry.isdigit() and len(entry) < 19 else None
        in_place.select(found, selected, ids=ids, kind=kind)
    except (in_place.NotNow, ValidationError) as e:
        messages.error(request, " ".join(e.messages) if isinstance(e, ValidationError) else str(e))
        if request.htmx:
            response = HttpResponse()
            response["HX-Refresh"] = "true"
            return response
    if request.htmx:
        return render(request, "exports/job.html#bar", {"job": found, "planned": True, **_rights(request)})
    return redirect(f"{request.path.removesuffix('tick/')}{'?kind=' + kind if kind else ''}")


@needs("curate", "POST")
def apply(request: Request, pk: int) -> HttpResponse:
    """Write what is ticked."""
    return _do(request, pk, in_place.apply)


@needs("curate", "POST")
def undo(request: Request, pk: int) -> HttpResponse:
    """Take all back, one file (`entry`), or what one `recipe` proposed: here, or in every export (`everywhere`)."""
    entry, recipe = request.POST.get("entry", ""), request.POST.get("recipe", "")
    if recipe:
        return _undo_recipe(request, pk, _number(recipe, "recipe"))
    if not entry:
        return _do(request, pk, in_place.undo)
    number = _number(entry, "file")

    def one(found: ExportJob) -> None:
        undone, problems = in_place.undo_entries(found, [number])
        for line in problems:
            messages.error(request, line)
        if undone:
            messages.success(request, "The file is as it was before.")

    return _do(request, pk, one)


def _undo_recipe(request: Request, pk: int, recipe: int) -> HttpResponse:
    def of_recipe(found: ExportJob) -> None:
        if not request.POST.get("everywhere"):
            in_place.undo(found, recipe=recipe)
            return
        jobs = in_place.undo_recipe(recipe)
        messages.success(request, f"A worker takes it back in {len(jobs):,} export{'s' if len(jobs) != 1 else ''}.")

    return _do(request, pk, of_recipe)


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Http404(f"There is no such {what}.")
    return int(text)


def _do(request: Request, pk: int, verb: Callable[[ExportJob], Any]) -> HttpResponse:
    try:
        verb(_job(pk))
    except in_place.NotNow as e:
        messages.error(request, str(e))
    return redirect("exports:job", pk)


def _job(pk: int) -> ExportJob:
    return get_object_or_404(ExportJob.objects.select_related("collection", "created_by"), pk=pk)


def _rights(request: Request) -> dict[str, bool]:
    return {"may_curate": may(request.user, "curate")}


def _row(entry: ExportEntry, root: str) -> dict[str, Any]:
    """What one file's card shows: its words in groups of one kind and reason."""
    words = changes.words(entry.fields)
    groups = [
        {"kind": kind, "why": why, "words": list(found)}
        for (kind, why), found in groupby(
            sorted(words, key=lambda w: (_order(w.kind), w.why)), lambda w: (w.kind, w.why)
        )
    ]
    folder, _, name = entry.target.removeprefix(root).rpartition("/")
    return {"entry": entry, "folder": folder, "name": name, "groups": groups, "texts": changes.texts(entry.fields)}


def _order(kind: str) -> int:
    return ("added", "removed", "withheld", "kept").index(kind)


def _kinds(found: ExportJob, names: tuple[str, ...]) -> list[tuple[str, str, int]]:
    """(name, label, files) of the kinds there are."""
    return [(name, in_place.KINDS[name][0], n) for name in names if (n := found.summary.get(name, 0))]


def _bad(request: Request, text: str) -> HttpResponse:
    return render(request, "tagging/bad_request.html", {"text": text}, status=400)
