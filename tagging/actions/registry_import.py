"""Imageworks' model_registry.json as configured models: each entry an endpoint, with what was taken and what was not.

Imageworks serves its models with vLLM, LMDeploy or Ollama, all of which speak OpenAI's protocol: an entry becomes a row
of kind "openai" that points to its server. Weights are not touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.text import slugify
from pydantic import ValidationError as OptionsError

from ..adapters import registry
from ..models import ModelAdapter

KIND = "openai"
#: Ports that the servers listen on unless they are told otherwise.
PORTS = {"vllm": 8000, "ollama": 11434, "lmdeploy": 23333}
#: Names in generation_defaults → our option.
OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "max_tokens": "max_tokens",
    "max_new_tokens": "max_tokens",
    "num_predict": "max_tokens",
    "seed": "seed",
    "stop": "stop",
    "stop_sequences": "stop",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "repetition_penalty": "repetition_penalty",
    "repeat_penalty": "repetition_penalty",
}
#: What is left out wherever it stands, and why.
LEFT_OUT = {
    "artifacts": "digests of weight files: the server holds the weights",
    "chat_template": "the server applies its own",
    "version_lock": "a lock on files that the server holds",
    "performance": "measured elsewhere, on other hardware",
    "probes": "measured elsewhere; the page of the model checks the endpoint anew",
    "download_path": "the server holds the weights",
    "download_directory": "the server holds the weights",
    "download_files": "the server holds the weights",
    "model_aliases": "one name is enough",
    "source_provider": "the server holds the weights",
    "lifecycle": "not a setting",
    "profiles_placeholder": "not a setting",
}


@dataclass
class Entry:
    """What became of one entry. `outcome`: made, updated, unchanged or skipped; `taken` and `ignored` are lines."""

    name: str
    outcome: str = "skipped"
    slug: str = ""
    taken: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def entries_of(data: Any) -> list[Mapping[str, Any]]:
    """The entries of a registry: a list, {"models": [...]}, or a mapping of names to entries. ValueError otherwise."""
    if isinstance(data, dict) and isinstance(data.get("models"), list | dict):
        data = data["models"]
    if isinstance(data, dict):
        if not all(isinstance(value, dict) for value in data.values()):
            raise ValueError("This is no model registry: neither a list of models nor a mapping of names to models.")
        data = [{"name": name, **value} for name, value in data.items()]
    if not isinstance(data, list):
        raise ValueError("This is no model registry: it has to be a list of models.")
    return [item if isinstance(item, dict) else {} for item in data]


def import_registry(
    entries: Sequence[Mapping[str, Any]], *, host: str = "127.0.0.1", dry_run: bool = False
) -> list[Entry]:
    """Make or update a row for each entry; the report, in their order. A second time nothing changes.

    `host` is where the servers run. With `dry_run` nothing is written. A faulty entry is a line, never a stop.
    """
    report: list[Entry] = []
    slugs: set[str] = set()
    with transaction.atomic():
        for item in entries:
            report.append(_one(item, host, slugs))
        if dry_run:
            transaction.set_rollback(True)
    return report


def _one(item: Mapping[str, Any], host: str, slugs: set[str]) -> Entry:
    name = str(item.get("name") or "").strip()
    entry = Entry(name or "(without a name)")
    backend = str(item.get("backend") or "").strip().lower()
    entry.slug = slugify(name)[:80]
    if not entry.slug:
        entry.ignored.append("the whole entry: it has no name")
        return entry
    if backend not in PORTS:
        entry.ignored.append(f"the whole entry: backend {backend or 'missing'!r} is none of {', '.join(PORTS)}")
        return entry
    if entry.slug in slugs:
        entry.ignored.append("the whole entry: another one of this name came before it")
        return entry
    slugs.add(entry.slug)
    values = {
        "kind": KIND,
        "label": str(item.get("display_name") or name)[:120],
        "source": _address(item, backend, host, entry),
        "enabled": not item.get("deprecated"),
        "note": _note(item, backend),
        "options": _options(item, name, entry),
    }
    if item.get("deprecated"):
        entry.taken.append("deprecated → switched off")
    _unused(item, entry)
    _save(entry, values)
    return entry


def _address(item: Mapping[str, Any], backend: str, host: str, entry: Entry) -> str:
    settings = item.get("backend_config")
    settings = settings if isinstance(settings, dict) else {}
    port = settings.get("port")
    if not isinstance(port, int) or not 0 < port < 65536:
        if port:
            entry.ignored.append(f"backend_config.port: {port!r} is no port")
        port = PORTS[backend]
        entry.taken.append(f"address: {backend}'s usual port {port}, the entry names none")
    else:
        entry.taken.append(f"backend_config.port {port} → address")
    given = str(settings.get("host") or settings.get("base_url") or "").strip()
    where = given if given and "/" not in given else host
    if settings.get("model_path"):
        entry.ignored.append("backend_config.model_path: the server holds the weights")
    if settings.get("extra_args"):
        entry.ignored.append("backend_config.extra_args: arguments of the server's own command")
    return f"http://{where}:{port}/v1"


def _options(item: Mapping[str, Any], name: str, entry: Entry) -> dict[str, Any]:
    """The options that the endpoint has and takes, each on its own."""
    model = str(item.get("served_model_id") or name)
    found: dict[str, Any] = {"model": model}
    entry.taken.append(f"{'served_model_id' if item.get('served_model_id') else 'name'} → model {model!r}")
    capabilities = item.get("capabilities")
    if isinstance(capabilities, dict) and capabilities:
        if not any(capabilities.get(word) for word in ("vision", "image", "images", "multimodal", "vlm")):
            found["send_image"] = False
            entry.taken.append("capabilities without vision → it is sent no picture")
        else:
            entry.taken.append("capabilities.vision → it is sent the picture")
    defaults = item.get("generation_defaults")
    for key, value in (defaults if isinstance(defaults, dict) else {}).items():
        option = OPTIONS.get(key)
        if value is None:
            continue
        if option is None:
            entry.ignored.append(f"generation_defaults.{key}: the endpoint has no such option")
        elif said := _refused(option, value):
            entry.ignored.append(f"generation_defaults.{key}: {said}")
        else:
            found[option] = [value] if option == "stop" and isinstance(value, str) else value
            entry.taken.append(f"generation_defaults.{key} → {option} {value!r}")
    return found


def _refused(option: str, value: Any) -> str:
    """Why the endpoint does not take the value; empty when it does."""
    if option == "stop" and isinstance(value, str):
        value = [value]
    try:
        registry.adapter_class(KIND).Options.model_validate({option: value})
    except OptionsError as e:
        return "; ".join(f"{value!r} is refused: {error['msg']}" for error in e.errors())
    return ""


def _note(item: Mapping[str, Any], backend: str) -> str:
    """What a person wants to know and no setting holds."""
    lines = [f"From an Imageworks registry ({backend})."]
    roles = [str(role) for role in item.get("roles") or ()]
    priority = item.get("role_priority")
    weights = priority if isinstance(priority, dict) else {}
    if roles or weights:
        named = dict.fromkeys([*roles, *map(str, weights)])
        lines.append("Roles: " + ", ".join(f"{r} ({weights[r]})" if r in weights else r for r in named) + ".")
    for key, word in (("quantization", "Quantization"), ("license", "Licence"), ("source", "Source")):
        value = item.get(key)
        text = value.get("huggingface_id") or value.get("id") or "" if isinstance(value, dict) else value
        if text:
            lines.append(f"{word}: {text}.")
    metadata = item.get("metadata")
    if isinstance(metadata, dict) and metadata.get("architecture"):
        lines.append(f"Architecture: {metadata['architecture']}.")
    return " ".join(lines)


NOTED = {"roles", "role_priority", "quantization", "license", "source", "metadata"}
USED = {
    "name", "display_name", "backend", "backend_config", "capabilities", "generation_defaults", "served_model_id",
    "deprecated", *NOTED,
}  # fmt: skip


def _unused(item: Mapping[str, Any], entry: Entry) -> None:
    if noted := sorted(key for key in NOTED if item.get(key)):
        entry.taken.append(f"{', '.join(noted)} → note")
    for key in item:
        if key not in USED and item[key] not in (None, "", [], {}, False):
            entry.ignored.append(f"{key}: {LEFT_OUT.get(key, 'nothing here corresponds to it')}")


def _save(entry: Entry, values: dict[str, Any]) -> None:
    """Write the row where it differs. Options that the registry does not name stay as they are."""
    row = ModelAdapter.objects.filter(slug=entry.slug).first()
    if row is not None and row.kind != KIND:
        entry.ignored.append(f"the whole entry: the model {entry.slug!r} is of kind {row.kind!r}")
        return
    before = {k: getattr(row, k) for k in values} if row else {}
    values = {**values, "options": {**before.get("options", {}), **values["options"]}}
    if row is None:
        row = ModelAdapter(slug=entry.slug)
    for key, value in values.items():
        setattr(row, key, value)
    try:
        row.full_clean(exclude=["slug"] if row.pk else None)
    except ValidationError as e:
        entry.ignored.append("the whole entry: " + "; ".join(e.messages))
        return
    entry.outcome = "made" if not before else "unchanged" if before == values else "updated"
    if entry.outcome != "unchanged":
        row.save()
