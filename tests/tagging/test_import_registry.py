"""`manage.py import_registry`: what is taken of an Imageworks registry, what is not and why, and that twice is once."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from tagging.models import ModelAdapter

pytestmark = pytest.mark.django_db

QWEN = {
    "name": "qwen3-vl-8b-instruct_(FP8)",
    "display_name": "Qwen3 VL 8B Instruct (FP8)",
    "backend": "vllm",
    "backend_config": {"port": 24001, "model_path": "/weights/qwen3", "extra_args": ["--max-model-len", "8192"]},
    "capabilities": {"vision": True, "text": True},
    "generation_defaults": {
        "temperature": 0.2, "top_p": 0.9, "max_tokens": 512, "stop_sequences": ["</s>"], "context_window": 8192,
        "frequency_penalty": 9, "top_k": None,
    },
    "artifacts": {"aggregate_sha256": "ab"},
    "chat_template": {"path": "t.jinja", "sha256": "cd"},
    "version_lock": {"locked": True},
    "probes": {"vision": {"ok": True}},
    "served_model_id": "qwen3-vl-8b",
    "roles": ["caption", "keywords"],
    "role_priority": {"keywords": 95, "description": 80},
    "quantization": "fp8",
    "license": "apache-2.0",
    "source": {"huggingface_id": "Qwen/Qwen3-VL-8B-Instruct-FP8"},
    "deprecated": False,
    "metadata": {"architecture": "Qwen3VLForConditionalGeneration"},
}  # fmt: skip
OLLAMA = {"name": "llama3.2:3b", "backend": "ollama", "capabilities": {"text": True}, "deprecated": True}
ODD = [
    {"name": "x", "backend": "tgi"},
    {"backend": "vllm"},
    {"name": "llama3.2:3b", "backend": "ollama"},
    "not an entry",
    {"name": "port", "backend": "vllm", "backend_config": {"port": "eighty"}},
]


def write(tmp_path: Path, data: object) -> str:
    path = tmp_path / "model_registry.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return str(path)


def run(*args: str) -> str:
    out = StringIO()
    call_command("import_registry", *args, stdout=out)
    return out.getvalue()


def test_entries_become_endpoints_with_a_line_for_all_that_was_taken_and_ignored(tmp_path):
    said = run(write(tmp_path, [QWEN, OLLAMA]), "--host", "box")
    row = ModelAdapter.objects.get(slug="qwen3-vl-8b-instruct_fp8")
    assert (row.kind, row.source, row.label, row.enabled) == (
        "openai", "http://box:24001/v1", "Qwen3 VL 8B Instruct (FP8)", True,
    )  # fmt: skip
    assert row.options == {
        "model": "qwen3-vl-8b", "temperature": 0.2, "top_p": 0.9, "max_tokens": 512, "stop": ["</s>"],
    }  # fmt: skip
    assert "Roles: caption, keywords (95), description (80)." in row.note
    assert "Quantization: fp8. Licence: apache-2.0. Source: Qwen/Qwen3-VL-8B-Instruct-FP8." in row.note
    assert "Architecture: Qwen3VLForConditionalGeneration." in row.note
    for line in (
        "generation_defaults.max_tokens → max_tokens 512",
        "generation_defaults.context_window: the endpoint has no such option",
        "generation_defaults.frequency_penalty: 9 is refused",
        "backend_config.model_path: the server holds the weights",
        "backend_config.extra_args: arguments of the server's own command",
        "artifacts: digests of weight files",
        "chat_template: the server applies its own",
        "version_lock:",
        "probes:",
        "roles",
        "2 made",
    ):
        assert line in said, line
    llama = ModelAdapter.objects.get(slug="llama323b")
    assert (llama.source, llama.enabled, llama.options) == (
        "http://box:11434/v1", False, {"model": "llama3.2:3b", "send_image": False},
    )  # fmt: skip


def test_a_second_time_changes_nothing_and_a_change_updates_without_losing_other_options(tmp_path):
    path = write(tmp_path, [QWEN])
    run(path)
    assert "1 unchanged" in run(path)
    row = ModelAdapter.objects.get()
    row.options = {**row.options, "long_edge": 768}
    row.save()
    changed = {**QWEN, "generation_defaults": {"temperature": 0.7}}
    assert "1 updated" in run(write(tmp_path, [changed]))
    row.refresh_from_db()
    assert (row.options["temperature"], row.options["long_edge"]) == (0.7, 768)
    assert ModelAdapter.objects.count() == 1


def test_a_dry_run_reports_the_same_and_writes_nothing(tmp_path):
    path = write(tmp_path, {"models": [QWEN]})
    said = run(path, "--dry-run")
    assert "1 made (nothing was written)" in said
    assert not ModelAdapter.objects.exists()
    assert run(path).splitlines()[:-1] == said.splitlines()[:-1]


def test_faulty_entries_are_lines_and_stop_nothing(tmp_path):
    ModelAdapter.objects.create(slug="taken", kind="wd", label="WD")
    said = run(write(tmp_path, [*ODD[:2], OLLAMA, *ODD[2:], {"name": "taken", "backend": "vllm"}]))
    assert "backend 'tgi' is none of vllm, ollama, lmdeploy" in said
    assert said.count("it has no name") == 2
    assert "another one of this name came before it" in said
    assert "backend_config.port: 'eighty' is no port" in said
    assert "the model 'taken' is of kind 'wd'" in said
    assert "2 made, 5 skipped" in said
    assert ModelAdapter.objects.get(slug="port").source == "http://127.0.0.1:8000/v1"


@pytest.mark.parametrize(
    ("content", "said"),
    [("{broken", "is not JSON: line 1"), ('"text"', "has to be a list"), ('{"a": 1}', "no model registry")],
)
def test_a_file_that_is_no_registry_is_named(tmp_path, content, said):
    with pytest.raises(CommandError, match=said):
        run(write(tmp_path, content))
    with pytest.raises(CommandError, match="cannot be read"):
        run(str(tmp_path / "none.json"))


def test_a_mapping_of_names_is_read_too(tmp_path):
    run(write(tmp_path, {"a": {"backend": "ollama"}, "b": {"backend": "vllm"}}))
    assert sorted(ModelAdapter.objects.values_list("slug", flat=True)) == ["a", "b"]
