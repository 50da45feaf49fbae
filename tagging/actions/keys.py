"""Keys for the API: made once, shown once, kept as a hash."""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
from collections.abc import Iterable, Mapping
from datetime import timedelta

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from ..models import ApiKey
from .access import Verb, may

log = logging.getLogger(__name__)

#: What the owner of a key must be able to do for the key to carry the scope.
SCOPE_VERBS: Mapping[str, Verb] = {"read": "read", "write": "review", "run": "curate"}
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # no look-alikes: people read prefixes aloud
_TOUCH = timedelta(minutes=1)


def create_key(owner: AbstractBaseUser, name: str, scopes: Iterable[str]) -> tuple[ApiKey, str]:
    """A new key of that person; the second value is the key itself, which cannot be had again.

    ValidationError keyed by name or scopes: taken or empty names, unknown scopes, more than the owner may do.
    """
    name = " ".join(name.split())
    if not name or len(name) > 80:
        raise ValidationError({"name": "Give the key a name of at most 80 characters."})
    wanted = list(dict.fromkeys(scopes))
    if not wanted or (unknown := [s for s in wanted if s not in ApiKey.SCOPES]):
        found = f"{', '.join(map(repr, unknown))} unknown; " if wanted else ""
        raise ValidationError({"scopes": f"{found}choose among {', '.join(ApiKey.SCOPES)}."})
    if beyond := [s for s in wanted if not may(owner, SCOPE_VERBS[s])]:
        raise ValidationError({"scopes": f"{owner} has no role that allows {', '.join(beyond)}: a key never may more."})
    prefix = "iwt" + "".join(secrets.choice(_ALPHABET) for _ in range(9))
    text = f"{prefix}.{secrets.token_urlsafe(32)}"
    key = ApiKey(owner_id=owner.pk, name=name, prefix=prefix, hash=_digest(text), scopes=wanted)
    try:
        with transaction.atomic():
            key.save()
    except IntegrityError:
        raise ValidationError({"name": f"{owner} already has a key named {name!r}."}) from None
    log.info("API key %s (%s…) made for %s: %s", name, prefix, owner, ", ".join(wanted))
    return key, text


def find_key(text: str) -> ApiKey | None:
    """The key that was given, with its owner, if it is right, not revoked, and its owner active. One query."""
    prefix = text.partition(".")[0]
    key = ApiKey.objects.select_related("owner").filter(prefix=prefix).first() if prefix.isascii() else None
    # the digest is compared even without a row, so that a wrong prefix takes no less time
    right = hmac.compare_digest(key.hash if key else "0" * 64, _digest(text))
    if key is None or not right or key.revoked_at or not key.owner.is_active:
        return None
    _touch(key)
    return key


def revoke(key: ApiKey) -> bool:
    """The key is of no use from now on. False when it already was."""
    return bool(ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=timezone.now()))


def _touch(key: ApiKey) -> None:
    """Note the use, at most once a minute: a read must not wait for the database's one writer each time."""
    now = timezone.now()
    if key.last_used_at is None or key.last_used_at < now - _TOUCH:
        stale = Q(last_used_at=None) | Q(last_used_at__lt=now - _TOUCH)
        ApiKey.objects.filter(stale, pk=key.pk).update(last_used_at=now)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
