"""The fake model, known to this process; installations on each database and broker."""

from __future__ import annotations

import sys
from collections.abc import Iterator

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


@pytest.fixture
def sqlite(tmp_path) -> Iterator[Installation]:
    installation = Installation(tmp_path)
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
    with postgres_database() as database:
        if request.param == "postgres":
            installation = Installation(tmp_path, database)
            yield installation
            installation.close()
            return
        with redis_database() as broker:
            installation = Installation(tmp_path, database, broker)
            yield installation
            installation.close()
