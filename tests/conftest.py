"""Shared fixtures. The data folder of the tests is made in `environment.py`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from django.core.cache import cache
from django.db import connections
from hypothesis import settings as hypothesis_settings

from tagging.actions import tags
from tagging.engine import residency, stage, vocabulary

# In CI the same examples each time, so that a failure is of the change; at home new ones, so that they find more.
hypothesis_settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis_settings.register_profile("home", deadline=None)
hypothesis_settings.load_profile("ci" if os.environ.get("CI") else "home")

SAMPLES = Path(__file__).resolve().parent.parent / "samples"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each of these lots is run by one process (`--dist loadgroup`): side by side they fill two cores; two clusters at
    once, or two browsers, would make each other slow."""
    for item in items:
        for name in ("cluster", "browser"):
            if item.get_closest_marker(name):
                item.add_marker(pytest.mark.xdist_group(name))


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings):
    """SQLite in a file, as in real life: in memory, the threads of a live server lock each other's tables."""
    default = connections["default"]
    if default.vendor == "sqlite":
        default.settings_dict["TEST"]["NAME"] = os.path.join(os.environ["IWTAG_DATA_DIR"], "test.sqlite3")


@pytest.fixture(autouse=True)
def _forgetful():
    """What a process remembers of a database (tag ids, stages of recipes, loaded models, the vocabulary) is of no use
    in the next test, whose database ids come again with other meanings."""
    cache.clear()
    residency.MODELS.evict()
    stage.forget()
    vocabulary.forget()
    tags._vocabulary.read_at = 0.0


@pytest.fixture(autouse=True)
def _own_media(settings, tmp_path):
    """Thumbnails, uploads and exports of each test go to its own folder."""
    settings.MEDIA_ROOT = tmp_path / "media"
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.STORAGES = {
        "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }


@pytest.fixture
def samples() -> Path:
    """The folder of sample photographs."""
    return SAMPLES
