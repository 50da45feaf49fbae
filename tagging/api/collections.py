"""/api/collections and /api/ingests."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from django.db.models import Q
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from ninja import File, Schema, Status
from ninja.files import UploadedFile
from pydantic import Field

from ..actions import ingest
from ..actions.uploads import add_uploads
from ..models import Collection, ImageAsset, IngestJob, Proposal
from ..queries import review_counts
from .auth import allow
from .errors import Conflict, Problem
from .listing import Cursor, Limit, Listing, by_id
from .router import Router

router = Router(tags=["collections"])
ingests = Router(tags=["collections"])


class CollectionOut(Schema):
    id: int
    slug: str
    name: str
    kind: str
    root: str
    excludes: list[str]
    created_at: datetime
    indexed_at: datetime | None


class CollectionDetail(CollectionOut):
    images: dict[str, int] = Field(description="Present images by review state: unreviewed, skipped, reviewed.")
    unreadable: int = Field(description="Files that cannot be used; each says why in `error`.")
    missing: int = Field(description="Files that were gone at the last look.")
    ingest: IngestOut | None = Field(description="The latest look at its files.")


class CollectionIn(Schema):
    name: str = Field(max_length=120)
    kind: Literal["folder", "upload"] = "folder"
    root: str = Field("", description="Absolute folder on the server, for kind folder.")
    excludes: list[str] = Field([], description='Globs of paths to leave out, e.g. "*/previews/*".')

    model_config = {"extra": "forbid"}


class IngestOut(Schema):
    id: int
    collection: str
    state: str
    seen: int
    total: int | None
    added: int
    changed: int
    moved: int
    unchanged: int
    missing: int
    failed: int
    skipped: int
    rate: float | None = Field(description="Files a second.")
    eta_seconds: float | None
    error: str
    notes: list[str]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @staticmethod
    def resolve_collection(job: IngestJob) -> str:
        return job.collection.slug

    @staticmethod
    def resolve_notes(job: IngestJob) -> list[str]:
        return [str(note) for note in job.notes]

    @staticmethod
    def resolve_eta_seconds(job: IngestJob) -> float | None:
        if job.state != IngestJob.State.RUNNING or not job.rate or job.total is None:
            return None
        return max(0.0, (job.total - job.seen) / job.rate)


class UploadOut(Schema):
    name: str
    state: Literal["stored", "archive", "skipped"]
    path: str = Field(description="Where it lies in the collection; empty when it was skipped or is a zip.")
    message: str


CollectionDetail.model_rebuild()


class CollectionList(Listing[CollectionOut]):
    pass


class IngestList(Listing[IngestOut]):
    pass


def collection_of(slug: str) -> Collection:
    """By its slug. Collection.DoesNotExist (404) names it."""
    found = Collection.objects.filter(slug=slug).first()
    if found is None:
        raise Collection.DoesNotExist(f"There is no collection {slug!r}.")
    return found


@router.get("", response=CollectionList, summary="List collections", operation_id="list_collections")
def list_collections(request: HttpRequest, cursor: Cursor = "", limit: Limit = 50) -> object:
    allow(request, "read")
    return by_id(Collection.objects.all(), cursor, limit, newest_first=False)


@router.post("", response={201: CollectionOut}, summary="Make a collection", operation_id="create_collection")
def create_collection(request: HttpRequest, payload: CollectionIn) -> object:
    """Nothing is read yet: start an ingest, or upload files, next. Needs the role curator."""
    by = allow(request, "curate", "write")
    made = ingest.create_collection(
        name=payload.name, kind=payload.kind, root=payload.root, excludes=payload.excludes, by=by
    )
    return Status(201, made)


@router.get("/{slug}", response=CollectionDetail, summary="One collection", operation_id="get_collection")
def get_collection(request: HttpRequest, slug: str) -> object:
    allow(request, "read")
    collection = collection_of(slug)
    images = ImageAsset.objects.filter(collection=collection)
    failed = Q(state=ImageAsset.State.ERROR) | Q(proposal_state=Proposal.State.ERROR)  # as the partial index has it
    latest = collection.ingest_jobs.select_related("collection").first()
    return {
        **CollectionOut.from_orm(collection).dict(),
        "images": review_counts(collection),
        "unreadable": images.filter(failed, state=ImageAsset.State.ERROR, missing_since=None).count(),
        "missing": images.filter(missing_since__isnull=False).count(),
        "ingest": latest,
    }


@router.post(
    "/{slug}/ingest", response={202: IngestOut}, summary="Look at the files again", operation_id="start_ingest"
)
def start_ingest(request: HttpRequest, slug: str) -> object:
    """Queues an ingest; where one is open already, that one is returned. Needs the role curator."""
    by = allow(request, "curate", "run")
    return Status(202, ingest.start_ingest(collection_of(slug), by=by))


@router.post(
    "/{slug}/uploads",
    response={202: list[UploadOut]},
    summary="Upload pictures or zips",
    operation_id="upload_files",
)
def upload_files(request: HttpRequest, slug: str, files: File[list[UploadedFile]]) -> object:
    """Stores the files and queues their indexing. Files that are no pictures are skipped, with the reason. Needs the
    role curator."""
    by = allow(request, "curate", "write")
    return Status(202, add_uploads(collection_of(slug), files, by))


@router.get("/{slug}/ingests", response=IngestList, summary="Past and open ingests", operation_id="list_ingests")
def list_ingests(request: HttpRequest, slug: str, cursor: Cursor = "", limit: Limit = 20) -> object:
    allow(request, "read")
    return by_id(IngestJob.objects.filter(collection=collection_of(slug)).select_related("collection"), cursor, limit)


@ingests.get("/{job_id}", response=IngestOut, summary="Progress of an ingest", operation_id="get_ingest")
def get_ingest(request: HttpRequest, job_id: int) -> object:
    allow(request, "read")
    return get_object_or_404(IngestJob.objects.select_related("collection"), pk=job_id)


@ingests.post(
    "/{job_id}/cancel", response={200: IngestOut, 409: Problem}, summary="Stop an ingest", operation_id="cancel_ingest"
)
def cancel_ingest(request: HttpRequest, job_id: int) -> object:
    """What it stored so far stays. Needs the role curator."""
    allow(request, "curate", "run")
    job = get_object_or_404(IngestJob.objects.select_related("collection"), pk=job_id)
    if not ingest.cancel_ingest(job):
        raise Conflict("This ingest has ended already.")
    job.refresh_from_db()
    return job
