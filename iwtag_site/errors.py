"""Addresses that lead nowhere: a page for people, JSON for programs."""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.db import DataError
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.views.defaults import bad_request, page_not_found

log = logging.getLogger(__name__)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """The site's 404. Under /api/ it looks like every other error there, also where no operation has the address
    (/api/images/abc)."""
    if request.path_info.startswith("/api/"):
        return JsonResponse({"detail": "There is nothing at this address; /api/docs lists what there is."}, status=404)
    return page_not_found(request, exception)


class Unfit:
    """What a database cannot keep, sent to a page, is the sender's mistake: 400, not 500. PostgreSQL refuses NUL,
    numbers out of range and texts that are too long; SQLite whole numbers of more than 64 bits."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        if not isinstance(exception, DataError) and "SQLite INTEGER" not in str(exception):
            return None
        log.exception("the database cannot keep what %s %s sent", request.method, request.path)
        return bad_request(request, exception)
