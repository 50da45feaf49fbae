"""Who may open a page."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, cast
from urllib.parse import urlsplit

from django.contrib.auth.models import User
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotAllowed
from django_htmx.middleware import HtmxDetails

from ..actions.access import Verb, may

P = ParamSpec("P")

REFUSALS = {
    "read": "Your account has no role yet. An administrator can make you a viewer or a reviewer.",
    "review": "Deciding on tags takes the role of a reviewer. An administrator can give it to you.",
    "curate": "This takes the role of a curator. An administrator can give it to you.",
    "administer": "This takes the role of an administrator.",
}


class Request(HttpRequest):
    """What a guarded view receives."""

    htmx: HtmxDetails
    user: User


def needs(
    verb: Verb, *methods: str
) -> Callable[[Callable[Concatenate[Request, P], HttpResponseBase]], Callable[..., HttpResponseBase]]:
    """Let in only people who may do `verb`, with one of `methods` (GET and HEAD unless named).

    Strangers are sent to the sign-in page; a script's request gets 401 and, from htmx, a redirect of the whole page.
    PermissionDenied (a readable 403) for people without the role.
    """
    allowed = methods or ("GET", "HEAD")

    def decorate(view: Callable[Concatenate[Request, P], HttpResponseBase]) -> Callable[..., HttpResponseBase]:
        @wraps(view)
        def guarded(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            if not request.user.is_authenticated:
                return _sign_in(cast(Request, request))
            if not may(request.user, verb):
                raise PermissionDenied(REFUSALS[verb])
            if request.method not in allowed:
                return HttpResponseNotAllowed(allowed)
            return view(cast(Request, request), *args, **kwargs)

        return guarded

    return decorate


def _sign_in(request: Request) -> HttpResponseBase:
    if not request.htmx and "text/html" in request.headers.get("Accept", "text/html"):
        return redirect_to_login(request.get_full_path())
    response = HttpResponse("Sign in first.", status=401, content_type="text/plain")
    if request.htmx:
        at = urlsplit(request.htmx.current_url or "/")
        response["HX-Redirect"] = redirect_to_login(f"{at.path}?{at.query}" if at.query else at.path).url
    return response
