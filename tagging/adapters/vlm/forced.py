"""Words that an answer must have: looked for in the text, asked for again where they are missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import words
from .batches import Answer, Prepared

if TYPE_CHECKING:
    from .family import VisionLanguage

#: Drawn with this temperature where asking differently is not possible and the answer would be the same again.
TEMPERATURE = 0.7


def complete(family: VisionLanguage, batch: Sequence[Prepared], answers: list[Answer], options: Any) -> list[Answer]:
    """Ask again where words are missing: with them in the prompt where the family takes one, else by drawing again.

    The answer that lacks fewest is kept; one that still lacks some is flagged.
    """
    wanted = words.groups(options.forced)
    lacking = {i: words.missing(words.without_thoughts(a.text), wanted) for i, a in enumerate(answers)}
    for attempt in range(1, options.forced_retries + 1):
        again = [i for i, groups in lacking.items() if groups]
        if not again:
            break
        items = [_asked_again(family, batch[i], lacking[i], attempt) for i in again]
        drawn = options
        if not family.capabilities.prompt and options.temperature == 0:
            drawn = options.model_copy(update={"temperature": TEMPERATURE, "num_beams": 1})
        for i, answer in zip(again, family.generate(items, drawn, attempt), strict=True):
            left = words.missing(words.without_thoughts(answer.text), wanted)
            answer.seconds += answers[i].seconds
            if len(left) < len(lacking[i]):
                answer.flags.add("asked_again")
                answers[i], lacking[i] = answer, left
            else:
                answers[i].seconds = answer.seconds
    for i, groups in lacking.items():
        if groups:
            answers[i].flags.add("forced_missing")
    return answers


def _asked_again(family: VisionLanguage, item: Prepared, lacking: Sequence[tuple[str, ...]], attempt: int) -> Prepared:
    if not family.capabilities.prompt or item.image is None:
        return item
    prompt = words.asked_again(item.request.prompt.strip() or family.own_prompt, lacking, attempt)
    return family.ask(item.image, item, item.request, prompt)
