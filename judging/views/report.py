"""The report of an experiment as a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from django.http import HttpResponseBase, StreamingHttpResponse
from django.shortcuts import get_object_or_404

from tagging.views.guard import Request, needs

from ..models import Experiment
from ..report import report


@needs("read")
def show(request: Request, pk: int) -> HttpResponseBase:
    """Opened in the browser; with ?download kept as a file."""
    related = ("collection", "created_by", "baseline")
    experiment = get_object_or_404(Experiment.objects.select_related(*related), pk=pk)
    return as_response(report(experiment), f"experiment-{pk}.html", download="download" in request.GET)


def as_response(parts: Iterable[str], name: str, *, download: bool) -> StreamingHttpResponse:
    """A page that may fetch nothing, streamed."""
    response = StreamingHttpResponse(_bytes(parts), content_type="text/html; charset=utf-8")
    kind = "attachment" if download else "inline"
    response["Content-Disposition"] = f'{kind}; filename="{name}"'
    response["Content-Security-Policy"] = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox"
    response["Cache-Control"] = "no-store"
    return response


def _bytes(parts: Iterable[str]) -> Iterator[bytes]:
    for part in parts:
        yield part.encode()
