"""Who works on a job: a row with `owner`, `token` and `lease_until`, taken by compare-and-set, every write fenced.

The token rises whenever the row changes hands or a person pauses, cancels or starts it anew: a process that slept
through its lease finds that nothing it writes is written any more. Chunks of runs have leases of their own
(`leases.py`): there the database's clock counts, as many hosts work on one run; a job's lease is long, and an owner
that died on this host is known without it.
"""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from django.db import DatabaseError, connection
from django.db.models import F, Model, QuerySet
from django.utils import timezone

from .owners import owner_alive, owner_id


class Leased(Protocol):
    """What every such row has. `state` beside it where the row is one job, and not a thing looked after for ever."""

    pk: Any
    owner: str
    token: int
    lease_until: datetime | None


Row = TypeVar("Row", bound=Model)


def alive(row: Leased, now: datetime | None = None) -> bool:
    """Does somebody who lives work on it? A process of another host lives as long as its lease."""
    if not row.owner or row.lease_until is None or row.lease_until <= (now or timezone.now()):
        return False
    return owner_alive(row.owner) is not False


def ours(row: Row, **also: Any) -> QuerySet[Row]:
    """The row as long as nobody else took it: what is updated through it is fenced. `also`: further conditions, such as
    the state it has to be in."""
    token = row.token  # type: ignore[attr-defined]
    return type(row)._default_manager.filter(pk=row.pk, token=token, **also)


def take(row: Row, lease: timedelta, *, where: dict[str, Any] | None = None, **values: Any) -> bool:
    """Make it this process's, and write `values` with it; False where another was quicker or `where` does not hold.

    What `row` holds follows, plain values only: expressions are known to the database alone.
    """
    until = timezone.now() + lease
    mine = {**values, "owner": owner_id(), "lease_until": until}
    if not ours(row, **(where or {})).update(**mine, token=F("token") + 1):
        return False
    row.token += 1  # type: ignore[attr-defined]
    for name, value in mine.items():
        if not hasattr(value, "resolve_expression"):
            setattr(row, name, value)
    return True


def let_go(held: QuerySet[Any]) -> None:
    """Give the row back after a database error, so that another may take it at once; where the database stays away, the
    lease runs out by itself. `held`: the row as `ours` finds it."""
    if not connection.in_atomic_block:
        connection.close_if_unusable_or_obsolete()
    with contextlib.suppress(DatabaseError):
        held.update(owner="", lease_until=None)
