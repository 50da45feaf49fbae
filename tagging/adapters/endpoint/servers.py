"""Servers that speak the OpenAI protocol, as data for forms: where they listen and what to know of them."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Server:
    """`address` is where a new installation listens; `key` the environment variable that its key usually has."""

    slug: str
    name: str
    address: str
    key: str = ""
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


SERVERS: tuple[Server, ...] = (
    Server(
        "ollama",
        "Ollama",
        "http://localhost:11434/v1",
        note="Model names as `ollama list` shows them, e.g. qwen2.5vl:7b. Set OLLAMA_NUM_PARALLEL on the server for "
        "more than one request at once. Its context is short unless num_ctx is raised there.",
    ),
    Server(
        "lmstudio",
        "LM Studio",
        "http://localhost:1234/v1",
        note="Start the server in its Developer tab. It loads a model at the first request, which can take a minute.",
    ),
    Server(
        "llamacpp",
        "llama.cpp (llama-server)",
        "http://localhost:8080/v1",
        note="Serves one model and takes any name: give the name of its GGUF file. Pictures need --mmproj; -np N sets "
        "how many requests it works on at once. Holds answers to a JSON schema.",
    ),
    Server(
        "vllm",
        "vLLM",
        "http://localhost:8000/v1",
        note="The model's name is its hub id, or --served-model-name. Batches by itself: 32 to 128 requests at once "
        "keep a large card busy. Holds answers to a JSON schema. Its port is also iwtag's own: move one of them.",
    ),
    Server(
        "tgi",
        "Text Generation Inference",
        "http://localhost:3000/v1",
        note='Any model name is taken ("tgi"). json_schema needs version 3.',
    ),
    Server(
        "openai",
        "OpenAI",
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
        "Leave temperature empty for reasoning models. Enter the model's prices, requests and tokens per minute.",
    ),
    Server(
        "openrouter",
        "OpenRouter",
        "https://openrouter.ai/api/v1",
        "OPENROUTER_API_KEY",
        "Names like vendor/model. Not every provider behind it holds answers to a JSON schema.",
    ),
    Server(
        "mistral",
        "Mistral",
        "https://api.mistral.ai/v1",
        "MISTRAL_API_KEY",
        "Takes no seed under that name: put random_seed into the extra body.",
    ),
    Server(
        "gemini",
        "Google Gemini",
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "GEMINI_API_KEY",
        "The address has no /v1 at its end.",
    ),
)

# Words in the names of models that see. A guess: names are no promise.
_SEES = re.compile(
    r"(?:^|[^a-z])(?:vl|vlm|vision|visual|multimodal|omni|llava|bakllava|moondream|pixtral|minicpm-?v|internvl|smolvlm|"
    r"idefics|paligemma|molmo|florence|cogvlm|glm-?4(?:\.\d)?v|gpt-4o|gpt-4\.1|gpt-4-turbo|gpt-5|o3|o4-mini|gemini|"
    r"claude-(?:3|opus|sonnet|haiku)|gemma-?3|gemma-?4|llama-?4|mllama|joycaption|mistral-(?:small|medium)-?3|grok-4)",
    re.IGNORECASE,
)
_SEES_INSIDE = re.compile(r"(?:\d|qwen)vl|vl:|-v-|4v\b|llama3\.2-vision", re.IGNORECASE)
_BLIND = re.compile(
    r"embed|whisper|tts|rerank|moderation|dall-?e|audio|realtime|transcribe|sora|gemma-?3-?:?(?:270m|1b)"
)


def sees(name: str) -> bool:
    """Whether a model of that name probably takes pictures."""
    return bool(_SEES.search(name) or _SEES_INSIDE.search(name)) and not _BLIND.search(name.lower())
