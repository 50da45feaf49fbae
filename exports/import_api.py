"""/api/imports."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, cast

from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from ninja import File, Form, Schema, Status
from ninja.files import UploadedFile
from pydantic import Field, Json

from tagging.api.auth import allow
from tagging.api.errors import Conflict, Problem
from tagging.api.listing import Cursor, Limit, Listing, by_id
from tagging.api.router import Router
from tagging.models import Collection

from . import imports
from .import_models import ImportJob, ImportRow
from .importers.registry import OPTIONS

router = Router(tags=["imports"])


class SourceOut(Schema):
    source: str
    label: str
    options_schema: dict[str, Any] = Field(description="JSON schema of `options`.")


class ImportIn(Schema):
    collection: str = Field(description="Its slug.")
    source: Literal["sidecars", "embedded", "txt", "csv", "jsonl"]
    target: Literal["truth", "run", "vocabulary"] = Field(
        "truth", description="What it becomes: decisions, a run to compare with, or a word list."
    )
    options: Json[dict[str, Any]] = Field(
        default_factory=dict, description="JSON object, as the source's `options_schema` says."
    )

    model_config = {"extra": "forbid"}


class ApplyIn(Schema):
    overrule: bool = Field(False, description="Bring words back that were rejected here.")
    removals: bool = Field(False, description="Reject words that were taken out in another tool since the export.")
    reviewed: bool = Field(False, description="Mark the images as reviewed.")
    wordlist: str = Field("", description="Slug of the word list, new or not; for the target vocabulary.")

    model_config = {"extra": "forbid"}


class SelectIn(Schema):
    rows: list[int] = Field(max_length=1000, description="Ids of rows.")
    selected: bool

    model_config = {"extra": "forbid"}


class SelectedOut(Schema):
    changed: int


class ImportOut(Schema):
    id: int
    collection: str
    source: str
    target: str
    name: str
    options: dict[str, Any]
    choices: dict[str, Any]
    state: str
    step: str
    n_rows: int
    n_total: int | None
    summary: dict[str, Any] = Field(description="Counts of the preview's rows and words; warnings.")
    result: dict[str, Any] = Field(description="Rows applied and left alone; what an undo took back.")
    batch: str | None = Field(description="Names the decisions it made.")
    run: int | None
    wordlist: str | None
    error: str
    created_at: datetime
    finished_at: datetime | None

    @staticmethod
    def resolve_collection(job: ImportJob) -> str:
        return job.collection.slug

    @staticmethod
    def resolve_batch(job: ImportJob) -> str | None:
        return str(job.batch) if job.batch else None

    @staticmethod
    def resolve_run(job: ImportJob) -> int | None:
        return job.run_id

    @staticmethod
    def resolve_wordlist(job: ImportJob) -> str | None:
        return str(job.wordlist_version) if job.wordlist_version else None


class ImportWordOut(Schema):
    name: str
    ancestors: list[str]
    fate: str = Field(description="new, added, confirmed, there, refused, rejected, removed, undecided or unfit.")
    why: str
    score: float | None


class RowOut(Schema):
    id: int
    number: int = Field(description="Line of the table, or number of the file.")
    key: str = Field(description="What names the image in the source.")
    image: int | None
    path: str
    state: str
    selected: bool
    words: list[ImportWordOut]
    texts: dict[str, list[str]] = Field(description="caption and rating as [before, after].")
    elsewhere: bool = Field(description="Edited by another tool since the export.")
    notes: list[str]
    error: str

    @staticmethod
    def resolve_image(row: ImportRow) -> int | None:
        return row.image_id

    @staticmethod
    def resolve_path(row: ImportRow) -> str:
        return row.image.path if row.image else ""

    @staticmethod
    def resolve_words(row: ImportRow) -> list[dict[str, Any]]:
        return [dict(zip(("name", "ancestors", "fate", "why", "score"), w[:5], strict=True)) for w in row.words]


class ImportList(Listing[ImportOut]):
    pass


class RowList(Listing[RowOut]):
    pass


@router.get("/sources", response=list[SourceOut], summary="Sources and their options", operation_id="list_sources")
def list_sources(request: HttpRequest) -> object:
    allow(request, "read")
    labels = dict(ImportJob.Source.choices)
    return [
        {"source": str(name), "label": labels[name], "options_schema": options.model_json_schema()}
        for name, options in OPTIONS.items()
    ]


@router.get("", response=ImportList, summary="Past and open imports", operation_id="list_imports")
def list_imports(request: HttpRequest, collection: str = "", cursor: Cursor = "", limit: Limit = 50) -> object:
    allow(request, "read")
    return by_id(imports.imports_of(_collection(collection) if collection else None), cursor, limit)


@router.post(
    "", response={202: ImportOut, 422: Problem}, summary="Read a source and compare", operation_id="create_import"
)
def create_import(
    request: HttpRequest,
    payload: Form[ImportIn],
    file: UploadedFile | None = File(None),  # noqa: B008
) -> object:
    """A multipart form. `file` is the table, or a zip of sidecars or text files; without one the collection's own
    folder is read. Nothing is changed before it is applied. Needs the role curator."""
    by = allow(request, "curate", "run")
    job = imports.create_import(
        _collection(payload.collection),
        payload.source,
        target=payload.target,
        options=payload.options,
        file=cast(Any, file),
        name=(file.name or "") if file is not None else "",
        by=by,
    )
    return Status(202, job)


@router.get("/{import_id}", response=ImportOut, summary="One import", operation_id="get_import")
def get_import(request: HttpRequest, import_id: int) -> object:
    allow(request, "read")
    return _job(import_id)


@router.get("/{import_id}/rows", response=RowList, summary="The preview, row by row", operation_id="list_import_rows")
def list_import_rows(
    request: HttpRequest, import_id: int, show: str = "", cursor: Cursor = "", limit: Limit = 50
) -> object:
    """`show` is one of change, same, unmatched, problem, elsewhere, refused, left; empty for all."""
    allow(request, "read")
    return by_id(imports.rows_of(_job(import_id), show), cursor, limit, newest_first=False)


@router.post(
    "/{import_id}/select",
    response={200: SelectedOut, 409: Problem},
    summary="Tick or untick rows",
    operation_id="select_import_rows",
)
def select_import_rows(request: HttpRequest, import_id: int, payload: SelectIn) -> object:
    """What is not selected is not applied. Needs the role curator."""
    allow(request, "curate", "run")
    try:
        return {"changed": imports.select_rows(_job(import_id), payload.rows, selected=payload.selected)}
    except imports.NotNow as e:
        raise Conflict(str(e)) from None


@router.post(
    "/{import_id}/apply",
    response={202: ImportOut, 409: Problem, 422: Problem},
    summary="Apply what the preview shows",
    operation_id="apply_import",
)
def apply_import(request: HttpRequest, import_id: int, payload: ApplyIn) -> object:
    """In the background. Needs the role curator."""
    by = allow(request, "curate", "run")
    job = _job(import_id)
    try:
        imports.apply_import(job, **payload.model_dump(), by=by)
    except imports.NotNow as e:
        raise Conflict(str(e)) from None
    return Status(202, job)


@router.post(
    "/{import_id}/undo",
    response={202: ImportOut, 409: Problem},
    summary="Take an import back",
    operation_id="undo_import",
)
def undo_import(request: HttpRequest, import_id: int) -> object:
    """All that it did, in the background; what somebody decided anew since stays. Needs the role curator."""
    by = allow(request, "curate", "run")
    job = _job(import_id)
    try:
        imports.undo_import(job, by=by)
    except imports.NotNow as e:
        raise Conflict(str(e)) from None
    return Status(202, job)


@router.post(
    "/{import_id}/cancel",
    response={200: ImportOut, 409: Problem},
    summary="Stop an import",
    operation_id="cancel_import",
)
def cancel_import(request: HttpRequest, import_id: int) -> object:
    """What was applied until then can be undone, or gone on with. Needs the role curator."""
    allow(request, "curate", "run")
    job = _job(import_id)
    if not imports.cancel_import(job):
        raise Conflict("This import has ended already.")
    return job


def _job(pk: int) -> ImportJob:
    return get_object_or_404(imports.imports_of(), pk=pk)


def _collection(slug: str) -> Collection:
    found = Collection.objects.filter(slug=slug).first()
    if found is None:
        raise ValidationError({"collection": f"There is no collection {slug!r}."})
    return found
