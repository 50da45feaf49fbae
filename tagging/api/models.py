"""/api/models: what is loaded, on this machine, worth a download, and on its way."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from ninja import Schema, Status
from pydantic import Field

from ..actions import downloads
from ..actions import models as actions
from ..actions.runs import NotNow
from ..adapters import known, scan
from ..models import ModelAdapter, ModelDownload
from .auth import allow
from .errors import Conflict, Problem
from .listing import Cursor, Limit, Listing, by_id
from .router import Router

router = Router(tags=["models"])


class LoadedOut(Schema):
    """A model in the memory of a worker."""

    slug: str = Field(description="The adapter, see /api/adapters.")
    key: str = Field(description="Hash of all that its loading depends on: device, revision, quantization, options.")
    host: str
    queue: str
    place: str = Field(description="cuda:0, cpu, …; empty for a remote endpoint.")
    provider: str
    load_seconds: float
    in_use: bool
    leaving: bool = Field(description="Somebody asked for it to be unloaded.")


class GuessOut(Schema):
    kind: str
    label: str
    reason: str
    certainty: int = Field(description="0 to 100; the list is in this order.")


class FoundOut(Schema):
    """A model on disk."""

    name: str
    source: str = Field(description="What an adapter's `source` would be.")
    bytes: int
    guesses: list[GuessOut] = Field(description="Adapters that would serve it, the surest first.")
    note: str
    adapter: str | None = Field(description="slug of the configured model that uses it.")
    hub: bool = Field(description="It is in the hub's cache.")
    revision: str = Field(description="Of a hub model, the commit.")
    refs: list[str] = Field(description="Names that point to that commit.")
    partial: bool = Field(description="A download was begun and has not ended.")


class DiskOut(Schema):
    found: list[FoundOut]
    problems: list[str] = Field(description="Folders that could not be read.")
    folders: list[str]
    cache: str


class SuggestionOut(Schema):
    kind: str
    source: str
    bytes: int = Field(description="About so much is downloaded.")
    licence: str
    note: str
    gated: bool


class AddIn(Schema):
    kind: str
    source: str = Field(max_length=400)
    revision: str = Field("", max_length=80)
    label: str = Field("", max_length=120)
    options: dict[str, Any] = {}

    model_config = {"extra": "forbid"}


class AddedOut(Schema):
    slug: str
    label: str
    kind: str
    source: str
    revision: str


class UnloadIn(Schema):
    slugs: list[str] | None = Field(None, description="Adapters; all where it is left out.")

    model_config = {"extra": "forbid"}


class UnloadOut(Schema):
    workers: int = Field(description="How many workers were asked; each obeys once nothing uses the model.")


class DownloadOut(Schema):
    id: int
    source: str
    revision: str
    kind: str
    folder: str
    state: str
    phase: str
    bytes_done: int
    bytes_total: int | None
    rate: float | None = Field(description="Bytes a second.")
    seconds_left: float | None
    commit: str
    path: str
    error: str
    adapter: str | None = Field(description="slug of the model that it became.")
    created_at: datetime
    finished_at: datetime | None

    @staticmethod
    def resolve_adapter(row: ModelDownload) -> str | None:
        return row.adapter.slug if row.adapter else None


class DownloadList(Listing[DownloadOut]):
    pass


class DownloadIn(Schema):
    source: str = Field(max_length=200, description="Hub id: owner/name.")
    kind: str = Field(description="The adapter it is for: it says which files come.")
    revision: str = Field("", max_length=80, description="Branch, tag or commit; the newest when left out.")
    folder: str = Field("", description="One of IWTAG_MODELS_DIRS; the hub's cache when left out.")
    configure: bool = Field(True, description="Make a model of it once it is here.")

    model_config = {"extra": "forbid"}


# -- memory ------------------------------------------------------------------------------------------------------------
@router.get("/loaded", response=list[LoadedOut], summary="Models in memory", operation_id="list_loaded_models")
def list_loaded(request: HttpRequest) -> object:
    """As the workers' last signs of life say."""
    allow(request, "read")
    return actions.loaded()


@router.post("/unload", response=UnloadOut, summary="Free the memory of models", operation_id="unload_models")
def unload(request: HttpRequest, payload: UnloadIn) -> object:
    """Obeyed within about two seconds once nothing uses the model. Needs the role curator."""
    allow(request, "curate", "run")
    return {"workers": actions.unload(payload.slugs)}


