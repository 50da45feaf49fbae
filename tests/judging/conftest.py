"""The fake model, known to this process."""

from __future__ import annotations

import pytest

from tagging.adapters import registry
from tagging.engine import residency
from tagging.models import ModelAdapter


@pytest.fixture
def fake(db, monkeypatch):
    """The row of the fake model; every batch is written at once."""
    monkeypatch.setattr("tagging.engine.work.FLUSH", 0.0)
    monkeypatch.setitem(registry.BUILT_IN, "fake", ("Fake", "tests.fakes.adapter:Fake"))
    registry.registered.cache_clear()
    yield ModelAdapter.objects.create(slug="fake", label="Fake", kind="fake")
    registry.registered.cache_clear()
    residency.MODELS.evict()
