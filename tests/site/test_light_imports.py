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
shown = 0
for key in registry.registered():              # what forms and the API draw
    found = registry.adapter_class(key)
    found.Options.model_json_schema()
    found.capabilities.as_dict()
    registry.build(key, registry.AdapterConfig()).check()
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
