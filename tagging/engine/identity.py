"""What makes two model calls the same call: then the second is not made.

The key hashes content, never paths or names: image bytes and preparation, the model (as its adapter identifies itself),
the rendered prompt, the response schema and stop words, every option that reaches the model with its defaults filled
in, and the sample index. Never: policy, thresholds, judge, batch size, device, host, timeout.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from prompts.models import digest

from ..adapters.base import Adapter, AdapterOptions, Reply
from ..imaging.thumbnails import PROXY
from ..models import Channel

#: What the pixels of a source are, beyond the original's content: another rendition is another answer.
SOURCES = {"proxy": f"proxy 1: WebP {PROXY} px, sRGB, upright"}


def call_identity(adapter: Adapter, options: AdapterOptions) -> dict[str, Any]:
    """The part of a prediction's identity that all images of a channel share. Raises ModelUnavailable."""
    return {
        "kind": adapter.key,
        "model": adapter.identity(),
        "preparation": adapter.preparation,
        "options": options.inference_dict(),
    }


def prediction_key(
    image_sha256: str,
    call: dict[str, Any],
    *,
    source: str = "original",
    system: str = "",
    prompt: str = "",
    schema: dict[str, Any] | None = None,
    sample: int = 0,
    terms: str = "",
) -> str:
    """sha256 (hex) of the canonical JSON of everything the answer depends on.

    `source` says which pixels were read: the original file, or the proxy made at indexing as SOURCES names it.
    `terms` is the digest of the words that the answer is held to, empty for a free one.
    """
    held = {"terms": terms} if terms else {}
    return digest(
        {
            **held,
            "image": image_sha256,
            "source": SOURCES.get(source, source),
            "call": call,
            "system": system,
            "prompt": prompt,
            "schema": schema,
            "sample": sample,
        }
    )


def kept_under(key: str, reply: Reply) -> str:
    """The key that a reply is stored under. A withheld one gets a key of its own, which no question has: whoever asks
    again, asks the model. Truncations and answers that cannot be parsed are results like others."""
    return digest([key, "withheld", uuid4().hex]) if reply.withheld else key


def model_key(channel: Channel) -> str:
    """What must be resident for a channel."""
    row = channel.adapter
    return loading_key(row.adapter_class, channel.adapter_config, row.settled(channel.options))


def loading_key(adapter: type[Adapter], config: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """Hash of everything that load() depends on. `config`: as a Channel keeps it; `options`: all of them."""
    loaded = {k: v for k, v in config.items() if k != "read"}  # the same weights, whatever pixels they get
    return digest([loaded, {k: v for k, v in options.items() if k in adapter.load_options}])
