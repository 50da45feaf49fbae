"""Key → adapter class, imported only when used. Third parties add theirs by the entry point group `iwtag.adapters`."""

from __future__ import annotations

import logging
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # numpy comes with it: who only names adapters, as the models do, is spared its memory
    from .base import Adapter, AdapterConfig

log = logging.getLogger(__name__)

#: key → (label, "module:Class"). The label is here so that a list of adapters needs no import.
BUILT_IN: dict[str, tuple[str, str]] = {
    "photo-lite": ("photo-lite (embedded default)", "tagging.adapters.photo_lite:PhotoLite"),
    "import": ("Imported results", "tagging.adapters.imported:Imported"),
    "openai": ("OpenAI-compatible endpoint", "tagging.adapters.endpoint.adapter:Endpoint"),
    "blip": ("BLIP, BLIP-2, InstructBLIP", "tagging.adapters.vlm.captioners:Blip"),
    "florence2": ("Florence-2", "tagging.adapters.vlm.florence:Florence2"),
    "git": ("GIT, ViT-GPT2", "tagging.adapters.vlm.captioners:Git"),
    "joycaption": ("JoyCaption", "tagging.adapters.vlm.joycaption:JoyCaption"),
    "kosmos2": ("Kosmos-2", "tagging.adapters.vlm.captioners:Kosmos2"),
    "moondream": ("Moondream (its own code)", "tagging.adapters.vlm.moondream:Moondream"),
    "promptgen": ("Florence-2 PromptGen", "tagging.adapters.vlm.florence:PromptGen"),
    "vlm": ("Vision-language model (transformers)", "tagging.adapters.vlm.chat:ChatModel"),
    "pixai": ("PixAI tagger (ONNX with preprocess.json)", "tagging.adapters.pixai:PixaiTagger"),
    "camie": ("Camie tagger (ONNX, v1 and v2)", "tagging.adapters.camie:CamieTagger"),
    "onnx": ("ONNX classifier with a manifest", "tagging.adapters.onnx_classifier:OnnxClassifier"),
    "ram": ("RAM and RAM++ (Recognize Anything)", "tagging.adapters.ram:RamTagger"),
    "wd": ("WD tagger (ONNX, v2/v3 layout)", "tagging.adapters.wd:WdTagger"),
}

ENTRY_POINTS = "iwtag.adapters"


class UnknownAdapter(LookupError):
    """No adapter has this key; the text lists those there are."""


@cache
def registered() -> dict[str, tuple[str, str]]:
    """All adapters: the built-in ones and those of installed packages. A clash with a built-in key is refused."""
    found = dict(BUILT_IN)
    for point in entry_points(group=ENTRY_POINTS):
        if point.name in found:
            log.error("adapter %r of %s is ignored: the key is taken", point.name, point.value)
            continue
        found[point.name] = (point.name, point.value)
    return found


def choices() -> list[tuple[str, str]]:
    """(key, label) pairs for forms."""
    return [(key, label) for key, (label, _) in sorted(registered().items())]


def adapter_class(key: str) -> type[Adapter]:
    """The class behind `key`. UnknownAdapter names the keys there are; ImportError when its package is broken."""
    from .base import Adapter

    try:
        _, target = registered()[key]
    except KeyError:
        raise UnknownAdapter(f"No adapter {key!r}; known: {', '.join(sorted(registered()))}") from None
    module, _, name = target.partition(":")
    found = getattr(import_module(module), name)
    if not (isinstance(found, type) and issubclass(found, Adapter)):
        raise TypeError(f"{target} is not an Adapter")
    return found


def build(key: str, config: AdapterConfig) -> Adapter:
    """An adapter instance, weights not loaded."""
    return adapter_class(key)(config)
