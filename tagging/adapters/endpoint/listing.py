"""The models of a server, as it lists them. A call over the network: in a worker, never in a web request."""

from __future__ import annotations

from typing import Any

from ..base import AdapterConfig, AdapterError
from .addresses import AddressRefused, check_address, private_allowed
from .client import Client
from .options import EndpointOptions
from .servers import sees

#: Seconds that a server has to send its list.
TIMEOUT = 5.0
#: Models that are kept of a list: hosted services have hundreds.
MOST = 1000


def models(config: AdapterConfig) -> list[dict[str, Any]]:
    """What the server behind the adapter has: {"id", "sees", "note"} each, those that see first. AdapterError says what
    is wrong and the mend.

    `sees` is the server's own word where it gives one, else a guess from the name; `note` its size or context.
    """
    try:
        check_address(config.source, allow_private=private_allowed(), resolve=False)
    except AddressRefused as error:
        raise AdapterError(str(error), permanent=True) from None
    known = {k: v for k, v in config.options.items() if k in ("api_key_env", "connect_timeout")}
    options = EndpointOptions.model_validate({**known, "connect_timeout": TIMEOUT, "read_timeout": TIMEOUT})
    client = Client(config, options)
    try:
        found = client.models(TIMEOUT)
    finally:
        client.close()
    rows = [
        {"id": m["id"][:200], "sees": _sees(m), "note": _note(m)}
        for m in sorted(found, key=lambda m: (not _sees(m), m["id"].lower()))
    ]
    return rows[:MOST]


def _sees(model: dict[str, Any]) -> bool:
    """OpenRouter and llama.cpp say what a model takes; others leave it to the name."""
    architecture = model.get("architecture")
    for said in (
        architecture.get("input_modalities") if isinstance(architecture, dict) else None,
        model.get("input_modalities"),
        model.get("capabilities"),
    ):
        if isinstance(said, list) and said:
            words = {str(word).lower() for word in said}
            return bool(words & {"image", "vision", "multimodal"})
        if isinstance(said, dict) and isinstance(said.get("vision"), bool):
            return bool(said["vision"])
    return sees(model["id"])


def _note(model: dict[str, Any]) -> str:
    meta = model.get("meta") if isinstance(model.get("meta"), dict) else {}
    assert isinstance(meta, dict)
    parts = []
    size = meta.get("n_params")
    if isinstance(size, int) and size > 0:
        parts.append(f"{size / 1e9:.1f} B parameters" if size >= 1e9 else f"{size / 1e6:.0f} M parameters")
    context = model.get("max_model_len") or model.get("context_length") or meta.get("n_ctx_train")
    if isinstance(context, int) and context > 0:
        parts.append(f"context {context:,}")
    owner = model.get("owned_by")
    if isinstance(owner, str) and owner and owner not in ("library", "system", "organization_owner"):
        parts.append(owner[:60])
    return ", ".join(parts)