# -- disk --------------------------------------------------------------------------------------------------------------
@router.get("/found", response=DiskOut, summary="Models on this machine", operation_id="list_found_models")
def list_found(request: HttpRequest) -> object:
    """In IWTAG_MODELS_DIRS and the hub's cache, each with the adapter that it looks like and why."""
    allow(request, "curate", "read")
    rows = {row.source: row.slug for row in ModelAdapter.objects.exclude(source="").order_by("-pk")}
    scanned = scan.scan(settings.IWTAG_MODELS_DIRS)
    cached = [_found(c.found, rows, c) for c in scan.hub_cache()]
    return {
        "found": [*(_found(f, rows) for f in scanned.found), *cached],
        "problems": scanned.problems,
        "folders": [str(p) for p in settings.IWTAG_MODELS_DIRS],
        "cache": str(scan.cache_folder()),
    }


def _found(found: scan.Found, rows: dict[str, str], cached: scan.Cached | None = None) -> dict[str, Any]:
    return {
        "name": found.name,
        "source": found.source,
        "bytes": found.bytes,
        "guesses": [
            {"kind": o.kind, "label": o.label, "reason": o.guess.reason, "certainty": o.guess.certainty}
            for o in found.offers
        ],
        "note": found.note,
        "adapter": rows.get(found.source) or rows.get(found.name),
        "hub": cached is not None,
        "revision": cached.revision if cached else "",
        "refs": list(cached.refs) if cached else [],
        "partial": cached.partial if cached else False,
    }


@router.post("/add", response={201: AddedOut}, summary="Configure a model that is here", operation_id="add_model")
def add(request: HttpRequest, payload: AddIn) -> object:
    """The row there is, where kind, source and revision are the same. Needs the role administrator."""
    by = allow(request, "administer", "write")
    row = actions.configure(
        payload.kind,
        payload.source,
        label=payload.label,
        revision=payload.revision,
        options=payload.options,
        by=by,
    )
    return Status(201, row)


@router.get("/suggested", response=list[SuggestionOut], summary="Models to try", operation_id="list_suggested_models")
def list_suggested(request: HttpRequest) -> object:
    """Models of the hub that are worth a first try, with about how much has to be downloaded, and the licence."""
    allow(request, "read")
    names = SuggestionOut.model_fields
    return [{name: getattr(s, name) for name in names} for s in known.SUGGESTED]


# -- downloads ---------------------------------------------------------------------------------------------------------
@router.get("/downloads", response=DownloadList, summary="List downloads", operation_id="list_downloads")
def list_downloads(request: HttpRequest, cursor: Cursor = "", limit: Limit = 50) -> object:
    allow(request, "read")
    return by_id(ModelDownload.objects.select_related("adapter"), cursor, limit)


@router.post("/downloads", response={201: DownloadOut}, summary="Download a model", operation_id="start_download")
def start_download(request: HttpRequest, payload: DownloadIn) -> object:
    """In the background; the open download where the same is under way. Needs the role administrator."""
    by = allow(request, "administer", "write")
    return Status(201, downloads.start_download(**payload.dict(), by=by))


@router.get("/downloads/{int:download_id}", response=DownloadOut, summary="One download", operation_id="get_download")
def get_download(request: HttpRequest, download_id: int) -> object:
    allow(request, "read")
    return _download(download_id)


@router.post(
    "/downloads/{int:download_id}/cancel",
    response={200: DownloadOut, 409: Problem},
    summary="Cancel a download",
    operation_id="cancel_download",
)
def cancel_download(request: HttpRequest, download_id: int) -> object:
    """What came is kept, and used when it goes on. Needs the role administrator."""
    allow(request, "administer", "write")
    return _told(download_id, downloads.cancel_download)


@router.post(
    "/downloads/{int:download_id}/resume",
    response={200: DownloadOut, 409: Problem},
    summary="Go on with a download",
    operation_id="resume_download",
)
def resume_download(request: HttpRequest, download_id: int) -> object:
    """One that failed or was cancelled. Needs the role administrator."""
    allow(request, "administer", "write")
    return _told(download_id, downloads.resume_download)


def _told(download_id: int, act: Any) -> ModelDownload:
    row = _download(download_id)
    try:
        act(row)
    except NotNow as e:
        raise Conflict(str(e)) from None
    return row


def _download(pk: int) -> ModelDownload:
    row = ModelDownload.objects.select_related("adapter").filter(pk=pk).first()
    if row is None:
        raise ModelDownload.DoesNotExist(f"There is no download {pk}.")
    return row
