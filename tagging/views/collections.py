"""Making collections, uploading to them, and watching them being indexed."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django_htmx.http import HttpResponseStopPolling

from ..actions import ingest as actions
from ..actions.access import may
from ..actions.uploads import Upload, add_uploads
from ..models import Collection, ImageAsset, IngestJob
from .guard import Request, needs
from .home import served, workers

PROBLEMS = 50  # unreadable files listed on the status page
TALLIES = (
    ("added", "new"),
    ("changed", "changed"),
    ("moved", "moved"),
    ("unchanged", "unchanged"),
    ("missing", "gone"),
    ("failed", "unreadable"),
    ("skipped", "left out"),
)


class Lines(forms.CharField):
    """A list of strings, one a line."""

    widget = forms.Textarea(attrs={"rows": 3, "spellcheck": "false", "class": "code"})

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        return [line.strip() for line in (value or "").splitlines() if line.strip()]


class NewCollection(forms.Form):
    """What a collection needs; the action has the last word."""

    name = forms.CharField(max_length=120)
    kind = forms.ChoiceField(choices=Collection.Kind.choices, initial=Collection.Kind.FOLDER)
    root = forms.CharField(max_length=1000, required=False)
    excludes = Lines(required=False)

    def values(self) -> dict[str, Any]:
        """What was asked for; the folder's fields say nothing about uploads."""
        asked = dict(self.cleaned_data)
        return asked if asked["kind"] == Collection.Kind.FOLDER else {**asked, "root": "", "excludes": []}


class Settings(forms.ModelForm):
    excludes = Lines(required=False)

    class Meta:
        model = Collection
        fields = ("name", "excludes")

    def clean_name(self) -> str:
        name = " ".join(self.cleaned_data["name"].split())
        if Collection.objects.filter(name__iexact=name).exclude(pk=self.instance.pk).exists():
            raise ValidationError(f"There is a collection named {name!r} already.")
        return name

    def clean_excludes(self) -> list[str]:
        try:
            return actions.check_excludes(self.cleaned_data["excludes"])
        except ValidationError as e:
            raise ValidationError(e.messages) from None


