"""Pure rules on the text of an answer: thoughts, stop strings, the wanted beginning, words that must be there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_END = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_BEGIN = re.compile(r"<think(?:ing)?>", re.IGNORECASE)
_NO_SPACE_BEFORE = frozenset(".,;:!?)]}'’”%…")


def with_thoughts_marked(text: str) -> str:
    """Some templates open the thinking block themselves, so that only its end is in the answer: both ends then."""
    end = _END.search(text)
    if end and not _BEGIN.search(text[: end.start()]):
        return "<think>" + text
    return text


def without_thoughts(text: str) -> str:
    """The answer without its <think> blocks; one that never ended swallows the rest."""
    return _THOUGHT.sub("", with_thoughts_marked(text)).strip()


def thoughts_of(text: str) -> str:
    """The <think> blocks alone."""
    return "".join(_THOUGHT.findall(with_thoughts_marked(text)))


def cut_at_stop(text: str, stops: Iterable[str]) -> tuple[str, bool]:
    """The text before the first stop string, and whether there was one."""
    found = [at for at in (text.find(stop) for stop in stops if stop) if at >= 0]
    return (text[: min(found)], True) if found else (text, False)


def with_start(start: str, text: str, *, prefilled: bool) -> str:
    """The answer beginning with `start` for certain. Three cases: the model said it again, so it is there once; the
    answer goes on from it, so the two are joined as the model wrote them; the model could not be given it, so it is
    put before with a space.
    """
    if not start:
        return text
    if text.lstrip().startswith(start.rstrip()):
        return text.lstrip()
    if prefilled:
        return start + text
    rest = text.lstrip()
    glue = "" if not rest or start[-1].isspace() or rest[0] in _NO_SPACE_BEFORE else " "
    return start + glue + rest


def without_prompt(text: str, prompt: str) -> str:
    """The answer of a model that repeats its prompt first. White space and case may differ: tokenizers change both."""
    words = [re.escape(word) for word in prompt.split()]
    if not words:
        return text
    found = re.match(r"\s*" + r"\s*".join(words), text, re.IGNORECASE)
    return text[found.end() :] if found else text


def groups(lines: Sequence[str]) -> list[tuple[str, ...]]:
    r"""["cat|kitten", "table"] → [("cat", "kitten"), ("table",)]; a bar is written \|."""
    found = []
    for line in lines:
        parts = [part.replace("\\|", "|").strip() for part in re.split(r"(?<!\\)\|", line)]
        kept = tuple(part for part in parts if part)
        if kept:
            found.append(kept)
    return found


def contains(text: str, word: str) -> bool:
    """Is `word` in the text as whole words, whatever the case?"""
    pattern = r"\s+".join(re.escape(part) for part in word.split())
    return bool(pattern) and re.search(rf"(?<!\w){pattern}(?!\w)", text, re.IGNORECASE) is not None


def missing(text: str, wanted: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The groups of which no alternative is in the text."""
    return [group for group in wanted if not any(contains(text, word) for word in group)]


def asked_again(prompt: str, lacking: Sequence[tuple[str, ...]], attempt: int) -> str:
    """The prompt with the words that the answer lacked; firmer at each attempt."""
    names = ", ".join(" or ".join(f'"{word}"' for word in group) for group in lacking)
    if attempt == 1:
        return f"{prompt}\nUse these words in the answer: {names}.".lstrip()
    return f"{prompt}\nThe answer must contain exactly these words, spelled so: {names}.".lstrip()


def variants(word: str) -> list[str]:
    """Spellings that a list of discouraged words means: as written, lower case, capitalised, all capitals; each also
    after a space, because tokenizers treat a word at a beginning as another one."""
    spellings = dict.fromkeys((word, word.lower(), word[:1].upper() + word[1:], word.title(), word.upper()))
    return [space + spelling for spelling in spellings for space in (" ", "")]
