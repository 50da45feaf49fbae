"""Exports in the browser: a download at once, or a job whose file waits on the page of past exports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.core.files.storage import default_storage
from django.http import FileResponse, Http404, HttpResponse, HttpResponseBase, QueryDict, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.http import content_disposition_header

from tagging.actions.access import may
from tagging.filters import ImageFilter
from tagging.forms import SchemaForm
from tagging.models import Collection
from tagging.views.filters import words
from tagging.views.guard import Request, needs

from . import actions
from .exporters import registry
from .exporters.base import Exporter, ExportError
from .forms import NewExport
from .models import ExportJob

PAGE = 30


# -- past and running exports -----------------------------------------------------------------------------------------
@needs("read")
def jobs(request: Request) -> HttpResponse:
    """All exports, newest first; polled while one moves."""
    slug, before = request.GET.get("collection", ""), request.GET.get("before", "")
    collection = get_object_or_404(Collection, slug=slug) if slug else None
    found = actions.exports_of(collection)
    if before:
        if not (before.isascii() and before.isdigit() and len(before) < 19):
            return _bad(request, f"before: {before[:40]!r} is not an export's number.")
        found = found.filter(pk__lt=int(before))
    page = list(found[: PAGE + 1])
    rows = [(job, _described(job)) for job in page[:PAGE]]
    context = {
        "rows": rows,
        "live": any(job.state in actions.OPEN for job, _ in rows),
        "more": rows[-1][0].pk if len(page) > PAGE else None,
        "first": not before,
        "here": request.GET.urlencode(),
        "collection": collection,
        "may_curate": may(request.user, "curate"),
        "folders": collection is None or collection.kind == Collection.Kind.FOLDER,
    }
    return render(request, "exports/jobs.html" + ("#rows" if request.htmx else ""), context)


def _described(job: ExportJob) -> list[str]:
    """What was asked for, where it differs from the defaults, in a few words."""
    found = [registry.IN_PLACE.get(job.format) or registry.registered().get(job.format, (job.format, ""))[0]]
    for name, value in job.options.items():
        if value is True:
            found.append(name.replace("_", " "))
        elif value and name not in ("tags_as",):
            found.append(f"{name.replace('_', ' ')} {value}")
    try:
        found += [word.text for word in words(ImageFilter.parse(job.filter))]
    except ValidationError:
        found.append("a filter that is no longer understood")
    return found


@needs("curate", "POST")
def act(request: Request, pk: int, verb: str) -> HttpResponse:
    """Cancel or delete an export."""
    job = get_object_or_404(ExportJob, pk=pk)
    if verb == "cancel":
        if not actions.cancel_export(job):
            messages.info(request, "This export had ended already.")
        if job.step and request.POST.get("back"):
            return redirect("exports:job", job.pk)
    elif verb == "delete":
        try:
            actions.delete_export(job)
        except ExportError as e:
            messages.error(request, str(e))
    else:
        raise Http404(f"Exports know cancel and delete, not {verb}.")
    return redirect("exports:jobs")


@needs("read")
def download(request: Request, pk: int) -> HttpResponseBase:
    """The file of a finished export."""
    job = get_object_or_404(ExportJob.objects.select_related("collection"), pk=pk)
    if job.state != ExportJob.State.DONE or not job.file:
        raise Http404("This export has no file.")
    try:
        stored = default_storage.open(job.file, "rb")
    except OSError:
        raise Http404("The file of this export is gone; export again.") from None
    response = FileResponse(stored, as_attachment=True, filename=job.file.rpartition("/")[2])
    response["ETag"] = f'"{job.sha256}"'
    return response


# -- a new one --------------------------------------------------------------------------------------------------------
@needs("curate", "GET", "HEAD", "POST")
def new(request: Request) -> HttpResponse:
    """The form. It counts first, then downloads at once or leaves the work to the queue."""
    form = NewExport(request.POST if request.method == "POST" else request.GET, bound=request.method == "POST")
    plan = None
    if request.method == "POST" and form.is_valid():
        verb = request.POST.get("do", "start")
        try:
            if verb == "download" and form.exporter:
                return redirect(
                    f"{reverse('exports:stream', args=[form.chosen.slug, form.format])}?{form.query_string()}"
                )
            if verb == "start":
                form.start(by=request.user)
                return redirect("exports:jobs")
            plan = form.exporter.plan() if form.exporter else None
        except ValidationError as e:
            form.refuse(e)
    status = 200 if request.method != "POST" or plan else 422
    context = {"form": form, "plan": plan}
    return render(request, "exports/new.html", context, status=status)


@needs("curate")
def stream(request: Request, slug: str, format: str) -> HttpResponseBase:
    """The file at once, as a stream. The address takes the grid's filter, and options as `options-NAME`."""
    collection = get_object_or_404(Collection, slug=slug)
    if format not in registry.registered():
        raise Http404(f"There is no export format {format!r}.")
    try:
        exporter = _exporter(collection, format, request.GET)
    except ValidationError as e:
        return _bad(request, " ".join(f"{k}: {' '.join(v)}" for k, v in e.message_dict.items()))
    if refusals := exporter.refusals():
        return _bad(request, " ".join(refusals))
    response = StreamingHttpResponse(_pieces(exporter), content_type=exporter.content_type)
    response["Content-Disposition"] = content_disposition_header(True, exporter.file_name) or "attachment"
    response["Cache-Control"] = "no-store"
    response["X-Accel-Buffering"] = "no"
    return response


def _exporter(collection: Collection, format: str, query: QueryDict) -> Exporter[Any]:
    given = query.copy()
    options = SchemaForm(registry.exporter_class(format).Options, data=query)
    for name in [name for name in given if name.startswith(options.prefix)]:
        if name.removeprefix(options.prefix) not in options.properties:
            raise ValidationError({name: "There is no such option."})
        del given[name]
    if not options.is_valid():
        raise ValidationError({name or "options": lines for name, lines in options.errors.items()})
    return actions.get_exporter(collection, format, options.cleaned, given)


def _pieces(exporter: Exporter[Any]) -> Iterator[bytes]:
    """The stream. What fails in the middle breaks the connection off, so that a cut file is not taken for a whole."""
    yield from exporter.stream()


def _bad(request: Request, text: str) -> HttpResponse:
    return render(request, "tagging/bad_request.html", {"text": text}, status=400)
