"""Who calls: a key in X-API-Key, or the session of the browser (with CSRF token for everything that changes)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from ninja.errors import AuthenticationError
from ninja.security import APIKeyHeader, SessionAuth

from ..actions import keys
from ..actions.access import Verb, may

Scope = Literal["read", "write", "run"]


@dataclass(frozen=True, slots=True)
class Caller:
    """`scopes` are those of the key; None for a session, which may all that its user may."""

    user: User
    scopes: frozenset[str] | None = None


class KeyAuth(APIKeyHeader):
    """Hashed API keys, made with `manage.py create_api_key` or in the admin."""

    param_name = "X-API-Key"

    def authenticate(self, request: HttpRequest, key: str | None) -> Caller | None:
        if not key:
            return None
        found = keys.find_key(key)
        if found is None:  # a wrong key must not fall through to a session
            raise AuthenticationError(message="This API key is wrong, revoked, or its owner is not active.")
        return Caller(found.owner, frozenset(found.scopes))


class BrowserAuth(SessionAuth):
    """The browser's session; requests that change something need the CSRF token."""

    def __call__(self, request: HttpRequest) -> Any | None:
        # strangers get 401; only then is a missing token the thing to complain about
        return super().__call__(request) if request.user.is_authenticated else None

    def authenticate(self, request: HttpRequest, key: str | None) -> Caller | None:
        return Caller(cast(User, request.user))


AUTH = [KeyAuth(), BrowserAuth()]


def allow(request: HttpRequest, verb: Verb, scope: Scope = "read") -> User:
    """The caller, who may do `verb` and whose key, if it is one, has `scope`. PermissionDenied (403) otherwise."""
    caller: Caller = request.auth  # type: ignore[attr-defined]
    if caller.scopes is not None and scope not in caller.scopes:
        raise PermissionDenied(f"This API key has no scope {scope!r}.")
    if not may(caller.user, verb):
        role = {"read": "viewer", "review": "reviewer", "curate": "curator", "administer": "administrator"}[verb]
        raise PermissionDenied(f"{caller.user.get_username()} needs the role {role} (or one above it) for this.")
    return caller.user
