"""The scripted judge, known to this process."""

from __future__ import annotations

import sys

import pytest

from tagging.adapters import registry
from tests.fakes.judge import Scripted, install


@pytest.fixture(autouse=True)
def scripted(tmp_path, monkeypatch):
    """The adapter "scripted", found through its entry point."""
    monkeypatch.setattr(sys, "path", [str(install(tmp_path / "site")), *sys.path])
    registry.registered.cache_clear()
    Scripted.asked.clear()
    yield Scripted
    Scripted.asked.clear()
    registry.registered.cache_clear()
