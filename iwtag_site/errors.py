"""Addresses that lead nowhere: a page for people, JSON for programs."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.views.defaults import page_not_found


def not_found(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """The site's 404. Under /api/ it looks like every other error there, also where no operation has the address
    (/api/images/abc)."""
    if request.path_info.startswith("/api/"):
        return JsonResponse({"detail": "There is nothing at this address; /api/docs lists what there is."}, status=404)
    return page_not_found(request, exception)
