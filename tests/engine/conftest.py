"""The fake model, known to this process; installations on each database and broker."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tagging.adapters import registry
from tests.fakes.adapter import Fake, install

from .installation import Installation, postgres_database, redis_database


@pytest.fixture
def fake(tmp_path, monkeypatch) -> Iterator[type[Fake]]:
    """The adapter "fake", found through its entry point."""
    monkeypatch.setattr(sys, "path", [str(install(tmp_path / "site")), *sys.path])
    registry.registered.cache_clear()
    Fake.loaded.clear()
    yield Fake
    Fake.loaded.clear()
    registry.registered.cache_clear()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory) -> Path:
    """An empty, migrated SQLite database to copy."""
    site = Installation(tmp_path_factory.mktemp("sqlite"))
    site.python("manage.py", "migrate", "-v0")
    site.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    return site.folder / "data" / "db.sqlite3"


@pytest.fixture(scope="session")
def migrated_postgres(tmp_path_factory) -> Iterator[str]:
    """The name of an empty, migrated PostgreSQL database to copy."""
    with postgres_database() as database:
        Installation(tmp_path_factory.mktemp("postgres"), database).python("manage.py", "migrate", "-v0")
        yield database.rsplit("/", 1)[1]


@pytest.fixture
def sqlite(tmp_path, migrated) -> Iterator[Installation]:
    installation = Installation(tmp_path, migrated=migrated)
    yield installation
    installation.close()


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgres", marks=pytest.mark.postgres),
        pytest.param("redis", marks=[pytest.mark.postgres, pytest.mark.redis]),
    ]
)
def installation(request, tmp_path) -> Iterator[Installation]:
    """SQLite, PostgreSQL with the queue in the database, PostgreSQL with the queue in Redis."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite")
        return
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(postgres_database(request.getfixturevalue("migrated_postgres")))
        broker = stack.enter_context(redis_database()) if request.param == "redis" else ""
        installation = Installation(tmp_path, database, broker)
        stack.callback(installation.close)
        yield installation
