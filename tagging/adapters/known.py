"""Data about models of the hub: which adapter serves which architecture, and good first models of each family.

Sizes are what has to be downloaded, rounded; before a download the hub is asked for the exact figure. Licences are the
short names that the models' pages give: read the page before you rely on one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MB = 10**6

#: How a class name in config.json begins → key of the adapter. Longer beginnings go first.
ARCHITECTURES: Mapping[str, str] = {
    "Florence2": "florence2",
    "Blip2": "blip",
    "Blip": "blip",
    "InstructBlip": "blip",
    "Kosmos2": "kosmos2",
    "GitForCausalLM": "git",
    "VisionEncoderDecoder": "git",
    "Moondream": "moondream",
    "HfMoondream": "moondream",
    **dict.fromkeys(
        (
            "LlavaNext", "LlavaOnevision", "Llava", "VipLlava", "Qwen2VL", "Qwen2_5_VL", "Qwen3VL", "InternVL",
            "Idefics2", "Idefics3", "SmolVLM", "Gemma3", "Gemma4", "PaliGemma", "Mllama", "Pixtral", "Mistral3",
            "Phi4Multimodal", "Aya", "Cohere2Vision", "Glm4v", "Ovis2", "Llama4", "Lfm2Vl", "Perception", "Emu3",
            "Fuyu", "Chameleon",
        ),
        "vlm",
    ),
}  # fmt: skip

#: `model_type` of config.json → key, for what names no architecture.
MODEL_TYPES: Mapping[str, str] = {
    "florence2": "florence2",
    "blip": "blip",
    "blip-2": "blip",
    "instructblip": "blip",
    "kosmos-2": "kosmos2",
    "git": "git",
    "moondream1": "moondream",
    "llava": "vlm",
    "llava_next": "vlm",
    "llava_onevision": "vlm",
    "qwen2_vl": "vlm",
    "qwen2_5_vl": "vlm",
    "qwen3_vl": "vlm",
    "internvl": "vlm",
    "idefics3": "vlm",
    "smolvlm": "vlm",
    "gemma3": "vlm",
    "paligemma": "vlm",
    "mllama": "vlm",
    "mistral3": "vlm",
}

#: A name that says more than the architecture does: part of the folder's name, lower case → key.
NAMES: Mapping[str, str] = {"joycaption": "joycaption", "promptgen": "promptgen", "moondream": "moondream"}

#: What only text comes from: served by an endpoint, useful as merger or judge, not as a model that looks.
TEXT_ONLY = ("ForCausalLM", "ForSeq2SeqLM")

#: Files of a transformers repository that are needed; code of its own only where a curator trusts it.
TRANSFORMERS_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.safetensors", "*.tiktoken")


#: Names of lone weight files → (key, what the name says).
WEIGHTS: Mapping[str, tuple[str, str]] = {
    "ram_plus": ("ram", "the file's name is that of RAM++"),
    "ram_": ("ram", "the file's name is that of RAM"),
}


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A model of the hub that is worth a first try. `gated`: its licence has to be accepted on its page first."""

    kind: str
    source: str
    size: int  # MB to download
    licence: str
    note: str
    gated: bool = False

    @property
    def bytes(self) -> int:
        return self.size * MB


_S = Suggestion
SUGGESTED: tuple[Suggestion, ...] = (
    _S("wd", "SmilingWolf/wd-vit-tagger-v3", 380, "apache-2.0", "Booru tags of drawings and anime; small."),
    _S("wd", "SmilingWolf/wd-swinv2-tagger-v3", 470, "apache-2.0", "The usual choice of the v3 taggers."),
    _S("wd", "SmilingWolf/wd-eva02-large-tagger-v3", 1270, "apache-2.0", "The best of the v3 taggers; slow."),
    _S("pixai", "deepghs/pixai-tagger-v0.9-onnx", 1270, "apache-2.0", "Newer booru tags, many characters."),
    _S("camie", "Camais03/camie-tagger-v2", 800, "gpl-3.0", "70,000 booru tags with artists and copyrights."),
    _S("ram", "xinyu1205/recognize-anything-plus-model", 3010, "apache-2.0", "RAM++: photographs, 4,585 tags."),
    _S("ram", "xinyu1205/recognize_anything_model", 5630, "apache-2.0", "RAM: photographs, English, Chinese."),
    _S("florence2", "florence-community/Florence-2-base", 470, "mit", "Captions of three lengths; small, fast."),
    _S("florence2", "florence-community/Florence-2-large", 1560, "mit", "The same, more exact."),
    _S("vlm", "HuggingFaceTB/SmolVLM-256M-Instruct", 520, "apache-2.0", "The smallest; also on a processor."),
    _S("vlm", "HuggingFaceTB/SmolVLM2-2.2B-Instruct", 4500, "apache-2.0", "Small, for 6 GB cards."),
    _S("vlm", "Qwen/Qwen3-VL-2B-Instruct", 4300, "apache-2.0", "Follows instructions well for its size."),
    _S("vlm", "Qwen/Qwen3-VL-8B-Instruct", 17500, "apache-2.0", "The usual choice for a 24 GB card."),
    _S("vlm", "Qwen/Qwen2.5-VL-7B-Instruct", 16600, "apache-2.0", "Well tried; reads text in pictures."),
    _S("vlm", "llava-hf/llava-onevision-qwen2-0.5b-ov-hf", 1800, "apache-2.0", "Small LLaVA."),
    _S("vlm", "google/gemma-3-4b-it", 8600, "gemma", "Captions in many languages.", gated=True),
    _S("joycaption", "fancyfeast/llama-joycaption-beta-one-hf-llava", 17000, "llama3.1", "Long captions for training."),
    _S("blip", "Salesforce/blip-image-captioning-large", 1880, "bsd-3-clause", "Short plain captions."),
    _S("git", "microsoft/git-large-coco", 1580, "mit", "Short plain captions."),
    _S("kosmos2", "microsoft/kosmos-2-patch14-224", 6660, "mit", "Captions; grounding is taken out."),
    _S("moondream", "vikhyatk/moondream2", 3850, "apache-2.0", "Small; its own code has to be trusted."),
)


def kind_of(architectures: list[str], model_type: str, name: str) -> tuple[str, str] | None:
    """(key, reason) of the adapter that serves a config.json; None when no table knows it. `name` is the folder's."""
    low = name.lower()
    known = _architecture(architectures)
    for word, key in NAMES.items():
        if word in low and (known or model_type):
            return key, f"its name says {word}, its config.json {(architectures or [model_type])[0]}"
    if known:
        return known
    if model_type in MODEL_TYPES:
        return MODEL_TYPES[model_type], f"config.json says model_type {model_type}"
    return None


def _architecture(architectures: list[str]) -> tuple[str, str] | None:
    for found in architectures:
        for start in sorted(ARCHITECTURES, key=len, reverse=True):
            if found.startswith(start):
                return ARCHITECTURES[start], f"config.json says {found}"
    return None
