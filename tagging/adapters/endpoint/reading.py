"""What a server's reply says: checked for its form, read, and, where JSON was asked for, repaired within reason."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from ..base import AdapterError

_THINKING = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"```[\w-]*\s*\n?(.*?)(?:```|\Z)", re.DOTALL)
_COMMA = re.compile(r",(\s*[}\]])")
#: A short answer that begins so is no description of a picture.
_REFUSAL = re.compile(
    r"\s*(?:i['’]?m sorry,? (?:but )?i (?:can['’]?t|cannot|can not|am unable)|"
    r"i (?:can['’]?t|cannot|am unable to|['’]?m unable to|won['’]?t) (?:assist|help|comply|fulfill|provide|process|"
    r"identify|describe|view|see)|sorry,? (?:but )?i (?:can['’]?t|cannot))",
    re.IGNORECASE,
)
_LONGEST_REFUSAL = 400
FINISHED = {"stop", "length", "content_filter"}


@dataclass(frozen=True, slots=True)
class Answer:
    """One completion. `finish_reason` is stop, length or content_filter; `refusal` holds the words of a refusal."""

    text: str
    finish_reason: str
    refusal: str = ""
    model: str = ""
    tokens_in: int | None = None
    tokens_out: int | None = None


def read(body: bytes) -> Answer:
    """The answer in the body of a chat completion. AdapterError says what is wrong with a body that holds none."""
    try:
        value = json.loads(body)
    except ValueError:
        raise AdapterError(f"The server's reply is not JSON: {_start(body)}") from None
    if not isinstance(value, dict):
        raise AdapterError(f"The server's reply is no chat completion: {_start(body)}")
    if value.get("error") and not value.get("choices"):  # some servers send errors with status 200
        raise AdapterError(f"The server answered with an error: {error_text(value)}")
    choices = value.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise AdapterError(f"The server's reply has no message in it: {_start(body)}")
    refusal = message.get("refusal")
    refusal = refusal if isinstance(refusal, str) else ""
    content = message.get("content")
    if isinstance(content, list):  # parts
        content = "".join(str(p.get("text", "")) for p in content if isinstance(p, dict) and p.get("type") == "text")
    if content is None:
        content = ""
    if not isinstance(content, str):
        raise AdapterError(f"The server's message is not text: {_start(body)}")
    reason = choice.get("finish_reason")
    reason = reason if isinstance(reason, str) else ""
    if not refusal and len(content) < _LONGEST_REFUSAL and _REFUSAL.match(content):
        refusal = content
    usage: Any = value.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return Answer(
        text="" if refusal else content,
        finish_reason=reason if reason in FINISHED else "length" if reason == "max_tokens" else "stop",
        refusal=" ".join(refusal.split())[:200],
        model=value["model"] if isinstance(value.get("model"), str) else "",
        tokens_in=_count(usage.get("prompt_tokens")),
        tokens_out=_count(usage.get("completion_tokens")),
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None


def _start(body: bytes) -> str:
    text = " ".join(body[:400].decode("utf-8", "replace").split())
    return repr(text[:120]) if text else "it is empty"


def error_text(value: Any) -> str:
    """The words of an error body, whatever server wrote it."""
    if isinstance(value, dict):
        for key in ("message", "detail", "error", "msg"):
            if value.get(key):
                return error_text(value[key])
    if isinstance(value, list) and value:
        return error_text(value[0])
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return " ".join(text.split())[:400]


def json_value(text: str) -> tuple[Any, bool]:
    """The JSON in a model's answer, and whether the text had to be repaired for it. ValueError when there is none.

    Thinking, fences and prose around it are passed over; commas too many are removed.
    """
    text = _THINKING.sub("", text).strip()
    candidates = [text, *(match.group(1).strip() for match in _FENCE.finditer(text))]
    for opening, closing in ("{}", "[]"):
        start, end = text.find(opening), text.rfind(closing)
        if 0 <= start < end:
            candidates.append(text[start : end + 1])
    for candidate in candidates:
        for piece in (candidate, _COMMA.sub(r"\1", candidate)):
            try:
                return json.loads(piece), piece != text
            except (ValueError, RecursionError):
                continue
    raise ValueError("the answer is not JSON")