@needs("curate", "GET", "HEAD", "POST")
def new(request: Request) -> HttpResponse:
    """A folder on this machine is indexed at once; an empty collection goes on to the upload page."""
    form = NewCollection(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            collection = actions.create_collection(**form.values(), by=request.user)
        except ValidationError as e:
            _refuse(form, e)
        else:
            if collection.kind == Collection.Kind.UPLOAD:
                return redirect("tagging:upload", collection.slug)
            actions.start_ingest(collection, by=request.user)
            return redirect("tagging:ingest_status", collection.slug)
    return render(request, "tagging/collection_new.html", {"form": form}, status=422 if form.errors else 200)


@needs("curate", "GET", "HEAD", "POST")
def edit(request: Request, slug: str) -> HttpResponse:
    """Name and excluded paths. The folder stays: another folder is another collection."""
    collection = get_object_or_404(Collection, slug=slug)
    form = Settings(request.POST or None, instance=collection)
    if request.method == "POST" and form.is_valid():
        form.save()
        messages.success(request, "Saved. Excluded paths are obeyed at the next indexing.")
        return redirect(collection)
    context = {"form": form, "collection": Collection.objects.get(pk=collection.pk)}
    return render(request, "tagging/collection_edit.html", context, status=422 if form.errors else 200)


def _refuse(form: forms.Form, error: ValidationError) -> None:
    """Put an action's refusal beside the fields it names."""
    if not hasattr(error, "error_dict"):
        form.add_error(None, error)
        return
    for name, errors in error.error_dict.items():
        form.add_error(name if name in form.fields else None, ValidationError(errors))


# -- uploads -----------------------------------------------------------------------------------------------------------
@needs("curate", "GET", "HEAD", "POST")
def upload(request: Request, slug: str) -> HttpResponse:
    """Many files or a zip. A script asks for JSON and sends the files in portions; a plain form gets a page."""
    collection = get_object_or_404(Collection, slug=slug)
    if collection.kind != Collection.Kind.UPLOAD:
        messages.warning(request, f"{collection} is a folder on this machine: put files there and index it again.")
        return redirect("tagging:ingest_status", collection.slug)
    if request.method != "POST":
        return render(request, "tagging/upload.html", {"collection": collection})
    files = request.FILES.getlist("files")
    error, results = "", list[Upload]()
    if not files:
        error = "files: Choose at least one file."
    else:
        try:
            results = add_uploads(collection, files, request.user)
        except ValidationError as e:
            error = " ".join(e.messages)
    refused = [{"name": r.name, "error": r.message} for r in results if r.state == "skipped"]
    stored = len(results) - len(refused)
    if request.accepts("text/html"):
        if error:
            context = {"collection": collection, "error": error}
            return render(request, "tagging/upload.html", context, status=422)
        for one in refused[:20]:
            messages.error(request, f"{one['name']}: {one['error']}")
        messages.success(request, f"{stored} file{'' if stored == 1 else 's'} received.")
        return redirect("tagging:ingest_status", collection.slug)
    if error:
        return JsonResponse({"error": error}, status=422)
    next_page = reverse("tagging:ingest_status", args=[collection.slug])
    return JsonResponse({"stored": stored, "refused": refused, "next": next_page})


# -- indexing ----------------------------------------------------------------------------------------------------------
@needs("curate", "POST")
def ingest(request: Request, slug: str) -> HttpResponse:
    """Index the collection again, or (verb=cancel) stop the open job."""
    collection = get_object_or_404(Collection, slug=slug)
    if request.POST.get("verb") == "cancel":
        stopped = [actions.cancel_ingest(job) for job in collection.ingest_jobs.filter(state__in=IngestJob.OPEN)]
        if any(stopped):
            messages.success(request, "Cancelled. What was found so far stays.")
        else:
            messages.info(request, "Nothing is being indexed any more.")
    else:
        actions.start_ingest(collection, by=request.user)
    return HttpResponseRedirect(reverse("tagging:ingest_status", args=[slug]))


@needs("read")
def ingest_status(request: Request, slug: str) -> HttpResponse:
    """How far the newest look at the files is, what came of it, and what could not be read."""
    collection = get_object_or_404(Collection, slug=slug)
    jobs = collection.ingest_jobs.order_by("-id")
    # several may wait (a zip, then a look at the folder): the one that works, else the next in line, else the last
    waiting = jobs.filter(state__in=IngestJob.OPEN).order_by("-state", "id")
    job = waiting.first() or jobs.first()
    is_open = job is not None and job.state in IngestJob.OPEN
    unattended = job is not None and job.state == IngestJob.State.QUEUED and not served(workers(), "default")
    context: dict[str, Any] = {
        "collection": collection,
        "job": job,
        "open": is_open,
        "left": _left(job) if job else None,
        "unattended": unattended,
        "tallies": [(label, getattr(job, name), name) for name, label in TALLIES] if job else [],
        "may_curate": may(request.user, "curate"),
    }
    if not is_open:
        broken = collection.images.filter(state=ImageAsset.State.ERROR).order_by("id")[: PROBLEMS + 1]
        context["broken"] = list(broken)
        context["problems"] = PROBLEMS
        context["readable"] = collection.images.usable().exists()
    if not request.htmx:
        return render(request, "tagging/ingest_status.html", context)
    response = render(request, "tagging/ingest_status.html#job", context)
    return response if is_open else HttpResponseStopPolling(response.content)


def _left(job: IngestJob) -> float | None:
    """Seconds until the job ends at its present rate."""
    return (job.total - job.seen) / job.rate if job.total and job.rate and job.total >= job.seen else None
