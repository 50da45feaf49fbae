"""The web process stays light: no model library is imported before a worker needs one."""

from __future__ import annotations

import json
import os
import subprocess
import sys

HEAVY = ("torch", "transformers", "onnxruntime", "openai", "rawpy", "cv2")

SCRIPT = """
import json, os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "iwtag_site.settings"
import django
django.setup()
from django.core.management import call_command
from django.urls import get_resolver, reverse
get_resolver().url_patterns                    # all views and the API
from django.contrib import admin
admin.autodiscover()
from django.core.handlers.wsgi import WSGIHandler
import iwtag_site.wsgi
call_command("check")
from tagging.adapters import registry
from tagging.adapters.base import AdapterConfig
shown = 0
for key in registry.registered():              # what forms and the API draw
    found = registry.adapter_class(key)
    found.Options.model_json_schema()
    found.capabilities.as_dict()
    registry.build(key, AdapterConfig()).check()
    shown += 1
from iwtag_site.api import api
paths = len(api.get_openapi_schema()["paths"])
print(json.dumps({"heavy": [m for m in %r if m in sys.modules], "adapters": shown, "paths": paths}))
"""


def test_nothing_heavy_is_imported_by_the_web_process(tmp_path):
    environment = {**os.environ, "IWTAG_DATA_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT % (HEAVY,)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["heavy"] == []
    assert found["adapters"] >= 2
    assert found["paths"] > 20


WALK = """
import json, os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "iwtag_site.settings"
import django
django.setup()
from django.conf import settings
settings.ALLOWED_HOSTS = ["testserver"]
settings.STORAGES["staticfiles"]["BACKEND"] = "django.contrib.staticfiles.storage.StaticFilesStorage"
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.urls import get_resolver
call_command("migrate", verbosity=0)
from tagging import queue
queue.kick = lambda *a, **k: None
from tagging.adapters import registry
from tagging.models import Collection, ModelAdapter
from prompts.actions import create_prompt, create_version
create_version(create_prompt(slug="p"), template="What is it?", message="first")
Collection.objects.create(name="Trip", slug="trip", kind="upload")
kinds = [key for key in registry.registered() if "fake" not in key]
for key in kinds:
    source = "http://127.0.0.1:9/v1" if key == "openai" else ""
    ModelAdapter.objects.create(slug=key, label=key, kind=key, source=source)

def patterns(resolver, before=""):
    for pattern in resolver.url_patterns:
        path = before + str(pattern.pattern)
        if hasattr(pattern, "url_patterns"):
            yield from patterns(pattern, path)
        elif "<" not in path and "(" not in path:
            yield path

client = Client(raise_request_exception=False)
client.force_login(User.objects.create_superuser("boss"))
paths = sorted({"/" + path for path in patterns(get_resolver()) if "logout" not in path})
for key in kinds:
    row = ModelAdapter.objects.get(slug=key)
    paths += [f"/channels/form/?adapter={key}", f"/runs/new/?adapter={key}"]
    paths += [f"/admin/tagging/modeladapter/{row.pk}/change/", f"/admin/tagging/modeladapter/options/?kind={key}"]
answers = {path: client.get(path).status_code for path in paths}
heavy = [m for m in %r if m in sys.modules]
print(json.dumps({"heavy": heavy, "answers": answers}))
"""


def test_no_page_imports_anything_heavy(tmp_path):
    """Every address without arguments is asked for by one who may see all, and the forms of every kind of model."""
    environment = {**os.environ, "IWTAG_DATA_DIR": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub")}
    for name in ("DATABASE_URL", "IWTAG_BROKER_URL", "IWTAG_MODELS_DIRS"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", WALK % (HEAVY,)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["heavy"] == []
    assert {path: status for path, status in found["answers"].items() if status >= 500} == {}
    seen = {path for path, status in found["answers"].items() if status == 200}
    assert len(seen) > 100
    assert {"/", "/runs/new/", "/models/", "/judging/experiments/new/", "/judging/judges/", "/api/adapters"} <= seen


PREPARE = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "iwtag_site.settings"
import django
django.setup()
from django.core.management import call_command
from tagging.models import Collection
call_command("migrate", verbosity=0)
Collection.objects.create(name="Empty", slug="empty", kind="upload")
"""
EXPORT = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "iwtag_site.settings"
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", "export", "csv", "--collection", "empty", "--out", sys.argv[1]])
print(*sys.modules)
"""


def test_a_table_is_exported_without_the_memory_of_pages_pictures_and_xmp(tmp_path):
    environment = {**os.environ, "IWTAG_DATA_DIR": str(tmp_path)}
    for name in ("DATABASE_URL", "IWTAG_BROKER_URL"):
        environment.pop(name, None)
    table = tmp_path / "t.csv"
    for script in (PREPARE, EXPORT):
        done = subprocess.run(
            [sys.executable, "-c", script, str(table)], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
    assert b"path" in table.read_bytes()
    modules = set(done.stdout.splitlines()[-1].split())
    assert "exports.exporters.csv" in modules
    assert not modules & {"numpy", "psycopg", "lxml", "PIL", "pyarrow", "rapidfuzz", "tagging.admin", "tagging.urls"}
