"""How long a prompt is for a model, roughly: no tokenizer is loaded for it."""

from __future__ import annotations

import re

#: characters that most tokenizers give a token of their own: ideographs, kana, hangul
_WIDE = re.compile(r"[\u1100-\u11ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]")
_CHARS_PER_TOKEN = 4

HOW = (
    "An estimate: about one token for every 4 characters, one for each Chinese, Japanese or Korean character. "
    "Every model counts differently, and what the image costs is not in it."
)


def estimate(text: str) -> int:
    """Tokens of a text, to within a third or so for prose of the usual tokenizers. 0 for nothing."""
    if not text:
        return 0
    wide = len(_WIDE.findall(text))
    return wide + -(-(len(text) - wide) // _CHARS_PER_TOKEN)
