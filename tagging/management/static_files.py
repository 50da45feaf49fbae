"""Collecting static files only when they changed: an unchanged start costs a look at their names, sizes and dates."""

from __future__ import annotations

import hashlib
from pathlib import Path

import django
from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command

STAMP = ".collected"


def fingerprint() -> str:
    """sha256 (hex) of the names, sizes and dates of all static files, and of what decides how they are stored."""
    lines = [django.__version__, str(settings.STORAGES["staticfiles"])]
    for finder in get_finders():
        for name, storage in finder.list([]):
            stat = Path(storage.path(name)).stat()
            lines.append(f"{name} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def collect() -> bool:
    """Bring STATIC_ROOT up to date. True when there was something to do."""
    stamp, found = Path(settings.STATIC_ROOT) / STAMP, fingerprint()
    try:
        if stamp.read_text() == found:
            return False
    except OSError:
        pass
    call_command("collectstatic", interactive=False, verbosity=0)
    stamp.write_text(found)
    return True
