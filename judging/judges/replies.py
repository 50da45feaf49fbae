"""A judge's reply as data, or the reason why it is none. A reply that is not exactly what was asked is never a pass."""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

_FENCE = re.compile(r"^\s*```[a-zA-Z]*\s*\n(.*?)\n?\s*```\s*$", re.DOTALL)
_THINKING = re.compile(r"^\s*<think>.*?</think>\s*", re.DOTALL)
MAX_REPLY = 200_000


class InvalidReply(ValueError):
    """The reply cannot be used; the text says why."""


class Answer(BaseModel):
    """Base of everything a judge answers: nothing is converted, unknown names are errors, numbers are finite."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


M = TypeVar("M", bound=Answer)


def read(text: str, shape: type[M]) -> M:
    """The reply as `shape`. Taken off first: a thinking block before it and one code fence around it; any other text
    before or after the object makes it invalid, and so do names that stand twice in an object.

    Raises InvalidReply.
    """
    if len(text) > MAX_REPLY:
        raise InvalidReply(f"the reply is longer than {MAX_REPLY:,} characters")
    bare = _THINKING.sub("", text)
    fenced = _FENCE.match(bare)
    bare = (fenced.group(1) if fenced else bare).strip()
    if not bare:
        raise InvalidReply("the reply is empty")
    try:
        data = json.loads(bare, object_pairs_hook=_once, parse_constant=_no_constant)
    except InvalidReply:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidReply(f"the reply is not JSON: {error}") from None
    try:
        return shape.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "reply"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise InvalidReply(f"{where}: {first['msg']}{more}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidReply("a name stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise InvalidReply(f"{name} is not a number")


def exactly(asked: list[str], answered: list[str]) -> None:
    """InvalidReply unless each id that was asked is answered once and no other."""
    if len(set(answered)) != len(answered):
        raise InvalidReply("an id is answered twice")
    if missing := [i for i in asked if i not in set(answered)]:
        raise InvalidReply(f"{len(missing)} of {len(asked)} ids have no verdict")
    if unknown := [i for i in answered if i not in set(asked)]:
        raise InvalidReply(f"{unknown[0][:20]!r} was not asked")
