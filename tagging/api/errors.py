"""Every error as {"detail": "…", "field": "…"}: `field` names the input that was wrong, where one was."""

from __future__ import annotations

import logging
from typing import Any

from django.conf import settings
from django.core.exceptions import (
    ObjectDoesNotExist,
    PermissionDenied,
    RequestDataTooBig,
    TooManyFieldsSent,
    TooManyFilesSent,
)
from django.core.exceptions import ValidationError as Invalid
from django.db import DataError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from ninja import NinjaAPI, Schema
from ninja.errors import AuthenticationError, HttpError, ValidationError

from ..actions.review import NothingToUndo

log = logging.getLogger(__name__)


class Problem(Schema):
    """What went wrong. `field` names the input, `errors` lists all findings where there are several."""

    detail: str
    field: str | None = None
    errors: dict[str, list[str]] | None = None


class Conflict(Exception):
    """409: the thing is not in a state that allows this. The text can be shown."""


def install(api: NinjaAPI) -> None:
    def answer(request: HttpRequest, status: int, detail: str, **more: Any) -> HttpResponse:
        return api.create_response(request, {"detail": detail, **more}, status=status)

    @api.exception_handler(ValidationError)
    def malformed(request: HttpRequest, e: ValidationError) -> HttpResponse:
        found: dict[str, list[str]] = {}
        for error in e.errors:
            found.setdefault(_field(error["loc"]), []).append(_message(error))
        return several(request, found)

    def several(request: HttpRequest, found: dict[str, list[str]]) -> HttpResponse:
        field, messages = next(iter(found.items()))
        more: dict[str, Any] = {"field": field} if field else {}
        if len(found) > 1 or len(messages) > 1:
            more["errors"] = found
        return answer(request, 422, messages[0], **more)

    @api.exception_handler(Invalid)
    def invalid(request: HttpRequest, e: Invalid) -> HttpResponse:
        found = e.message_dict if hasattr(e, "error_dict") else {"": e.messages}
        return several(request, {"" if k == "__all__" else k: v for k, v in found.items()})

    @api.exception_handler(AuthenticationError)
    def stranger(request: HttpRequest, e: AuthenticationError) -> HttpResponse:
        given = bool(request.headers.get("X-API-Key"))
        detail = str(e) if given else "Sign in, or send an API key in the header X-API-Key."
        return answer(request, 401, detail)

    @api.exception_handler(PermissionDenied)
    def denied(request: HttpRequest, e: PermissionDenied) -> HttpResponse:
        return answer(request, 403, str(e) or "Not allowed.")

    @api.exception_handler(Http404)
    @api.exception_handler(ObjectDoesNotExist)
    def missing(request: HttpRequest, e: Exception) -> HttpResponse:
        return answer(request, 404, _not_found(e))

    @api.exception_handler(NothingToUndo)
    @api.exception_handler(Conflict)
    def conflict(request: HttpRequest, e: Exception) -> HttpResponse:
        return answer(request, 409, str(e))

    @api.exception_handler(RequestDataTooBig)
    @api.exception_handler(TooManyFilesSent)
    @api.exception_handler(TooManyFieldsSent)
    def too_big(request: HttpRequest, e: Exception) -> HttpResponse:
        return answer(request, 413, "The request is too large: send fewer files or a smaller body.")

    @api.exception_handler(HttpError)
    def http(request: HttpRequest, e: HttpError) -> HttpResponse:
        return answer(request, e.status_code, str(e))

    @api.exception_handler(DataError)
    def unfit(request: HttpRequest, e: DataError) -> HttpResponse:
        log.exception("the database cannot keep what %s %s sent", request.method, request.path)
        return answer(request, 422, "A text or number is too long, or holds characters that cannot be kept (NUL).")

    @api.exception_handler(OperationalError)
    def busy(request: HttpRequest, e: OperationalError) -> HttpResponse:
        log.exception("the database refused %s %s", request.method, request.path)
        return answer(request, 503, "The database is busy or cannot be reached: try again.")

    @api.exception_handler(Exception)
    def failed(request: HttpRequest, e: Exception) -> HttpResponse:
        if settings.DEBUG:
            raise e
        log.exception("%s %s failed", request.method, request.path)
        return answer(request, 500, "Something went wrong here; the log of the server says what.")


def _field(loc: Any) -> str:
    """pydantic's location as the name that was sent: ("body", "payload", "accept", 0) → "accept.0". Ninja puts the
    name of the parameter of our function between, which the caller never saw."""
    where, *rest = loc
    if where == "body" and len(rest) > 1:
        rest = rest[1:]
    elif where == "body":
        return ""
    return ".".join(str(part) for part in rest)


def _message(error: dict[str, Any]) -> str:
    text = str(error.get("msg", "wrong"))
    if (
        len(error["loc"]) == 2
        and error["loc"][0] == "body"
        and error.get("type") in ("missing", "model_attributes_type")
    ):
        return "The body must be a JSON object."
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!")) else ".")


def _not_found(e: Exception) -> str:
    """Http404 and DoesNotExist speak of classes and queries; what is wanted is the thing."""
    text = str(e)
    if text and "matching query" not in text and "matches the given query" not in text:
        return text
    return "There is no such thing here."
