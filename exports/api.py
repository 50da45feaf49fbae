"""/api/exports."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.core.files.storage import default_storage
from django.http import FileResponse, Http404, HttpRequest
from django.shortcuts import get_object_or_404
from django.urls import reverse
from ninja import Schema
from pydantic import Field

from tagging.api.auth import allow
from tagging.api.errors import Conflict, Problem
from tagging.api.listing import Cursor, Limit, Listing, by_id
from tagging.api.router import Router
from tagging.models import Collection

from . import actions, in_place
from .api_in_place import router as in_place_router
from .exporters import registry
from .models import ExportJob

router = Router(tags=["exports"])
router.add_router("", in_place_router)
_BYTES = {"type": "string", "format": "binary"}


class FormatOut(Schema):
    format: str
    label: str
    description: str
    in_place: bool = Field(False, description="Written beside the images: a plan with entries, not a file.")
    options_schema: dict[str, Any] = Field(description="JSON schema of `options`.")


class ExportIn(Schema):
    collection: str = Field(description="Its slug.")
    format: str = "csv"
    options: dict[str, Any] = Field({}, description="As the format's `options_schema` says.")
    filter: dict[str, Any] = Field(
        {}, description='Which images, as in the grid\'s address: {"tag": ["dog"], "min_score": 0.5}. Empty means all.'
    )
    dry_run: bool = Field(False, description="Only count: nothing is written. In place: plan, and wait for `apply`.")

    model_config = {"extra": "forbid"}


class PlanOut(Schema):
    images: int
    rows: int
    skipped: int = Field(description="Images of the selection that are left out.")
    warnings: list[str]
    problems: list[str]


class FileOut(Schema):
    name: str
    size: int = Field(description="Bytes.")
    sha256: str
    url: str


class ExportOut(Schema):
    id: int
    collection: str
    format: str
    options: dict[str, Any]
    filter: dict[str, Any]
    state: str
    step: str = Field(description="In place: plan, write (plan, then apply), apply or undo; else empty.")
    summary: dict[str, Any] = Field(description="In place: files and words by kind.")
    n_rows: int
    n_total: int | None
    files: list[FileOut] = Field(description="Empty until the export is done.")
    error: str
    created_at: datetime
    finished_at: datetime | None

    @staticmethod
    def resolve_collection(job: ExportJob) -> str:
        return job.collection.slug

    @staticmethod
    def resolve_files(job: ExportJob) -> list[dict[str, Any]]:
        if job.state != ExportJob.State.DONE or not job.file:
            return []
        url = reverse("api:get_export_files", args=[job.pk])
        return [{"name": job.file.rpartition("/")[2], "size": job.size, "sha256": job.sha256, "url": url}]


class ExportList(Listing[ExportOut]):
    pass


def _jobs() -> Any:
    return ExportJob.objects.select_related("collection")


@router.get("/formats", response=list[FormatOut], summary="Formats and their options", operation_id="list_formats")
def list_formats(request: HttpRequest) -> object:
    allow(request, "read")
    found = [registry.exporter_class(name) for name, _ in registry.choices()]
    beside = [
        {
            "format": name,
            "label": label,
            "description": in_place.described(name),
            "in_place": True,
            "options_schema": in_place.options_of(name).model_json_schema(),
        }
        for name, label in registry.IN_PLACE.items()
    ]
    return beside + [
        {
            "format": one.identifier,
            "label": one.label,
            "description": one.description,
            "options_schema": one.Options.model_json_schema(),
        }
        for one in found
    ]


@router.get("", response=ExportList, summary="Past and open exports", operation_id="list_exports")
def list_exports(request: HttpRequest, collection: str = "", cursor: Cursor = "", limit: Limit = 50) -> object:
    allow(request, "read")
    found = _jobs()
    return by_id(found.filter(collection=_collection(collection)) if collection else found, cursor, limit)


@router.post(
    "",
    response={200: PlanOut, 202: ExportOut, 422: Problem},
    summary="Export in the background, or count",
    operation_id="create_export",
)
def create_export(request: HttpRequest, payload: ExportIn) -> object:
    """Reviewed truth, unless `options.proposed`. With `dry_run` 200 and what would be written; else 202 and the job.
    Formats in place: always 202; with `dry_run` the job ends as `planned` and waits for a look at its entries and
    `apply`. Needs the role curator."""
    in_files = payload.format in registry.IN_PLACE
    by = allow(request, "curate", "read" if payload.dry_run and not in_files else "run")
    collection = _collection(payload.collection)
    if in_files:
        write = not payload.dry_run
        return 202, in_place.create(collection, payload.format, payload.options, payload.filter, write=write, by=by)
    if payload.dry_run:
        exporter = actions.get_exporter(collection, payload.format, payload.options, payload.filter)
        return 200, exporter.plan().as_dict()
    return 202, actions.create_export(collection, payload.format, payload.options, payload.filter, by=by)


@router.get("/{export_id}", response=ExportOut, summary="One export", operation_id="get_export")
def get_export(request: HttpRequest, export_id: int) -> object:
    allow(request, "read")
    return get_object_or_404(_jobs(), pk=export_id)


@router.get(
    "/{export_id}/files",
    response={409: Problem},
    summary="The file of a finished export",
    operation_id="get_export_files",
    url_name="get_export_files",
    openapi_extra={
        "responses": {200: {"description": "The file.", "content": {"application/octet-stream": {"schema": _BYTES}}}}
    },
)
def get_export_files(request: HttpRequest, export_id: int) -> object:
    """The bytes whose sha256 the job names. 409 while it is not done."""
    allow(request, "read")
    job = get_object_or_404(_jobs(), pk=export_id)
    if job.state != ExportJob.State.DONE or not job.file:
        raise Conflict(f"This export is {job.get_state_display()}: it has no file.")
    try:
        stored = default_storage.open(job.file, "rb")
    except OSError:
        raise Http404("The file of this export is gone; export again.") from None
    return FileResponse(stored, as_attachment=True, filename=job.file.rpartition("/")[2])


@router.post(
    "/{export_id}/cancel",
    response={200: ExportOut, 409: Problem},
    summary="Stop an export",
    operation_id="cancel_export",
)
def cancel_export(request: HttpRequest, export_id: int) -> object:
    """Its file never appears. Needs the role curator."""
    allow(request, "curate", "run")
    job = get_object_or_404(_jobs(), pk=export_id)
    if not actions.cancel_export(job):
        raise Conflict("This export has ended already.")
    return job


def _collection(slug: str) -> Collection:
    found = Collection.objects.filter(slug=slug).first()
    if found is None:
        raise ValidationError({"collection": f"There is no collection {slug!r}."})
    return found
