"""/api/experiments/{id}/report: one HTML file about an experiment."""

from __future__ import annotations

from django.http import HttpRequest

from tagging.api.auth import allow

from ..report import report
from ..views.report import as_response
from .experiments import find, router


@router.get(
    "/{int:experiment_id}/report",
    response=str,
    summary="Report as one HTML file",
    operation_id="get_experiment_report",
)
def get_experiment_report(request: HttpRequest, experiment_id: int) -> object:
    """Question, setup of every recipe, leaderboard with intervals, curves, pictures that changed, an excerpt of the
    matrix, judges' badges. Pictures are inside; the file fetches nothing. Streamed."""
    allow(request, "read")
    return as_response(report(find(experiment_id)), f"experiment-{experiment_id}.html", download=True)
