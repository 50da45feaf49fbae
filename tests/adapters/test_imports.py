"""Naming and checking an adapter must not import a runtime: the web process does both."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from tagging.adapters import registry
from tagging.adapters.base import AdapterConfig
for key in ("photo-lite", "wd"):
    adapter = registry.build(key, AdapterConfig(source="" if key == "photo-lite" else "/nowhere"))
    adapter.check()
    adapter.Options.model_json_schema()
heavy = {"onnxruntime", "torch", "huggingface_hub", "pillow_heif", "cv2", "django"} & set(sys.modules)
sys.exit(f"imported: {heavy}" if heavy else 0)
"""


def test_no_runtime_is_imported_by_naming_and_checking():
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
