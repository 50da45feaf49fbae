"""What a collection does by itself: its state, its settings, and "now"."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render

from .. import watching
from ..actions import runs
from ..actions import watch as actions
from ..models import Collection, Label, Watch
from .guard import Request, needs
from .home import served, workers

STEPS = {"look": "Look for new files", "tag": "Tag what is new"}
CHECKS = ("paused", "look", "tag")
NUMBERS = ("interval_seconds", "settle_seconds")


@needs("curate", "GET", "HEAD", "POST")
def watch(request: Request, slug: str) -> HttpResponse:
    """The form and the state; POST saves, `do=now` has a worker do it all now, `do=redraw` draws another format's
    options."""
    collection = get_object_or_404(Collection, slug=slug)
    row = actions.watch_of(collection)
    if request.method != "POST":
        return _page(request, row, {})
    if request.POST.get("do") == "now":
        return _now(request, row)
    errors: dict[str, list[str]] = {}
    if request.POST.get("do") != "redraw":
        try:
            actions.configure(collection, _given(request, row), by=request.user)
        except ValidationError as e:
            errors = e.message_dict
        else:
            messages.success(request, "Saved.")
            return redirect("tagging:watch", slug)
    return _page(request, row, errors)


def _now(request: Request, row: Watch) -> HttpResponse:
    try:
        if row.pk is None:
            raise runs.NotNow("Save the settings first.")
        actions.look_now(row)
    except runs.NotNow as e:
        messages.warning(request, str(e))
    else:
        messages.success(request, "A worker does it now.")
    return redirect("tagging:watch", row.collection.slug)


def _given(request: Request, row: Watch) -> dict[str, Any]:
    """What was posted, as `configure` takes it. ValidationError keyed by "<step>.<setting>"."""
    given: dict[str, Any] = {name: name in request.POST for name in CHECKS}
    given["recipe"] = request.POST.get("recipe", "")
    for name in NUMBERS:
        text = request.POST.get(name, "").strip()
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise ValidationError({name: "Enter a whole number."})
        given[name] = int(text)
    for name, step in watching.steps().items():
        try:
            given[name] = step.form(row, request.POST).settings()
        except ValidationError as e:
            raise ValidationError({f"{name}.{field}": lines for field, lines in e.message_dict.items()}) from None
    return given


def _page(request: Request, row: Watch, errors: dict[str, list[str]]) -> HttpResponse:
    steps = watching.steps()
    posted = request.POST if request.method == "POST" else None
    values = {name: posted.get(name, "") if posted is not None else getattr(row, name) for name in (*NUMBERS, "recipe")}
    checks = {name: name in posted if posted is not None else getattr(row, name) for name in CHECKS}
    forms = []
    for name, step in steps.items():
        own = {key.partition(".")[2]: lines for key, lines in errors.items() if key.partition(".")[0] == name}
        forms.append((step.legend, step.form(row, posted).render(own)))
    titles = {**STEPS, **{name: step.label for name, step in steps.items()}}
    context = {
        "watch": row,
        "collection": row.collection,
        "values": {**values, **checks},
        "errors": errors,
        "step_errors": [line for key, lines in errors.items() if "." in key for line in lines],
        "forms": forms,
        "results": [(titles[name], row.result(name)) for name in titles if row.result(name)],
        "enabled": [titles[name] for name in row.enabled if name in titles],
        "labels": Label.objects.select_related("adapter").order_by("name")[:100],
        "unattended": row.active and not served(workers(), "default"),
    }
    return render(request, "tagging/watch.html", context, status=422 if errors else 200)
