"""Which family a model belongs to: a judge does not rank its own kin.

The rules are data: a pattern over adapter kind, source and model name. The first that matches names the family. What
matches none is a family of its own, by its bare model name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

#: (pattern over "kind source model", family). Fine-tunes come before what they were tuned from only where the judge's
#: taste is the base's: a fine-tune counts as its base.
RULES: tuple[tuple[str, str], ...] = (
    (r"joy.?caption|llava|llama|vicuna|molmo2?-llama", "llama"),
    (r"qwen|qwq|internvl|minicpm-?v|ovis|nanonets|olmocr|toriigate|idefics.*qwen", "qwen"),
    (r"paligemma|gemma|gemini|\bpalm\b", "google"),
    (r"smolvlm|smollm|idefics", "smollm"),
    (r"claude|anthropic", "anthropic"),
    (r"gpt-|\bgpt\b|chatgpt|\bo[1345](-|\b)|openai/", "openai"),
    (r"mistral|pixtral|ministral|magistral", "mistral"),
    (r"phi-?[345]|florence|kosmos", "microsoft"),
    (r"moondream", "moondream"),
    (r"deepseek|janus", "deepseek"),
    (r"glm|cogvlm|cogagent", "zhipu"),
    (r"kimi|moonshot", "moonshot"),
    (r"grok", "xai"),
    (r"command-?[ar]|aya|cohere", "cohere"),
    (r"blip|instructblip|git-(base|large)", "salesforce"),
    (r"molmo|olmo", "ai2"),
    (r"granite", "ibm"),
    (r"nova-(lite|pro|premier)|titan", "amazon"),
    (r"^(wd|pixai|camie|ram|photo-lite|onnx)", "tagger"),
)
#: taggers have no taste in words: they are nobody's kin
NEUTRAL = frozenset({"tagger", "imported", "rules"})


def family(kind: str, source: str = "", model: str = "", rules: Sequence[tuple[str, str]] = RULES) -> str:
    """The family of a model, from the adapter's kind, its source (hub id, folder, address) and the model's name.

    An address says nothing of the model: then only the name counts.
    """
    place = "" if "://" in source else source
    text = " ".join(part for part in (kind.casefold(), place.casefold(), model.casefold()) if part)
    for pattern, name in rules:
        if re.search(pattern, text):
            return name
    bare = (model or place or kind).casefold().replace("\\", "/").rstrip("/").rpartition("/")[2]
    return re.split(r"[-_:.\s]", bare, maxsplit=1)[0] or kind


def kin(judge: Iterable[str], candidate: Iterable[str]) -> set[str]:
    """Families on both sides, taggers left out."""
    return (set(judge) & set(candidate)) - NEUTRAL
