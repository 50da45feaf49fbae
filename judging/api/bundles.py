"""/api/experiments/{id}/bundle and /api/experiments/import: an experiment as one file, and from one."""

from __future__ import annotations

from collections.abc import Iterator

from django.core.exceptions import ValidationError
from django.http import HttpRequest, StreamingHttpResponse
from ninja import File, Form, Schema, Status
from ninja.files import UploadedFile
from pydantic import Field

from tagging.api.auth import allow

from ..actions.bundles import import_bundle
from ..bundles import lines
from .experiments import ExperimentOut, collection_named, find, router, shown


class ImportedExperimentOut(Schema):
    experiment: ExperimentOut
    images: int
    missing: int = Field(description="Images of the file that are not in the collection.")
    decisions: int = Field(description="Changes that people's decisions in the file made here.")
    kept_decisions: int = Field(description="Decisions of the file that stand otherwise here; those here stay.")


@router.get("/{int:experiment_id}/bundle", response=str, summary="An experiment as a file", operation_id="get_bundle")
def get_bundle(request: HttpRequest, experiment_id: int) -> object:
    """Recipes, answers and decisions as JSON lines, for another installation with the same images. Streamed."""
    allow(request, "read")
    experiment = find(experiment_id)

    def content() -> Iterator[bytes]:
        for line in lines(experiment):
            yield line.encode()

    response = StreamingHttpResponse(content(), content_type="application/x-ndjson; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="experiment-{experiment_id}.jsonl"'
    return response


@router.post(
    "/import", response={201: ImportedExperimentOut}, summary="An experiment from a file", operation_id="import_bundle"
)
def import_experiment(
    request: HttpRequest, file: File[UploadedFile], collection: Form[str], partial: Form[bool] = False
) -> object:
    """A bundle onto the images of a collection with the same content: its leaderboard is the one it had. `partial`:
    compare those that are here where some are not. Needs the role curator."""
    by = allow(request, "curate", "run")
    try:
        text = (line.decode() for line in file)  # a file of uploads comes by lines
        made = import_bundle(text, collection_named(collection), partial=partial, by=by)
    except UnicodeDecodeError:
        raise ValidationError({"file": "This is no text: an experiment's file is JSON lines in UTF-8."}) from None
    return Status(
        201,
        {
            "experiment": shown(find(made.experiment.pk)),
            "images": made.images,
            "missing": made.missing,
            "decisions": made.decisions,
            "kept_decisions": made.kept_decisions,
        },
    )
